"""What came with the pictures, as the reconstruction by VGGT uses it: K, poses, the unit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from lift3d.geometry.lens import rays
from lift3d.networks.vggt.preprocess import Prepared
from lift3d.reconstruction.vggt.windows import Placed, onto_cameras
from lift3d.scene import Scene, Transform, View, invert
from lift3d.scene.errors import FrameError, InputError

VIEWS = 16
"""Most pictures with depth that are read for the unit."""
PIXELS = 2000
"""Most pixels of each that are compared."""


def given_poses(scene: Scene, views: Sequence[View], how: str) -> dict[int, Transform]:
    """The poses that came with the pictures; InputError where one has none."""
    found = {}
    for k, view in enumerate(views):
        pose = view.camera.world_from_camera
        if pose is None:
            raise InputError(
                f"poses are to be {how}, but {scene.source} gives none for {view.name}; use "
                "--reconstruction.poses estimate"
            )
        found[k] = pose
    return found


def network_K(view: View, image: Prepared) -> Float64[np.ndarray, "3 3"]:
    """The picture's own K in pixels of the network's input."""
    return image.network_from_original @ view.camera.K


def metres(
    scene: Scene, views: Sequence[View], images: Sequence[Prepared], placed: Placed
) -> tuple[float, str] | None:
    """Metres per unit of `placed`, and what says so; None where nothing does."""
    if not scene.metric:
        return None
    having = [k for k, view in enumerate(views) if view.load_depth is not None]
    steps = np.linspace(0, len(having) - 1, min(VIEWS, len(having))).round().astype(int)
    ratios = []
    for k in (having[step] for step in steps):
        ratio = _by_depth(views[k], images[k], placed.depth[k])
        if ratio is not None:
            ratios.append(ratio)
    if ratios:
        return float(np.median(ratios)), f"the depth of {len(ratios)} pictures"
    posed = [k for k, view in enumerate(views) if view.camera.world_from_camera is not None]
    given = np.array([views[k].camera.pose for k in posed]).reshape(-1, 4, 4)
    if len(posed) > 1 and np.ptp(given[:, :3, 3], axis=0).max() > 0:
        scale, _ = onto_cameras(placed.world_from_camera[posed], given)
        return scale, f"the places of {len(posed)} given cameras"
    return None


def _by_depth(view: View, image: Prepared, depth: np.ndarray) -> float | None:
    """Given depth over the network's, as a median over pixels."""
    try:
        given = view.depth()
    except FrameError:
        return None  # reported where its depth is needed
    if given is None:
        return None
    row, column = np.nonzero((given > 0) & np.isfinite(given))
    step = max(len(row) // PIXELS, 1)
    row, column = row[::step], column[::step]
    xyz = rays(view.geometry_camera)[row, column] * given[row, column, None].astype(np.float64)
    if view.depth_camera is not None:
        if view.camera.world_from_camera is None or view.depth_camera.world_from_camera is None:
            return None
        colour_from_depth = invert(view.camera.pose) @ view.depth_camera.pose
        xyz = xyz @ colour_from_depth[:3, :3].T + colour_from_depth[:3, 3]
    z = xyz[:, 2]
    xyz, z = xyz[z > 0], z[z > 0]
    at = np.rint((xyz / z[:, None]) @ network_K(view, image)[:2].T).astype(np.int64)
    inside = ((at >= 0) & (at < [image.width, image.height])).all(1)
    at, z = at[inside], z[inside]
    own = depth[at[:, 1], at[:, 0]]
    both = own > 0
    return float(np.median(z[both] / own[both])) if both.any() else None
