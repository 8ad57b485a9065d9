"""What tells whether a thing is whole: neither a part nor several."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from lift3d.association.shape.borders import (
    SAME_MASK,
    OBSERVED,
    COLOUR,
    EDGES,
    FOLDS,
    INWARD,
    OUTWARD,
    OWN,
    PAIRS,
    RIDGES,
    RISE,
    RISE_BACK,
    SEAM,
    SEAMS,
    STEP,
)
from lift3d.association.shape.moments import SUMS, solids
from lift3d.association.shape.pieces import LEVEL, SIZE, UPRIGHT, Pieces

SLIVER = 3
"""A contact of fewer surfels says nothing of a thing."""
RIM = (INWARD, OUTWARD, STEP, RISE, RISE_BACK, SEAM, COLOUR, FOLDS, RIDGES, SEAMS, EDGES)
"""Sums over the border with other things, each per pair of surfels."""

CUES = (
    "size", "border", "border along floor and walls", "border along things", "surest neighbour",
    "mean neighbour", "level", "upright", "square", "inward bend", "outward bend", "step",
    "rises", "neighbours rise", "seam", "edge", "share of folds", "share of ridges",
    "share of seams", "share of edges", "views agree", "thickness", "breadth", "length",
    "faces one way", "filled", "border in widths",
    "joined by", "joins by", "weakest join", "pieces", "larger part", "joins a larger",
)  # fmt: skip
"""Cues of a thing, in order; the last six are those of the hierarchy."""
SEEN = CUES.index("thickness")
"""The first so many are noted when a thing comes to be."""


class NodeCues:
    """Cues of the things that come to be while pieces are joined, each seen as it then was."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._rows: list[list[float]] = []
        self._moments: list[np.ndarray] = []
        self.layout: list[bool] = []

    def add(self, one: int, likely: dict[int, float]) -> None:
        """The thing that piece `one` is now; how likely it is one with each neighbour."""
        pieces = self._pieces
        sums, around = pieces.sums[one], max(pieces.around[one], 1)
        rim, along, surest, mean = np.zeros(EDGES + 1), 0.0, 0.0, 0.0
        for other, border in pieces.edge[one].items():
            contact = float(border[OWN])
            if pieces.layout[other]:
                along += contact
                continue
            rim += border
            mean += contact * likely.get(other, 0.0)
            if contact >= SLIVER:
                surest = max(surest, likely.get(other, 0.0))
        size, upright = float(sums[SIZE]), float(sums[UPRIGHT])
        self._rows.append([
            size, around, along / around, rim[OWN] / around, surest, mean / around,
            sums[LEVEL] / size, upright / size, abs(pieces.turn[one]) / max(upright, 1.0),
            *(rim[list(RIM)] / max(rim[PAIRS], 1e-9)),
            rim[SAME_MASK] / rim[OBSERVED] if rim[OBSERVED] > 0 else np.nan,
        ])  # fmt: skip
        self._moments.append(pieces.moments[one].copy())
        self.layout.append(bool(pieces.layout[one]))

    def cues(
        self,
        children: Int64[np.ndarray, "joins 2"],
        parent: Int64[np.ndarray, " nodes"],
        likely: Float64[np.ndarray, " nodes"],
    ) -> Float64[np.ndarray, "nodes cues"]:
        """Those of `CUES`, once all is joined: the tree, and how likely each join was."""
        rows = np.array(self._rows, np.float64).reshape(-1, SEEN)
        moments = np.array(self._moments, np.float64).reshape(-1, SUMS)
        size, around = rows[:, 0].copy(), rows[:, 1].copy()
        rows[:, :2] = np.log1p(rows[:, :2])
        joined = parent >= 0
        into = np.where(joined, likely[parent], 0.0)
        share = np.where(joined, 1 - size / np.maximum(size[parent], 1), 0.0)
        leaves = len(size) - len(children)
        weakest, pieces, larger = likely.copy(), np.ones(len(size)), np.ones(len(size))
        for node, (one, other) in enumerate(children.tolist(), start=leaves):
            weakest[node] = min(likely[node], weakest[one], weakest[other])
            pieces[node] = pieces[one] + pieces[other]
            larger[node] = max(size[one], size[other]) / size[node]
        return np.c_[
            rows, solids(moments, size), around / np.sqrt(size),
            likely, into, weakest, np.log(pieces), larger, share,
        ]  # fmt: skip
