"""Graph-based segmentation, for pixels of an image or points of a cloud."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Int32, Int64

from lift3d.geometry.radix import sort_keys
from lift3d.scene.compiled import compiled


def felzenszwalb(
    a: Int32[np.ndarray, " edges"],
    b: Int32[np.ndarray, " edges"],
    difference: Float32[np.ndarray, " edges"],
    scale: float,
    smallest: int,
    block: Int64[np.ndarray, " nodes"],
    order: Int32[np.ndarray, " edges"] | None = None,
) -> Int32[np.ndarray, " nodes"]:
    """Segments of a graph (Felzenszwalb and Huttenlocher 2004), index per node from 0.

    Edges are visited by ascending difference. Two segments merge where the difference of the edge
    is at most the internal difference plus `scale` / size of each: the larger `scale`, the larger
    the segments. Segments of fewer than `smallest` nodes then merge with their most similar
    neighbour. Only these may contain two values of `block`. `order` is `by_difference`, for a
    caller that segments a graph several times.
    """
    order = by_difference(difference) if order is None else order
    root = _segment(len(block), a, b, difference, order, scale, smallest, block)
    used = np.zeros(len(block), np.int32)
    used[root] = 1
    return (np.cumsum(used, dtype=np.int32) - np.int32(1))[root]


def by_difference(difference: Float32[np.ndarray, " edges"]) -> Int32[np.ndarray, " edges"]:
    """The edges in the order in which `felzenszwalb` visits them.

    >>> by_difference(np.float32([0.5, -1, 0.5, 0.2])).tolist()
    [1, 3, 0, 2]
    """
    # The bits of a float are in its order, those below 0 in reverse; adding 0 makes -0 to 0.
    bits = (difference + np.float32(0)).view(np.int32).astype(np.int64)
    return sort_keys(np.where(bits < 0, -1 - bits, bits + (1 << 31)), 32)[1]


@compiled()
@no_type_check
def find_root(parent, i):
    """The representative of node `i`: union-find with path halving (a numba kernel)."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@compiled(nogil=True)
@no_type_check
def _segment(n, a, b, weight, order, scale, smallest, block):
    parent = np.arange(n)
    size = np.ones(n, np.int64)
    limit = np.full(n, scale, np.float64)
    for e in order:
        if block[a[e]] != block[b[e]]:
            continue
        i, j = find_root(parent, a[e]), find_root(parent, b[e])
        if i != j and weight[e] <= limit[i] and weight[e] <= limit[j]:
            parent[j] = i
            size[i] += size[j]
            limit[i] = weight[e] + scale / size[i]
    for e in order:
        i, j = find_root(parent, a[e]), find_root(parent, b[e])
        if i != j and (size[i] < smallest or size[j] < smallest):
            parent[j] = i
            size[i] += size[j]
    for i in range(n):
        parent[i] = find_root(parent, i)
    return parent
