"""The nearest point of a cloud for every pixel of a depth map."""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float32, Int32, Int64

from lift3d.scene.compiled import compiled

ROOM = np.int64(1) << 20
"""Cells per axis; more would not fit into a key."""


class Cells:
    """Points sorted by cubic cells, so that the nearest one within `reach` is found quickly."""

    def __init__(self, xyz: Float32[np.ndarray, "points 3"], reach: float) -> None:
        """`reach` is the side of a cell, in world units."""
        self.reach = max(reach, 1e-9)
        self._low = xyz.min(0) - np.float32(2 * self.reach) if len(xyz) else np.zeros(3, np.float32)
        key = _keys(xyz, self._low, self.reach)
        self._order: Int64[np.ndarray, " points"] = np.argsort(key, kind="stable")
        self._key = key[self._order]
        self._xyz = xyz[self._order]

    def nearest(self, xyz: Float32[np.ndarray, "rows columns 3"]) -> Int32[np.ndarray, "rows cols"]:
        """Index of the nearest point at most `reach` away; -1 without one, and for NaN."""
        found = np.full(xyz.shape[:2], -1, np.int32)
        if len(self._key):
            _nearest(xyz, self._low, self.reach, self._key, self._xyz, self._order, found)
        return found


def _keys(
    xyz: Float32[np.ndarray, "points 3"], low: Float32[np.ndarray, "3"], side: float
) -> Int64[np.ndarray, " points"]:
    cell = np.floor((xyz - low) / np.float32(side)).astype(np.int64)
    return (cell[:, 0] * ROOM + cell[:, 1]) * ROOM + cell[:, 2]


@compiled(parallel=True)
@no_type_check
def _nearest(xyz, low, side, key, points, order, found):
    """Each pixel looks into 9 columns of three cells, which are neighbours in the sorted keys."""
    room = 1 << 20
    reach = side * side
    for row in numba.prange(xyz.shape[0]):
        for column in range(xyz.shape[1]):
            x, y, z = xyz[row, column, 0], xyz[row, column, 1], xyz[row, column, 2]
            if not (np.isfinite(x) and np.isfinite(y) and np.isfinite(z)):
                continue
            i = np.int64(np.floor((x - low[0]) / side))
            j = np.int64(np.floor((y - low[1]) / side))
            k = np.int64(np.floor((z - low[2]) / side))
            if min(i, j, k) < 1:
                continue
            best = reach
            for a in range(i - 1, i + 2):
                for b in range(j - 1, j + 2):
                    first = (a * room + b) * room + k - 1
                    at = np.searchsorted(key, first)
                    while at < len(key) and key[at] <= first + 2:
                        dx = points[at, 0] - x
                        dy = points[at, 1] - y
                        dz = points[at, 2] - z
                        away = dx * dx + dy * dy + dz * dz
                        if away <= best:
                            best = away
                            found[row, column] = order[at]
                        at += 1
