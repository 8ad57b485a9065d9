"""Nearest neighbours within a fixed distance, on a grid of cells of that side.

For points of a surface several times as fast as a k-d tree, which knows no largest distance when it
is built.
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float64, Int32

from lift3d.geometry.radix import sort_keys
from lift3d.scene.compiled import compiled

LAST = (1 << 20) - 3
"""Largest index of a cell along an axis; all points beyond are in it."""


class Grid:
    """Points in cells of side `reach`, for `nearest`."""

    def __init__(self, xyz: Float64[np.ndarray, "points 3"], reach: float) -> None:
        self.reach, self._xyz = reach, xyz
        low = xyz.min(0, initial=np.inf)
        # A free cell at both ends of each axis, so that all neighbours of a cell have keys.
        place = np.minimum((xyz - low) / reach, LAST).astype(np.int64) + 1
        side = place.max(0, initial=1) + 2
        key = (place[:, 0] * side[1] + place[:, 1]) * side[2] + place[:, 2]
        key, self._order = sort_keys(key, int(key.max(initial=0)).bit_length())
        first = np.flatnonzero(np.append(True, key[1:] != key[:-1])[: len(key)])
        start = np.append(first, len(key)).astype(np.int32)
        self._cell = np.empty(len(key), np.int32)
        self._cell[self._order] = np.repeat(np.arange(len(first)), np.diff(start))
        # Along the last axis the three cells around a cell are one run of points.
        around = ((np.arange(-1, 2)[:, None] * side[1] + np.arange(-1, 2)) * side[2]).ravel()
        middle = key[first][:, None] + around
        self._from = start[np.searchsorted(key[first], middle - 1)]
        self._to = start[np.searchsorted(key[first], middle + 1, "right")]

    def nearest(
        self, count: int, start: int = 0, stop: int | None = None
    ) -> tuple[Int32[np.ndarray, "rows count"], Float64[np.ndarray, "rows count"]]:
        """The `count` nearest points of each point from `start` to `stop`, itself among them, and
        their distances; where fewer are closer than `reach`, the number of points and infinity.
        """
        stop = len(self._xyz) if stop is None else min(stop, len(self._xyz))
        index = np.full((max(stop - start, 0), count), len(self._xyz), np.int32)
        distance = np.full(index.shape, np.inf)
        if count:
            _nearest(
                self._xyz,
                self._xyz[self._order],
                self._order,
                self._cell[start:stop],
                self._from,
                self._to,
                self.reach,
                start,
                index,
                distance,
            )
        return index, distance


@compiled(parallel=True)
@no_type_check
def _nearest(xyz, ordered, order, cell, low, high, reach, start, index, distance):
    """Insertion sort, as few points are within reach."""
    last = index.shape[1] - 1
    for row in numba.prange(len(index)):
        x, y, z = xyz[start + row, 0], xyz[start + row, 1], xyz[start + row, 2]
        here, found, limit = cell[row], 0, reach * reach
        near, apart = index[row], distance[row]
        for run in range(low.shape[1]):
            for k in range(low[here, run], high[here, run]):
                square = (ordered[k, 0] - x) ** 2 + (ordered[k, 1] - y) ** 2
                square += (ordered[k, 2] - z) ** 2
                if square >= limit:
                    continue
                at = min(found, last)
                while at > 0 and apart[at - 1] > square:
                    apart[at], near[at] = apart[at - 1], near[at - 1]
                    at -= 1
                apart[at], near[at] = square, order[k]
                found += 1
                if found > last:
                    limit = apart[last]
        for k in range(min(found, last + 1)):
            apart[k] = np.sqrt(apart[k])
