"""Exact counts of the pixels within a radius of each pixel: the sums of Eq. 4 and 5."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from lift3d.evaluation.consistency.cells import cell_keys, some_cells, sorted_pixels
from lift3d.evaluation.consistency.kernel import DOUBT, count
from lift3d.geometry.radix import sort_keys
from lift3d.scene import distinct
from lift3d.scene.errors import InputError

AXIS_BITS = 20
"""Maximum bits per axis; with one bit for the kind, a key fits an int64."""
CROWD = 24
"""Target number of pixels per cell (chosen by measured speed; counts do not depend on it)."""
CHUNKS = 256
"""Pieces of work shared among threads. Counts do not depend on it."""
SMALLEST = 1e-30
"""Smallest epsilon for which 1 / epsilon fits float32."""
WIDEST = 1e12
"""Maximum extent of the scene in radii, for which the float32 error bound holds."""


@dataclass(frozen=True, eq=False)
class NeighbourCounts:
    """For each pixel, the numbers of pixels within the radius (the set E), including itself.

    Two pixels are of the same kind if both are labelled or both are unlabelled.
    """

    table: Int32[np.ndarray, "pixels 6"]

    @property
    def all(self) -> Int32[np.ndarray, " pixels"]:
        """|E|."""
        return self.table[:, 0]

    @property
    def same(self) -> Int32[np.ndarray, " pixels"]:
        """Pixels of E with the same label."""
        return self.table[:, 1]

    @property
    def same_kind(self) -> Int32[np.ndarray, " pixels"]:
        """Pixels of E of the same kind."""
        return self.table[:, 2]

    @property
    def view_all(self) -> Int32[np.ndarray, " pixels"]:
        """Pixels of E in the pixel's own view."""
        return self.table[:, 3]

    @property
    def view_same(self) -> Int32[np.ndarray, " pixels"]:
        """Pixels of E in the own view with the same label."""
        return self.table[:, 4]

    @property
    def view_same_kind(self) -> Int32[np.ndarray, " pixels"]:
        """Pixels of E in the own view of the same kind."""
        return self.table[:, 5]


def neighbour_counts(
    xyz: Float32[np.ndarray, "pixels 3"],
    label: Int32[np.ndarray, " pixels"],
    view: Int32[np.ndarray, " pixels"],
    epsilon: float,
) -> NeighbourCounts:
    """Count the pixels within `epsilon` (inclusive) of each pixel, exactly.

    Two pixels are within `epsilon` if (dx*dx + dy*dy) + dz*dz <= epsilon*epsilon, computed in
    float64 from the float32 coordinates, which must be finite. Labels and views are 0 or more.
    Needs about 80 bytes per pixel in addition to its input.
    """
    table = np.zeros((len(xyz), 6), np.int32)
    if not (np.isfinite(epsilon) and epsilon > SMALLEST):
        raise InputError(f"epsilon is {epsilon}; expected a distance above {SMALLEST:g}")
    if len(xyz) == 0:
        return NeighbourCounts(table)
    low, high = _bounds(xyz, label, view, epsilon)
    reach = _reach(xyz, label, low, high, epsilon)
    side, bits = _grid(low, high, epsilon, reach)
    key = cell_keys(xyz, label, low, side, reach, bits)
    key, order = sort_keys(key, int(bits.sum()) + 1)
    start = np.concatenate([[0], np.flatnonzero(key[1:] != key[:-1]) + 1, [len(key)]])
    cell_key = key[start[:-1]]
    del key
    rows, spans = _runs(reach, bits)
    bounds = np.searchsorted(start[:-1], np.linspace(0, len(xyz), CHUNKS + 1))
    x, y, z, label, view = sorted_pixels(xyz, label, view, order)
    doubt = DOUBT * ((reach + 2) * side / epsilon + 1)
    with numba.parallel_chunksize(1):  # dynamic scheduling, as chunks differ in cost
        count(
            x, y, z, label, view, order, cell_key, start, bounds, rows, spans,
            1 << int(bits.sum()), doubt, float(epsilon), table,
        )  # fmt: skip
    return NeighbourCounts(table)


def _bounds(
    xyz: Float32[np.ndarray, "pixels 3"],
    label: Int32[np.ndarray, " pixels"],
    view: Int32[np.ndarray, " pixels"],
    epsilon: float,
) -> tuple[Float64[np.ndarray, "3"], Float64[np.ndarray, "3"]]:
    """Corners of the bounding box; raises InputError for invalid input."""
    low = np.array([xyz[:, axis].min() for axis in range(3)], np.float64)
    high = np.array([xyz[:, axis].max() for axis in range(3)], np.float64)
    if not np.isfinite([low, high]).all():
        raise InputError("positions hold NaN or infinity; leave out pixels without depth")
    extent = (high - low).max()
    if extent > WIDEST * epsilon:
        raise InputError(
            f"positions span {extent:g} with epsilon {epsilon:g}; expected at most {WIDEST:g} "
            "times epsilon: leave out outliers or give epsilon in the unit of the scene"
        )
    if min(label.min(), view.min()) < 0:
        raise InputError("labels and view indices must be 0 or more; label 0 is no object")
    return low, high


def _grid(
    low: Float64[np.ndarray, "3"], high: Float64[np.ndarray, "3"], epsilon: float, reach: int
) -> tuple[float, Int64[np.ndarray, "3"]]:
    """Side of a cell, and bits of the cell coordinates per axis.

    `reach` cells cover the radius, with a margin above rounding errors. The side is larger if the
    scene would not fit into the bits of a key: slower, but still exact.
    """
    extent = high - low
    most = 2**AXIS_BITS - 2 * reach - 2
    side = max(epsilon / reach * (1 + 1e-6), float(extent.max()) / most)
    cells = (extent / side).astype(np.int64) + 2 * reach + 1
    return side, np.array([int(n).bit_length() for n in cells], np.int64)


def _reach(
    xyz: Float32[np.ndarray, "pixels 3"],
    label: Int32[np.ndarray, " pixels"],
    low: Float64[np.ndarray, "3"],
    high: Float64[np.ndarray, "3"],
    epsilon: float,
) -> int:
    """Cells per radius, for about `CROWD` pixels per cell; estimated from one cell in 64."""
    side, bits = _grid(low, high, epsilon, 1)
    drawn = some_cells(cell_keys(xyz, label, low, side, 1, bits))
    if len(drawn) == 0:
        return 1
    crowd = len(drawn) / len(distinct(drawn))
    return int(np.clip(np.sqrt(crowd / CROWD), 1, 8))  # pixels on surfaces grow quadratically


def _runs(
    reach: int, bits: Int64[np.ndarray, "3"]
) -> tuple[Int64[np.ndarray, " runs"], Int64[np.ndarray, " runs"]]:
    """Runs of cells that may hold neighbours of a cell: middle key offsets and half lengths."""
    rows, spans = [], []
    for dx in range(-reach, reach + 1):
        for dy in range(-reach, reach + 1):
            # There are at least d - 1 complete cells between cells d apart.
            rest = reach**2 - max(abs(dx) - 1, 0) ** 2 - max(abs(dy) - 1, 0) ** 2
            if rest >= 0:
                rows.append(((dx << int(bits[1])) + dy) << int(bits[2]))
                spans.append(min(reach, int(np.sqrt(rest)) + 1))
    return np.array(rows, np.int64), np.array(spans, np.int64)
