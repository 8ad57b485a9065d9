"""Instance AP of the ScanNet benchmark, with exactly the numbers of its script.

After ScanNet (Dai et al., CVPR 2017), evaluation of 3D semantic instances: AP is the mean over
nine overlaps from 0.50 to 0.90 (without 0.95); AP25 uses overlap 0.25.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64

from lift3d.scene.errors import InputError

OVERLAPS: tuple[float, ...] = (*np.arange(0.5, 0.95, 0.05).tolist(), 0.25)
"""IoU that a match must exceed; AP is the mean over all but the last."""
MIN_VERTICES = 100
"""Smaller predictions are dropped; smaller true instances are ignored."""
INSTANCES_PER_LABEL = 1000
"""Truth is label * 1000 + instance."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """One predicted instance of a scene."""

    mask: Bool[np.ndarray, " vertices"]
    label: int
    confidence: float


@dataclass(frozen=True, eq=False)
class AveragePrecision:
    """AP, AP50 and AP25, 0 to 1; NaN if the truth has no instances."""

    ap: float
    ap50: float
    ap25: float
    per_class_overlap: Float64[np.ndarray, "classes overlaps"]
    """By class of `class_ids` and overlap of `OVERLAPS`; NaN for classes without truth."""
    class_ids: tuple[int, ...]
    protocol: str
    """The protocol in words; scores of different protocols are not comparable."""

    def summary(self) -> dict[str, Any]:
        """Values for JSON; NaN becomes None."""
        return {"protocol": self.protocol, **_numbers(self.ap, self.ap50, self.ap25)}

    def by_class(self, names: Mapping[int, str]) -> dict[str, dict[str, float | None]]:
        """AP, AP50 and AP25 of each class with truth."""
        found = {}
        for each, row in zip(self.class_ids, self.per_class_overlap, strict=True):
            if not np.isnan(row).any():
                name = names.get(each, str(each))
                found[name] = _numbers(float(np.mean(row[:-1])), float(row[0]), float(row[-1]))
        return found

    def __str__(self) -> str:
        return (
            f"AP {100 * self.ap:.1f}  AP50 {100 * self.ap50:.1f}  AP25 {100 * self.ap25:.1f}"
            f"  ({self.protocol})"
        )


class InstanceScores:
    """AP over scenes that are added one by one; only one scene's masks are in memory.

    Vertices of classes other than `class_ids` are void. With `folded`, all `class_ids` are one
    class, and labels of predictions are ignored.
    """

    def __init__(self, class_ids: Sequence[int], protocol: str, folded: bool = False) -> None:
        self._class_ids, self._protocol, self._folded = tuple(class_ids), protocol, folded
        self._scenes: list[list[_Overlaps]] = []

    def add(self, truth: Int[np.ndarray, "_"], predictions: Sequence[Prediction]) -> None:
        """Add a scene; `truth` is label * 1000 + instance.

        The order of the predictions matters, as in the benchmark: a true instance is matched with
        the first prediction of sufficient overlap. InputError if a mask does not have one entry
        per vertex or a confidence is not finite.
        """
        self._scenes.append(_overlaps(truth, predictions, self._class_ids, self._folded))

    def result(self) -> AveragePrecision:
        """AP of the added scenes; a folded table has the single class 0."""
        classes = (0,) if self._folded else self._class_ids
        table = np.full((len(classes), len(OVERLAPS)), np.nan)
        for row in range(len(classes)):
            of_class = [each[row] for each in self._scenes]
            for column, overlap in enumerate(OVERLAPS):
                table[row, column] = _class_ap(of_class, overlap)
        return _averaged(table, classes, self._protocol)


def average_precision(
    scenes: Iterable[tuple[Int[np.ndarray, "_"], Sequence[Prediction]]],
    class_ids: Sequence[int],
    protocol: str,
    folded: bool = False,
) -> AveragePrecision:
    """AP of `class_ids` over all scenes: pairs of truth and predictions; see `InstanceScores`."""
    scores = InstanceScores(class_ids, protocol, folded)
    for truth, predictions in scenes:
        scores.add(truth, predictions)
    return scores.result()


def class_agnostic(
    truth_instance: Int[np.ndarray, " vertices"],
    predicted_instance: Int[np.ndarray, " points"],
    confidence: Mapping[int, float],
    protocol: str = "class-agnostic, every true instance given",
) -> AveragePrecision:
    """AP of one labelled cloud with all classes folded into one.

    Truth 0 is void, such as walls and floor. Prediction 0 is no object; `confidence` has the
    other ids, in the order in which they are matched. InputError if an id has no confidence or
    the lengths differ.
    """
    if len(truth_instance) != len(predicted_instance):
        raise InputError(
            f"{len(predicted_instance)} predicted labels for {len(truth_instance)} true labels; "
            "predict on the points of the truth (--cloud)"
        )
    known, predicted = np.unique(predicted_instance, return_inverse=True)
    missing = [each for each in known.tolist() if each > 0 and each not in confidence]
    if missing:
        raise InputError(f"no confidence for predicted instances {missing[:5]}; give one for each")
    ids, truth = _positive(truth_instance)
    counts = np.bincount(predicted * (len(ids) + 1) + truth, minlength=len(known) * (len(ids) + 1))
    counts = counts.reshape(len(known), len(ids) + 1)
    row_of = {each: row for row, each in enumerate(known.tolist())}
    order = [each for each in confidence if each > 0 and each in row_of]
    scores = np.array([confidence[each] for each in order], np.float64)
    sizes = np.bincount(truth, minlength=len(ids) + 1)[1:]
    rows = counts[[row_of[each] for each in order]].reshape(len(order), len(ids) + 1)
    table = _Overlaps.build(rows[:, 1:], sizes, rows[:, 0], rows.sum(1), scores)
    found = np.array([[_class_ap([table], overlap) for overlap in OVERLAPS]])
    return _averaged(found, [1], protocol)


@dataclass(frozen=True, eq=False)
class _Overlaps:
    """Overlaps of the predictions of a class with the true instances of the class in a scene."""

    iou: Float64[np.ndarray, "predictions instances"]
    """IoU with the true instances that are large enough, in the order of their ids."""
    best: Float64[np.ndarray, " predictions"]
    """Largest IoU with any true instance of the class, including small instances."""
    ignored: Float64[np.ndarray, " predictions"]
    """Share of vertices that are void or in an instance that is too small."""
    confidence: Float64[np.ndarray, " predictions"]

    @staticmethod
    def build(
        shared: Int64[np.ndarray, "predictions instances"],
        true_size: Int64[np.ndarray, " instances"],
        void: Int64[np.ndarray, " predictions"],
        size: Int64[np.ndarray, " predictions"],
        confidence: Float64[np.ndarray, " predictions"],
    ) -> _Overlaps:
        """Compute overlaps from vertex counts; predictions that are too small are dropped."""
        if not np.isfinite(confidence).all():
            raise InputError("a confidence is NaN or infinite; give each instance a finite one")
        kept, large = size >= MIN_VERTICES, true_size >= MIN_VERTICES
        shared, size, void = shared[kept], size[kept], void[kept]
        iou = shared / (true_size[None] + size[:, None] - shared)
        ignored = (void + shared[:, ~large].sum(1)) / size
        return _Overlaps(iou[:, large], iou.max(1, initial=0.0), ignored, confidence[kept])


def _overlaps(
    truth: Int[np.ndarray, " vertices"],
    predictions: Sequence[Prediction],
    class_ids: Sequence[int],
    folded: bool,
) -> list[_Overlaps]:
    """One table of overlaps per class."""
    # Ids below 1000 have no class, so they are void.
    evaluated = np.isin(truth // INSTANCES_PER_LABEL, np.asarray(class_ids))
    ids, index = _positive(np.where(evaluated & (truth >= INSTANCES_PER_LABEL), truth, 0))
    sizes = np.bincount(index, minlength=len(ids) + 1)[1:]
    wanted = set(class_ids)
    scored = [each for each in predictions if folded or each.label in wanted]
    counts = np.zeros((len(scored), len(ids) + 1), np.int64)
    for row, prediction in enumerate(scored):
        if prediction.mask.shape != truth.shape:
            raise InputError(
                f"a mask has {prediction.mask.size} entries, the scene {truth.size} vertices; "
                "predict one entry per vertex of the evaluated mesh"
            )
        counts[row] = np.bincount(index[prediction.mask], minlength=len(ids) + 1)
    score = np.array([prediction.confidence for prediction in scored], np.float64)
    label = np.array([prediction.label for prediction in scored], np.int64)
    tables = []
    for each in (None,) if folded else class_ids:
        mine = np.flatnonzero(np.ones(len(label), bool) if each is None else label == each)
        of_class = np.arange(len(ids))
        if each is not None:
            of_class = np.flatnonzero(ids // INSTANCES_PER_LABEL == each)
        own = counts[mine]
        shared = own[:, 1 + of_class]
        tables.append(_Overlaps.build(shared, sizes[of_class], own[:, 0], own.sum(1), score[mine]))
    return tables


def _positive(
    instance: Int[np.ndarray, " vertices"],
) -> tuple[Int64[np.ndarray, " instances"], Int64[np.ndarray, " vertices"]]:
    """The ids above 0, ascending, and each vertex's position among them from 1 (0: none)."""
    ids, index = np.unique(instance, return_inverse=True)
    none = int(np.searchsorted(ids, 0, side="right"))
    return ids[none:].astype(np.int64), np.maximum(index.astype(np.int64) - none + 1, 0)


