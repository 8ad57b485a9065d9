"""What tells whether two pieces are parts of one thing, and whether a thing is whole."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from lift3d.association.shape.borders import (
    AGREED,
    ASKED,
    COLOUR,
    EDGES,
    FOLDS,
    INWARD,
    OTHERS,
    OUTWARD,
    OWN,
    PAIRS,
    RIDGES,
    RISE,
    RISE_BACK,
    SEAM,
    SEAMS,
    STEP,
    TURNED,
)
from lift3d.association.shape.pieces import BINS, LEVEL, LIGHT, SIZE, UPRIGHT, Pairs, Pieces

FEWEST, SQUARE = 20, 0.85
"""Upright surfels of a box, and how much alike their directions are, modulo right angles."""
SLIVER = 3
"""A contact of fewer surfels says nothing of a thing."""

CUES = {
    "size of the smaller": 0, "size of the larger": 0, "contact in widths": 0, "contact": 0,
    "share of the smaller's border": 0, "share of the larger's border": 0,
    "inward bend": -1, "outward bend": 0, "step": -1, "the smaller rises": 0, "the larger rises": 0,
    "views agree": 1, "lightness": -1, "hue": -1, "colours in common": 1, "turned": -1,
    "seam": -1, "edge": -1, "share of folds": -1, "share of ridges": 0, "share of seams": -1,
    "share of edges": -1, "the smaller level": 0, "the larger level": 0, "the smaller upright": 0,
    "layout": -1,
}  # fmt: skip
"""Cues of a pair, in order; 1 where more can only speak for one thing, -1 against it."""


def cues(pieces: Pieces, pairs: Pairs) -> Float64[np.ndarray, "pairs cues"]:
    """Those of `CUES`; NaN where not known. Sizes and contacts are in surfels, as logarithms."""
    one, other = np.array(pairs, np.int64).T
    sums = np.array([pieces.edge[p][q] for p, q in pairs])
    turn = pieces.sums[one, SIZE] > pieces.sums[other, SIZE]
    small, large = np.where(turn, other, one), np.where(turn, one, other)
    sums = np.where(turn[:, None], sums[:, TURNED], sums)
    of_small, of_large = pieces.sums[small], pieces.sums[large]
    size, contact, border = of_small[:, SIZE], sums[:, OWN], sums[:, PAIRS]
    asked = sums[:, ASKED]
    agreed = np.where(asked > 0, sums[:, AGREED] / np.maximum(asked, 1e-9), np.nan)
    lab = of_small[:, LIGHT] / size[:, None] - of_large[:, LIGHT] / of_large[:, [SIZE]]
    bins = [each[:, BINS] for each in (of_small, of_large)]
    share = [each / np.maximum(each.sum(1, keepdims=True), 1e-9) for each in bins]
    columns = [
        np.log1p(size),
        np.log1p(of_large[:, SIZE]),
        contact / np.sqrt(size),
        np.log1p(contact),
        contact / np.maximum(pieces.around[small], 1),
        sums[:, OTHERS] / np.maximum(pieces.around[large], 1),
        *(sums[:, each] / border for each in (INWARD, OUTWARD, STEP, RISE, RISE_BACK)),
        agreed,
        np.abs(lab[:, 0]),
        np.linalg.norm(lab[:, 1:], axis=1),
        np.minimum(*share).sum(1),
        _turned(pieces, small, large),
        *(sums[:, each] / border for each in (SEAM, COLOUR, FOLDS, RIDGES, SEAMS, EDGES)),
        of_small[:, LEVEL] / size,
        of_large[:, LEVEL] / of_large[:, SIZE],
        of_small[:, UPRIGHT] / size,
        (pieces.layout[small] | pieces.layout[large]).astype(np.float64),
    ]
    return np.stack(columns, axis=1)


def _turned(
    pieces: Pieces, one: Int64[np.ndarray, " pairs"], other: Int64[np.ndarray, " pairs"]
) -> Float64[np.ndarray, " pairs"]:
    """Degrees by which one box is turned on another about the vertical; NaN where either is none.

    Parts of one thing are aligned, loose things lie as they fell.
    """
    known = np.ones(len(one), bool)
    for each in (one, other):
        upright = pieces.sums[each, UPRIGHT]
        known &= (upright >= FEWEST) & (np.abs(pieces.turn[each]) > SQUARE * upright)
    angle = np.angle(pieces.turn[one] * pieces.turn[other].conj())
    return np.where(known, np.degrees(np.abs(angle)) / 4, np.nan)


def whole(
    pieces: Pieces,
    kept: Int64[np.ndarray, " things"],
    extent: Float64[np.ndarray, "things 3"],
) -> Float64[np.ndarray, "things cues"]:
    """Cues of a joined thing: its size, its principal standard deviations in cells (`extent`,
    ascending), its border along floor and walls, and how nearly it was joined to its neighbours.
    """
    size = pieces.sums[kept, SIZE]
    rows = np.zeros((len(kept), 5))
    for row, one in zip(rows, kept.tolist(), strict=True):
        around = max(pieces.around[one], 1)
        row[0] = sum(each[OWN] for q, each in pieces.edge[one].items() if pieces.layout[q]) / around
        row[4] = np.log1p(pieces.around[one])
        pairs = [(one, q) for q in sorted(pieces.edge[one]) if not pieces.layout[q]]
        if pieces.layout[one] or not pairs:
            continue
        likely = pieces.judge(pieces, pairs)
        contact = np.array([pieces.edge[p][q][OWN] for p, q in pairs])
        row[1] = likely[contact >= SLIVER].max(initial=0)
        row[2], row[3] = (likely * contact).sum() / around, contact.sum() / around
    return np.c_[np.log1p(size), extent, rows]
