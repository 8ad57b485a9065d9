"""Cluster the anchors to objects by the masks of all views."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int32

from lift3d.association.clusters import confirmed, join_distant
from lift3d.association.config import AssociationConfig
from lift3d.association.evidence import Observations, pair_agreement, pair_graph
from lift3d.geometry.linkage import agglomerate
from lift3d.scene import Points

UNSEEN = 0.1
"""Prior evidence, in views, against joining each pair of points. Chosen by hand; not tuned on
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
    a, b = pair_graph(anchors.xyz, (4, 8, 8, 8), seed)
    agree, total = pair_agreement(seen, a, b, config.uncovered)
    node = _pure(coarse, fine, a, b, agree, total, config.purity)
    nodes = int(node.max(initial=-1)) + 1
    one, other = node[a], node[b]
    low, high = np.minimum(one, other).astype(np.int64), np.maximum(one, other)
    key, where = np.unique(low * nodes + high, return_inverse=True)
    between = key // max(nodes, 1) != key % max(nodes, 1)
    # Where few pairs are visible in the same view, a few outliers must not decide.
    agree = np.bincount(where, agree, len(key))[between]
    total = np.bincount(where, total + UNSEEN, len(key))[between]
    key = key[between]
    cluster = agglomerate(
        nodes,
        (key // max(nodes, 1)).astype(np.int32),
        (key % max(nodes, 1)).astype(np.int32),
        agree,
        total,
        config.threshold,
    )[node]
    cluster = join_distant(seen, cluster, config.threshold, config.uncovered, smallest=5)
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
    """Coarse superpoints where the views agree inside, fine ones where they do not."""
    inside = coarse[a] == coarse[b]
    pieces = int(coarse.max(initial=-1)) + 1
    for_it = np.bincount(coarse[a[inside]], agree[inside], pieces)
    asked = np.bincount(coarse[a[inside]], total[inside], pieces)
    impure = for_it < purity * asked
    name = np.where(impure[coarse], fine.astype(np.int64) + pieces, coarse)
    return np.unique(name, return_inverse=True)[1].astype(np.int32)
