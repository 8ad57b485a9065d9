"""Forests stored as the parent of each node."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int64


def tops(
    parent: Int64[np.ndarray, " nodes"], through: Bool[np.ndarray, " nodes"] | None = None
) -> Int64[np.ndarray, " nodes"]:
    """The highest node above each node, or itself. A root's parent is negative or itself.

    `through`: nodes that may be climbed to; by default all.

    >>> tops(np.array([2, 2, 4, 4, -1])).tolist()
    [4, 4, 4, 4, 4]
    >>> tops(np.array([2, 2, 4, 4, -1]), np.array([True, True, True, True, False])).tolist()
    [2, 2, 2, 3, 4]
    """
    climbs = parent >= 0
    if through is not None:
        climbs &= through[parent]
    top = np.where(climbs, parent, np.arange(len(parent)))
    while (top[top] != top).any():
        top = top[top]
    return top
