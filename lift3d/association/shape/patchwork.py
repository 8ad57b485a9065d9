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
    pieces, count = len(tree.parent) - len(tree.children), len(piece)
    joins, of_node = _inside(piece, size, colour, pairs)
    place = np.arange(len(tree.parent)) + len(of_node) - pieces
    place[of_node] = np.arange(len(of_node))  # of the nodes of a piece the last one stays
    children = np.concatenate([joins, place[tree.children]])
    within = np.full(len(joins), ONE_PIECE)
    probability = np.concatenate([np.ones(count), within, tree.probability[pieces:]])
    return Tree.of(children, probability), place


def _inside(
    piece: Int64[np.ndarray, " patches"],
    size: Int64[np.ndarray, " patches"],
    colour: Float64[np.ndarray, "patches 3"],
    pairs: Int64[np.ndarray, "pairs 2"],
) -> tuple[Int64[np.ndarray, "joins 2"], Int64[np.ndarray, " nodes"]]:
    """The merges of the patches of each piece to one node, and the piece of each node."""
    count = len(piece)
    most = 2 * count
    total, mean = np.zeros(most), np.zeros((most, 3))
    total[:count], mean[:count] = size, colour
    alive = np.ones(most, bool)
    near: list[set[int]] = [set() for _ in range(most)]
    heap: list[tuple[float, int, int]] = []
    joins: list[tuple[int, int]] = []
    of_node = piece.tolist()

    def rate(one: int, other: int) -> None:
        weight = total[one] * total[other] / max(total[one] + total[other], 1)
        heapq.heappush(heap, (weight * ((mean[one] - mean[other]) ** 2).sum(), one, other))

    def merge(one: int, other: int) -> int:
        node = count + len(joins)
        joins.append((one, other))
        of_node.append(of_node[one])
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
    left = np.flatnonzero(alive[: len(of_node)]).tolist()
    largest: dict[int, int] = {}
    for each in sorted(left, key=lambda node: -total[node]):
        largest.setdefault(of_node[each], each)
    for each in sorted(left, key=lambda node: total[node]):
        if each != (root := largest[of_node[each]]) and alive[each]:
            largest[of_node[each]] = merge(root, each)
    return np.array(joins, np.int64).reshape(-1, 2), np.array(of_node, np.int64)
