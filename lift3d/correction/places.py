"""Where objects and sets of points lie, to find them again in another cloud of the same scene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

WITNESSES = 64
"""Points that stand for an object. With 64 its IoU with another object is known to about 0.1; 16
are mostly at its rim and say too little."""
AGREE = 0.7
"""Least share of a set's points that have one of this cloud near them, and of the points of a part
that are in its object. Chosen by hand; not tuned on data."""
SAME = 0.9
"""Least IoU with the points it had at which an object counts as unchanged. Chosen on the demo
lifted with other voxels: of an object with 0.8 a later split left a part with 0.78."""
TOLD = 0.8
"""Below this IoU, estimated by witnesses, an edit is applied and told to be doubtful."""
NEAR = 0.7
"""Least IoU of an object that an edit is applied to all the same, which is told. On the demo lifted
with other voxels the IoU by witnesses lets through what has a true one of 0.74 or more."""
SPACINGS = 2.0
"""Distance up to which two clouds have the same place, in spacings of the coarser one."""
SAMPLE = 2000
"""Points of an object that witnesses are chosen from."""
DIGITS = 7
"""Significant digits of stored coordinates: those of float32."""


@dataclass(frozen=True, eq=False)
class Place:
    """Witness points spread over an object."""

    witnesses: Float64[np.ndarray, "witnesses 3"]
    points: int
    """Number of the object's points."""

    @staticmethod
    def of(xyz: Float32[np.ndarray, "members 3"]) -> Place:
        """Of an object's points; the same points give the same place."""
        if not len(xyz):
            return Place(np.zeros((0, 3)), 0)
        some = xyz[np.linspace(0, len(xyz) - 1, min(len(xyz), SAMPLE)).astype(np.int64)]
        some = some.astype(np.float64)
        first = int(np.argmin(((some - np.median(some, axis=0)) ** 2).sum(1)))
        chosen, away = [first], np.full(len(some), np.inf)
        while True:  # farthest point sampling
            away = np.minimum(away, ((some - some[chosen[-1]]) ** 2).sum(1))
            farthest = int(np.argmax(away))
            if len(chosen) == WITNESSES or away[farthest] == 0:
                break
            chosen.append(farthest)
        return Place(some[chosen], len(xyz))

    def as_json(self) -> dict[str, Any]:
        """As JSON values, with the digits of float32."""
        rounded = [[float(f"{v:.{DIGITS}g}") for v in each] for each in self.witnesses.tolist()]
        return {"witnesses": rounded, "points": self.points}

    @staticmethod
    def of_json(stored: Mapping[str, Any]) -> Place:
        """From what `as_json` gave; ValueError, KeyError or TypeError for anything else."""
        points = np.array(stored["witnesses"], np.float64).reshape(-1, 3)
        if not np.isfinite(points).all():
            raise ValueError("a witness is no place")
        return Place(points, int(stored["points"]))


def closest(
    label: Int32[np.ndarray, " points"], index: Int64[np.ndarray, " members"]
) -> tuple[int, float]:
    """The object with the largest IoU with the points `index`, and that IoU; 0, 0 where none is.

    >>> closest(np.array([1, 1, 2, 2, 2], np.int32), np.array([1, 2, 3]))
    (2, 0.5)
    """
    ids, counts = np.unique(label[index], return_counts=True)
    best = 0, 0.0
    for each, both in zip(ids[ids > 0].tolist(), counts[ids > 0].tolist(), strict=True):
        iou = both / (len(index) + int((label == each).sum()) - both)
        best = max(best, (each, iou), key=lambda found: found[1])
    return best


