"""Bends, steps, seams and colours between neighbouring surfels, and their sums over borders."""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from lift3d.association.shape import seams
from lift3d.association.shape.surfels import Surfels
from lift3d.geometry.grid import Grid
from lift3d.scene import distinct
from lift3d.scene.compiled import compiled

NEIGHBOURS = 14
REACH = 2.1
"""Maximum number of neighbours of a surfel, and their radius in cells. Chosen by hand; not tuned on
data."""

(
    PAIRS, INWARD, OUTWARD, STEP, OWN, OTHERS, RISE, RISE_BACK, SAME_MASK, OBSERVED,
    SEAM, COLOUR, FOLDS, RIDGES, SEAMS, EDGES,
) = range(16)  # fmt: skip
"""Sums over the border of two pieces: pairs of surfels; their inward and outward bends; steps in
half cells; surfels on this side and on the other; pairs with a level surfel here and a higher one
there, and the reverse; mask agreement and its weight (`agreement`); seams (`seams`); differences of
colour; numbers of pairs with an inward bend, an outward bend, a seam, a colour edge."""
TURNED = [
    PAIRS, INWARD, OUTWARD, STEP, OTHERS, OWN, RISE_BACK, RISE, SAME_MASK, OBSERVED,
    SEAM, COLOUR, FOLDS, RIDGES, SEAMS, EDGES,
]  # fmt: skip
"""Columns of the same border from the other side."""
BENT, DARK, TINTED = 0.1, 2.0, 4.0
"""Minimum 1 - cosine of a bend, depth in lightness of a seam, and CIELAB distance of a colour edge.
Chosen by hand; not tuned on data."""
OPPOSED = -0.3
"""Minimum cosine of the normals of neighbours. Chosen by hand; not tuned on data."""
STEP_NOISE, STEP_BENT = 0.15, 0.15
"""Offset in cells that is noise and no step, and minimum 1 - cosine of a bend at which an offset is
not counted as a step of the border. Chosen by hand; not tuned on data."""
FLAT, HIGHER = 0.8, 0.25
"""Minimum cosine between normal and up of a level surfel, and minimum height in cells of one that
rises from it. Chosen by hand; not tuned on data."""


class Neighbours:
    """Pairs of neighbouring surfels."""

    def __init__(
        self,
        surface: Surfels,
        line: tuple[Float64[np.ndarray, " surfels"], Float64[np.ndarray, "surfels 3"]],
        cell: float,
    ) -> None:
        """`line`: depth and direction of the dark line through each surfel (`seams.lines`)."""
        xyz, normal = surface.xyz, surface.normal
        around = Grid(xyz, seams.REACH * cell).nearest(seams.AROUND)
        key = distinct(_keys(xyz, normal, around[:, : NEIGHBOURS + 1], REACH * cell).ravel())
        a, b = np.divmod(key[key >= 0], max(len(xyz), 1))
        self.cell = cell
        self.a: Int32[np.ndarray, " pairs"] = a.astype(np.int32)
        self.b: Int32[np.ndarray, " pairs"] = b.astype(np.int32)
        self.bend, self.inward, self.off, self.colour = _compare(
            xyz, normal, surface.lab, self.a, self.b
        )
        self.seam = seams.seams(surface, *line, cell, self.a, self.b, around)

    def difference(self, colour: float, seam: float = 0.0) -> Float32[np.ndarray, " pairs"]:
        """Dissimilarity for segmentation: bend + step in cells + weights times colour and seam."""
        step = np.maximum(self.off - STEP_NOISE * self.cell, 0) / self.cell
        tint = colour * self.colour + seam * self.seam
        return (self.bend + tint + step).astype(np.float32)