def _class_ap(scenes: Sequence[_Overlaps], overlap: float) -> float:
    """AP of one class at one overlap; NaN without truth."""
    if not any(scene.iou.shape[1] for scene in scenes):
        return float("nan")
    matched = [_match(scene, overlap) for scene in scenes]
    right = np.concatenate([each[0] for each in matched])
    score = np.concatenate([each[1] for each in matched])
    # Without a prediction the benchmark's script fails; AP is 0, as nothing was found.
    return _area(right, score, sum(each[2] for each in matched)) if len(score) else 0.0


def _match(
    scene: _Overlaps, overlap: float
) -> tuple[Bool[np.ndarray, " scored"], Float64[np.ndarray, " scored"], int]:
    """Scored predictions: whether a true positive, their confidence; number of missed instances."""
    passes = scene.iou > overlap
    used = np.zeros(len(passes), bool)
    right, score, missed = [], [], 0
    for column in passes.T:
        takers = np.flatnonzero(column & ~used)
        if not len(takers):
            missed += 1
            continue
        # Only the first is marked as used; later instances may match the duplicates again.
        used[takers[0]] = True
        best = scene.confidence[takers[0]]
        for other in scene.confidence[takers[1:]]:
            right.append(False)
            score.append(min(best, other))
            best = max(best, other)
        right.append(True)
        score.append(best)
    for wrong in np.flatnonzero((scene.best <= overlap) & (scene.ignored <= overlap)):
        right.append(False)
        score.append(scene.confidence[wrong])
    return np.array(right, bool), np.array(score, np.float64), missed


