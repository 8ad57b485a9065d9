"""The superpoints of the objects, their edges, and the tree of their merges."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32

from lift3d.scene.storage import load_arrays, save_arrays

Edges = Int32[np.ndarray, "edges 2"]


@dataclass(frozen=True, eq=False)
class Surface:
    """The graph of superpoints and the tree of merges that gave the objects.

    Nodes of the tree are first the superpoints, then one node per merge, both in order.
    """

    superpoint: Int32[np.ndarray, " points"]
    """Superpoint of each point of the cloud; -1 for points in none."""
    edges: Edges
    """Pairs of superpoints that touch, the smaller index first."""
    strength: Float32[np.ndarray, " edges"]
    """0 to 1: by shape, the probability that both are one object; by masks, the similarity of
    normals and colours along the border."""
    joins: Int32[np.ndarray, "joins 2"]
    """The two nodes of each merge; empty where only the masks decided."""
    likelihood: Float32[np.ndarray, " joins"]
    """Probability that the two nodes of each merge are one object."""
    node: Int32[np.ndarray, " superpoints"]
    """Node of the tree that contains each superpoint in the result."""
    object: Int32[np.ndarray, " superpoints"]
    """Object with most points of each superpoint; 0 = none."""

    def save(self, path: Path) -> None:
        """Write all arrays to `path`."""
        save_arrays(path, vars(self))

    @staticmethod
    def load(path: Path) -> Surface:
        """Read a file that `save` wrote; InputError if it is missing or damaged."""
        return load_arrays(path, Surface)


def majority(
    superpoint: Int32[np.ndarray, " points"], label: Int32[np.ndarray, " points"], count: int
) -> Int32[np.ndarray, " superpoints"]:
    """The label of most points of each superpoint; the smaller of equals.

    >>> majority(np.int32([0, 0, 0, 1, -1]), np.int32([2, 2, 1, 0, 7]), 3)
    array([2, 0, 0], dtype=int32)
    """
    inside = superpoint >= 0
    span = int(label.max(initial=0)) + 1
    key, votes = np.unique(
        superpoint[inside].astype(np.int64) * span + label[inside], return_counts=True
    )
    order = np.lexsort((-key, votes))  # ascending votes; of equals the smaller label comes last
    found = np.zeros(count, np.int32)
    found[key[order] // span] = key[order] % span
    return found


def touching(
    superpoint: Int32[np.ndarray, " points"],
    a: Int32[np.ndarray, " pairs"],
    b: Int32[np.ndarray, " pairs"],
    link: Float32[np.ndarray, " pairs"],
) -> tuple[Edges, Float32[np.ndarray, " edges"]]:
    """Superpoints connected by neighbouring points `a`, `b`, and the mean `link` of each border.

    >>> touching(np.int32([0, 0, 1]), np.int32([0, 1]), np.int32([1, 2]), np.float32([1, 0.5]))
    (array([[0, 1]], dtype=int32), array([0.5], dtype=float32))
    """
    one, other = superpoint[a].astype(np.int64), superpoint[b].astype(np.int64)
    across = (one != other) & (one >= 0) & (other >= 0)
    low, high = np.minimum(one, other)[across], np.maximum(one, other)[across]
    span = int(superpoint.max(initial=-1)) + 1
    key, where = np.unique(low * span + high, return_inverse=True)
    mean = np.bincount(where, link[across], len(key)) / np.maximum(np.bincount(where), 1)
    edges = np.stack([key // max(span, 1), key % max(span, 1)], axis=1).astype(np.int32)
    return edges, mean.astype(np.float32)
