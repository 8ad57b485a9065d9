"""Decode views for fusion ahead of use, and choose the default voxel size of a scene."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, UInt8

from lift3d.geometry import unproject
from lift3d.scene import Camera, Depth, Scene, Skipped, View
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.prefetch import prefetch


@dataclass(frozen=True, eq=False)
class Frame:
    """One view, decoded."""

    view: View
    depth: Depth
    image: UInt8[np.ndarray, "rows columns 3"]
    """At the colour camera's size."""
    confidence: Float32[np.ndarray, "height width"] | None


METRIC_VOXEL = 0.015
"""Default voxel for metric scenes, in metres. At 0.02, books in the synthetic rooms merge."""
SHARE = METRIC_VOXEL / 2
"""Maximum default voxel of other scenes, as a share of the median depth: that of a room whose
surfaces are 2 m away. Far houses would else decide how finely a statue is seen."""
ESTIMATED = 2
"""Times by which these limits are larger where depth was estimated from pictures: it is noisier.
Chosen on the HoloLens kitchen with its depth hidden."""
FINEST = 2000
"""Voxels along the extent above which a scene is too large for these two limits."""


def check_above_0(**limits: float | None) -> None:
    """Raise InputError if a limit is not above 0; None means no limit."""
    for name, value in limits.items():
        if value is not None and not value > 0:
            raise InputError(
                f"{name} is {value:g}, expected a distance above 0; leave it out for the default"
            )


def load_frame(view: View) -> Frame:
    """Decode a view for fusion. Raises FrameError if depth, image or pose is missing."""
    return Frame(view, _posed_depth(view), view.image(), view.confidence())


def _posed_depth(view: View) -> Depth:
    depth = view.depth()
    if depth is None:
        raise FrameError(f"view {view.name} has no depth")
    if view.geometry_camera.world_from_camera is None or view.camera.world_from_camera is None:
        raise FrameError(f"view {view.name} has no pose")
    return depth


def frames(views: Sequence[View]) -> Iterator[Frame | Skipped]:
    """Decode every view in order on a background thread; Skipped, with the reason, on failure."""
    return prefetch(views, _frame)


def _frame(view: View) -> Frame | Skipped:
    try:
        return load_frame(view)
    except FrameError as error:
        return Skipped(view.name, str(error))


def default_voxel(scene: Scene, sample: int = 16) -> float:
    """Voxel size for the scene, in world units: `METRIC_VOXEL` for rooms, finer for small scenes.

    Extent / 200, rounded down to 1, 2 or 5 times a power of ten; at most `METRIC_VOXEL` in a metric
    scene, or `SHARE` of the median over the views of their median depth in one without metres, or
    with an extent of more than `FINEST` such voxels. Where depth was estimated from pictures, it is
    not rounded down, and at most `ESTIMATED` times as much. The extent is the diagonal of the box
    around the middle 98 % of the surface, over `sample` views. Raises InputError if no view has
    depth.
    """
    seen, depths, why = [], [], ""
    for view in scene.views[:: max(1, len(scene) // sample)]:
        try:
            depth = _posed_depth(view)
        except FrameError as error:
            why = why or f" (first: {error})"
            continue
        seen.append(_coarse_surface(view.geometry_camera, depth))
        known = depth[np.isfinite(depth) & (depth > 0)]
        depths += [float(np.median(known))] if len(known) else []
    if not seen or not sum(map(len, seen)):
        raise InputError(
            f"{scene.source}: no view with depth, colour and pose to fuse{why}; "
            "run a reconstruction backend first"
        )
    low, high = np.percentile(np.concatenate(seen), [1, 99], axis=0)
    extent = float(np.linalg.norm(high - low))
    most = METRIC_VOXEL
    if not scene.metric or extent / FINEST >= METRIC_VOXEL:
        most = max(SHARE * float(np.median(depths)), extent / FINEST)
    if by_stereo(scene):
        return float(f"{min(extent / 200, ESTIMATED * most):.2g}")
    return float(f"{min(one_two_five(extent / 200), most):.2g}")


def by_stereo(scene: Scene) -> bool:
    """Whether most views have depth that was estimated from the pictures."""
    return 2 * sum(view.estimated for view in scene.views) > len(scene)


def _coarse_surface(camera: Camera, depth: Depth) -> Float32[np.ndarray, "points 3"]:
    """World positions of about 60 x 80 pixels of a depth map."""
    every = max(1, min(depth.shape) // 60)
    depth = depth[::every, ::every]
    fewer = np.diag([1 / every, 1 / every, 1.0])  # subsampling keeps pixel centres
    height, width = depth.shape
    picked = replace(camera, K=fewer @ camera.K, width=width, height=height)
    present = np.isfinite(depth) & (depth > 0)
    return unproject(picked, np.where(present, depth, np.float32(0)))[present]


def one_two_five(value: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that is not above `value`.

    >>> one_two_five(0.02), one_two_five(0.037), one_two_five(731.0)
    (0.02, 0.02, 500.0)
    """
    exponent = int(np.floor(np.log10(value * (1 + 1e-9))))
    lead = value * (1 + 1e-9) / 10.0**exponent
    return float(f"{max(digit for digit in (1, 2, 5) if digit <= lead)}e{exponent}")
