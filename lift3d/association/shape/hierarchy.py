"""Pieces joined to ever larger things, and which of these are objects."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from lift3d.association.shape.pieces import Pairs, Pieces
from lift3d.association.shape.nodes import NodeCues

LEAST_PROBABILITY = 0.1
"""Joins less likely than that are not tried."""
NODE_COST = 0.15
"""What a choice costs: what is worth less is no object, and two halves must together be worth more
than the whole by that much."""


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """A forest: the pieces, in order, then what each join made, in order."""

    children: Int64[np.ndarray, "joins 2"]
    parent: Int64[np.ndarray, " nodes"]
    """-1 where none."""
    likely: Float64[np.ndarray, " nodes"]
    """How likely the two parts of a node are one thing; 1 of a piece."""
    cues: Float64[np.ndarray, "nodes cues"]
    """Those of `wholes.CUES`."""
    layout: Bool[np.ndarray, " nodes"]
    """Floor, walls and what is joined to them."""

    def chosen(self, worth: Float64[np.ndarray, " nodes"]) -> Bool[np.ndarray, " nodes"]:
        """The nodes, none inside another, of the greatest sum of `worth` - `NODE_COST`.

        `worth` is what `Joining.whole` says of `cues`. From the pieces up, so that each node knows
        the best that can be made of its parts.
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
                taken[node] = True  # inside what is taken
        top = taken.copy()
        joined = self.parent >= 0
        top[joined] &= ~taken[self.parent[joined]]
        return top

    def cut(self, chosen: Bool[np.ndarray, " nodes"]) -> Int64[np.ndarray, " pieces"]:
        """The node that each piece ends in: the one chosen; where none is, the largest that holds
        no chosen one and whose parts are each more likely one thing than two.
        """
        count = len(self.parent)
        leaves = count - len(self.children)
        inside, holds = chosen.copy(), chosen.copy()
        for node in reversed(range(count)):
            inside[node] |= self.parent[node] >= 0 and inside[self.parent[node]]
        whole = np.ones(count, bool)
        for node, children in enumerate(self.children.tolist(), start=leaves):
            holds[node] |= holds[children].any()
            whole[node] = inside[node] or (
                whole[children].all() and not holds[node] and self.probability[node] > 0.5
            )
        end = np.arange(count)
        for node in reversed(range(count)):
            above = self.parent[node]
            if above >= 0 and whole[above]:
                end[node] = end[above]
        return end[:leaves]


def build_hierarchy(pieces: Pieces) -> Hierarchy:
    """Join `pieces`, the surest neighbours first, until no two are likely one thing at all."""
    count = len(pieces.layout)
    node_cues = NodeCues(pieces)
    heap: list[tuple[float, int, int, int, int]] = []
    node = np.arange(count)
    children: list[tuple[int, int]] = []
    likely = [1.0] * count

    def ask(pairs: Pairs) -> list[tuple[int, int, float]]:
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
    for one, other, p in ask([(p, q) for p, e in enumerate(pieces.edge) for q in e if p < q]):
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
        likely.append(-p)
        kept = pieces.merge(one, other)
        node[kept] = count + len(children) - 1
        around = ask([(min(kept, q), max(kept, q)) for q in pieces.edge[kept]])
        node_cues.add(kept, {a + b - kept: p for a, b, p in around})
    joins = np.array(children, np.int64).reshape(-1, 2)
    parent = np.full(len(likely), -1)
    parent[joins] = np.arange(count, len(likely))[:, None]
    sure = np.array(likely)
    return Hierarchy(
        joins, parent, sure, node_cues.cues(joins, parent, sure), np.array(node_cues.layout, bool)
    )
