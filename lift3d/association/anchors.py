"""Anchors: an even subset of the cloud that is clustered to objects."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int64

FINER, STEP, SLOWER = 4, 1.02, 0.98
"""Cells of the first grid per cell of the estimated one, minimum growth of a cell per step, and
share of the estimated growth that is used. Chosen by hand; not tuned on data."""


def choose_anchors(
    xyz: Float32[np.ndarray, "points 3"], most: int
) -> Int64[np.ndarray, " anchors"]:
    """Ascending indices of at most `most` points: the first in each cell of a fine enough grid."""
    if len(xyz) <= most:
        return np.arange(len(xyz))
    low = xyz.min(0)
    extent = float((xyz.max(0) - low).max())
    # A surface fills about (extent / cell)^2 cells: start finer than that, then coarsen.
    cell = extent / np.sqrt(most) / FINER
    while True:
        first = _first_in_cells(xyz, low, cell)
        if len(first) <= most:
            return first
        cell *= max(STEP, np.sqrt(len(first) / most) * SLOWER)


def _first_in_cells(xyz: np.ndarray, low: np.ndarray, cell: float) -> np.ndarray:
    index = ((xyz - low) / cell).astype(np.int64)
    side = index.max(0) + 1
    key = (index[:, 0] * side[1] + index[:, 1]) * side[2] + index[:, 2]
    _, first = np.unique(key, return_index=True)
    return np.sort(first)
