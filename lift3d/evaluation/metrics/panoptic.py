"""Panoptic quality (Kirillov et al., CVPR 2019) of pictures, points and scenes.

PQ = sum of IoU over true positives / (TP + FP / 2 + FN / 2). A true and a predicted segment of
the same class match if their IoU exceeds 0.5, so each segment has at most one match. For a scene
(Siddiqui et al., CVPR 2023), a segment is all pixels of an id in all views, so an object whose id
changes between views does not match.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int, Int64

from lift3d.scene.errors import InputError

THRESHOLD = 0.5
"""IoU that a match must exceed, as defined by the paper."""


@dataclass(frozen=True, eq=False)
class PanopticQuality:
    """PQ, SQ and RQ, 0 to 1; per class PQ = SQ * RQ."""

    pq: float
    """Mean over the classes in truth or prediction; NaN without any."""
    sq: float
    """Segmentation quality: mean IoU of matches."""
    rq: float
    """Recognition quality: F1 score."""
    matches: int
    wrong: int
    """False positives: predicted segments without a match."""
    missed: int
    """False negatives: true segments without a match."""
    per_class: dict[int, float]
    """PQ by class; the only class is 1 if segments have no classes."""
    protocol: str

    def summary(self) -> dict[str, Any]:
        """Values for JSON; NaN becomes None."""
        found = {"pq": self.pq, "sq": self.sq, "rq": self.rq}
        numbers = {name: None if np.isnan(each) else each for name, each in found.items()}
        counts = {"matches": self.matches, "wrong": self.wrong, "missed": self.missed}
        return {"protocol": self.protocol, **numbers, **counts}


class SharedPixels:
    """Number of pixels that each true segment shares with each predicted segment."""

    def __init__(self) -> None:
        self._pair = np.zeros(0, np.int64)
        self._count = np.zeros(0, np.int64)

    def add(self, truth: Int[np.ndarray, "*shape"], predicted: Int[np.ndarray, "*shape"]) -> None:
        """Add a picture (or points). 0 is void in the truth and no segment in the prediction."""
        if truth.size and min(truth.min(), predicted.min()) < 0:
            raise InputError("segment ids below 0; 0 is void, ids start at 1")
        pair = (truth.astype(np.int64).ravel() << 32) | predicted.astype(np.int64).ravel()
        found, count = np.unique(pair, return_counts=True)
        self._pair, index = np.unique(np.concatenate([self._pair, found]), return_inverse=True)
        counts = np.concatenate([self._count, count])
        self._count = np.bincount(index, counts, len(self._pair)).astype(np.int64)

    def quality(
        self,
        protocol: str,
        true_class: Mapping[int, int] | None = None,
        predicted_class: Mapping[int, int] | None = None,
    ) -> PanopticQuality:
        """PQ of all added pictures. With classes, only segments of equal class match.

        A true segment without a class is void; a predicted segment without a class is ignored.
        """
        return _quality([self._tally(true_class, predicted_class)], protocol)

    def _tally(
        self, true_class: Mapping[int, int] | None, predicted_class: Mapping[int, int] | None
    ) -> dict[int, Float64[np.ndarray, "4"]]:
        """By class: sum of IoU, matches, wrong, missed."""
        truth, guess = self._pair >> 32, self._pair & (2**32 - 1)
        true_ids, t = np.unique(truth, return_inverse=True)
        guess_ids, g = np.unique(guess, return_inverse=True)
        kind, guess_kind = _kinds(true_ids, true_class), _kinds(guess_ids, predicted_class)
        true_size = np.bincount(t, self._count, len(true_ids))
        guess_size = np.bincount(g, self._count, len(guess_ids))
        void = np.bincount(g, self._count * (kind[t] == 0), len(guess_ids))
        # Void pixels are removed from predicted segments.
        iou = self._count / (true_size[t] + (guess_size - void)[g] - self._count).clip(1)
        matched = (kind[t] > 0) & (kind[t] == guess_kind[g]) & (iou > THRESHOLD)
        missed, wrong = kind > 0, (guess_kind > 0) & (void <= THRESHOLD * guess_size)
        missed[t[matched]] = wrong[g[matched]] = False
        tally: dict[int, Float64[np.ndarray, "4"]] = {}
        for row, kinds in ((1, kind[t[matched]]), (2, guess_kind[wrong]), (3, kind[missed])):
            for each in kinds.tolist():
                tally.setdefault(each, np.zeros(4))[row] += 1
        for each, value in zip(kind[t[matched]].tolist(), iou[matched], strict=True):
            tally[each][0] += value
        return tally


def views_quality(
    views: Iterable[tuple[Int[np.ndarray, "..."], Int[np.ndarray, "..."]]], protocol: str
) -> tuple[PanopticQuality, PanopticQuality]:
    """Class-agnostic PQ per picture and of the scene, from pairs of true and predicted label maps.

    For the first, segments are matched per picture; ids of different pictures are unrelated. For
    the second, a segment is all pixels of an id in all views.
    """
    scene, tallies, count = SharedPixels(), [], 0
    for truth, predicted in views:
        if truth.shape != predicted.shape:
            raise InputError(
                f"true label map {truth.shape[::-1]}, predicted {predicted.shape[::-1]}; "
                "expected one size"
            )
        picture = SharedPixels()
        picture.add(truth, predicted)
        scene.add(truth, predicted)
        tallies.append(picture._tally(None, None))
        count += 1
    per_picture = _quality(tallies, f"PQ picture by picture, {count} views, {protocol}")
    return per_picture, scene.quality(f"scene-level PQ over all {count} views, {protocol}")


def _kinds(
    ids: Int64[np.ndarray, " ids"], classes: Mapping[int, int] | None
) -> Int64[np.ndarray, " ids"]:
    """Class + 1 of each id, so that class 0 is valid; 0 for ids without a class."""
    if classes is None:
        return 2 * (ids > 0).astype(np.int64)
    found = [classes.get(each, -1) + 1 if each > 0 else 0 for each in ids.tolist()]
    return np.array(found, np.int64)


def _quality(
    tallies: Iterable[Mapping[int, Float64[np.ndarray, "4"]]], protocol: str
) -> PanopticQuality:
    total: dict[int, Float64[np.ndarray, "4"]] = {}
    for tally in tallies:
        for kind, numbers in tally.items():
            total[kind] = total.get(kind, np.zeros(4)) + numbers
    table = np.array([total[kind] for kind in sorted(total)]).reshape(-1, 4)
    iou, matches, wrong, missed = table.T
    pq = iou / np.maximum(matches + wrong / 2 + missed / 2, 0.5)
    rq = matches / np.maximum(matches + wrong / 2 + missed / 2, 0.5)
    # Only over classes with a match; others have no IoU.
    sq = (iou[matches > 0] / matches[matches > 0]).tolist()
    return PanopticQuality(
        _mean(pq.tolist()),
        _mean(sq),
        _mean(rq.tolist()),
        int(matches.sum()),
        int(wrong.sum()),
        int(missed.sum()),
        dict(zip([kind - 1 for kind in sorted(total)], pq.tolist(), strict=True)),
        protocol,
    )


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
