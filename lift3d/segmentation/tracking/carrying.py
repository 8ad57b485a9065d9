"""Whole masks carried into the next view by depth and poses; earlier views vote on each place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float64, Int32, Int64

from lift3d.geometry import project, transform
from lift3d.geometry.lens import inside, nearest, rays_at
from lift3d.geometry.visibility import DepthTolerance
from lift3d.scene import Camera, Depth, View
from lift3d.segmentation.tracking.evidence import Evidence

GRID = 25_000
"""About as many places of a view are looked up in earlier ones; 4 pixels apart at 854x480."""


@dataclass(frozen=True, eq=False)
class Remembered:
    """What is kept of an earlier view: where it was, how far it saw, what it called things."""

    number: int
    camera: Camera
    geometry_camera: Camera
    depth: Depth
    labels: Int32[np.ndarray, "rows columns"]
    """Of the colour image, whose size may be another than the depth's."""


@dataclass(frozen=True, eq=False)
class Places:
    """World points of a grid of a view's pixels, and where its colour image shows them."""

    xyz: Float64[np.ndarray, "places 3"]
    pixel: Int64[np.ndarray, " places"]
    """Flat index in the colour image."""
    stride: int
    """Pixels of the colour image from one place to the next."""
    height: int
    """Of the colour image."""
    width: int


def places(view: View, depth: Depth) -> Places:
    """The places that the view's depth knows, about `GRID` of them."""
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
    """The label that an earlier view gives each place; -1 where it does not see it."""
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
    """What most of the earlier views call each place that any of them sees.

    A view that leaves a place unlabelled says nothing against one that names it. Of ids with
    as many votes, the one named first in the order of `earlier` wins.
    """
    heard = np.stack([look_up(here.xyz, each, tolerance) for each in earlier])
    label = elect(heard)
    known = label >= 0
    pixel = here.pixel[known]
    xy = np.stack([pixel % here.width, pixel // here.width], 1).astype(np.float64)
    return Evidence(xy, xy, label[known], pixel, here.height, here.width, here.stride)


def elect(heard: Int32[np.ndarray, "voters places"]) -> Int32[np.ndarray, " places"]:
    """The id with most votes at each place; 0 where no voter names it, -1 where none sees it.

    >>> elect(np.array([[2, 0, -1], [3, 0, -1], [3, 5, -1]], np.int32)).tolist()
    [3, 5, -1]
    """
    return _elect(heard)


@numba.njit(cache=True)
@no_type_check
def _elect(heard):
    voters, places = heard.shape
    winner = np.full(places, -1, np.int32)
    for place in range(places):
        most = 0
        for one in range(voters):
            label = heard[one, place]
            if label == 0 and winner[place] < 0:
                winner[place] = 0
            if label <= 0:
                continue
            votes = 0
            for other in range(voters):
                if heard[other, place] == label:
                    votes += 1
            if votes > most:
                most = votes
                winner[place] = label
    return winner
