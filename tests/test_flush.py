"""Objects flush with floor or wall, and objects found on a denser surface than the cloud."""

from __future__ import annotations

import numpy as np
import pytest

from lift3d.association.shape.flush import FEWEST, patches, split

WALL, POSTER = (80.0, 0.0, 0.0), (50.0, 40.0, 20.0)


def wall_with_poster(colour, poster=FEWEST, seen=(0.0, 10.0), plane=0):
    """`split` of a wall of two patches of 400 surfels, with a poster between them."""
    patch = np.repeat([0, 1, 2], [400, 400, poster])
    lab = np.array([WALL, WALL, colour], np.float32)[patch]
    pairs = np.array([[0, 1], [0, 2], [1, 2]])
    same = np.array([10.0, seen[0], seen[0]])
    weight = np.array([10.0, seen[1], seen[1]])
    return split(patch, np.array([0, 0, plane]), lab, pairs, same, weight)


def test_a_poster_that_views_keep_apart_is_an_object():
    piece, is_layout = wall_with_poster(POSTER)
    assert piece.tolist() == [0, 0, 1]
    assert is_layout.tolist() == [True, False]


@pytest.mark.parametrize(
    "changed",
    [{"seen": (8.0, 10.0)}, {"poster": FEWEST - 1}, {"colour": (75.0, 1.0, 1.0)}],
    ids=["one mask with the wall", "small", "a shadow"],
)
def test_what_is_no_object_stays_with_the_wall(changed):
    piece, is_layout = wall_with_poster(**{"colour": POSTER} | changed)
    assert piece.tolist() == [0, 0, 0]
    assert is_layout.tolist() == [True]


def test_colour_decides_where_no_view_sees_both():
    assert wall_with_poster(POSTER, seen=(0.0, 0.0))[0].tolist() == [0, 0, 1]
    assert wall_with_poster(WALL, seen=(0.0, 0.0))[0].tolist() == [0, 0, 0]


def test_pieces_on_no_plane_stay_as_they_are():
    piece, is_layout = wall_with_poster(WALL, seen=(10.0, 10.0), plane=-1)
    assert piece.tolist() == [0, 0, 1]
    assert is_layout.tolist() == [True, False]


def test_a_piece_across_a_corner_is_a_patch_on_each_side():
    patch, plane = patches(np.array([5, 5, 5, 2]), np.array([-1, 0, 1, 1]))
    assert len(np.unique(patch)) == 4
    np.testing.assert_array_equal(plane[patch], [-1, 0, 1, 1])
