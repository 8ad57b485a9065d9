"""Overlapping windows of pictures, and their cameras and depth in one frame.

The network gives every window a frame and a unit of its own. Windows share pictures, and a pixel of
a shared picture is one place in the world: that gives the similarity between two windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64

from lift3d.geometry import similarity, transform
from lift3d.networks.vggt.inference import WindowPrediction
from lift3d.scene import Transform
from lift3d.scene.errors import InputError

SAMPLES = 1500
"""Pixels of each shared picture that are compared. Chosen by hand; not tuned on data."""
ROUNDS = 20
"""Most rounds of reweighting."""
CORNERS = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
"""A camera's centre and the ends of its axes."""
LEAST_SPREAD = 1e-6
"""Least relative distance at which a point counts half."""


@dataclass(frozen=True, eq=False)
class Placed:
    """Cameras and depth of pictures in one frame."""

    world_from_camera: Float64[np.ndarray, "pictures 4 4"]
    K: Float64[np.ndarray, "pictures 3 3"]
    depth: list[Float32[np.ndarray, "height width"]]
    confidence: list[Float32[np.ndarray, "height width"]]
    gaps: tuple[float, ...]
    """For each window after the first, how far shared points are apart: median, share of depth."""


def windows_of(count: int, size: int, overlap: int) -> list[list[int]]:
    """Windows of at most `size` consecutive pictures; neighbours share at least `overlap`.

    >>> windows_of(7, 4, 2)
    [[0, 1, 2, 3], [2, 3, 4, 5], [3, 4, 5, 6]]
    """
    if count <= size:
        return [list(range(count))]
    starts = [*range(0, count - size, size - overlap), count - size]
    return [list(range(start, start + size)) for start in starts]


def chained(features: Float32[np.ndarray, "pictures channels"]) -> list[int]:
    """An order in which each picture is followed by the most similar one that is left."""
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    alike = unit @ unit.T
    # From the picture least like all others: an end of the walk, rather than its middle.
    order = [int(alike.sum(1).argmin())]
    left = set(range(len(features))) - set(order)
    while left:
        order.append(max(left, key=lambda k: (alike[order[-1], k], -k)))
        left.remove(order[-1])
    return order


def joined(
    windows: Sequence[Sequence[int]],
    predictions: Sequence[WindowPrediction],
    known: Mapping[int, Transform],
) -> Placed:
    """All pictures in one frame and unit: those of the `known` poses, else of the first window.

    With known poses of at least two places each window is put onto those it has; else, and where a
    window has too few, onto the pictures that it shares with windows that lie already.
    """
    count = 1 + max(number for window in windows for number in window)
    pose: dict[int, Transform] = {}
    unit: dict[int, float] = {}
    source: dict[int, tuple[int, int]] = {}
    gaps = []
    for which, (window, seen) in enumerate(zip(windows, predictions, strict=True)):
        posed = [k for k, number in enumerate(window) if number in known]
        shared = [k for k, number in enumerate(window) if number in pose]
        scale, turn = 1.0, np.eye(4)
        if _apart(np.array([known[window[k]][:3, 3] for k in posed])):
            scale, turn = onto_cameras(
                seen.world_from_camera[posed], np.stack([known[window[k]] for k in posed])
            )
        elif shared:
            there = []
            for k in shared:
                other, place = source[window[k]]
                there.append((predictions[other], place, unit[window[k]], pose[window[k]]))
            scale, turn, gap = _onto_shared(seen, shared, there)
            gaps.append(gap)
        elif posed:  # one place: the frame is known, the unit is not
            turn = known[window[posed[0]]] @ np.linalg.inv(seen.world_from_camera[posed[0]])
        for k, number in enumerate(window):
            if number in pose:
                continue
            placed = seen.world_from_camera[k].copy()
            placed[:3, 3] *= scale
            pose[number], unit[number], source[number] = turn @ placed, scale, (which, k)
    found = [(predictions[which], k) for which, k in (source[number] for number in range(count))]
    return Placed(
        np.stack([pose[number] for number in range(count)]),
        np.stack([seen.K[k] for seen, k in found]),
        [
            (seen.depth[k] * unit[number]).astype(np.float32)
            for number, (seen, k) in enumerate(found)
        ],
        [seen.confidence[k] for seen, k in found],
        tuple(gaps),
    )


