"""A truncated signed distance volume (Curless and Levoy 1996) through Open3D's voxel blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from lift3d.geometry import project, unproject
from lift3d.geometry.lens import inside, nearest, source_pixels
from lift3d.reconstruction.fusion.frames import Frame, check_above_0, default_voxel, frames
from lift3d.scene import Camera, Image, Points, Scene, Skipped, invert
from lift3d.scene.errors import InputError, open3d
from lift3d.scene.protocols import FuserConfig

BLOCK = 16
"""Voxels along the edge of a block."""


@dataclass(frozen=True)
class TsdfConfig(FuserConfig):
    """Average signed distances and extract the zero crossing; smooth, closes small gaps."""

    voxel: float | None = None
    """Edge of a voxel in world units; by default chosen from the scene, 0.015 m for rooms."""
    truncation: float = 4.0
    """Truncation distance before and behind the surface, in voxels."""
    min_views: int | None = None
    """Drop points seen by fewer views; by default 2 with ten or more views, else 1."""
    max_depth: float | None = None
    """Ignore depth beyond this, in world units."""

    def build(self) -> TsdfFusion:
        """The fusion with these settings."""
        return TsdfFusion(self)


class TsdfFusion:
    """Streams over the views; memory grows with the surface, not with their number."""

    def __init__(self, config: TsdfConfig = TsdfConfig()) -> None:
        if config.voxel is not None and not 0 < config.voxel < np.inf:
            raise InputError(f"voxel is {config.voxel}, expected a size above 0, such as 0.02")
        check_above_0(max_depth=config.max_depth)
        self.config = config
        self.skipped: tuple[Skipped, ...] = ()
        """Views that the last `fuse` could not use."""
        self.notes: tuple[str, ...] = ()
        """Values that the last `fuse` chose itself."""

    def fuse(self, scene: Scene, progress: Callable[[int, int], None] | None = None) -> Points:
        """The zero crossing of the volume, ordered by x, then y, then z.

        Confidence is the number of observations. Raises InputError if nothing can be fused.
        """
        o3d = open3d("fusion:tsdf")

        config = self.config
        voxel = default_voxel(scene) if config.voxel is None else config.voxel
        volume = o3d.t.geometry.VoxelBlockGrid(
            ("tsdf", "weight", "color"),
            (o3d.core.float32, o3d.core.float32, o3d.core.float32),
            [o3d.core.SizeVector([channels]) for channels in (1, 1, 3)],
            voxel,
            BLOCK,
            4096,  # initial capacity in blocks; it grows
        )
        origin: np.ndarray | None = None
        skipped: list[Skipped] = []
        for number, frame in enumerate(frames(scene.views), start=1):
            if isinstance(frame, Skipped):
                skipped.append(frame)
            else:
                if origin is None:
                    origin = _origin(frame.view.geometry_camera, voxel)
                self._integrate(volume, frame, origin)
            if progress is not None:
                progress(number, len(scene))
        self.skipped = tuple(skipped)
        used = len(scene) - len(skipped)
        min_views = config.min_views
        if min_views is None:
            min_views = 2 if used >= 10 else 1
        points = None if origin is None else _surface(volume, origin, voxel, float(min_views))
        if points is None or not len(points):
            raise InputError(
                f"{scene.source}: {used} of {len(scene)} views could be fused and gave no surface"
                + (f" (first skipped: {skipped[0].reason})" if skipped else "")
                + f"; expected depth seen by at least {min_views:g} views"
            )
        chosen = ", chosen from the scene" if config.voxel is None else ""
        self.notes = (
            f"voxel {voxel:g} {'m' if scene.metric else 'units'}{chosen}; {len(points)} points",
        )
        return points

    def _integrate(self, volume: Any, frame: Frame, origin: np.ndarray) -> None:
        o3d = open3d("fusion:tsdf")

        depth_camera = frame.view.geometry_camera
        depth, image = frame.depth, frame.image
        limit = self.config.max_depth
        if limit is None:
            limit = float(np.nanmax(depth, initial=0.0, where=depth < np.inf))
        depth = np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))
        if not (depth > 0).any():
            return
        if frame.view.depth_camera is not None:
            image = _seen_from_depth(frame, depth)
        depth, image = _undistorted(depth_camera, depth, image)
        depth_image = o3d.t.geometry.Image(o3d.core.Tensor.from_numpy(depth))
        colour = image.astype(np.float32) / 255
        colour_image = o3d.t.geometry.Image(o3d.core.Tensor.from_numpy(colour))
        intrinsic = o3d.core.Tensor.from_numpy(depth_camera.K)
        volume_from_camera = depth_camera.pose.copy()
        volume_from_camera[:3, 3] -= origin
        extrinsic = o3d.core.Tensor.from_numpy(invert(volume_from_camera))
        # depth_scale: Open3D divides float depth too.
        options = {"depth_scale": 1.0, "depth_max": limit * 1.001}
        blocks = volume.compute_unique_block_coordinates(
            depth_image,
            intrinsic,
            extrinsic,
            **options,
            trunc_voxel_multiplier=self.config.truncation,
        )
        volume.integrate(
            blocks,
            depth_image,
            colour_image,
            intrinsic,
            extrinsic,
            **options,
            trunc_voxel_multiplier=self.config.truncation,
        )


def _origin(camera: Camera, voxel: float) -> Float64[np.ndarray, "3"]:
    """World position of the volume's origin: near the first camera, as Open3D uses float32.

    It is shifted off round numbers: a floor at exactly z = 0 would have distance 0 at the voxel
    corners, without a change of sign, and Open3D would miss it.
    """
    return np.round(camera.pose[:3, 3]) + 0.37 * voxel


def _seen_from_depth(frame: Frame, depth: Float32[np.ndarray, "height width"]) -> Image:
    """Colour of every depth pixel; mid grey if the colour camera does not see it."""
    xyz = unproject(frame.view.geometry_camera, depth).reshape(-1, 3)
    xy, _ = project(frame.view.camera, xyz)
    seen = inside(frame.view.camera, xy)
    column, row = nearest(xy[seen])
    rgb = np.full((depth.size, 3), 128, np.uint8)
    rgb[seen] = frame.image[row, column]
    return rgb.reshape(*depth.shape, 3)


def _undistorted(
    camera: Camera, depth: Float32[np.ndarray, "height width"], image: Image
) -> tuple[Float32[np.ndarray, "height width"], Image]:
    """Depth and colour without lens distortion, which Open3D does not support."""
    if not any(camera.distortion):
        return depth, image
    import cv2

    maps = source_pixels(camera, replace(camera, distortion=()))
    # Nearest: the mean of two depths at a step is on neither surface.
    remapped = [cv2.remap(array, *maps, cv2.INTER_NEAREST) for array in (depth, image)]
    return np.asarray(remapped[0], np.float32), np.asarray(remapped[1], np.uint8)


def _surface(
    volume: Any, origin: Float64[np.ndarray, "3"], voxel: float, min_weight: float
) -> Points:
    """The zero crossing as points, sorted, because Open3D's order depends on the threads."""
    # Open3D keeps weights strictly above the threshold.
    cloud = volume.extract_point_cloud(weight_threshold=min_weight - 0.5)
    if cloud.is_empty():
        none = np.zeros((0, 3), np.float32)
        return Points(none, none.astype(np.uint8), none, np.zeros(0, np.float32))
    local = cloud.point.positions.numpy().astype(np.float64)
    xyz = (local + origin).astype(np.float32)
    rgb = np.clip(np.rint(cloud.point.colors.numpy() * 255), 0, 255).astype(np.uint8)
    normal = cloud.point.normals.numpy().astype(np.float32)
    order = np.lexsort((*normal.T, *xyz.T[::-1]))
    local, xyz, rgb, normal = local[order], xyz[order], rgb[order], normal[order]
    normal[~np.isfinite(normal).all(1)] = 0
    return Points(xyz, rgb, normal, _weights(volume, local, voxel))


def _weights(
    volume: Any, local: Float64[np.ndarray, "points 3"], voxel: float
) -> Float32[np.ndarray, " points"]:
    """Weight (number of observations) of the nearest voxel; `local` is in the volume's frame."""
    o3d = open3d("fusion:tsdf")

    cell = np.rint(local / voxel).astype(np.int64)
    block, inside = np.divmod(cell, BLOCK)
    found, known = volume.hashmap().find(o3d.core.Tensor.from_numpy(block.astype(np.int32)))
    found, known = found.numpy().astype(np.int64), known.numpy()
    weight = volume.attribute("weight").numpy()  # (blocks, z, y, x, 1)
    weights = np.zeros(len(local), np.float32)
    x, y, z = inside[known].T
    weights[known] = weight[found[known], z, y, x, 0]
    return weights
