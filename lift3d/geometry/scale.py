"""Tolerances at the scale of a scene whose unit is not the metre."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lift3d.geometry.visibility import METRIC, DepthTolerance, cloud_spacing, hiding_depth
from lift3d.scene import Points, Scene
from lift3d.scene.errors import FrameError

SHARE = 0.01
"""The absolute part of a tolerance in a scene without metres, as a share of the median depth: 2 cm
in a room whose surfaces are 2 m away, as `METRIC`."""
SAMPLES = 16
"""Most depth maps used for the median depth, evenly spread over the views; chosen by hand."""


def fitted(tolerance: DepthTolerance, scene: Scene, points: Points | None = None) -> DepthTolerance:
    """The tolerance with its absolute part filled in; a given one is kept.

    `METRIC` metres where the scene is metric, else `SHARE` of its `median_depth`. Still None
    where the scale is unknown.
    """
    if tolerance.absolute is not None:
        return tolerance
    if scene.metric:
        return replace(tolerance, absolute=METRIC)
    depth = median_depth(scene, points)
    return tolerance if depth is None else replace(tolerance, absolute=SHARE * depth)


def median_depth(scene: Scene, points: Points | None = None) -> float | None:
    """Median over views of the median depth, in world units; None where there is no depth.

    Where no view has depth, the rendered depth of `points`.
    """
    having = [view for view in scene.views if view.load_depth is not None]
    views = having if having or points is None else list(scene.views)
    if not views:
        return None
    steps = np.linspace(0, len(views) - 1, min(SAMPLES, len(views))).round().astype(int)
    medians = []
    for view in (views[step] for step in steps):
        try:
            depth = view.depth()
        except FrameError:
            continue  # skipped and reported where its depth is used
        if depth is None:
            assert points is not None
            depth = hiding_depth(points.xyz, view.geometry_camera, 2 * cloud_spacing(points))
        known = depth[np.isfinite(depth) & (depth > 0)]
        if len(known):
            medians.append(float(np.median(known)))
    return float(np.median(medians)) if medians else None