def onto_cameras(
    source: Float64[np.ndarray, "cameras 4 4"], target: Float64[np.ndarray, "cameras 4 4"]
) -> tuple[float, Transform]:
    """Scale and rigid transform that put cameras onto the same cameras in another frame.

    Each camera counts by its centre and by the ends of its axes, as long as the cameras are apart,
    so that cameras on a line are turned right too. Cameras that disagree count little.
    """
    reach_source, reach_target = (
        float(np.median(np.linalg.norm(each[:, :3, 3] - each[:, :3, 3].mean(0), axis=1)))
        for each in (source, target)
    )
    if min(reach_source, reach_target) <= 0:
        raise InputError("the cameras are all at one place, which gives no scale")
    ends = [
        each[:, None, :3, 3] + reach * CORNERS @ each[:, :3, :3].mT
        for each, reach in ((source, reach_source), (target, reach_target))
    ]
    group = np.repeat(np.arange(len(source)), len(CORNERS))
    size = np.full(len(group), reach_target)
    scale, turn, _ = robust_similarity(ends[0].reshape(-1, 3), ends[1].reshape(-1, 3), size, group)
    return scale, turn


def robust_similarity(
    source: Float64[np.ndarray, "points 3"],
    target: Float64[np.ndarray, "points 3"],
    size: Float64[np.ndarray, " points"],
    group: np.ndarray,
    confidence: Float64[np.ndarray, " points"] | None = None,
) -> tuple[float, Transform, float]:
    """Scale s and rigid T with T(s * source) = target, and the median relative distance.

    Distances are relative to `size`. The start is the fit of that group of points which most
    points agree with, so that a group that is wrong altogether does no harm; then least squares
    with weights 1 / (1 + (distance / spread)^2)^2 (Geman and McClure).
    """
    weight = np.ones(len(source)) if confidence is None else confidence
    weight = weight / size**2

    def off(found: tuple[float, Transform]) -> Float64[np.ndarray, " points"]:
        return np.linalg.norm(transform(found[1], found[0] * source) - target, axis=1) / size

    starts = [similarity(source, target, weight=weight)]
    for each in np.unique(group):
        own = group == each
        starts.append(similarity(source[own], target[own], weight=weight[own]))
    best = min(starts, key=lambda found: float(np.median(off(found))))
    for _ in range(ROUNDS):
        distance = off(best)
        spread = max(2 * float(np.median(distance)), LEAST_SPREAD)
        moved = similarity(source, target, weight=weight / (1 + (distance / spread) ** 2) ** 2)
        settled = abs(moved[0] / best[0] - 1) < 1e-9 and np.allclose(moved[1], best[1], atol=1e-9)
        best = moved
        if settled:
            break
    return *best, float(np.median(off(best)))


def _onto_shared(
    seen: WindowPrediction,
    shared: Sequence[int],
    there: Sequence[tuple[WindowPrediction, int, float, Transform]],
) -> tuple[float, Transform, float]:
    """Scale and transform that put a window onto pictures that are placed already."""
    source, target, size, group, confidence = [], [], [], [], []
    for k, (other, place, unit, pose) in zip(shared, there, strict=True):
        here, over = seen.depth[k], other.depth[place] * unit
        row, column = _sample((here > 0) & (over > 0) & np.isfinite(here) & np.isfinite(over))
        if not len(row):
            continue
        own = _lifted(row, column, here, seen.K[k])
        source.append(transform(seen.world_from_camera[k], own))
        target.append(transform(pose, _lifted(row, column, over, other.K[place])))
        size.append(over[row, column].astype(np.float64))
        group.append(np.full(len(row), k))
        sure = np.minimum(seen.confidence[k], other.confidence[place])[row, column]
        confidence.append(np.maximum(sure, 0).astype(np.float64))
    if not source:
        raise InputError(
            "two windows of pictures share none with depth; use a larger --reconstruction.overlap"
        )
    return robust_similarity(*map(np.concatenate, (source, target, size, group, confidence)))


def _lifted(
    row: np.ndarray, column: np.ndarray, depth: np.ndarray, K: Float64[np.ndarray, "3 3"]
) -> Float64[np.ndarray, "pixels 3"]:
    z = depth[row, column].astype(np.float64)
    ray = np.c_[(column - K[0, 2]) / K[0, 0], (row - K[1, 2]) / K[1, 1], np.ones(len(row))]
    return ray * z[:, None]


def _sample(present: Bool[np.ndarray, "height width"]) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of evenly spread pixels."""
    row, column = np.nonzero(present)
    step = max(len(row) // SAMPLES, 1)
    return row[::step], column[::step]


def _apart(centres: np.ndarray) -> bool:
    """Whether there are two different places."""
    return len(centres) > 1 and float(np.ptp(centres, axis=0).max()) > 0
