"""The tree inside of pieces: patches of floor and wall."""

import numpy as np

from lift3d.association.shape.hierarchy import Tree
from lift3d.association.shape.patchwork import ONE_PIECE, with_patches

WALL, POSTER = [60.0, 0, 0], [[30.0, 40, 0], [30.0, 50, 0], [35.0, 45, 5]]


def wall_with_poster():
    """Piece 0: a wall of three patches, of which one touches nothing, and a poster of three; piece
    1: one patch. The pieces are merged.
    """
    tree = Tree.of(np.array([[0, 1]]), np.array([1, 1, 0.3]))
    piece = np.array([0, 0, 0, 0, 0, 1, 0])
    size = np.array([1000, 40, 40, 40, 800, 100, 9])
    colour = np.array([WALL, *POSTER, WALL, WALL, WALL])
    pairs = np.array([[0, 1], [0, 2], [0, 3], [1, 2], [2, 3], [0, 4], [3, 4], [4, 5]])
    return with_patches(tree, piece, size, colour, pairs)


def leaves(tree, node):
    count = len(tree.parent) - len(tree.children)
    if node < count:
        return {int(node)}
    one, other = tree.children[node - count]
    return leaves(tree, one) | leaves(tree, other)


def test_the_patches_of_a_poster_merge_before_they_merge_with_the_wall():
    tree, _ = wall_with_poster()
    count = len(tree.parent) - len(tree.children)
    assert count == 7
    found = [leaves(tree, node) for node in range(count, len(tree.parent))]
    assert {1, 2, 3} in found
    assert {0, 4} in found
    assert {0, 4, 6} not in found  # what touches nothing comes last
    assert found[-2:] == [{0, 1, 2, 3, 4, 6}, {0, 1, 2, 3, 4, 5, 6}]


def test_the_nodes_of_pieces_are_in_the_new_tree():
    tree, place = wall_with_poster()
    assert leaves(tree, place[0]) == {0, 1, 2, 3, 4, 6}
    assert leaves(tree, place[1]) == {5}
    assert leaves(tree, place[2]) == {0, 1, 2, 3, 4, 5, 6}
    assert tree.parent[place[0]] == tree.parent[place[1]] == place[2]
    assert tree.probability[place[0]] == ONE_PIECE
    assert tree.probability[place[2]] == 0.3
    assert (tree.probability[:7] == 1).all()


def test_pieces_of_one_patch_keep_their_tree():
    tree = Tree.of(np.array([[0, 2], [3, 1]]), np.array([1, 1, 1, 0.8, 0.4]))
    none = np.zeros((0, 2), np.int64)
    found, place = with_patches(tree, np.arange(3), np.ones(3, int), np.zeros((3, 3)), none)
    np.testing.assert_array_equal(found.children, tree.children)
    np.testing.assert_array_equal(found.parent, tree.parent)
    np.testing.assert_array_equal(found.probability, tree.probability)
    np.testing.assert_array_equal(place, np.arange(5))


def test_nothing_has_no_tree():
    tree = Tree.of(np.zeros((0, 2), np.int64), np.zeros(0))
    none = np.zeros(0, np.int64)
    found, place = with_patches(tree, none, none, np.zeros((0, 3)), np.zeros((0, 2), np.int64))
    assert not len(found.parent)
    assert not len(place)
