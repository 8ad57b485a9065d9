"""How often views put two neighbouring pieces of surface into one mask."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from lift3d.association.looks import Look
from lift3d.scene import Points

LEAST_SURFELS = 2
"""Minimum surfels of each piece that a view must see to count. Chosen by hand; not tuned on
data."""
LEAST_WEIGHT = 3.0
"""Minimum total weight; below it the agreement is NaN. Chosen by hand; not tuned on data."""


class Agreement:
    """Accumulates, over views, mask co-occurrence of pairs of pieces.

    A piece has the mask that covers most of it. The weight of a view grows with the number of
    surfels that it sees of both pieces, and with the share of each that its mask covers.
    """

    def __init__(
        self,
        surfels: Points,
        piece: Int64[np.ndarray, " surfels"],
        one: Int64[np.ndarray, " pairs"],
        other: Int64[np.ndarray, " pairs"],
    ) -> None:
        self._surfels, self._piece = surfels, piece
        self._one, self._other = one, other
        self._count = int(piece.max(initial=-1)) + 1
        self._same, self._weight = np.zeros(len(one)), np.zeros(len(one))

    def add(self, look: Look) -> None:
        """Add one view; `look` may be of any points."""
        look = look.at(self._surfels)
        label = look.label.astype(np.int64)
        piece = self._piece[look.seen.point]
        seen = np.bincount(piece, minlength=self._count)
        piece, label = piece[label > 0], label[label > 0]
        most = int(label.max(initial=0)) + 1
        key, covered = np.unique(piece * most + label, return_counts=True)
        order = np.argsort(covered, kind="stable")  # the largest of a piece is written last
        mask, share = np.zeros(self._count, np.int64), np.zeros(self._count)
        mask[key[order] // most] = key[order] % most
        share[key[order] // most] = covered[order]
        share /= np.maximum(seen, 1)
        one, other = self._one, self._other
        both = np.minimum(seen[one], seen[other])
        observed = (mask[one] > 0) & (mask[other] > 0) & (both >= LEAST_SURFELS)
        weight = observed * np.sqrt(both) * share[one] * share[other]
        self._same += weight * (mask[one] == mask[other])
        self._weight += weight

    def counts(
        self,
    ) -> tuple[
        Int64[np.ndarray, "pairs 2"], Float64[np.ndarray, " pairs"], Float64[np.ndarray, " pairs"]
    ]:
        """The pairs; the weight of the views with both in one mask; that of all views."""
        return np.stack([self._one, self._other], axis=1), self._same, self._weight


def shares(
    same: Float64[np.ndarray, " pairs"], weight: Float64[np.ndarray, " pairs"]
) -> Float64[np.ndarray, " pairs"]:
    """Weighted share of views with both in one mask; NaN under `LEAST_WEIGHT`."""
    return np.where(weight >= LEAST_WEIGHT, same / np.maximum(weight, 1e-9), np.nan)
