"""Projection between world, cameras and pixels; rigid and similarity transforms; normals."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from lift3d.geometry.lens import distort, rays
from lift3d.scene import Camera, Depth, Transform


def transform(
    target_from_source: Transform, xyz: Float[np.ndarray, "*shape 3"]
) -> Float[np.ndarray, "*shape 3"]:
    """Points in the target frame; the float type of `xyz` is kept.

    >>> transform(np.diag([1.0, 1, 1, 1]), np.zeros((1, 3))).tolist()
    [[0.0, 0.0, 0.0]]
    """
    moved = xyz @ target_from_source[:3, :3].T + target_from_source[:3, 3]
    return moved.astype(xyz.dtype, copy=False)


def is_rigid(matrix: np.ndarray, tolerance: float = 1e-2) -> bool:
    """Whether a 4x4 matrix is finite and consists of a rotation (det +1) and a translation.

    The tolerance is loose because poses are often stored with few digits.
    """
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        return False
    rotation = matrix[:3, :3]
    return bool(
        np.abs(rotation @ rotation.T - np.eye(3)).max() < tolerance
        and np.linalg.det(rotation) > 0
        and np.abs(matrix[3] - [0, 0, 0, 1]).max() < 1e-6
    )


def orthonormal(matrix: Transform) -> Transform:
    """The nearest rigid transform (rotation by SVD), for poses stored with few digits."""
    left, _, right = np.linalg.svd(matrix[:3, :3])
    rigid = np.eye(4)
    rigid[:3, :3] = left @ np.diag([1.0, 1.0, np.linalg.det(left @ right)]) @ right
    rigid[:3, 3] = matrix[:3, 3]
    return rigid


def project(
    camera: Camera, xyz: Float[np.ndarray, "points 3"]
) -> tuple[Float64[np.ndarray, "points 2"], Float64[np.ndarray, " points"]]:
    """World points to pixel coordinates (x, y) and depth z; xy is NaN where z <= 0.

    The camera's distortion is applied.
    """
    in_camera = transform(camera.camera_from_world, xyz.astype(np.float64))
    z = in_camera[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        normalised = in_camera[:, :2] / z[:, None]
    normalised[z <= 0] = np.nan
    if any(camera.distortion):
        normalised = distort(camera.distortion, normalised)
    xy = normalised @ camera.K[:2, :2].T + camera.K[:2, 2]
    return xy, z


def unproject(camera: Camera, depth: Depth) -> Float32[np.ndarray, "height width 3"]:
    """World position of every pixel; NaN where depth is missing (0)."""
    in_camera = rays(camera) * depth[..., None]
    xyz = transform(camera.pose, in_camera).astype(np.float32)
    xyz[depth <= 0] = np.nan
    return xyz


def normals(camera: Camera, depth: Depth) -> Float32[np.ndarray, "height width 3"]:
    """Normals of a depth map in the world frame, unit length, towards the camera; 0 = unknown.

    Cross product of central differences. The normal is unknown beside a depth step of more than
    5 % between neighbours (chosen by hand).
    """
    local = (rays(camera) * depth[..., None]).astype(np.float32)
    right = np.zeros_like(local)
    down = np.zeros_like(local)
    right[:, 1:-1] = local[:, 2:] - local[:, :-2]
    down[1:-1] = local[2:] - local[:-2]
    normal = np.cross(down, right)  # y down x right points back at the camera (-z)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    normal = np.divide(normal, length, out=np.zeros_like(normal), where=length > 0)
    normal[~_smooth(depth)] = 0
    return transform_direction(camera.pose, normal)


def transform_direction(
    target_from_source: Transform, direction: Float32[np.ndarray, "*shape 3"]
) -> Float32[np.ndarray, "*shape 3"]:
    """Directions in the target frame: rotated, not translated."""
    return direction @ target_from_source[:3, :3].T.astype(np.float32)


def _smooth(depth: Depth, step: float = 0.05) -> Bool[np.ndarray, "height width"]:
    """Pixels whose four neighbours have depth that differs by less than the ratio `step`."""
    smooth = np.zeros(depth.shape, bool)
    centre = depth[1:-1, 1:-1]
    near = centre > 0
    for shifted in (depth[1:-1, 2:], depth[1:-1, :-2], depth[2:, 1:-1], depth[:-2, 1:-1]):
        near = near & (shifted > 0) & (np.abs(shifted - centre) < step * centre)
    smooth[1:-1, 1:-1] = near
    return smooth


def similarity(
    source: Float[np.ndarray, "points 3"],
    target: Float[np.ndarray, "points 3"],
    with_scale: bool = True,
    weight: Float[np.ndarray, " points"] | None = None,
) -> tuple[float, Transform]:
    """Scale s and rigid T that minimise ||target - T(s * source)|| (Umeyama 1991, Eq. 40-42).

    `weight` is the weight of each point's squared error; by default all are equal.
    """
    share = np.full(len(source), 1 / len(source)) if weight is None else weight / weight.sum()
    source_mean, target_mean = share @ source, share @ target
    centred_source, centred_target = source - source_mean, target - target_mean
    left, values, right = np.linalg.svd((centred_target * share[:, None]).T @ centred_source)
    sign = np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    rotation = left @ sign @ right
    variance = share @ (centred_source**2).sum(1)
    scale = float((values * np.diag(sign)).sum() / variance) if with_scale else 1.0
    rigid = np.eye(4)
    rigid[:3, :3] = rotation
    rigid[:3, 3] = target_mean - scale * rotation @ source_mean
    return scale, rigid
