import numpy as np

from lift3d.geometry.linkage import PRIOR, agglomerate


def slow_twin(nodes, a, b, agree, total, threshold):
    """One merge at a time over a dense matrix."""
    for_, all_ = np.zeros((2, nodes, nodes))
    for x, y, s, t in zip(a, b, agree, total, strict=True):
        for_[x, y] += s
        for_[y, x] += s
        all_[x, y] += t
        all_[y, x] += t
    groups = [[i] for i in range(nodes)]
    while True:
        best, pair = threshold, None
        for i in range(len(groups)):
            for j in range(i + 1, len(groups)):
                s = for_[np.ix_(groups[i], groups[j])].sum()
                t = all_[np.ix_(groups[i], groups[j])].sum()
                if t > 0 and (s + PRIOR) / (t + 2 * PRIOR) > best:
                    best, pair = (s + PRIOR) / (t + 2 * PRIOR), (i, j)
        if pair is None:
            return {frozenset(group) for group in groups}
        groups[pair[0]] += groups.pop(pair[1])


def test_the_heap_gives_the_merges_of_the_definition():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        nodes = int(rng.integers(2, 40))
        a, b = np.triu_indices(nodes, 1)
        chosen = rng.random(len(a)) < 0.4
        a, b = a[chosen].astype(np.int32), b[chosen].astype(np.int32)
        total = rng.uniform(0.5, 20, len(a))  # no ties
        agree = total * rng.random(len(a))
        cluster = agglomerate(nodes, a, b, agree, total, 0.55)
        found = {frozenset(np.flatnonzero(cluster == c).tolist()) for c in np.unique(cluster)}
        assert found == slow_twin(nodes, a, b, agree, total, 0.55)


def test_clusters_are_numbered_by_their_first_node():
    one = np.array([9.0])
    cluster = agglomerate(4, np.array([1], np.int32), np.array([3], np.int32), one, one, 0.5)
    assert cluster.tolist() == [0, 1, 2, 1]


def test_two_halves_that_disagree_stay_apart_though_a_chain_of_near_pairs_joins_them():
    # 0-1-2 | 3-4-5: neighbours always agree, even across the border; far pairs never do.
    a, b = np.triu_indices(6, 1)
    same = (a < 3) == (b < 3)
    agree = np.where(same, 10.0, np.where(b - a == 1, 8.0, 0.0))
    total = np.full(len(a), 10.0)
    cluster = agglomerate(6, a.astype(np.int32), b.astype(np.int32), agree, total, 0.5)
    assert cluster.tolist() == [0, 0, 0, 1, 1, 1]
