"""Exact counts of the pixels within a radius of each pixel: the sums of Eq. 4 and 5."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from lift3d.consistency.kernel import count
from lift3d.errors import InputError

AXIS_BITS = 21
"""Cell coordinates are packed into one int64, three times 21 bits."""
CROWD = 24
"""Pixels in a mean cell beyond which cells are made smaller (measured, speed only)."""
CHUNKS = 256
"""Pieces the threads share out. Counts are integers: they do not depend on it."""
WIDEST = 1e12
"""Extent of the scene in radii up to which the float32 loop knows its own errors."""
DENSE = 1 << 22
"""Tallies up to this long are indexed by id directly; longer ones are renumbered first."""


@dataclass(frozen=True, eq=False)
class NeighbourCounts:
    """For each pixel, how many pixels lie within the radius, itself among them.

    *Kin* are the pixels that are labelled where the pixel is, or unlabelled where it is.
    """

    table: Int32[np.ndarray, "pixels 6"]

    @property
    def all(self) -> Int32[np.ndarray, " pixels"]:
        """|E|."""
        return self.table[:, 0]

    @property
    def same(self) -> Int32[np.ndarray, " pixels"]:
        """Of E, those of the same label."""
        return self.table[:, 1]

    @property
    def kin(self) -> Int32[np.ndarray, " pixels"]:
        """Of E, the kin."""
        return self.table[:, 2]

    @property
    def view_all(self) -> Int32[np.ndarray, " pixels"]:
        """As `all`, in the pixel's own view only; so are the next two."""
        return self.table[:, 3]

    @property
    def view_same(self) -> Int32[np.ndarray, " pixels"]:
        """Of E in the own view, those of the same label."""
        return self.table[:, 4]

    @property
    def view_kin(self) -> Int32[np.ndarray, " pixels"]:
        """Of E in the own view, the kin."""
        return self.table[:, 5]


def neighbour_counts(
    xyz: Float32[np.ndarray, "pixels 3"],
    label: Int32[np.ndarray, " pixels"],
    view: Int32[np.ndarray, " pixels"],
    epsilon: float,
) -> NeighbourCounts:
    """Count the pixels within `epsilon` (inclusive) of each, exactly.

    Two pixels are within it where (dx*dx + dy*dy) + dz*dz <= epsilon*epsilon, in float64 of
    the float32 coordinates, which must be finite. Labels and views are 0 or more.
    Takes about 110 bytes a pixel beside its input.
    """
    _check(xyz, label, view, epsilon)
    table = np.zeros((len(xyz), 6), np.int32)
    if len(xyz) == 0:
        return NeighbourCounts(table)
    low = xyz.min(0).astype(np.float64)
    extent = float((xyz.max(0) - low).max())
    reach = _reach(xyz, low, extent, epsilon)
    key = _keys(xyz, low, _side(epsilon, reach, extent), reach)
    order = np.argsort(key).astype(np.int32)
    key = key[order]
    start = np.concatenate([[0], np.flatnonzero(np.diff(key)) + 1, [len(key)]])
    cell_key = key[start[:-1]]
    del key
    label = _short(label)
    group = _groups(label, view)
    tallies = np.array([label.max(), view.max(), group.max()], np.int64) + 1
    rows, spans = _runs(reach)
    bounds = np.searchsorted(start[:-1], np.linspace(0, len(xyz), CHUNKS + 1))
    x, y, z = (np.ascontiguousarray(xyz[:, axis])[order] for axis in range(3))
    with numba.parallel_chunksize(1):  # chunks cost unlike amounts: hand them out one by one
        count(
            x, y, z, label[order], view[order], group[order], tallies, order,
            cell_key, start, bounds, rows, spans, float(epsilon), table,
        )  # fmt: skip
    return NeighbourCounts(table)


