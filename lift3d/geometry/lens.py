"""The camera model: from rays to pixels and back, in NumPy and in numba kernels.

A pinhole with OpenCV's radial and tangential distortion, k1 k2 p1 p2 k3. All other files use
this implementation. Pixel centres are whole numbers; a position (x, y) belongs to the pixel
(floor(x + 0.5), floor(y + 0.5)), and is in the image where that pixel is.
"""

from __future__ import annotations

from typing import NamedTuple, no_type_check

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64, Real

from lift3d.scene import Camera, Transform
from lift3d.scene.compiled import compiled
from lift3d.scene.errors import InputError

NEAR = 1e-6
"""Minimum depth of a point in front of the camera, in world units."""


class Pinhole(NamedTuple):
    """A camera as arrays, for numba kernels."""

    pose: Float64[np.ndarray, "3 4"]
    """camera_from_world, or from the frame of the points."""
    k: Float64[np.ndarray, "5"]
    """fx, fy, cx, cy, skew, in pixels."""
    lens: Float64[np.ndarray, "5"]
    """k1, k2, p1, p2, k3; all 0 without distortion."""


def pinhole(camera: Camera, camera_from_points: Transform | None = None) -> Pinhole:
    """The camera for kernels; by default for points in the world frame."""
    pose = camera.camera_from_world if camera_from_points is None else camera_from_points
    K = camera.K
    k = np.array([K[0, 0], K[1, 1], K[0, 2], K[1, 2], K[0, 1]])
    return Pinhole(np.ascontiguousarray(pose[:3]), k, _coefficients(camera.distortion))


def distort(
    coefficients: tuple[float, ...], xy: Float64[np.ndarray, "points 2"]
) -> Float64[np.ndarray, "points 2"]:
    """Distorted normalised coordinates; `coefficients` k1 k2 p1 p2 [k3]."""
    return np.asarray(_bend_all(_coefficients(coefficients), np.ascontiguousarray(xy)))


def rays(camera: Camera) -> Float64[np.ndarray, "height width 3"]:
    """Direction of each pixel in the camera frame, scaled to z = 1; undistorted."""
    x, y = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    return rays_at(camera, x.ravel(), y.ravel()).reshape(camera.height, camera.width, 3)


def rays_at(
    camera: Camera, x: Real[np.ndarray, " pixels"], y: Real[np.ndarray, " pixels"]
) -> Float64[np.ndarray, "pixels 3"]:
    """As `rays`, for some positions in the image: columns `x` and rows `y`."""
    pixel = np.stack([x, y, np.ones(len(x))], axis=-1)
    if not any(camera.distortion):
        direction = pixel @ np.linalg.inv(camera.K).T
        direction[:, 2] = 1.0
        return direction
    if len(pixel):
        import cv2

        K = camera.K
        seen = pixel[:, None, :2].copy()
        seen[..., 0] -= K[0, 1] * ((seen[..., 1] - K[1, 2]) / K[1, 1])  # OpenCV has no skew
        flat = cv2.undistortPoints(seen, K, _coefficients(camera.distortion))
        pixel[:, :2] = np.asarray(flat)[:, 0]
    return pixel


def source_pixels(
    camera: Camera, target: Camera
) -> tuple[Float32[np.ndarray, "height width"], Float32[np.ndarray, "height width"]]:
    """Column and row in the image of `camera` for each pixel of `target`, for `cv2.remap`.

    `target` has the same pose, any K, and no distortion.
    """
    own = target.K
    x, y = np.meshgrid(
        np.arange(target.width) - own[0, 2], (np.arange(target.height) - own[1, 2]) / own[1, 1]
    )
    x = (x - own[0, 1] * y) / own[0, 0]
    bent = np.stack([x.ravel(), y.ravel()], 1)
    if any(camera.distortion):
        bent = distort(camera.distortion, bent)
    K = camera.K
    column = K[0, 0] * bent[:, 0] + K[0, 1] * bent[:, 1] + K[0, 2]
    row = K[1, 1] * bent[:, 1] + K[1, 2]
    return (
        column.astype(np.float32).reshape(x.shape),
        row.astype(np.float32).reshape(x.shape),
    )


def inside(camera: Camera, xy: Float[np.ndarray, "points 2"]) -> Bool[np.ndarray, " points"]:
    """Whether the nearest pixel is in the image; False for NaN."""
    with np.errstate(invalid="ignore"):
        return (
            (xy > -0.5).all(1) & (xy[:, 0] < camera.width - 0.5) & (xy[:, 1] < camera.height - 0.5)
        )


def nearest(
    xy: Float[np.ndarray, "points 2"],
) -> tuple[Int64[np.ndarray, " points"], Int64[np.ndarray, " points"]]:
    """Column and row of the pixel that contains each position; `xy` must be finite."""
    column, row = np.floor(xy + 0.5).astype(np.int64).T
    return column, row


