"""Nearest neighbours on a grid."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from lift3d.geometry.grid import LAST, Grid


def surface(count, seed=0):
    """Points near the faces of a box, and a few far from all."""
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(-1, 1, (count, 3))
    xyz[np.arange(count), rng.integers(0, 3, count)] = 1 + rng.normal(0, 0.01, count)
    xyz[: count // 50] *= 40
    return xyz


@pytest.mark.parametrize("count", [1, 5, 60])
def test_neighbours_are_those_of_a_search_tree(count):
    xyz, reach = surface(3000), 0.15
    _, expected = cKDTree(xyz).query(xyz, [*range(1, count + 1)], distance_upper_bound=reach)
    found = Grid(xyz, reach).nearest(count)
    np.testing.assert_array_equal(found, expected)
    assert (found == len(xyz)).any() == (count > 1)


def test_points_beyond_the_last_cell_are_found_too():
    xyz = surface(500)
    xyz[250:375] = np.random.default_rng(1).uniform(0, 100 * LAST, (125, 3))
    xyz[375:] = xyz[250:375] + 0.1
    _, expected = cKDTree(xyz).query(xyz, 8, distance_upper_bound=0.5)
    np.testing.assert_array_equal(Grid(xyz, 0.5).nearest(8), expected)
    assert (expected[250:, 1] < 500).all()


def test_chunks_hold_every_point_once_with_its_neighbours():
    xyz = surface(1000)
    grid = Grid(xyz, 0.2)
    chunks = list(grid.chunks(7, 64))
    points = np.concatenate([each for each, _ in chunks])
    assert sorted(points) == list(range(1000))
    assert max(len(each) for each, _ in chunks) == 64
    np.testing.assert_array_equal(
        np.concatenate([near for _, near in chunks]), grid.nearest(7)[points]
    )


def test_no_point_has_no_neighbours_and_one_has_itself():
    assert Grid(np.zeros((0, 3)), 1.0).nearest(3).shape == (0, 3)
    assert list(Grid(np.zeros((0, 3)), 1.0).chunks(3, 10)) == []
    assert Grid(np.ones((1, 3)), 1.0).nearest(3).tolist() == [[0, 1, 1]]