def _check(
    xyz: Float32[np.ndarray, "pixels 3"],
    label: Int32[np.ndarray, " pixels"],
    view: Int32[np.ndarray, " pixels"],
    epsilon: float,
) -> None:
    if not (np.isfinite(epsilon) and epsilon > 0):
        raise InputError(f"epsilon is {epsilon}; expected a distance above 0")
    if len(xyz) == 0:
        return
    if not (np.isfinite(xyz.min()) and np.isfinite(xyz.max())):
        raise InputError("positions hold NaN or infinity; leave out pixels without depth")
    extent = float((xyz.max(0).astype(np.float64) - xyz.min(0)).max())
    if extent > WIDEST * epsilon:
        raise InputError(
            f"positions span {extent:g} with epsilon {epsilon:g}; expected at most {WIDEST:g} "
            "times epsilon: leave out stray points or give the epsilon in the unit of the scene"
        )
    if min(label.min(), view.min()) < 0:
        raise InputError("labels and view indices must be 0 or more; label 0 is no object")


def _side(epsilon: float, reach: int, extent: float) -> float:
    """A cell's side: `reach` cells cover the radius with a margin above any rounding.

    It grows where the scene would not fit into the bits of a key: slower, still exact.
    """
    return max(epsilon / reach * (1 + 1e-6), extent / (2**AXIS_BITS - 2 * reach - 2))


def _reach(
    xyz: Float32[np.ndarray, "pixels 3"], low: Float64[np.ndarray, "3"], extent: float,
    epsilon: float,
) -> int:  # fmt: skip
    """Cells per radius, so that about `CROWD` pixels share one; from one cell in 64."""
    key = _keys(xyz, low, _side(epsilon, 1, extent), 1)
    # Fibonacci hashing spreads neighbouring keys; whole cells are drawn, never parts of one.
    drawn = key[(key.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(58) == 0]
    if len(drawn) == 0:
        return 1
    crowd = len(drawn) / len(np.unique(drawn))
    return int(np.clip(np.sqrt(crowd / CROWD), 1, 8))  # surfaces: pixels grow with the square


def _keys(
    xyz: Float32[np.ndarray, "pixels 3"],
    low: Float64[np.ndarray, "3"],
    side: float,
    margin: int,
) -> Int64[np.ndarray, " pixels"]:
    """The cell of each pixel, its three coordinates packed; `margin` keeps neighbours >= 0."""
    key = np.zeros(len(xyz), np.int64)
    for axis in range(3):
        key <<= AXIS_BITS
        key += ((xyz[:, axis] - low[axis]) / side).astype(np.int64) + margin
    return key


def _runs(reach: int) -> tuple[Int64[np.ndarray, " runs"], Int64[np.ndarray, " runs"]]:
    """The cells around a cell that may hold a neighbour: middle key and half length of runs."""
    rows, spans = [], []
    for dx in range(-reach, reach + 1):
        for dy in range(-reach, reach + 1):
            # Between cells d apart lie at least d - 1 whole ones.
            rest = reach**2 - max(abs(dx) - 1, 0) ** 2 - max(abs(dy) - 1, 0) ** 2
            if rest >= 0:
                rows.append((dx << 2 * AXIS_BITS) + (dy << AXIS_BITS))
                spans.append(min(reach, int(np.sqrt(rest)) + 1))
    return np.array(rows, np.int64), np.array(spans, np.int64)


def _short(label: Int32[np.ndarray, " pixels"]) -> Int32[np.ndarray, " pixels"]:
    """The labels, renumbered (0 stays 0) where the largest would make a tally too long."""
    if label.max() < DENSE:
        return label
    ids = np.unique(np.append(label, np.int32(0)))
    return np.searchsorted(ids, label).astype(np.int32)


def _groups(
    label: Int32[np.ndarray, " pixels"], view: Int32[np.ndarray, " pixels"]
) -> Int32[np.ndarray, " pixels"]:
    """One number for each label in each view."""
    views = int(view.max()) + 1
    if (int(label.max()) + 1) * views <= DENSE:
        return (label * np.int32(views) + view).astype(np.int32, copy=False)
    both = label.astype(np.int64) * views + view
    return np.searchsorted(np.unique(both), both).astype(np.int32)
