"""A hierarchy of merged pieces, and the choice of the nodes that are objects."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from lift3d.association.shape.nodes import NodeCues
from lift3d.association.shape.pieces import Pairs, Pieces
from lift3d.geometry.forest import tops

LEAST_PROBABILITY = 0.1
"""Pairs with a lower merge probability are not merged. Chosen by hand; not tuned on data."""
LIKELY = 0.5
"""Merge probability above which pieces outside every chosen node are one object."""
NODE_COST = 0.15
"""Cost of a chosen node: nodes worth less are no objects, and two children replace their parent if
they are worth more by this. Chosen by hand; not tuned on data."""


@dataclass(frozen=True, eq=False)
class Tree:
    """A forest: first the leaves, then the nodes of the merges, both in order."""

    children: Int64[np.ndarray, "joins 2"]
    parent: Int64[np.ndarray, " nodes"]
    """-1 for roots."""
    probability: Float64[np.ndarray, " nodes"]
    """Merge probability of the node's children; 1 for leaves."""

    @staticmethod
    def of(
        children: Int64[np.ndarray, "joins 2"], probability: Float64[np.ndarray, " nodes"]
    ) -> Tree:
        """The forest of some merges."""
        leaves = len(probability) - len(children)
        parent = np.full(len(probability), -1)
        parent[children] = np.arange(leaves, len(probability))[:, None]
        return Tree(children, parent, probability)


@dataclass(frozen=True, eq=False)
class Hierarchy(Tree):
    """A forest of pieces, with what tells which nodes are objects."""

    cues: Float64[np.ndarray, "nodes cues"]
    """Features named in `nodes.CUES`."""
    layout: Bool[np.ndarray, " nodes"]
    """Nodes that contain floor or wall."""

    def chosen(self, worth: Float64[np.ndarray, " nodes"]) -> Bool[np.ndarray, " nodes"]:
        """The nodes, none inside another, with the largest sum of `worth` - `NODE_COST`.

        `worth` is the prediction of `Joining.node` from `cues`. Dynamic programming from the pieces
        up: `best` is the largest sum inside each node.
        """
        leaves = len(self.parent) - len(self.children)
        best = np.maximum(np.where(self.layout, 0, worth) - NODE_COST, 0)
        taken = best > 0
        for node, (one, other) in enumerate(self.children.tolist(), start=leaves):
            parts = best[one] + best[other]
            if parts > best[node]:
                best[node], taken[node] = parts, False
        for node in reversed(range(len(self.parent))):
            above = self.parent[node]
            if above >= 0 and taken[above]:
                taken[node] = True  # inside a chosen node
        top = taken.copy()
        joined = self.parent >= 0
        top[joined] &= ~taken[self.parent[joined]]
        return top

    def cut(self, chosen: Bool[np.ndarray, " nodes"]) -> Int64[np.ndarray, " pieces"]:
        """The node that contains each piece in the result: the chosen one, else the largest without
        a chosen one inside and with all its merges more probable than `LIKELY`.
        """
        count = len(self.parent)
        leaves = count - len(self.children)
        inside, contains = chosen.copy(), chosen.copy()
        for node in reversed(range(count)):
            inside[node] |= self.parent[node] >= 0 and inside[self.parent[node]]
        merged = np.ones(count, bool)
        for node, children in enumerate(self.children.tolist(), start=leaves):
            contains[node] |= contains[children].any()
            merged[node] = inside[node] or (
                merged[children].all() and not contains[node] and self.probability[node] > LIKELY
            )
        return tops(self.parent, merged)[:leaves]


def build_hierarchy(pieces: Pieces) -> Hierarchy:
    """Merge neighbouring `pieces`, the most probable pair first, down to `LEAST_PROBABILITY`."""
    count = len(pieces.layout)
    node_cues = NodeCues(pieces)
    heap: list[tuple[float, int, int, int, int]] = []
    node = np.arange(count)
    children: list[tuple[int, int]] = []
    probability = [1.0] * count

    def rate(pairs: Pairs) -> list[tuple[int, int, float]]:
        pairs = [(p, q) for p, q in pairs if not (pieces.layout[p] and pieces.layout[q])]
        if not pairs:
            return []
        found = [
            (*pair, p)
            for pair, p in zip(pairs, pieces.merge_probability(pairs).tolist(), strict=True)
        ]
        for one, other, p in found:
            if p > LEAST_PROBABILITY:
                versions = int(pieces.version[one]), int(pieces.version[other])
                heapq.heappush(heap, (-p, one, other, *versions))
        return found

    near: list[dict[int, float]] = [{} for _ in range(count)]
    for one, other, p in rate([(p, q) for p, e in enumerate(pieces.edge) for q in e if p < q]):
        near[one][other] = near[other][one] = p
    for each in range(count):
        node_cues.add(each, near[each])
    while heap:
        p, one, other, *versions = heapq.heappop(heap)
        if not (pieces.alive[one] and pieces.alive[other]):
            continue
        if versions != [pieces.version[one], pieces.version[other]]:
            continue
        children.append((int(node[one]), int(node[other])))
        probability.append(-p)
        kept = pieces.merge(one, other)
        node[kept] = count + len(children) - 1
        around = rate([(min(kept, q), max(kept, q)) for q in pieces.edge[kept]])
        node_cues.add(kept, {a + b - kept: p for a, b, p in around})
    joins = np.array(children, np.int64).reshape(-1, 2)
    tree = Tree.of(joins, np.array(probability))
    found = node_cues.cues(joins, tree.parent, tree.probability)
    return Hierarchy(joins, tree.parent, tree.probability, found, np.array(node_cues.layout, bool))
