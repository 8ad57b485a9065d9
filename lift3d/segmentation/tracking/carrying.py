"""Propagate masks into the next view by depth and poses; earlier views vote on each point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float64, Int32, Int64

from lift3d.geometry import project, transform
from lift3d.geometry.lens import inside, nearest, rays_at
from lift3d.geometry.visibility import DepthTolerance
from lift3d.scene import Camera, Depth, View
from lift3d.scene.compiled import compiled
from lift3d.segmentation.tracking.evidence import Evidence

GRID = 25_000
"""About this many points of a view are looked up in earlier views; 4 pixels apart at 854x480."""


@dataclass(frozen=True, eq=False)
class Remembered:
    """The cameras, depth and label map of an earlier view."""

    number: int
    camera: Camera
    geometry_camera: Camera
    depth: Depth
    labels: Int32[np.ndarray, "rows columns"]
    """At the colour image's size, which may differ from the depth's."""


@dataclass(frozen=True, eq=False)
class Places:
    """World points of a grid of a view's pixels, and their pixels in the colour image."""

    xyz: Float64[np.ndarray, "places 3"]
    pixel: Int64[np.ndarray, " places"]
    """Flat index in the colour image."""
    stride: int
    """Distance of neighbouring points in pixels of the colour image."""
    height: int
    """Of the colour image."""
    width: int


def places(view: View, depth: Depth) -> Places:
    """A grid of about `GRID` points from the view's depth, where it is known."""
    camera = view.geometry_camera
    stride = max(1, round(np.sqrt(depth.size / GRID)))
    grid = depth[stride // 2 :: stride, stride // 2 :: stride]
    row, column = np.nonzero((grid > 0) & (grid < np.inf))
    row, column = row * stride + stride // 2, column * stride + stride // 2
    xyz = transform(camera.pose, rays_at(camera, column, row) * depth[row, column][:, None])
    height, width = view.camera.height, view.camera.width
    if view.depth_camera is None:
        return Places(xyz, row * width + column, stride, height, width)
    xy, _ = project(view.camera, xyz)
    seen = inside(view.camera, xy)
    u, v = nearest(xy[seen])
    pixels = int(np.ceil(stride * width / camera.width))
    return Places(xyz[seen], v * width + u, pixels, height, width)


def look_up(
    xyz: Float64[np.ndarray, "places 3"], earlier: Remembered, tolerance: DepthTolerance
) -> Int32[np.ndarray, " places"]:
    """Label of each point in an earlier view; -1 if the point is not visible there."""
    xy, z = project(earlier.geometry_camera, xyz)
    place = np.flatnonzero(inside(earlier.geometry_camera, xy))
    u, v = nearest(xy[place])
    allowed = tolerance.fixed + tolerance.relative * z[place]
    measured = earlier.depth[v, u]
    seen = (measured > 0) & (np.abs(measured - z[place]) <= allowed)
    place = place[seen]
    if earlier.camera is not earlier.geometry_camera:
        xy, _ = project(earlier.camera, xyz[place])
        shown = inside(earlier.camera, xy)
        place = place[shown]
        u, v = nearest(xy[shown])
    else:
        u, v = u[seen], v[seen]
    label = np.full(len(xyz), -1, np.int32)
    label[place] = earlier.labels[v, u]
    return label


def carry(here: Places, earlier: Sequence[Remembered], tolerance: DepthTolerance) -> Evidence:
    """The most frequent id of each point in the earlier views that see it.

    Unlabelled observations do not count against an id. A tie goes to the id that comes first in
    the order of `earlier`.
    """
    labels = np.stack([look_up(here.xyz, each, tolerance) for each in earlier])
    label = elect(labels)
    known = label >= 0
    pixel = here.pixel[known]
    xy = np.stack([pixel % here.width, pixel // here.width], 1).astype(np.float64)
    return Evidence(xy, xy, label[known], pixel, here.height, here.width, here.stride)


def elect(labels: Int32[np.ndarray, "views places"]) -> Int32[np.ndarray, " places"]:
    """The most frequent id above 0 of each point; 0 if no view has one, -1 if no view sees it.

    >>> elect(np.array([[2, 0, -1], [3, 0, -1], [3, 5, -1]], np.int32)).tolist()
    [3, 5, -1]
    """
    return _elect(labels)


@compiled()
@no_type_check
def _elect(labels):
    views, places = labels.shape
    winner = np.full(places, -1, np.int32)
    for place in range(places):
        most = 0
        for view in range(views):
            label = labels[view, place]
            if label == 0 and winner[place] < 0:
                winner[place] = 0
            if label <= 0:
                continue
            votes = 0
            for other in range(views):
                if labels[other, place] == label:
                    votes += 1
            if votes > most:
                most = votes
                winner[place] = label
    return winner
