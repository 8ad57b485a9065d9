"""The order in which edges are visited."""

import numpy as np
import pytest

from lift3d.geometry.graphs import by_difference


@pytest.mark.parametrize("seed", range(3))
def test_edges_are_in_the_order_of_a_stable_sort(seed):
    rng = np.random.default_rng(seed)
    some = np.concatenate([rng.normal(size=50), [0.0, -0.0, 1e-40, -1e-40, 1e30, -1e30]])
    difference = rng.choice(some, 400).astype(np.float32)
    np.testing.assert_array_equal(by_difference(difference), difference.argsort(kind="stable"))


def test_no_edges_have_no_order():
    assert len(by_difference(np.zeros(0, np.float32))) == 0
