"""The consistency H (Eq. 4-6), and what must stand beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float32, Float64, Int32

from lift3d.evaluation.consistency.counts import NeighbourCounts, neighbour_counts

Exclude: TypeAlias = Literal["nothing", "self", "view"]


@dataclass(frozen=True, eq=False)
class Consistency:
    """H and all that it takes to judge it; printing it prints everything.

    One label everywhere scores H = 1, so H alone says nothing: read it with `coverage`,
    `labels` and `H_prime`.
    """

    H: float
    """Mean over the pixels of the share of E that has the pixel's label, 0 to 1; NaN where
    no pixel counts."""
    H0: float
    """What H would be on average if every view's ids were permuted independently."""
    exclude: Exclude
    foreground: bool
    epsilon: float
    pixels: int
    """Pixels the mean is over."""
    alone: int
    """Pixels left out of the mean because nothing is left in their E."""
    coverage: float
    """Share of all pixels that have a label."""
    labels: int
    """Ids in use, 0 not among them."""
    view_H: Float64[np.ndarray, " views"]
    """H over the pixels of each view; NaN where none counts."""
    h: Float32[np.ndarray, " pixels"] | None = None
    """h of each pixel where asked for; NaN where the pixel does not count."""

    @property
    def H_prime(self) -> float:
        """H corrected for chance, (H - H0) / (1 - H0): 0 is chance, 1 is perfect.

        NaN where chance alone gives 1, as with one label everywhere: nothing was tested.
        """
        return (self.H - self.H0) / (1 - self.H0) if self.H0 < 1 else float("nan")

    def summary(self) -> dict[str, Any]:
        """All but the pixels, ready for JSON; NaN becomes None."""
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

    `xyz` is where each pixel lies in the world, `label` its id (0 = unlabelled), `view` the
    index of its image. E of a pixel is every pixel of every image within `epsilon`
    (inclusive; see `neighbour_counts`); h is the share of E with the pixel's label; H is the
    mean of h. E is divided by its size |E|: the paper prints a 2-norm, its text a mean.

    `exclude` says what E leaves out:

    * "nothing": E holds the pixel itself and its neighbours in its own view, as in the paper;
    * "self": the pixel itself is left out;
    * "view": the pixel's own view is left out, so that only agreement between views counts.

    A pixel whose E is empty is left out of the mean and counted in `alone`.

    Unlabelled pixels: by default 0 is a label like any other, so background that is
    background in every view agrees. With `foreground`, the mean is over labelled pixels
    only; their unlabelled neighbours stay in E and disagree with them.

    `H0` is the mean of H over all ways to permute the ids of each view independently,
    among all ids in use, unlabelled staying unlabelled. It is exact, not sampled: pixels of
    one view keep agreeing as they did, labelled pixels of two views agree with probability
    1 / `labels`, unlabelled ones always.
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
    """H from counts that exist already: one count serves every `exclude`.

    `views` is how many views there are, where the last may have no pixels.
    """
    size, same, chance = _terms(counts, label, exclude)
    asked = label > 0 if foreground else np.ones(len(label), bool)
    valid = asked & (size > 0)
    if views is None:
        views = int(view.max()) + 1 if len(view) else 0
    members = np.bincount(view, weights=valid, minlength=views)
    h = np.divide(same, size, out=np.zeros(len(size)), where=valid)
    totals = np.bincount(view, weights=h, minlength=views)
    by_chance = np.divide(chance, size, out=np.zeros(len(size)), where=valid)
    totals_by_chance = np.bincount(view, weights=by_chance, minlength=views)
    h[~valid] = np.nan
    return Consistency(
        H=_ratio(float(totals.sum()), float(members.sum())),
        H0=_ratio(float(totals_by_chance.sum()), float(members.sum())),
        exclude=exclude,
        foreground=foreground,
        epsilon=float(epsilon),
        pixels=int(valid.sum()),
        alone=int(asked.sum() - valid.sum()),
        coverage=_ratio(int(np.count_nonzero(label > 0)), len(label)),
        labels=_ids(label),
        view_H=np.divide(totals, members, out=np.full(views, np.nan), where=members > 0),
        h=h.astype(np.float32) if return_pixels else None,
    )


def _terms(
    counts: NeighbourCounts, label: Int32[np.ndarray, " pixels"], exclude: Exclude
) -> tuple[
    Int32[np.ndarray, " pixels"], Int32[np.ndarray, " pixels"], Float64[np.ndarray, " pixels"]
]:
    """Per pixel: |E|, how many of E agree, and how many would on average by chance."""
    # A labelled pixel of another view keeps its label's agreement one time in `labels`.
    odds = np.where(label > 0, 1 / max(_ids(label), 1), 1.0)
    chance = (counts.kin - counts.view_kin) * odds
    if exclude == "view":
        return counts.all - counts.view_all, counts.same - counts.view_same, chance
    chance += counts.view_same
    if exclude == "self":
        return counts.all - np.int32(1), counts.same - np.int32(1), chance - 1
    return counts.all, counts.same, chance


def _ids(label: Int32[np.ndarray, " pixels"]) -> int:
    """How many ids are in use."""
    if len(label) == 0:
        return 0
    if label.max() < 1 << 22:  # faster than sorting
        return int(np.count_nonzero(np.bincount(label)[1:]))
    return len(np.unique(label[label > 0]))


def _ratio(part: float | int, whole: float | int) -> float:
    return float(part / whole) if whole > 0 else float("nan")


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value


def _percent(value: float) -> str:
    return "undefined" if np.isnan(value) else f"{100 * value:.2f} %"
