"""An even subset of the cloud on which identities are settled."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int64


def choose_anchors(
    xyz: Float32[np.ndarray, "points 3"], most: int
) -> Int64[np.ndarray, " anchors"]:
    """At most `most` points, ascending: the first in each cell of a grid as fine as that allows."""
    if len(xyz) <= most:
        return np.arange(len(xyz))
    low = xyz.min(0)
    extent = float((xyz.max(0) - low).max())
    # A surface fills about (extent / cell)^2 cells: start from there, coarsen by 10 % steps.
    cell = extent / np.sqrt(most) / 4
    while True:
        first = _first_in_cells(xyz, low, cell)
        if len(first) <= most:
            return first
        cell *= max(1.02, np.sqrt(len(first) / most) * 0.98)


def _first_in_cells(xyz: np.ndarray, low: np.ndarray, cell: float) -> np.ndarray:
    index = ((xyz - low) / cell).astype(np.int64)
    side = index.max(0) + 1
    key = (index[:, 0] * side[1] + index[:, 1]) * side[2] + index[:, 2]
    _, first = np.unique(key, return_index=True)
    return np.sort(first)