def borders(
    surface: Surfels,
    piece: Int64[np.ndarray, " surfels"],
    near: Neighbours,
    up: Float64[np.ndarray, "3"],
) -> tuple[
    Int64[np.ndarray, " borders"],
    Int64[np.ndarray, " borders"],
    Float64[np.ndarray, "borders sums"],
]:
    """Pairs of pieces that touch, the lower index first, and the sums over their border."""
    across = piece[near.a] != piece[near.b]
    a, b = near.a[across].astype(np.int64), near.b[across].astype(np.int64)
    bend, inward, off = near.bend[across], near.inward[across], near.off[across]
    seam, colour = near.seam[across], near.colour[across]
    turn = piece[a] > piece[b]
    a, b = np.where(turn, b, a), np.where(turn, a, b)
    pieces = int(piece.max(initial=-1)) + 1
    key, group = np.unique(piece[a] * pieces + piece[b], return_inverse=True)
    level = surface.normal @ up > FLAT
    height = surface.xyz @ up
    sums = np.zeros((len(key), len(TURNED)))
    for column, each in (
        (PAIRS, np.ones(len(a))),
        (INWARD, bend * inward),
        (OUTWARD, bend * ~inward),
        (STEP, np.maximum(off / near.cell - STEP_NOISE, 0) * 2 * (bend < STEP_BENT)),
        (OWN, _first(group, a, len(surface))),
        (OTHERS, _first(group, b, len(surface))),
        (RISE, level[a] & (height[b] > height[a] + HIGHER * near.cell)),
        (RISE_BACK, level[b] & (height[a] > height[b] + HIGHER * near.cell)),
        (SEAM, seam),
        (COLOUR, colour),
        (FOLDS, (bend > BENT) & inward),
        (RIDGES, (bend > BENT) & ~inward),
        (SEAMS, seam > DARK),
        (EDGES, colour > TINTED),
    ):
        sums[:, column] = np.bincount(group, each.astype(np.float64), len(key))
    return key // pieces, key % pieces, sums


def _first(group: np.ndarray, surfel: np.ndarray, count: int) -> np.ndarray:
    """1 where a surfel appears in a group for the first time, else 0."""
    first = np.zeros(len(group))
    first[np.unique(group * count + surfel, return_index=True)[1]] = 1
    return first


@compiled(parallel=True, nogil=True)
@no_type_check
def _keys(xyz, normal, near, reach):
    """A number for each surfel and neighbour, the same from both ends; -1 for none."""
    count, nearest = near.shape
    key = np.full((count, nearest), -1)
    for i in numba.prange(count):
        for k in range(nearest):
            j = near[i, k]
            if j == count:
                break
            apart, cosine = 0.0, 0.0
            for c in range(3):
                apart += (xyz[j, c] - xyz[i, c]) ** 2
                cosine += normal[j, c] * normal[i, c]
            # The two sides of a thin board are not neighbours.
            if j != i and np.sqrt(apart) < reach and cosine > OPPOSED:
                key[i, k] = min(i, j) * count + max(i, j)
    return key


@compiled(parallel=True, nogil=True)
@no_type_check
def _compare(xyz, normal, lab, a, b):
    """Of each pair: 1 - cosine, whether it bends inward, distance from planes, CIELAB distance."""
    pairs = len(a)
    bend, inward = np.empty(pairs), np.empty(pairs, np.bool_)
    off, colour = np.empty(pairs), np.empty(pairs, np.float32)
    for pair in numba.prange(pairs):
        i, j = a[pair], b[pair]
        cosine = here = there = opening = 0.0
        tint = np.float32(0)
        for c in range(3):
            apart = xyz[j, c] - xyz[i, c]
            cosine += normal[i, c] * normal[j, c]
            here += apart * normal[i, c]
            there += apart * normal[j, c]
            opening += apart * (normal[j, c] - normal[i, c])
            tint += (lab[i, c] - lab[j, c]) ** 2
        bend[pair], inward[pair] = 1 - cosine, opening < 0
        off[pair], colour[pair] = (abs(here) + abs(there)) / 2, np.sqrt(tint)
    return bend, inward, off, colour
