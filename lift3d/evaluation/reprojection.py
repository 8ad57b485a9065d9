"""Compare the labelled cloud, rendered into each view, with the view's label map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float64, Int32, Int64

from lift3d.geometry.scale import fitted
from lift3d.geometry.visibility import DepthTolerance, drop_misplaced, front_points
from lift3d.scene import DENSE, LabelledPoints, LabelMap, Scene, Skipped, View, ids_in
from lift3d.scene.compiled import compiled
from lift3d.scene.errors import InputError
from lift3d.scene.labelmaps import check_label_maps, label_map_of
from lift3d.scene.prefetch import THREADS, prefetch
from lift3d.scene.skipping import readable


@dataclass(frozen=True, eq=False)
class ViewReprojection:
    """Agreement of one view with the cloud. NaN where there is nothing to compare."""

    name: str
    seen: float
    """Share of the image with a rendered point."""
    agreement: float
    """Share of equal ids among pixels labelled in both."""
    agreement_overall: float
    """Share of equal ids among pixels with a rendered point that are labelled in at least one."""
    ids: Int32[np.ndarray, " instances"]
    """Ids that occur in the view or the cloud, ascending."""
    iou: Float64[np.ndarray, " instances"]
    """IoU of each id's pixels in the view and the cloud, among pixels with a rendered point."""


@dataclass(frozen=True, eq=False)
class Reprojection:
    """Agreement over all views; every pixel has the same weight."""

    agreement: float
    """Share of equal ids among pixels labelled in both cloud and view."""
    agreement_overall: float
    """Share of equal ids among pixels with a rendered point that are labelled in at least one."""
    seen: float
    """Share of all pixels with a rendered point."""
    per_view: tuple[ViewReprojection, ...]
    ids: Int32[np.ndarray, " instances"]
    """Ids that occur in any view or its rendering, ascending."""
    iou: Float64[np.ndarray, " instances"]
    """Mean IoU of each id over the views where it occurs, in the view or its rendering."""
    views: Int64[np.ndarray, " instances"]
    """Number of these views."""

    @property
    def mean_iou(self) -> float:
        """Mean over the instances; NaN without instances."""
        return float(self.iou.mean()) if len(self.iou) else float("nan")

    def summary(self) -> dict[str, Any]:
        """Values for JSON; NaN becomes None."""
        return {
            "agreement": _number(self.agreement),
            "agreement_overall": _number(self.agreement_overall),
            "seen": _number(self.seen),
            "mean_iou": _number(self.mean_iou),
            "instances": [
                {"id": int(i), "iou": float(iou), "views": int(views)}
                for i, iou, views in zip(self.ids, self.iou, self.views, strict=True)
            ],
            "per_view": [
                {
                    "name": view.name,
                    "seen": _number(view.seen),
                    "agreement": _number(view.agreement),
                    "agreement_overall": _number(view.agreement_overall),
                    "iou": {str(i): float(iou) for i, iou in zip(view.ids, view.iou, strict=True)},
                }
                for view in self.per_view
            ],
        }

    def __str__(self) -> str:
        return (
            f"reprojection: {_percent(self.agreement)} of doubly labelled pixels agree, "
            f"{_percent(self.agreement_overall)} of pixels labelled in either, mean IoU "
            f"{self.mean_iou:.3f} of {len(self.ids)} instances; the cloud shows a point in "
            f"{_percent(self.seen)} of the pixels"
        )


def visible_points(
    labelled: LabelledPoints,
    view: View,
    splat: float,
    tolerance: DepthTolerance = DepthTolerance(),
) -> Int32[np.ndarray, "height width"]:
    """Index of the point visible at each pixel of the colour image, -1 for none."""
    if not splat >= 0:
        raise InputError(f"splat is {splat}; expected a size in world units, 0 for one pixel")
    front, z = front_points(labelled.points.xyz, view.camera, splat)
    depth = view.depth()
    if depth is None:
        return front
    drop_misplaced(front, z, labelled.points.xyz, view, depth, tolerance)
    return front


def reprojection_check(
    labelled: LabelledPoints,
    scene: Scene,
    label_maps: Mapping[str, LabelMap],
    splat: float,
    tolerance: DepthTolerance = DepthTolerance(),
) -> Reprojection:
    """Render the cloud into every view and compare with the view's label map.

    `label_maps` gives each view's label map by its name, at colour resolution, in the ids of the
    cloud. Only pixels with a rendered point are compared; `seen` is their share. Views whose
    depth cannot be read are not compared.
    """
    check_label_maps(label_maps, scene)
    comparison = Comparison(labelled, scene, splat, tolerance)

    def compare(view: View) -> None:
        view, _, lost = readable(view)
        comparison.add(view, label_map_of(label_maps, view), lost)

    for _ in prefetch(scene.views, compare, threads=THREADS):
        pass
    return comparison.result()


