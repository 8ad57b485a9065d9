"""Nearest neighbours within a fixed distance, on a grid of cells of that side.

For points of a surface several times as fast as a k-d tree, which knows no largest distance when it
is built.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float64, Int32

from lift3d.geometry.radix import sort_keys
from lift3d.scene.compiled import compiled

LAST = (1 << 20) - 3
"""Largest index of a cell along an axis; all points beyond are in it."""
BLOCK = 1024
"""Points per task of a thread; results do not depend on it."""


class Grid:
    """Points in cells of side `reach`.

    A neighbour is a point closer than `reach`, the point itself included. Where there are fewer
    than asked for, their index is the number of points.
    """

    def __init__(self, xyz: Float64[np.ndarray, "points 3"], reach: float) -> None:
        place = np.minimum((xyz - xyz.min(0, initial=np.inf)) / reach, LAST).astype(np.int64)
        # A free cell at both ends of each axis, so that all cells around a cell have keys.
        place, side = place + 1, place.max(0, initial=0) + 3
        key = (place[:, 0] * side[1] + place[:, 1]) * side[2] + place[:, 2]
        key, self._order = sort_keys(key, int(key.max(initial=0)).bit_length())
        self._ordered, self._reach = xyz[self._order], reach
        new = np.append(True, key[1:] != key[:-1])[: len(key)]
        self._cell = (np.cumsum(new) - 1).astype(np.int32)
        cells, start = key[new], np.append(np.flatnonzero(new), len(key)).astype(np.int32)
        # Along the last axis the three cells around a cell are one run of points.
        around = ((np.arange(-1, 2)[:, None] * side[1] + np.arange(-1, 2)) * side[2]).ravel()
        middle = cells[:, None] + around
        self._from = start[np.searchsorted(cells, middle - 1)]
        self._to = start[np.searchsorted(cells, middle + 1, "right")]

    def nearest(self, count: int) -> Int32[np.ndarray, "points count"]:
        """The `count` nearest neighbours of each point, the nearest first."""
        return self._nearest(count, 0, len(self._order), self._order)

    def chunks(
        self, count: int, size: int
    ) -> Iterator[tuple[Int32[np.ndarray, " chunk"], Int32[np.ndarray, "chunk count"]]]:
        """`size` points at a time, near each other: their indices, and `nearest` of them."""
        for start in range(0, len(self._order), size):
            points = self._order[start : start + size]
            rows = np.arange(len(points), dtype=np.int32)
            yield points, self._nearest(count, start, start + len(points), rows)

    def _nearest(
        self, count: int, start: int, stop: int, row: Int32[np.ndarray, " some"]
    ) -> Int32[np.ndarray, "some count"]:
        index = np.empty((stop - start, count), np.int32)
        if len(index):
            cells = self._cell, self._from, self._to
            _nearest(self._ordered, self._order, cells, self._reach, start, row, index)
        return index


@compiled(parallel=True, nogil=True)
@no_type_check
def _nearest(xyz, order, cells, reach, start, row, index):
    """Points within reach are gathered without a branch, then sorted by insertion: they are few."""
    cell, low, high = cells
    points, count = index.shape
    widest = (high - low).sum(1).max()
    for block in numba.prange((points + BLOCK - 1) // BLOCK):
        square, which = np.empty(widest + 1), np.empty(widest + 1, np.int32)
        best, nearest = np.empty(count), np.empty(count, np.int32)
        for i in range(block * BLOCK, min((block + 1) * BLOCK, points)):
            x, y, z = xyz[start + i, 0], xyz[start + i, 1], xyz[start + i, 2]
            here, inside, limit = cell[start + i], 0, reach * reach
            for run in range(low.shape[1]):
                for k in range(low[here, run], high[here, run]):
                    apart = (xyz[k, 0] - x) ** 2 + (xyz[k, 1] - y) ** 2
                    apart += (xyz[k, 2] - z) ** 2
                    square[inside], which[inside] = apart, k
                    inside += apart < limit
            found = 0
            for k in range(inside):
                apart = square[k]
                if apart >= limit:
                    continue
                at = min(found, count - 1)
                while at > 0 and best[at - 1] > apart:
                    best[at], nearest[at] = best[at - 1], nearest[at - 1]
                    at -= 1
                best[at], nearest[at] = apart, which[k]
                found += 1
                if found >= count:
                    limit = best[count - 1]
            for k in range(count):
                index[row[i], k] = order[nearest[k]] if k < found else len(xyz)
