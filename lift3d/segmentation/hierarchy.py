"""Region tree of an image: superpixels are the leaves, the image is the root."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from lift3d.geometry.graphs import felzenszwalb
from lift3d.scene import LabelMap


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """Superpixels and the binary tree of their merges; children come before parents."""

    leaf: Int32[np.ndarray, "height width"]
    """Superpixel of each pixel; superpixels are the first `leaves` nodes of the tree."""
    parent: Int64[np.ndarray, " nodes"]
    """The root is its own parent."""
    altitude: Float64[np.ndarray, " nodes"]
    """Mean dissimilarity along the border between the node's children; 0 for leaves."""
    area: Float64[np.ndarray, " nodes"]
    """In pixels."""

    @property
    def leaves(self) -> int:
        """Number of superpixels."""
        return (len(self.parent) + 1) // 2

    def sum_up(self, values: Float64[np.ndarray, " leaves"]) -> Float64[np.ndarray, " nodes"]:
        """Sum of `values` over the superpixels of each node."""
        return _sum_up(self.parent, values)

    def chain(self, leaf: int) -> list[int]:
        """The nodes on the path from a superpixel to the root."""
        nodes = [leaf]
        while self.parent[nodes[-1]] != nodes[-1]:
            nodes.append(int(self.parent[nodes[-1]]))
        return nodes

    def pixels(self, node: int) -> np.ndarray:
        """Boolean (height, width): the pixels of a node."""
        inside = np.zeros(len(self.parent), bool)
        inside[node] = True
        for below in range(node - 1, -1, -1):
            inside[below] |= inside[self.parent[below]]
        return inside[: self.leaves][self.leaf]

    def cut(self, level: float) -> LabelMap:
        """The largest nodes of altitude at most `level`, as ids from 1."""
        nodes = len(self.parent)
        region = np.zeros(nodes, np.int32)
        for node in range(nodes - 1, -1, -1):
            above = region[self.parent[node]]
            region[node] = above if above else (node + 1 if self.altitude[node] <= level else 0)
        _, ids = np.unique(region[: self.leaves], return_inverse=True)
        return (ids + 1).astype(np.int32)[self.leaf]


def build_hierarchy(
    shape: tuple[int, int],
    a: Int32[np.ndarray, " edges"],
    b: Int32[np.ndarray, " edges"],
    dissimilarity: Float32[np.ndarray, " edges"],
    scale: float,
    smallest: int,
) -> Hierarchy:
    """Superpixels by graph segmentation, merged by average linkage of their borders (higra)."""
    import higra

    count = shape[0] * shape[1]
    leaf = felzenszwalb(a, b, dissimilarity, scale, smallest, np.zeros(count, np.int64))
    leaves = int(leaf.max()) + 1
    area = np.bincount(leaf, minlength=leaves).astype(np.float64)
    if leaves == 1:
        zero = np.zeros(1, np.int64)
        return Hierarchy(leaf.reshape(shape), zero, np.zeros(1), area)
    leaf_a, leaf_b = leaf[a], leaf[b]
    low, high = np.minimum(leaf_a, leaf_b).astype(np.int64), np.maximum(leaf_a, leaf_b)
    across = low != high
    key, border = np.unique((low * leaves + high)[across], return_inverse=True)
    length = np.bincount(border).astype(np.float64)
    mean = np.bincount(border, dissimilarity[across]) / length
    graph = higra.UndirectedGraph(leaves)
    graph.add_edges(key // leaves, key % leaves)
    tree, altitude = higra.binary_partition_tree_average_linkage(graph, mean, length)
    parent = np.asarray(tree.parents(), np.int64)
    return Hierarchy(
        leaf.reshape(shape), parent, np.asarray(altitude, np.float64), _sum_up(parent, area)
    )


def _sum_up(parent: np.ndarray, values: np.ndarray) -> Float64[np.ndarray, " nodes"]:
    total = np.zeros(len(parent))
    total[: len(values)] = values
    for node in range(len(total) - 1):
        total[parent[node]] += total[node]
    return total
