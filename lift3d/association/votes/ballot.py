"""Give each 3D point the label that the views which see it agree on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float32, Int32

from lift3d.association.looks import looks
from lift3d.geometry.visibility import DepthTolerance
from lift3d.scene import Points, Scene, Skipped
from lift3d.scene.compiled import compiled
from lift3d.scene.errors import InputError
from lift3d.scene.mask_sets import MaskSet, ViewMasks


class Ballot:
    """Weighted votes for the label of each point, added view by view.

    Every point has room for `slots` labels, so memory does not grow with the views. While no
    point got votes for more labels than that, the count is exact. A further label takes over
    the weakest slot and its weight (Metwally et al. 2005, "space saving"): a label with more
    than 1/slots of a point's weight is never lost, but weights may then be too high.
    """

    def __init__(self, points: int, slots: int = 8) -> None:
        if slots < 1:
            raise InputError(f"a ballot needs at least one slot per point, got {slots}")
        self.views = 0
        """Calls of `add`."""
        self.overflowed = 0
        """Votes that took over the slot of another label; 0 means that the count is exact."""
        self.skipped: list[Skipped] = []
        """Views without a vote because their depth cannot be read."""
        self._label = np.zeros((points, slots), np.int32)
        self._weight = np.zeros((points, slots), np.float32)
        self._unlabelled = np.zeros(points, np.float32)

    def __len__(self) -> int:
        return len(self._label)

    def add(
        self,
        point: Int32[np.ndarray, " seen"],
        label: Int32[np.ndarray, " seen"],
        weight: Float32[np.ndarray, " seen"],
    ) -> None:
        """One view's votes. Label 0: the view saw the point and gave it no label.

        Quick where `point` ascends without repeats, as `sightings` gives it.
        Raises IndexError for a point that the ballot does not have.
        """
        if len(point) and not (point.min() >= 0 and point.max() < len(self)):
            raise IndexError(f"votes for points outside 0..{len(self) - 1}")
        cast = _cast_parallel if _ascends(point) else _cast
        self.overflowed += cast(point, label, weight, self._label, self._weight, self._unlabelled)
        self.views += 1

    def result(
        self, min_share: float = 0.0, background: float = 0.5
    ) -> tuple[Int32[np.ndarray, " points"], Float32[np.ndarray, " points"]]:
        """The winning label above 0 and its share of the weight of all observations.

        Unlabelled observations count in the denominator of the share with the factor `background`:
        0 leaves them out, 1 makes them votes against. A share below `min_share` leaves the point
        unlabelled. Points that are not visible or not labelled in any view have label 0 and score
        0; a tie goes to the smaller label.
        """
        return _winners(
            self._label,
            self._weight,
            self._unlabelled,
            np.float32(min_share),
            np.float32(background),
        )

    def top(self, k: int) -> tuple[Int32[np.ndarray, "points k"], Float32[np.ndarray, "points k"]]:
        """The `k` heaviest labels of each point and their weights, heaviest first.

        0 with weight 0 fills up; k may exceed the slots. Ties go to the smaller label.
        """
        labels = np.zeros((len(self), k), np.int32)
        weights = np.zeros((len(self), k), np.float32)
        _top(self._label, self._weight, labels, weights)
        return labels, weights

    @property
    def unlabelled(self) -> Float32[np.ndarray, " points"]:
        """Weight of the unlabelled observations of each point."""
        return self._unlabelled

    @property
    def looked(self) -> Float32[np.ndarray, " points"]:
        """Weight of all observations of each point; 0 where it is not visible in any view."""
        return self._weight.sum(1) + self._unlabelled


def vote_labels(
    points: Points,
    scene: Scene,
    label_maps: Mapping[str, ViewMasks],
    progress: Callable[[int, int], None] | None = None,
    tolerance: DepthTolerance = DepthTolerance(),
    slots: int = 8,
) -> Ballot:
    """Every view votes for the points it really sees, by `vote_weight`.

    Labels are read through the colour camera, whether a point is seen is decided by the depth.
    Where masks overlap, the topmost one votes; its score is a factor of the weight. A view whose
    depth cannot be read has no vote: it is in `skipped`. Raises InputError where a view has no
    label map, or one of another size than its image.
    """
    ballot = Ballot(len(points), slots)
    for look in looks(points, scene, label_maps, tolerance, ballot.skipped):
        weight = look.weight
        if isinstance(look.masks, MaskSet):
            weight = weight * look.masks.top_score[look.region]
        ballot.add(look.seen.point, look.label, weight)
        if progress is not None:
            progress(look.index + 1, len(scene))
    return ballot


@compiled()
@no_type_check
def _ascends(point):
    strictly = True
    for i in range(1, len(point)):
        strictly &= point[i] > point[i - 1]
    return strictly


@compiled(inline="always")
@no_type_check
def _cast_one(p, label, weight, labels, weights, unlabelled):
    """One vote; 1 where it took over a slot, else 0."""
    if not weight > 0.0:
        return 0
    if label <= 0:
        unlabelled[p] += weight
        return 0
    slots = labels.shape[1]
    weakest = 0
    for s in range(slots):
        if labels[p, s] == label:
            weights[p, s] += weight
            return 0
        if labels[p, s] == 0:
            labels[p, s] = label
            weights[p, s] = weight
            return 0
        if weights[p, s] < weights[p, weakest] or (
            weights[p, s] == weights[p, weakest] and labels[p, s] > labels[p, weakest]
        ):
            weakest = s
    labels[p, weakest] = label
    weights[p, weakest] += weight
    return 1


@compiled()
@no_type_check
def _cast(point, label, weight, labels, weights, unlabelled):
    overflowed = 0
    for i in range(len(point)):
        overflowed += _cast_one(point[i], label[i], weight[i], labels, weights, unlabelled)
    return overflowed


@compiled(parallel=True)
@no_type_check
def _cast_parallel(point, label, weight, labels, weights, unlabelled):
    """As `_cast`; no point comes twice, so no two threads meet and the order does not matter."""
    overflowed = 0
    for i in numba.prange(len(point)):
        overflowed += _cast_one(point[i], label[i], weight[i], labels, weights, unlabelled)
    return overflowed


@compiled(parallel=True)
@no_type_check
def _winners(labels, weights, unlabelled, min_share, background):
    points, slots = labels.shape
    instance = np.zeros(points, np.int32)
    score = np.zeros(points, np.float32)
    for p in numba.prange(points):
        best = 0
        total = background * unlabelled[p]
        for s in range(slots):
            total += weights[p, s]
            if weights[p, s] > weights[p, best] or (
                weights[p, s] == weights[p, best] and labels[p, s] < labels[p, best]
            ):
                best = s
        # Empty slots have weight 0 and lie behind the used ones.
        if weights[p, best] > 0.0 and weights[p, best] >= min_share * total:
            instance[p] = labels[p, best]
            score[p] = weights[p, best] / total
    return instance, score


@compiled(parallel=True)
@no_type_check
def _top(labels, weights, top_labels, top_weights):
    points, slots = labels.shape
    k = top_labels.shape[1]
    for p in numba.prange(points):
        for s in range(slots):
            label, weight = labels[p, s], weights[p, s]
            for r in range(k):  # insertion sort
                if weight > top_weights[p, r] or (
                    weight == top_weights[p, r] and label < top_labels[p, r]
                ):
                    top_labels[p, r], label = label, top_labels[p, r]
                    top_weights[p, r], weight = weight, top_weights[p, r]