class Finder:
    """Finds places in a labelled cloud."""

    def __init__(self, xyz: Float32[np.ndarray, "points 3"], spacing: float) -> None:
        from scipy.spatial import cKDTree

        self._xyz, self.spacing = xyz, spacing
        self._tree = cKDTree(xyz)

    def object_at(
        self, place: Place, spacing: float, label: Int32[np.ndarray, " points"]
    ) -> tuple[int, float, str]:
        """Id of the object that is now where `place` was, their IoU and ""; or 0, 0 and why not.

        `spacing` is that of the cloud on which `place` was made. The IoU is at least `NEAR`; the
        overlap is the share of witnesses that lie in the object, the sizes are those of the
        surfaces.
        """
        if not len(place.witnesses):
            return 0, 0.0, "it had no points"
        same = SPACINGS * max(spacing, self.spacing)
        distance, near = self._tree.query(place.witnesses, distance_upper_bound=same)
        at = label[near[np.isfinite(distance)]]
        ids, counts = np.unique(at[at > 0], return_counts=True)
        if not len(ids):
            return 0, 0.0, "no object is there now"
        found, share = int(ids[np.argmax(counts)]), float(counts.max() / len(place.witnesses))
        count = int((label == found).sum())
        area = count * self.spacing**2 / max(place.points * spacing**2, 1e-30)
        share = min(share, area)  # what both have is part of either
        iou = share / (1 + area - share)
        if iou < NEAR:
            return (
                0,
                0.0,
                (
                    f"object {found} is there now: it covers {share:.0%} of its place and has "
                    f"{area:.1f} times its surface"
                ),
            )
        return found, iou, ""

    def set_at(
        self, points: PointSet, spacing: float
    ) -> tuple[Int64[np.ndarray, " found"], Int32[np.ndarray, " found"], float]:
        """Points of this cloud that lie in a set of another, their parts, and the share of the
        set's points that have one of them near.
        """
        from scipy.spatial import cKDTree

        same = SPACINGS * max(spacing, self.spacing)
        inside = points.part > 0
        nothing = np.zeros(0, np.int64), np.zeros(0, np.int32), 0.0
        if not inside.any() or not len(self._xyz):
            return nothing
        low, high = points.xyz[inside].min(0) - same, points.xyz[inside].max(0) + same
        near = np.flatnonzero(((self._xyz >= low) & (self._xyz <= high)).all(1))
        if not len(near):
            return nothing
        distance, of = cKDTree(points.xyz).query(self._xyz[near], distance_upper_bound=same)
        some = np.isfinite(distance)
        part = np.zeros(len(near), np.int32)
        part[some] = points.part[of[some]]
        taken = part > 0
        away, _ = self._tree.query(points.xyz[inside], distance_upper_bound=same)
        return near[taken], part[taken], float(np.mean(np.isfinite(away)))


@dataclass(frozen=True, eq=False)
class PointSet:
    """The points of an edit, and those beside them that it leaves out."""

    index: Int64[np.ndarray, " members"]
    """Indices in the cloud that the edit was made on."""
    part: Int32[np.ndarray, " members"]
    """From 1: which part; 0 = outside, stored so that another cloud knows the border."""
    xyz: Float32[np.ndarray, "members 3"]

    @staticmethod
    def of(
        index: Int64[np.ndarray, " inside"],
        part: Int32[np.ndarray, " inside"],
        xyz: Float32[np.ndarray, "points 3"],
        spacing: float,
    ) -> PointSet:
        """The points `index` with their parts, and the points of the cloud beside them."""
        from scipy.spatial import cKDTree

        if not len(index):
            return PointSet(index, part, xyz[index])
        reach = 2 * SPACINGS * spacing
        low, high = xyz[index].min(0) - reach, xyz[index].max(0) + reach
        around = np.flatnonzero(((xyz >= low) & (xyz <= high)).all(1))
        outside = np.setdiff1d(around, index, assume_unique=False)
        distance, _ = cKDTree(xyz[index]).query(xyz[outside], distance_upper_bound=reach)
        border = outside[np.isfinite(distance)]
        every = np.concatenate([index, border]).astype(np.int64)
        parts = np.concatenate([part, np.zeros(len(border), np.int32)]).astype(np.int32)
        return PointSet(every, parts, xyz[every])