class Comparison:
    """`reprojection_check` for a caller that has each view and its label map decoded."""

    def __init__(
        self,
        labelled: LabelledPoints,
        scene: Scene,
        splat: float,
        tolerance: DepthTolerance = DepthTolerance(),
    ) -> None:
        self._labelled, self._scene, self._splat = labelled, scene, splat
        self._tolerance = fitted(tolerance, scene, labelled.points)
        self._tallies: dict[str, _Tally] = {}
        self._largest = _largest(labelled.instance)

    def add(self, view: View, labels: LabelMap, lost: Skipped | None = None) -> None:
        """Compare a view, in any order and from any thread; `lost`: it cannot be read."""
        if lost is None:
            front = visible_points(self._labelled, view, self._splat, self._tolerance)
        else:
            front, labels = np.zeros((0, 0), np.int32), np.zeros((0, 0), np.int32)
        instance, largest = self._labelled.instance, max(self._largest, _largest(labels))
        self._tallies[view.name] = _compare(front.ravel(), instance, labels.ravel(), largest)

    def result(self) -> Reprojection:
        """The agreement over all views of the scene; each must have been added."""
        tallies = [self._tallies[view.name] for view in self._scene.views]
        per_view = [
            ViewReprojection(
                view.name, *tally.shares(), tally.ids, tally.equal / np.maximum(tally.union, 1)
            )
            for view, tally in zip(self._scene.views, tallies, strict=True)
        ]
        every = np.concatenate([tally.ids for tally in tallies] or [np.zeros(0, np.int32)])
        ids, place = np.unique(every, return_inverse=True)
        ious = np.concatenate([view.iou for view in per_view] or [np.zeros(0)])
        views = np.bincount(place, minlength=len(ids))
        total = _Tally.total(tallies)
        seen_share, agreement, overall = total.shares()
        return Reprojection(
            agreement=agreement,
            agreement_overall=overall,
            seen=seen_share,
            per_view=tuple(per_view),
            ids=ids.astype(np.int32),
            iou=np.bincount(place, ious, len(ids)) / np.maximum(views, 1),
            views=views,
        )


@dataclass(frozen=True, eq=False)
class _Tally:
    """Pixel counts of a view: all, with a point, labelled in both, in at least one; per id."""

    size: int
    seen: int
    both: int
    either: int
    ids: Int32[np.ndarray, " instances"]
    equal: Int64[np.ndarray, " instances"]
    union: Int64[np.ndarray, " instances"]

    def shares(self) -> tuple[float, float, float]:
        """The shares `seen`, `agreement` and `agreement_overall`."""
        equal = int(self.equal.sum())
        return _ratio(self.seen, self.size), _ratio(equal, self.both), _ratio(equal, self.either)

    @staticmethod
    def total(tallies: list[_Tally]) -> _Tally:
        """The sum over views, with the views' ids concatenated."""
        nothing = [np.zeros(0, np.int64)]
        return _Tally(
            sum(tally.size for tally in tallies),
            sum(tally.seen for tally in tallies),
            sum(tally.both for tally in tallies),
            sum(tally.either for tally in tallies),
            np.concatenate([tally.ids for tally in tallies] or [np.zeros(0, np.int32)]),
            np.concatenate([tally.equal for tally in tallies] or nothing),
            np.concatenate([tally.union for tally in tallies] or nothing),
        )


def _largest(labels: Int32[np.ndarray, "*shape"]) -> int:
    """The largest label, 0 where there is none; InputError where one is below 0."""
    if labels.min(initial=0) < 0:
        raise InputError("labels must be 0 or more; label 0 is no object")
    return int(labels.max(initial=0))


def _compare(
    front: Int32[np.ndarray, " pixels"],
    instance: Int32[np.ndarray, " points"],
    view: Int32[np.ndarray, " pixels"],
    largest: int,
) -> _Tally:
    """Compare the label of the point at each pixel, -1 for none, with that of the view.

    `largest` is the largest label of both.
    """
    size, ids = len(front), np.arange(min(largest, DENSE) + 1, dtype=np.int32)
    if largest >= DENSE:  # tables by label would be large
        seen = front >= 0
        front, instance, view = np.arange(np.count_nonzero(seen)), instance[front[seen]], view[seen]
        ids = np.union1d([0], np.union1d(ids_in(instance), ids_in(view))).astype(np.int32)
        instance, view = np.searchsorted(ids, instance), np.searchsorted(ids, view)
    in_cloud, in_view, equal, both = _count(front, instance, view, len(ids))
    found = np.flatnonzero(in_cloud + in_view)
    found = found[found > 0]
    seen_pixels = int(in_cloud.sum())
    return _Tally(
        size=size,
        seen=seen_pixels,
        both=both,
        either=seen_pixels - int(equal[0]),
        ids=ids[found],
        equal=equal[found],
        union=(in_cloud + in_view - equal)[found],
    )


@compiled(nogil=True)
@no_type_check
def _count(front, instance, view, n):
    """Pixels of each id in the cloud, in the view and in both; and all pixels labelled in both."""
    in_cloud, in_view, equal = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    both = 0
    for pixel in range(len(front)):
        if front[pixel] < 0:
            continue
        own, other = instance[front[pixel]], view[pixel]
        in_cloud[own] += 1
        in_view[other] += 1
        both += own > 0 and other > 0
        if own == other:
            equal[own] += 1
    return in_cloud, in_view, equal, both


def _ratio(part: int, total: int) -> float:
    return part / total if total else float("nan")


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value


def _percent(value: float) -> str:
    return "undefined" if np.isnan(value) else f"{100 * value:.2f} %"
