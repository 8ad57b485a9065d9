"""Which views a view is compared with, and in what range of depth.

A view is a good neighbour where many points are seen under a good angle (Yao et al. 2018,
Sec. 4.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from lift3d.reconstruction.stereo.tracks import Tracks
from lift3d.scene import Camera

BEST_ANGLE, TIGHT, WIDE = 7.0, 3.0, 10.0
"""Degrees between two rays that suit best, and by how much fewer and more suit less; small angles
give no depth, wide ones change the look."""
ENOUGH = 8
"""Points that give a range of depth."""
PARALLEL = 1.0
"""Degrees between two rays, below which they say nothing of the depth."""
LEAST = 1.0
"""Weighted points that make a neighbour."""
MARGIN = 1.6
"""The range of depth reaches this much beyond the points."""


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """What one view is compared with."""

    sources: tuple[int, ...]
    """Numbers of views, the best first."""
    near: float
    far: float
    seen_by: tuple[int, ...] = ()
    """The sources, and views that have this one as a source: at most twice as many."""


def neighbourhoods(
    cameras: Sequence[Camera], tracks: Tracks, most: int
) -> list[Neighbourhood | None]:
    """The sources and the range of depth of every view; None where too few points are shared."""
    order = np.argsort(tracks.point, kind="stable")
    start = np.searchsorted(tracks.point[order], np.arange(len(tracks.xyz) + 1))
    places = np.stack([camera.pose[:3, 3] for camera in cameras])
    found: list[Neighbourhood | None] = []
    for number, camera in enumerate(cameras):
        own = tracks.point[tracks.view == number]
        rows = np.concatenate([order[start[p] : start[p + 1]] for p in own] or [order[:0]])
        others, points = tracks.view[rows], tracks.xyz[tracks.point[rows]]
        angle = _angles(points, places[number], places[others])
        off = angle - BEST_ANGLE
        weight = np.exp(-(off**2) / (2 * np.where(off < 0, TIGHT, WIDE) ** 2))
        weight[angle < PARALLEL] = 0
        score = np.bincount(others, weight, len(cameras))
        score[number] = 0
        best = np.argsort(-score, kind="stable")[:most]
        sources = tuple(int(each) for each in best if score[each] > LEAST)
        depth = (tracks.xyz[own] - places[number]) @ camera.pose[:3, 2]
        limits = depth_limits(depth)
        found.append(None if limits is None or not sources else Neighbourhood(sources, *limits))
    return [
        None if each is None else replace(each, seen_by=_seen_by(found, number, each))
        for number, each in enumerate(found)
    ]


def _seen_by(
    found: Sequence[Neighbourhood | None], number: int, own: Neighbourhood
) -> tuple[int, ...]:
    back = (i for i, each in enumerate(found) if each is not None and number in each.sources)
    every = dict.fromkeys((*own.sources, *back))
    return tuple(every)[: 2 * len(own.sources)]


def depth_limits(depth: Float64[np.ndarray, " points"]) -> tuple[float, float] | None:
    """The nearest and the farthest depth to look at; None for too few points."""
    depth = depth[depth > 0]
    if len(depth) < ENOUGH:
        return None
    near, far = np.percentile(depth, [1, 99])
    return float(near / MARGIN), float(far * MARGIN)


def parallax(cameras: Sequence[Camera], tracks: Tracks) -> float:
    """Degrees between the rays of a point from its first and its last view; median over points."""
    if not len(tracks.xyz):
        return 0.0
    order = np.lexsort((tracks.view, tracks.point))
    number = np.arange(len(tracks.xyz))
    first = tracks.view[order[np.searchsorted(tracks.point[order], number)]]
    last = tracks.view[order[np.searchsorted(tracks.point[order], number, side="right") - 1]]
    places = np.stack([camera.pose[:3, 3] for camera in cameras])
    u, v = places[first] - tracks.xyz, places[last] - tracks.xyz
    length = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)
    cosine = np.clip((u * v).sum(1) / np.maximum(length, 1e-12), -1, 1)
    return float(np.degrees(np.median(np.arccos(cosine))))


def _angles(
    points: Float64[np.ndarray, "n 3"], a: Float64[np.ndarray, "3"], b: Float64[np.ndarray, "n 3"]
) -> Float64[np.ndarray, " n"]:
    """Degrees between the rays from points to two places."""
    u, v = a - points, b - points
    length = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)
    cosine = (u * v).sum(1) / np.maximum(length, 1e-12)
    return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
