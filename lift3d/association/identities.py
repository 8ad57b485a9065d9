"""Clusters of anchors that the views put into one mask."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int32

from lift3d.association.clusters import confirmed, join_distant
from lift3d.association.config import AssociationConfig
from lift3d.association.contacts import Contacts
from lift3d.association.evidence import Observations, pair_agreement, pair_graph
from lift3d.association.stability import stability
from lift3d.scene import Points

SURE = 0.8
"""Threshold from which pieces merge in every draw of `stability`, so that a draw has few of them.
Chosen by hand; not tuned on data."""
NEIGHBOURS = (4, 8, 8, 8)
"""Neighbours of each point on each level of `pair_graph`. Chosen by hand; not tuned on data."""
SMALLEST = 5
"""Minimum anchors of clusters that may merge without touching. Chosen by hand; not tuned on
data."""


class Identities(NamedTuple):
    """Clusters of anchors, and how stable they are."""

    cluster: Int32[np.ndarray, " anchors"]
    """-1 = none."""
    stability: Float64[np.ndarray, " clusters"]
    """How well random parts of the masks give each again, 0 to 1."""


def identities(
    seen: Observations,
    anchors: Points,
    coarse: Int32[np.ndarray, " anchors"],
    fine: Int32[np.ndarray, " anchors"],
    config: AssociationConfig,
    seed: int,
) -> Identities:
    """The clusters. Pieces that nearly all views put into one mask are merged first."""
    a, b = pair_graph(anchors.xyz, NEIGHBOURS, seed)
    agree, total = pair_agreement(seen, a, b, config.uncovered)
    node = _pure(coarse, fine, a, b, agree, total, config.purity)
    for threshold in (max(SURE, config.threshold), config.threshold):
        contacts = Contacts.of(node, a, b)
        between = contacts.between
        node = contacts.merged(agree[between], total[between], threshold)
    cluster = join_distant(seen, node, config.threshold, config.uncovered, smallest=SMALLEST)
    cluster = confirmed(seen, cluster, config.support, config.views)
    stable = stability(seen, cluster, contacts, config.threshold, config.uncovered, seed)
    return Identities(cluster, stable)


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