def _area(
    right: Bool[np.ndarray, " scored"], score: Float64[np.ndarray, " scored"], missed: int
) -> float:
    """Area under the precision-recall curve, with the benchmark's recall steps."""
    order = np.argsort(score)
    right = right[order]
    _, first = np.unique(score[order], return_index=True)
    below = np.concatenate([[0], np.cumsum(right)])[first]
    found = np.count_nonzero(right) - below
    precision = np.append(found / (len(right) - first), 1.0)
    # Instances whose match has a lower score count as missed at this score.
    recall = np.append(found / np.maximum(found + below + missed, 1), 0.0)
    steps = np.convolve(np.concatenate([recall[:1], recall, [0.0]]), [-0.5, 0.0, 0.5], "valid")
    return _dot(precision.tolist(), steps.tolist())


def _dot(a: list[float], b: list[float]) -> float:
    """The dot product, bit for bit as in the benchmark's reference numbers.

    NumPy's result differs between processors. This computes it with fused multiply-add: 16
    partial sums, added pairwise, then the remaining elements.
    """
    blocks = len(a) // 16 * 16
    sums = [0.0] * 16
    for i in range(blocks):
        sums[i % 16] = _fused(a[i], b[i], sums[i % 16])
    lanes = [sums[i] + sums[i + 4] + sums[i + 8] + sums[i + 12] for i in range(4)]
    rest = 0.0
    for i in range(blocks, len(a)):
        rest = _fused(a[i], b[i], rest)
    return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]) + rest


def _fused(a: float, b: float, c: float) -> float:
    """A * b + c, rounded once."""
    return float(Fraction(a) * Fraction(b) + Fraction(c))


def _numbers(ap: float, ap50: float, ap25: float) -> dict[str, float | None]:
    found = {"ap": ap, "ap50": ap50, "ap25": ap25}
    return {name: None if np.isnan(each) else each for name, each in found.items()}


def _averaged(
    table: Float64[np.ndarray, "classes overlaps"], class_ids: Sequence[int], protocol: str
) -> AveragePrecision:
    """AP, AP50 and AP25 as means over classes and overlaps."""
    # Sum overlap by overlap, as the benchmark does: the order affects the last decimal.
    nine = np.ascontiguousarray(table[:, :-1].T)
    ap, ap50, ap25 = (_mean_known(each) for each in (nine, table[:, 0], table[:, -1]))
    return AveragePrecision(ap, ap50, ap25, table, tuple(class_ids), protocol)


def _mean_known(values: Float64[np.ndarray, "..."]) -> float:
    """Mean of the values that are not NaN; NaN if all are NaN."""
    return float("nan") if np.isnan(values).all() else float(np.nanmean(values))