def _coefficients(distortion: tuple[float, ...]) -> Float64[np.ndarray, "5"]:
    if len(distortion) > 5:
        raise InputError(
            f"a camera has {len(distortion)} distortion coefficients; lift3d takes up to five (k1 "
            "k2 p1 p2 k3): undistort the pictures first"
        )
    lens = np.zeros(5)
    lens[: len(distortion)] = distortion
    return lens


@compiled(inline="always")
@no_type_check
def bend(lens, x, y):
    """Distorted normalised coordinates."""
    r2 = x * x + y * y
    radial = 1.0 + r2 * (lens[0] + r2 * (lens[1] + r2 * lens[4]))
    bent_x = x * radial + 2.0 * lens[2] * x * y + lens[3] * (r2 + 2.0 * x * x)
    bent_y = y * radial + lens[2] * (r2 + 2.0 * y * y) + 2.0 * lens[3] * x * y
    return bent_x, bent_y


@compiled()
@no_type_check
def _bend_all(lens, xy):
    out = np.empty(xy.shape)
    for i in range(len(xy)):
        out[i, 0], out[i, 1] = bend(lens, xy[i, 0], xy[i, 1])
    return out


@compiled(inline="always")
@no_type_check
def is_bent(lens):
    """Whether any distortion coefficient is not 0."""
    return lens[0] != 0.0 or lens[1] != 0.0 or lens[2] != 0.0 or lens[3] != 0.0 or lens[4] != 0.0


@compiled(inline="always")
@no_type_check
def pixel(camera, px, py, pz):
    """Pixel x, y and depth z of a point; -1 -1 -1 where it is behind the camera."""
    pose, k, lens = camera.pose, camera.k, camera.lens
    z = pose[2, 0] * px + pose[2, 1] * py + pose[2, 2] * pz + pose[2, 3]
    if not z > NEAR:
        return -1.0, -1.0, -1.0
    x = (pose[0, 0] * px + pose[0, 1] * py + pose[0, 2] * pz + pose[0, 3]) / z
    y = (pose[1, 0] * px + pose[1, 1] * py + pose[1, 2] * pz + pose[1, 3]) / z
    if is_bent(lens):
        x, y = bend(lens, x, y)
    return k[0] * x + k[4] * y + k[2], k[1] * y + k[3], z


@compiled(error_model="numpy", nogil=True)
@no_type_check
def pixels(camera, xyz, out):
    """As `pixel` for a block of points: writes x, y, z to the rows of `out`.

    Points with z <= `NEAR` are behind the camera. Returns False, with only z written, where all
    are. The loops have no branches, so that the compiler can vectorise them.
    """
    pose, k = camera.pose, camera.k
    if is_bent(camera.lens):
        for i in range(len(xyz)):
            found = pixel(camera, xyz[i, 0], xyz[i, 1], xyz[i, 2])
            out[0, i], out[1, i], out[2, i] = found
        return True
    r00, r01, r02, tx = pose[0, 0], pose[0, 1], pose[0, 2], pose[0, 3]
    r10, r11, r12, ty = pose[1, 0], pose[1, 1], pose[1, 2], pose[1, 3]
    r20, r21, r22, tz = pose[2, 0], pose[2, 1], pose[2, 2], pose[2, 3]
    fx, fy, cx, cy, skew = k[0], k[1], k[2], k[3], k[4]
    x_out, y_out, z_out = out[0], out[1], out[2]
    ahead = 0
    for i in range(np.uint64(len(xyz))):  # unsigned: no check for negative indices
        px, py, pz = np.float64(xyz[i, 0]), np.float64(xyz[i, 1]), np.float64(xyz[i, 2])
        z_out[i] = r20 * px + r21 * py + r22 * pz + tz
        ahead += z_out[i] > NEAR
    if ahead == 0:  # common: neighbours in voxel order are mostly behind together
        return False
    for i in range(np.uint64(len(xyz))):
        px, py, pz = np.float64(xyz[i, 0]), np.float64(xyz[i, 1]), np.float64(xyz[i, 2])
        x = (r00 * px + r01 * py + r02 * pz + tx) / z_out[i]
        y = (r10 * px + r11 * py + r12 * pz + ty) / z_out[i]
        x_out[i] = fx * x + skew * y + cx
        y_out[i] = fy * y + cy
    return True


@compiled(inline="always")
@no_type_check
def within(x, y, z, width, height):
    """Whether a position is in front of the camera and in its image; False for NaN."""
    return (z > NEAR) & (x > -0.5) & (y > -0.5) & (x < width - 0.5) & (y < height - 0.5)


@compiled(inline="always")
@no_type_check
def cell(x, y):
    """Row and column of the pixel that contains a position."""
    return int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
