"""Features by which a classifier predicts whether two pieces are parts of one object."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from lift3d.association.shape.borders import (
    COLOUR,
    EDGES,
    FOLDS,
    INWARD,
    OBSERVED,
    OTHERS,
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
    TURNED,
)
from lift3d.association.shape.moments import meetings, solids
from lift3d.association.shape.pieces import BINS, LEVEL, LIGHT, SIZE, UPRIGHT, Pairs, Pieces

LEAST_UPRIGHT, LEAST_ALIGNED = 20, 0.85
"""Minimum upright surfels of a box, and minimum length of their mean direction modulo right angles.
Chosen by hand; not tuned on data."""

CUES = {
    "size of the smaller": 0, "size of the larger": 0, "contact in widths": 0, "contact": 0,
    "share of the smaller's border": 0, "share of the larger's border": 0,
    "inward bend": -1, "outward bend": 0, "step": -1, "the smaller rises": 0, "the larger rises": 0,
    "views agree": 1, "lightness": -1, "hue": -1, "colours in common": 1, "turned": -1,
    "seam": -1, "edge": -1, "share of folds": -1, "share of ridges": 0, "share of seams": -1,
    "share of edges": -1, "the smaller level": 0, "the larger level": 0, "the smaller upright": 0,
    "layout": -1,
    "thickness of the smaller": 0, "breadth of the smaller": 0, "length of the smaller": 0,
    "thickness of the larger": 0, "breadth of the larger": 0, "length of the larger": 0,
    "thickness of both": 0, "breadth of both": 0, "length of both": 0,
    "the smaller faces one way": 0, "the larger faces one way": 0, "both face one way": 0,
    "filled": 0, "widths along the edge": 0, "beside along the edge": -1,
    "edge of the smaller shared": 0, "edge of the larger shared": 0,
}  # fmt: skip
"""Names of a pair's features, in order, with the sign of their effect on the probability that both
are one object; 0 where it is not constrained."""


def cues(pieces: Pieces, pairs: Pairs) -> Float64[np.ndarray, "pairs cues"]:
    """Features named in `CUES`; NaN where unknown. Sizes and contacts are log1p of surfels."""
    one, other = np.array(pairs, np.int64).T
    sums = np.array([pieces.edge[p][q] for p, q in pairs])
    turn = pieces.sums[one, SIZE] > pieces.sums[other, SIZE]
    small, large = np.where(turn, other, one), np.where(turn, one, other)
    sums = np.where(turn[:, None], sums[:, TURNED], sums)
    of_small, of_large = pieces.sums[small], pieces.sums[large]
    size, contact, border = of_small[:, SIZE], sums[:, OWN], sums[:, PAIRS]
    observed = sums[:, OBSERVED]
    agreement = np.where(observed > 0, sums[:, SAME_MASK] / np.maximum(observed, 1e-9), np.nan)
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
        agreement,
        np.abs(lab[:, 0]),
        np.linalg.norm(lab[:, 1:], axis=1),
        np.minimum(*share).sum(1),
        _turned(pieces, small, large),
        *(sums[:, each] / border for each in (SEAM, COLOUR, FOLDS, RIDGES, SEAMS, EDGES)),
        of_small[:, LEVEL] / size,
        of_large[:, LEVEL] / of_large[:, SIZE],
        of_small[:, UPRIGHT] / size,
        (pieces.layout[small] | pieces.layout[large]).astype(np.float64),
        *_solid(pieces, small, large, contact),
    ]
    return np.stack(columns, axis=1)


def _turned(
    pieces: Pieces, one: Int64[np.ndarray, " pairs"], other: Int64[np.ndarray, " pairs"]
) -> Float64[np.ndarray, " pairs"]:
    """Degrees between two boxes about the vertical, modulo 90; NaN where either is no box.

    Parts of one object are mostly aligned, separate objects often are not.
    """
    known = np.ones(len(one), bool)
    for each in (one, other):
        upright = pieces.sums[each, UPRIGHT]
        known &= (upright >= LEAST_UPRIGHT) & (np.abs(pieces.turn[each]) > LEAST_ALIGNED * upright)
    angle = np.angle(pieces.turn[one] * pieces.turn[other].conj())
    return np.where(known, np.degrees(np.abs(angle)) / 4, np.nan)


def _solid(
    pieces: Pieces,
    small: Int64[np.ndarray, " pairs"],
    large: Int64[np.ndarray, " pairs"],
    contact: Float64[np.ndarray, " pairs"],
) -> list[Float64[np.ndarray, " pairs"]]:
    """Extents of both pieces and of their union, and widths along their common edge."""
    one, other = pieces.moments[small], pieces.moments[large]
    size, larger = pieces.sums[small, SIZE], pieces.sums[large, SIZE]
    little, large_one, both = (
        solids(*each).T for each in ((one, size), (other, larger), (one + other, size + larger))
    )
    wide, wider, beside = meetings(one, size, other, larger).T
    return [
        *little[:3],
        *large_one[:3],
        *both[:3],
        *(each[3] for each in (little, large_one, both)),
        both[4],
        np.log(wide / wider),
        beside / np.minimum(wide, wider),
        contact / wide,
        contact / wider,
    ]
