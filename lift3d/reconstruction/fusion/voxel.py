"""One point per voxel: the confidence-weighted mean of the depth pixels in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lift3d.reconstruction.fusion.frames import by_stereo, check_above_0, default_voxel, frames
from lift3d.reconstruction.fusion.grid import Grid
from lift3d.reconstruction.fusion.smoothing import smoothed
from lift3d.scene import Points, Scene, Skipped
from lift3d.scene.errors import InputError
from lift3d.scene.protocols import FuserConfig

SMOOTHING = 4.0
"""Voxels; of clouds by stereo. Chosen on the HoloLens kitchen with its depth hidden."""


@dataclass(frozen=True)
class VoxelConfig(FuserConfig):
    """Average the depth pixels in each voxel; quick, smooth across voxels only for stereo depth."""

    voxel: float | None = None
    """Edge of a voxel in world units; by default chosen from the scene, 0.015 m for rooms."""
    min_views: int | None = None
    """Drop points seen by fewer views; by default 2 with ten or more views, else 1."""
    min_confidence: float = 0.0
    """Drop points of lower summed confidence; 1 is one clear observation."""
    max_depth: float | None = None
    """Ignore depth beyond this, in world units."""
    depth_edge: float = 0.05
    """Neighbouring pixels that differ by more than this share of their depth are on two surfaces.
    A pixel between two such steps is dropped as a flying pixel; 0 keeps every pixel."""
    clear_depth: float | None = None
    """Depth at which an observation's weight is halved, as sensor noise grows with its square;
    by default 2 m in metric scenes, else off."""
    smoothing: float | None = None
    """Move points onto planes fitted to their neighbours within this many voxels; 0 does not. By
    default 4 where depth was estimated from pictures, else 0."""
    stride: int = 1
    """Use every n-th pixel in each direction."""

    def build(self) -> VoxelFusion:
        """The fusion with these settings."""
        return VoxelFusion(self)


class VoxelFusion:
    """Streams over the views; memory grows with the surface, not with their number."""

    def __init__(self, config: VoxelConfig = VoxelConfig()) -> None:
        if config.voxel is not None and not 0 < config.voxel < np.inf:
            raise InputError(f"voxel is {config.voxel}, expected a size above 0, such as 0.02")
        if config.stride < 1:
            raise InputError(f"stride is {config.stride}, expected 1 or more")
        if config.smoothing is not None and not 0 <= config.smoothing < np.inf:
            raise InputError(f"smoothing is {config.smoothing}, expected 0 or more voxels")
        check_above_0(max_depth=config.max_depth, clear_depth=config.clear_depth)
        self.config = config
        self.skipped: tuple[Skipped, ...] = ()
        """Views that the last `fuse` could not use."""
        self.notes: tuple[str, ...] = ()
        """Values that the last `fuse` chose itself, and the number of dropped points."""

    def fuse(self, scene: Scene, progress: Callable[[int, int], None] | None = None) -> Points:
        """Fused surface points, ordered by voxel (x, then y, then z).

        Raises InputError if no view can be used or every point is dropped.
        """
        config = self.config
        voxel = default_voxel(scene) if config.voxel is None else config.voxel
        clear = config.clear_depth
        if clear is None:
            clear = 2.0 if scene.metric else np.inf
        grid: Grid | None = None
        skipped: list[Skipped] = []
        for number, frame in enumerate(frames(scene.views), start=1):
            if isinstance(frame, Skipped):
                skipped.append(frame)
            else:
                if grid is None:
                    grid = Grid(voxel, frame.view.geometry_camera.pose[:3, 3])
                grid.add(frame, config.depth_edge, config.max_depth, clear, config.stride)
            if progress is not None:
                progress(number, len(scene))
        self.skipped = tuple(skipped)
        if grid is None:
            raise InputError(
                f"{scene.source}: none of {len(scene)} views can be fused"
                + (f" (first: {skipped[0].reason})" if skipped else "")
                + "; expected depth, colour and pose"
            )
        used = len(scene) - len(skipped)
        min_views = config.min_views
        if min_views is None:
            min_views = 2 if used >= 10 else 1
        points, views = grid.points()
        supported = (views >= min_views) & (points.confidence >= config.min_confidence)
        if not supported.any():
            raise InputError(
                f"{scene.source}: all {len(points)} fused points fall below min_views "
                f"{min_views} and min_confidence {config.min_confidence}; lower them"
            )
        unit = "m" if scene.metric else "units"
        chosen = ", chosen from the scene" if config.voxel is None else ""
        self.notes = (
            f"voxel {voxel:g} {unit}{chosen}; {np.count_nonzero(supported)} points, "
            f"{np.count_nonzero(~supported)} dropped for support (fewer than {min_views} views "
            f"or confidence below {config.min_confidence:g})",
        )
        found = points.take(supported)
        reach = config.smoothing
        if reach is None:
            reach = SMOOTHING if by_stereo(scene) else 0.0
        if not reach:
            return found
        self.notes += (f"points smoothed within {reach:g} voxels",)
        return smoothed(found, reach * voxel)
