"""Clusters of anchors that the views put into one mask."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int32

from lift3d.association.clusters import confirmed, join_distant
from lift3d.association.config import AssociationConfig
from lift3d.association.evidence import Observations, pair_agreement, pair_graph
from lift3d.geometry.linkage import agglomerate
from lift3d.scene import Points

PRIOR = 0.1
"""Views against a merge that are added to every pair of points, so that pairs that hardly any view
sees do not decide. Chosen by hand; not tuned on data."""
NEIGHBOURS = (4, 8, 8, 8)
"""Neighbours of each point on each level of `pair_graph`. Chosen by hand; not tuned on data."""
SMALLEST = 5
"""Minimum anchors of clusters that may merge without touching. Chosen by hand; not tuned on
data."""


def identities(
    seen: Observations,
    anchors: Points,
    coarse: Int32[np.ndarray, " anchors"],
    fine: Int32[np.ndarray, " anchors"],
    config: AssociationConfig,
    seed: int,
) -> Int32[np.ndarray, " anchors"]:
    """Cluster of each anchor, -1 = none."""
    a, b = pair_graph(anchors.xyz, NEIGHBOURS, seed)
    agree, total = pair_agreement(seen, a, b, config.uncovered)
    node = _pure(coarse, fine, a, b, agree, total, config.purity)
    nodes = int(node.max(initial=-1)) + 1
    one, other = node[a], node[b]
    low, high = np.minimum(one, other).astype(np.int64), np.maximum(one, other)
    key, where = np.unique(low * nodes + high, return_inverse=True)
    between = key // max(nodes, 1) != key % max(nodes, 1)
    agree = np.bincount(where, agree, len(key))[between]
    total = np.bincount(where, total + PRIOR, len(key))[between]
    key = key[between]
    cluster = agglomerate(
        nodes,
        (key // max(nodes, 1)).astype(np.int32),
        (key % max(nodes, 1)).astype(np.int32),
        agree,
        total,
        config.threshold,
    )[node]
    cluster = join_distant(seen, cluster, config.threshold, config.uncovered, smallest=SMALLEST)
    return confirmed(seen, cluster, config.support, config.views)


def _pure(
    coarse: Int32[np.ndarray, " anchors"],
    fine: Int32[np.ndarray, " anchors"],
    a: Int32[np.ndarray, " pairs"],
    b: Int32[np.ndarray, " pairs"],
    agree: Float64[np.ndarray, " pairs"],
    total: Float64[np.ndarray, " pairs"],
    purity: float,
) -> Int32[np.ndarray, " anchors"]:
    """Coarse superpoints; those in which the views disagree are replaced by fine ones."""
    inside = coarse[a] == coarse[b]
    pieces = int(coarse.max(initial=-1)) + 1
    same = np.bincount(coarse[a[inside]], agree[inside], pieces)
    observed = np.bincount(coarse[a[inside]], total[inside], pieces)
    impure = same < purity * observed
    name = np.where(impure[coarse], fine.astype(np.int64) + pieces, coarse)
    return np.unique(name, return_inverse=True)[1].astype(np.int32)
