"""One click without weights: the nodes of the tree of joins that hold a point, part to whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64

from lift3d.association.surface import Edges, Surface
from lift3d.scene.errors import InputError

CRUMB = 0.02
"""Least share of an object's points in a part that taking back a join makes. Chosen by hand."""


class JoinTree:
    """The tree that the association made; looking up a node's points takes no search.

    Where only masks decided, there is no tree, and superpoints are joined by the strength of their
    edges, the strongest first.
    """

    def __init__(self, surface: Surface) -> None:
        self._superpoint = surface.superpoint
        leaves = len(surface.object)
        joins = surface.joins
        if not len(joins):
            joins = by_strength(surface.edges, surface.strength, leaves)
        self.parent = np.full(leaves + len(joins), -1, np.int64)
        self.parent[joins] = np.arange(leaves, leaves + len(joins))[:, None]
        self._own = surface.node
        self.leaves = leaves
        """Number of superpoints: the first nodes."""
        size = np.ones(len(self.parent), np.int64)
        for node, (one, other) in enumerate(joins.tolist(), start=leaves):
            size[node] = size[one] + size[other]
        # In this order of the leaves every node is a run of them.
        self._start = np.zeros(len(self.parent), np.int64)
        roots = np.flatnonzero(self.parent < 0)
        self._start[roots] = np.cumsum(size[roots]) - size[roots]
        for node, (one, other) in reversed(list(enumerate(joins.tolist(), start=leaves))):
            self._start[one] = self._start[node]
            self._start[other] = self._start[node] + size[one]
        self._end = self._start + size
        inside = np.flatnonzero(self._superpoint >= 0)
        place = self._start[self._superpoint[inside]]
        order = np.argsort(place, kind="stable")
        self._members = inside[order]
        self._first = np.searchsorted(place[order], np.arange(leaves + 1))
        self.children = {leaves + at: tuple(each) for at, each in enumerate(joins.tolist())}

    def path(self, point: int) -> list[int]:
        """The nodes that hold a point, from its superpoint to the root; empty for noise."""
        node = int(self._superpoint[point])
        found = []
        while node >= 0:
            found.append(node)
            node = int(self.parent[node])
        return found

    def points_of(self, node: int) -> Int64[np.ndarray, " members"]:
        """Indices of the points of a node, ascending."""
        low, high = self._first[self._start[node]], self._first[self._end[node]]
        return np.sort(self._members[low:high]).astype(np.int64)

    def size_of(self, node: int) -> int:
        """Number of points of a node."""
        return int(self._first[self._end[node]] - self._first[self._start[node]])

    def leaves_of(self, node: int) -> Bool[np.ndarray, " superpoints"]:
        """Which superpoints a node has."""
        place = self._start[: len(self._own)]
        return (place >= self._start[node]) & (place < self._end[node])

    def sums(self, values: Float64[np.ndarray, " superpoints"]) -> Float64[np.ndarray, " nodes"]:
        """The sum of a value of superpoints over each node; of zeros exactly 0."""
        ordered = np.zeros(len(values) + 1)
        ordered[1 + self._start[: len(values)]] = values
        total = np.cumsum(ordered)
        return total[self._end] - total[self._start]

    def above(self, superpoints: Int64[np.ndarray, " some"]) -> list[int]:
        """The nodes with any of some superpoints, parts before what they are part of."""
        found: set[int] = set()
        for node in superpoints.tolist():
            while node >= 0 and node not in found:
                found.add(node)
                node = int(self.parent[node])
        return sorted(found)

    def holds(self, node: int, point: int) -> bool:
        """Whether a node holds a point."""
        leaf = int(self._superpoint[point])
        return leaf >= 0 and bool(self._start[node] <= self._start[leaf] < self._end[node])

    def division(
        self, points: Int64[np.ndarray, " members"], count: int
    ) -> Int64[np.ndarray, " members"]:
        """Number of the part of each point, from 0, in at most `count` parts.

        Joins are taken back, the last one first. One that split off less than `CRUMB` of the points
        makes no part.
        """
        least = CRUMB * len(points)
        place = np.where(
            self._superpoint[points] >= 0, self._start[self._superpoint[points]], -1
        )  # a node holds the points whose place is in its run of leaves
        part = np.zeros(len(points), np.int64)
        leaves, sizes = np.unique(self._superpoint[points], return_counts=True)
        if not len(points) or leaves[np.argmax(sizes)] < 0:
            return part
        root = int(leaves[np.argmax(sizes)])
        while self.parent[root] >= 0:
            root = int(self.parent[root])
        open_nodes, made = [(root, 0)], 1
        while open_nodes and made < count:
            open_nodes.sort()
            node, own = open_nodes.pop()
            if node not in self.children:
                continue
            inside = []
            for child in self.children[node]:
                within = (self._start[child] <= place) & (place < self._end[child])
                inside.append((int(np.count_nonzero(within & (part == own))), child, within))
            (few, small, within), (_, large, _) = sorted(inside, key=lambda each: each[:2])
            open_nodes.append((large, own))
            if few >= max(least, 1):
                part[within & (part == own)] = made
                open_nodes.append((small, made))
                made += 1
        return part

    def level(
        self, point: int, level: int | None = None, remove: Sequence[int] = ()
    ) -> tuple[int, list[int]]:
        """Position in the path of `point`, and the path.

        `level` None is the node that became its object; above the ends of the path, the ends. It
        descends until none of `remove` is inside. InputError where no node is so.
        """
        path = self.path(point)
        if not path:
            raise InputError(
                "this point is noise: it is in no piece of the surface; click beside it"
            )
        if level is None:
            own = int(self._own[self._superpoint[point]])
            level = path.index(own) if own in path else 0
        level = min(max(level, 0), len(path) - 1)
        while any(self.holds(path[level], each) for each in remove):
            level -= 1
            if level < 0:
                raise InputError(
                    "no node of the tree holds these points without the others: split the object"
                )
        return level, path


def by_strength(
    edges: Edges, strength: Float32[np.ndarray, " edges"], leaves: int
) -> Int32[np.ndarray, "joins 2"]:
    """Joins of superpoints, the strongest edge first (single linkage).

    >>> by_strength(np.int32([[0, 1], [1, 2]]), np.float32([0.2, 0.9]), 3).tolist()
    [[1, 2], [0, 3]]
    """
    top = list(range(2 * leaves))

    def root(each: int) -> int:
        while top[each] != each:
            top[each] = top[top[each]]
            each = top[each]
        return each

    joins: list[tuple[int, int]] = []
    for at in np.argsort(-strength, kind="stable").tolist():
        one, other = (root(int(each)) for each in edges[at])
        if one != other:
            top[one] = top[other] = leaves + len(joins)
            joins.append((min(one, other), max(one, other)))
    return np.array(joins, np.int32).reshape(-1, 2)
