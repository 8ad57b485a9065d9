"""The consistency H (Eq. 4-6) with chance level, coverage and number of labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, no_type_check

import numpy as np
from jaxtyping import Float32, Float64, Int32

from lift3d.evaluation.consistency.counts import NeighbourCounts, neighbour_counts
from lift3d.scene.compiled import compiled

Exclude: TypeAlias = Literal["nothing", "self", "view"]
EXCLUDES: tuple[Exclude, ...] = ("nothing", "self", "view")


@dataclass(frozen=True, eq=False)
class Consistency:
    """H with the values needed to interpret it; `str` shows all of them.

    A single label everywhere has H = 1, so read H together with `coverage`, `labels` and
    `H_prime`.
    """

    H: float
    """Mean over pixels of the share of E with the pixel's label, 0 to 1; NaN without valid
    pixels."""
    H0: float
    """Expected H if the ids of every view were permuted independently."""
    exclude: Exclude
    foreground: bool
    epsilon: float
    pixels: int
    """Number of valid pixels."""
    alone: int
    """Number of pixels that are not valid, because their E is empty."""
    coverage: float
    """Share of labelled pixels."""
    labels: int
    """Number of ids in use, without 0."""
    view_H: Float64[np.ndarray, " views"]
    """H over the pixels of each view; NaN without valid pixels."""
    h: Float32[np.ndarray, " pixels"] | None = None
    """h of each pixel, with `return_pixels`; NaN if not valid."""

    @property
    def H_prime(self) -> float:
        """H corrected for chance, (H - H0) / (1 - H0): 0 is chance, 1 is perfect.

        NaN if H0 is 1, as with a single label everywhere.
        """
        return (self.H - self.H0) / (1 - self.H0) if self.H0 < 1 else float("nan")

    def summary(self) -> dict[str, Any]:
        """All values except `h`, for JSON; NaN becomes None."""
        return {
            "H": _number(self.H),
            "H0": _number(self.H0),
            "H_prime": _number(self.H_prime),
            "exclude": self.exclude,
            "foreground": self.foreground,
            "epsilon": self.epsilon,
            "pixels": self.pixels,
            "alone": self.alone,
            "coverage": _number(self.coverage),
            "labels": self.labels,
            "view_H": [_number(float(value)) for value in self.view_H],
        }

    def __str__(self) -> str:
        scope = "labelled pixels" if self.foreground else "all pixels"
        return (
            f"H {_percent(self.H)} (chance {_percent(self.H0)}, H' {_percent(self.H_prime)}; "
            f"epsilon {self.epsilon:g}, exclude {self.exclude}, {scope}) "
            f"over {self.pixels:,} pixels, {self.alone:,} alone; "
            f"coverage {_percent(self.coverage)}, {self.labels:,} labels"
        )


def consistency(
    xyz: Float32[np.ndarray, "pixels 3"],
    label: Int32[np.ndarray, " pixels"],
    view: Int32[np.ndarray, " pixels"],
    epsilon: float,
    exclude: Exclude = "nothing",
    foreground: bool = False,
    return_pixels: bool = False,
) -> Consistency:
    """H of labelled pixels of many views, exactly (MastSAM, Eq. 4-6).

    `xyz` is the world position of each pixel, `label` its id (0 = unlabelled), `view` the index
    of its image. E of a pixel is the set of pixels of all images within `epsilon` (inclusive; see
    `neighbour_counts`); h is the share of E with the pixel's label; H is the mean of h. The sum
    over E is divided by |E|: the paper's equation has a 2-norm there, its text a mean.

    `exclude` removes pixels from E:

    * "nothing": E includes the pixel itself and pixels of its own view, as in the paper;
    * "self": E is without the pixel itself;
    * "view": E is without the pixel's own view, so that only agreement between views counts.

    Pixels with an empty E are not valid: they are excluded from the mean and counted in `alone`.

    By default, unlabelled (0) is a label like any other, so background that is unlabelled in every
    view agrees. With `foreground`, the mean is over labelled pixels only; their unlabelled
    neighbours are still in E and disagree with them.

    `H0` is the mean of H over all independent permutations of the ids of each view, among all ids
    in use; unlabelled pixels stay unlabelled. It is exact, not sampled: agreement within a view is
    unchanged, labelled pixels of two views agree with probability 1 / `labels`, and unlabelled
    pixels always agree.
    """
    counts = neighbour_counts(xyz, label, view, epsilon)
    return score(counts, label, view, epsilon, exclude, foreground, return_pixels)


def score(
    counts: NeighbourCounts,
    label: Int32[np.ndarray, " pixels"],
    view: Int32[np.ndarray, " pixels"],
    epsilon: float,
    exclude: Exclude = "nothing",
    foreground: bool = False,
    return_pixels: bool = False,
    views: int | None = None,
) -> Consistency:
    """H from existing counts, which are the same for every `exclude`.

    `views` is the number of views; needed if the last views have no pixels.
    """
    if views is None:
        views = int(view.max()) + 1 if len(view) else 0
    h = np.full(len(label) if return_pixels else 0, np.nan, np.float32)
    ids = _ids(label)
    members, totals, totals_by_chance = _sums(
        counts.table, label, view, views, 1 / max(ids, 1), EXCLUDES.index(exclude), foreground, h
    )
    included = int(np.count_nonzero(label > 0)) if foreground else len(label)
    valid = int(members.sum())
    return Consistency(
        H=_ratio(float(totals.sum()), float(members.sum())),
        H0=_ratio(float(totals_by_chance.sum()), float(members.sum())),
        exclude=exclude,
        foreground=foreground,
        epsilon=float(epsilon),
        pixels=valid,
        alone=included - valid,
        coverage=_ratio(int(np.count_nonzero(label > 0)), len(label)),
        labels=ids,
        view_H=np.divide(totals, members, out=np.full(views, np.nan), where=members > 0),
        h=h if return_pixels else None,
    )


@compiled()
@no_type_check
def _sums(table, label, view, views, probability, exclude, foreground, h):
    """Per view: valid pixels, sum of their h, and the sum expected by chance.

    `exclude` is the index in `EXCLUDES`. Labelled pixels of two views agree by chance with
    `probability`. `h` is filled at the valid pixels, if it has any.
    """
    members, totals, by_chance = np.zeros(views), np.zeros(views), np.zeros(views)
    for i in range(len(label)):
        if foreground and label[i] == 0:
            continue
        size, same, kind = table[i, 0], table[i, 1], table[i, 2]
        own, own_same, own_kind = table[i, 3], table[i, 4], table[i, 5]
        chance = float(kind - own_kind)
        if label[i] > 0:
            chance *= probability
        if exclude == 2:
            size, same = size - own, same - own_same
        else:
            size, same = size - exclude, same - exclude
            chance += own_same - exclude
        if size <= 0:
            continue
        members[view[i]] += 1
        totals[view[i]] += same / size
        by_chance[view[i]] += chance / size
        if len(h):
            h[i] = same / size
    return members, totals, by_chance


def _ids(label: Int32[np.ndarray, " pixels"]) -> int:
    """Number of ids in use, without 0."""
    if len(label) == 0:
        return 0
    if label.max() < 1 << 22:  # faster than sorting
        return int(np.count_nonzero(np.bincount(label)[1:]))
    return len(np.unique(label[label > 0]))


def _ratio(part: float | int, total: float | int) -> float:
    return float(part / total) if total > 0 else float("nan")


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value


def _percent(value: float) -> str:
    return "undefined" if np.isnan(value) else f"{100 * value:.2f} %"
