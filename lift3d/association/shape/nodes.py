"""Features by which a classifier predicts whether a node is exactly one object."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from lift3d.association.shape.borders import (
    COLOUR,
    EDGES,
    FOLDS,
    INWARD,
    OBSERVED,
    OUTWARD,
    OWN,
    PAIRS,
    RIDGES,
    RISE,
    RISE_BACK,
    SAME_MASK,
    SEAM,
    SEAMS,
    STEP,
)
from lift3d.association.shape.moments import SUMS, solids
from lift3d.association.shape.pieces import LEVEL, SIZE, UPRIGHT, Pieces

LEAST_CONTACT = 3
"""Surfels; a narrower contact does not count for the most probable neighbour. Chosen by hand; not
tuned on data."""
RIM = (INWARD, OUTWARD, STEP, RISE, RISE_BACK, SEAM, COLOUR, FOLDS, RIDGES, SEAMS, EDGES)
"""Sums over the border with all neighbours but layout, each per pair of surfels."""

CUES = (
    "size", "border", "border along floor and walls", "border along objects",
    "most probable neighbour", "mean neighbour", "level", "upright", "square",
    "inward bend", "outward bend", "step",
    "rises", "neighbours rise", "seam", "edge", "share of folds", "share of ridges",
    "share of seams", "share of edges", "views agree", "thickness", "breadth", "length",
    "faces one way", "filled", "border in widths",
    "merge probability", "merge probability of the parent", "least merge probability inside",
    "pieces", "share of the larger child", "share of the sibling",
)  # fmt: skip
"""Names of a node's features, in order; the last six come from the hierarchy."""
AT_MERGE = CUES.index("thickness")
"""Number of features, the first ones, that are computed when a node is made."""


class NodeCues:
    """Features of the nodes of a hierarchy, computed while pieces are merged."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self._rows: list[list[float]] = []
        self._moments: list[np.ndarray] = []
        self.layout: list[bool] = []

    def add(self, one: int, probability: dict[int, float]) -> None:
        """Add the node that piece `one` is now, with its merge probability by neighbour."""
        pieces = self._pieces
        sums, around = pieces.sums[one], max(pieces.around[one], 1)
        rim, along, highest, mean = np.zeros(EDGES + 1), 0.0, 0.0, 0.0
        for other, border in pieces.edge[one].items():
            contact = float(border[OWN])
            if pieces.layout[other]:
                along += contact
                continue
            rim += border
            mean += contact * probability.get(other, 0.0)
            if contact >= LEAST_CONTACT:
                highest = max(highest, probability.get(other, 0.0))
        size, upright = float(sums[SIZE]), float(sums[UPRIGHT])
        self._rows.append([
            size, around, along / around, rim[OWN] / around, highest, mean / around,
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
        probability: Float64[np.ndarray, " nodes"],
    ) -> Float64[np.ndarray, "nodes cues"]:
        """Features named in `CUES`, from the finished tree and its merge probabilities."""
        rows = np.array(self._rows, np.float64).reshape(-1, AT_MERGE)
        moments = np.array(self._moments, np.float64).reshape(-1, SUMS)
        size, around = rows[:, 0].copy(), rows[:, 1].copy()
        rows[:, :2] = np.log1p(rows[:, :2])
        joined = parent >= 0
        into = np.where(joined, probability[parent], 0.0)
        share = np.where(joined, 1 - size / np.maximum(size[parent], 1), 0.0)
        leaves = len(size) - len(children)
        least, pieces, larger = probability.copy(), np.ones(len(size)), np.ones(len(size))
        for node, (one, other) in enumerate(children.tolist(), start=leaves):
            least[node] = min(probability[node], least[one], least[other])
            pieces[node] = pieces[one] + pieces[other]
            larger[node] = max(size[one], size[other]) / size[node]
        return np.c_[
            rows, solids(moments, size), around / np.sqrt(size),
            probability, into, least, np.log(pieces), larger, share,
        ]  # fmt: skip
