"""The tree inside of pieces: patches of one colour, of which floor and wall have many.

A poster that no mask tells from its wall is a part of the wall. Its patches are kept as the leaves
of the tree, so that clicks can take it out. The patches of a piece are merged by Ward's method
(Ward 1963, "Hierarchical grouping to optimize an objective function"), in colour and among
neighbours only: the small patches of a poster merge with each other before they merge with a wall.
"""

from __future__ import annotations

import heapq

import numpy as np
from jaxtyping import Float64, Int64

from lift3d.association.shape.hierarchy import Tree

ONE_PIECE = 0.98
"""Merge probability of patches of one piece."""


def with_patches(
    tree: Tree,
    piece: Int64[np.ndarray, " patches"],
    size: Int64[np.ndarray, " patches"],
    colour: Float64[np.ndarray, "patches 3"],
    pairs: Int64[np.ndarray, "pairs 2"],
) -> tuple[Tree, Int64[np.ndarray, " nodes"]]:
    """`tree`, whose leaves are pieces, with patches for leaves; and where its nodes are in that.

    `size` in surfels, mean `colour` in CIELAB, `pairs` of patches that touch.
    """
    pieces = int(len(tree.parent) - len(tree.children))
    joins = _inside(piece, size, colour, pairs)
    count = len(piece)
    root = np.arange(count + len(joins))
    of_node = np.concatenate([piece, np.zeros(len(joins), np.int64)])
    for node, (one, _) in enumerate(joins.tolist(), start=count):
        of_node[node] = of_node[one]
    place = np.arange(len(tree.parent)) + len(root) - pieces
    place[of_node] = root  # of the nodes of a piece the last one stays
    return (
        Tree.of(
            np.concatenate([joins, place[tree.children]]),
            np.concatenate([
                np.ones(count), np.full(len(joins), ONE_PIECE), tree.probability[pieces:]
            ]),
        ),
        place,
    )  # fmt: skip


def _inside(
    piece: Int64[np.ndarray, " patches"],
    size: Int64[np.ndarray, " patches"],
    colour: Float64[np.ndarray, "patches 3"],
    pairs: Int64[np.ndarray, "pairs 2"],
) -> Int64[np.ndarray, "joins 2"]:
    """The merges of the patches of each piece to one node."""
    count = len(piece)
    most = 2 * count
    total, mean = np.zeros(most), np.zeros((most, 3))
    total[:count], mean[:count] = size, colour
    alive = np.ones(most, bool)
    near: list[set[int]] = [set() for _ in range(most)]
    heap: list[tuple[float, int, int]] = []
    joins: list[tuple[int, int]] = []

    def rate(one: int, other: int) -> None:
        weight = total[one] * total[other] / max(total[one] + total[other], 1)
        heapq.heappush(heap, (weight * ((mean[one] - mean[other]) ** 2).sum(), one, other))

    def merge(one: int, other: int) -> int:
        node = count + len(joins)
        joins.append((one, other))
        total[node] = total[one] + total[other]
        mean[node] = (total[one] * mean[one] + total[other] * mean[other]) / max(total[node], 1)
        alive[[one, other]] = False
        near[node] = (near[one] | near[other]) - {one, other}
        for each in near[node]:
            near[each] -= {one, other}
            near[each].add(node)
        return node

    for one, other in pairs[piece[pairs[:, 0]] == piece[pairs[:, 1]]].tolist():
        near[one].add(other)
        near[other].add(one)
        rate(one, other)
    while heap:
        _, one, other = heapq.heappop(heap)
        if alive[one] and alive[other]:
            node = merge(one, other)
            for each in near[node]:
                rate(node, each)
    # Parts of a piece that do not touch: the largest takes the others, small ones first.
    of_node = np.concatenate([piece, np.zeros(count, np.int64)])
    for node, (one, _) in enumerate(joins, start=count):
        of_node[node] = of_node[one]
    left = np.flatnonzero(alive[: count + len(joins)])
    left = left[np.lexsort((-total[left], of_node[left]))]
    for group in np.split(left, np.flatnonzero(np.diff(of_node[left])) + 1):
        root = int(group[0]) if len(group) else -1
        for each in group[:0:-1].tolist():
            root = merge(root, each)
    return np.array(joins, np.int64).reshape(-1, 2)
