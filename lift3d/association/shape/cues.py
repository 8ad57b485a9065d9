"""Features by which a classifier predicts whether two pieces are parts of one object."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from jaxtyping import Float64

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
)
from lift3d.association.shape.moments import meeting, solid
from lift3d.association.shape.pieces import BINS, LEVEL, LIGHT, SIZE, UPRIGHT, Pairs, Pieces
from lift3d.scene.compiled import compiled

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
FEATURES, EXTENTS = len(CUES), list(CUES).index("thickness of the smaller")
FIRST_BIN, LIGHTNESS = BINS.start, LIGHT.start
"""For the kernels: the number of features, the first of extents, and columns of the sums."""


def cues(pieces: Pieces, pairs: Pairs) -> Float64[np.ndarray, "pairs cues"]:
    """Features named in `CUES`; NaN where unknown. Sizes and contacts are log1p of surfels."""
    one, other = np.array(pairs, np.int64).T
    borders = np.array([pieces.edge[p][q] for p, q in pairs])
    graph = pieces.sums, pieces.moments, pieces.around, pieces.turn, pieces.layout
    return np.asarray(_cues(one, other, borders, *graph))


@compiled()
@no_type_check
def _cues(one, other, borders, sums, moments, around, turn, layout):
    out = np.empty((len(one), FEATURES))
    for i in range(len(one)):
        small, large, border = one[i], other[i], borders[i]
        contact, back, rise, rise_back = (
            border[OWN],
            border[OTHERS],
            border[RISE],
            border[RISE_BACK],
        )
        if sums[small, SIZE] > sums[large, SIZE]:
            small, large = large, small
            contact, back, rise, rise_back = back, contact, rise_back, rise
        mine, theirs, pairs = sums[small], sums[large], border[PAIRS]
        size, larger = mine[SIZE], theirs[SIZE]
        agreement = border[SAME_MASK] / border[OBSERVED] if border[OBSERVED] > 0 else np.nan
        lightness, green_red, blue_yellow = (
            mine[LIGHTNESS] / size - theirs[LIGHTNESS] / larger,
            mine[LIGHTNESS + 1] / size - theirs[LIGHTNESS + 1] / larger,
            mine[LIGHTNESS + 2] / size - theirs[LIGHTNESS + 2] / larger,
        )
        thickness, breadth, length, facing, _ = solid(moments[small], size)
        others = solid(moments[large], larger)
        both = solid(moments[small] + moments[large], size + larger)
        wide, wider, beside = meeting(moments[small], size, moments[large], larger)
        out[i, :EXTENTS] = (
            np.log1p(size), np.log1p(larger), contact / np.sqrt(size), np.log1p(contact),
            contact / max(around[small], 1), back / max(around[large], 1),
            border[INWARD] / pairs, border[OUTWARD] / pairs, border[STEP] / pairs,
            rise / pairs, rise_back / pairs, agreement,
            abs(lightness), np.sqrt(green_red**2 + blue_yellow**2),
            _in_common(mine[FIRST_BIN:], theirs[FIRST_BIN:]),
            _turned(mine[UPRIGHT], turn[small], theirs[UPRIGHT], turn[large]),
            border[SEAM] / pairs, border[COLOUR] / pairs, border[FOLDS] / pairs,
            border[RIDGES] / pairs, border[SEAMS] / pairs, border[EDGES] / pairs,
            mine[LEVEL] / size, theirs[LEVEL] / larger, mine[UPRIGHT] / size,
            1.0 if layout[small] or layout[large] else 0.0,
        )  # fmt: skip
        out[i, EXTENTS:] = (
            thickness, breadth, length, others[0], others[1], others[2],
            both[0], both[1], both[2], facing, others[3], both[3], both[4],
            np.log(wide / wider), beside / min(wide, wider), contact / wide, contact / wider,
        )  # fmt: skip
    return out


@compiled()
@no_type_check
def _in_common(one, other):
    """Common share of two histograms of colours."""
    mine, theirs = max(one.sum(), 1e-9), max(other.sum(), 1e-9)
    common = 0.0
    for k in range(len(one)):
        common += min(one[k] / mine, other[k] / theirs)
    return common


@compiled()
@no_type_check
def _turned(upright, turn, other_upright, other_turn):
    """Degrees between two boxes about the vertical, modulo 90; NaN where either is no box.

    Parts of one object are mostly aligned, separate objects often are not.
    """
    if min(upright, other_upright) < LEAST_UPRIGHT:
        return np.nan
    if abs(turn) <= LEAST_ALIGNED * upright or abs(other_turn) <= LEAST_ALIGNED * other_upright:
        return np.nan
    between = turn * np.conj(other_turn)
    return np.degrees(abs(np.arctan2(between.imag, between.real))) / 4
