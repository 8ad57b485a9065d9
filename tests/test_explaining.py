"""The nodes of the tree of joins that explain a mask, against a slow search over all nodes."""

import numpy as np
import pytest

from lift3d.association.surface import Surface
from lift3d.correction.clicks.nodes import COST, explaining
from lift3d.correction.clicks.place import ONES
from lift3d.correction.joins import JoinTree


def grown(rng, leaves, joins):
    """A tree over superpoints of one point each, joined at random."""
    tops, pairs = list(range(leaves)), []
    for node in range(leaves, leaves + joins):
        one, other = (tops.pop(int(rng.integers(len(tops)))) for _ in range(2))
        pairs.append((one, other))
        tops.append(node)
    nothing = np.zeros((0, 2), np.int32)
    each = np.arange(leaves, dtype=np.int32)
    return JoinTree(
        Surface(
            superpoint=each,
            edges=nothing,
            strength=np.zeros(0, np.float32),
            joins=np.array(pairs, np.int32).reshape(-1, 2),
            likelihood=np.ones(len(pairs), np.float32),
            node=each,
            object=each + 1,
        )
    )


def slowly(tree, inside, outside):
    """Every node in turn: whole where it explains more than its two parts do apart."""
    leaves, cost = len(inside), COST * inside.sum()
    own_in = np.concatenate([inside, np.zeros(len(tree.parent) - leaves)])
    own_out = np.concatenate([outside, np.zeros(len(tree.parent) - leaves)])
    best = np.maximum(own_in - own_out - cost, 0)
    whole = best > 0
    for node, (one, other) in tree.children.items():
        own_in[node], own_out[node] = own_in[one] + own_in[other], own_out[one] + own_out[other]
        alone, apart = own_in[node] - own_out[node] - cost, best[one] + best[other]
        whole[node] = alone > 0 and alone >= apart
        best[node] = max(alone, apart)
    for node in range(len(tree.parent) - 1, -1, -1):
        above = tree.parent[node]
        whole[node] |= above >= 0 and whole[above]
    return whole[:leaves]


@pytest.mark.parametrize("seed", range(40))
def test_only_nodes_with_something_of_the_mask_are_looked_at(seed):
    rng = np.random.default_rng(seed)
    leaves = int(rng.integers(2, 30))
    tree = grown(rng, leaves, int(rng.integers(1, leaves)))
    inside, outside = (
        rng.integers(0, 20, leaves) * (rng.random(leaves) < share) * 1.0 for share in (0.4, 0.6)
    )
    members, iou = explaining(tree, inside, outside)
    assert members.tolist() == slowly(tree, inside, outside).tolist()
    assert iou == pytest.approx(
        inside[members].sum() / max(inside.sum() + outside[members].sum(), 1e-9)
    )


def test_bits_of_a_byte_are_counted():
    assert [int(ONES[each]) for each in (0, 1, 7, 128, 255)] == [0, 1, 3, 1, 8]
