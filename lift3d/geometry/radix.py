"""A radix sort, several times as fast as NumPy's stable sort."""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from lift3d.scene.compiled import compiled

DIGIT = 11
"""Bits per pass."""
i4 = np.int32


@compiled(nogil=True)
@no_type_check
def sort_keys(keys, bits):
    """Sorted keys and their original indices; a stable radix sort over the lowest `bits`."""
    n = len(keys)
    order = np.arange(n).astype(i4)
    other_keys, other = np.empty(n, np.int64), np.empty(n, i4)
    mask = (1 << DIGIT) - 1
    for shift in range(0, bits, DIGIT):
        place = np.zeros(mask + 2, np.int64)
        for i in range(n):
            place[((keys[i] >> shift) & mask) + 1] += 1
        place = np.cumsum(place)
        for i in range(n):
            digit = (keys[i] >> shift) & mask
            to = place[digit]
            place[digit] = to + 1
            other_keys[to] = keys[i]
            other[to] = order[i]
        keys, other_keys = other_keys, keys
        order, other = other, order
    return keys, order
