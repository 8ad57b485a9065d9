"""Evidence kept where there is some decides as a table of all superpoints and objects would."""

import numpy as np
import pytest
from scipy import sparse

from lift3d.association import labelling
from lift3d.association.meanfield import smooth


def dense_smooth(evidence, a, b, weight, rounds):
    """The obvious way: every object everywhere."""
    links = np.zeros((len(evidence), len(evidence)))
    np.add.at(links, (a, b), weight)
    links += links.T

    def softmax(energy):
        shifted = np.exp(energy - energy.max(1, keepdims=True))
        return shifted / shifted.sum(1, keepdims=True)

    belief = softmax(evidence)
    for _ in range(rounds):
        belief = softmax(evidence + links @ belief)
    return belief.argmax(1)


@pytest.mark.parametrize("seed", range(5))
def test_objects_that_are_elsewhere_change_nothing(seed):
    rng = np.random.default_rng(seed)
    pieces, objects = 60, 40
    evidence = np.zeros((pieces, objects))
    for piece in range(pieces):  # a row of pieces, objects that follow each other along it
        near = piece * objects // pieces + np.arange(-1, 2)
        evidence[piece, near.clip(0, objects - 1)] = rng.exponential(1.0, 3)
    a = np.arange(pieces - 1, dtype=np.int32)
    weight = rng.uniform(0.2, 2.0, len(a))
    expected = dense_smooth(evidence, a, a + 1, weight, 30)
    found = smooth(sparse.csr_array(evidence), a, a + np.int32(1), weight, 30)
    np.testing.assert_array_equal(found, expected)


def test_a_neighbour_decides_where_there_is_no_evidence_and_nobody_where_there_is_none_around():
    evidence = sparse.csr_array(np.array([[0, 0, 2.0], [0, 0, 0], [0, 0, 0]]))
    one, other = np.array([0], np.int32), np.array([1], np.int32)
    assert smooth(evidence, one, other, np.array([1.0]), 3).tolist() == [2, 2, -1]


def test_a_table_that_grows_holds_the_sums():
    rng = np.random.default_rng(0)
    table = labelling._Table.empty(3)
    expected = np.zeros((3, 2000), np.float32)
    labelled, looked = np.zeros((2, 3), np.float32)
    gains = sparse.random_array((5, 2000), density=0.5, rng=rng, dtype=np.float32).tocsr()
    for _ in range(4):
        piece, mask = rng.integers(0, 3, 20, np.int32), rng.integers(-1, 5, 20, np.int32)
        weight = rng.random(20, np.float32)
        table = labelling._Table(
            *labelling._add(
                *(piece, mask + 1, mask, weight, gains.indptr, gains.indices, gains.data),
                *(*table, labelled, looked),
            )
        )
        for p, m, w in zip(piece, mask, weight, strict=True):
            if m >= 0:
                expected[p] += w * gains[[m]].toarray()[0]
    held = sparse.csr_array(labelling._rows(*table), expected.shape)
    assert held.has_sorted_indices
    np.testing.assert_allclose(held.toarray(), expected, rtol=1e-5)
    assert len(table.gain) > 1027  # it had room for fewer
