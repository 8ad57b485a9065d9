"""Assign pixels to cubic cells."""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np

from lift3d.scene.compiled import compiled

i4 = np.int32


@compiled(parallel=True)
@no_type_check
def cell_keys(xyz, label, low, side, margin, bits):
    """The cell key of each pixel: a bit for labelled, then x, y and z with `bits` bits each.

    `margin` is added to x, y and z, so that neighbours of a cell are not negative.
    """
    keys = np.empty(len(xyz), np.int64)
    for i in numba.prange(len(xyz)):
        key = np.int64(label[i] > 0)
        for axis in range(3):
            cell = np.int64((np.float64(xyz[i, axis]) - low[axis]) / side) + margin
            key = (key << bits[axis]) | cell
        keys[i] = key
    return keys


@compiled()
@no_type_check
def some_cells(keys):
    """The keys of one cell in 64: Fibonacci hashing takes complete cells, evenly over the scene."""
    drawn = np.empty(len(keys), np.int64)
    count = 0
    for i in range(len(keys)):
        drawn[count] = keys[i]
        hashed = np.uint64(keys[i]) * np.uint64(0x9E3779B97F4A7C15)
        count += (hashed >> np.uint64(58)) == 0
    return drawn[:count].copy()


@compiled(parallel=True)
@no_type_check
def sorted_pixels(xyz, label, view, order):
    """x, y, z, label and view of the pixels in `order`."""
    n = len(order)
    x, y, z = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    labels, views = np.empty(n, i4), np.empty(n, i4)
    for i in numba.prange(n):
        at = order[i]
        x[i], y[i], z[i] = xyz[at, 0], xyz[at, 1], xyz[at, 2]
        labels[i], views[i] = label[at], view[at]
    return x, y, z, labels, views
