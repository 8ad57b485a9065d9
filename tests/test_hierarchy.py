"""The hierarchy of merged pieces, the choice of its nodes, and their extents."""

import numpy as np
import pytest

from lift3d.association.shape.hierarchy import NODE_COST, Hierarchy
from lift3d.association.shape.moments import meetings, moments, solids
from lift3d.association.shape.surfels import Surfels


def tree(pieces, children, probability, layout=()):
    """A hierarchy without cues."""
    joins = np.array(children).reshape(-1, 2)
    parent = np.full(pieces + len(joins), -1)
    parent[joins] = np.arange(pieces, len(parent))[:, None]
    known = np.array([1.0] * pieces + list(probability))
    none = np.zeros((len(parent), 0))
    return Hierarchy(joins, parent, known, none, np.isin(np.arange(len(parent)), layout))


def inside(children, pieces, node):
    """Pieces of a node."""
    if node < pieces:
        return {node}
    one, other = children[node - pieces]
    return inside(children, pieces, one) | inside(children, pieces, other)


def grown(rng, pieces):
    """A random forest with 3/4 as many merges as pieces."""
    free, children = list(range(pieces)), []
    for _ in range(3 * pieces // 4):
        one, other = (free.pop(rng.integers(len(free))) for _ in range(2))
        free.append(pieces + len(children))
        children.append((one, other))
    return children


@pytest.mark.parametrize("seed", range(20))
def test_the_choice_is_the_best_of_all_that_do_not_overlap(seed):
    rng = np.random.default_rng(seed)
    children = grown(rng, 7)
    hierarchy = tree(7, children, rng.uniform(0.1, 1, len(children)))
    count = len(hierarchy.parent)
    worth = rng.uniform(0, 1, count)
    sets = [inside(children, 7, node) for node in range(count)]

    def best(nodes, used):
        """Try every choice."""
        if not nodes:
            return 0.0
        first, *rest = nodes
        without = best(rest, used)
        if sets[first] & used:
            return without
        return max(without, worth[first] - NODE_COST + best(rest, used | sets[first]))

    chosen = np.flatnonzero(hierarchy.chosen(worth))
    held = [sets[node] for node in chosen]
    assert sum(map(len, held)) == len(set().union(*held))
    found = sum(worth[node] - NODE_COST for node in chosen)
    assert found == pytest.approx(best(list(range(count)), set()))


def test_two_good_halves_are_chosen_over_a_worse_parent_and_never_floor():
    hierarchy = tree(3, [(0, 1), (3, 2)], [0.9, 0.4], layout=(2, 4))
    worth = np.array([0.7, 0.6, 0.9, 0.8, 0.99])
    assert np.flatnonzero(hierarchy.chosen(worth)).tolist() == [0, 1]
    worth[:2] = 0.5, 0.4
    assert np.flatnonzero(hierarchy.chosen(worth)).tolist() == [3]


@pytest.mark.parametrize(
    ("chosen", "end"),
    [
        ((), [4, 4, 2, 3]),
        ((5,), [5, 5, 5, 3]),
        ((0,), [0, 1, 2, 3]),
        ((6,), [6, 6, 6, 6]),
    ],
    ids=["nothing", "an improbable merge", "a piece", "all"],
)
def test_chosen_nodes_are_cut_out_and_the_rest_merged_while_probable(chosen, end):
    hierarchy = tree(4, [(0, 1), (4, 2), (5, 3)], [0.9, 0.4, 0.8])
    taken = np.isin(np.arange(7), chosen)
    assert hierarchy.cut(taken).tolist() == end


def cloud(rng, count=200):
    xyz = rng.normal(size=(count, 3)) * [0.1, 0.5, 0.02] @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    normal = rng.normal(size=(count, 3)) + [0, 0, 2]
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return Surfels(xyz, normal, np.zeros((count, 3), np.float32), np.arange(count))


def test_extents_are_those_of_the_points_and_add_up():
    rng = np.random.default_rng(0)
    surface = cloud(rng)
    piece = rng.integers(0, 2, len(surface))
    found = moments(surface, 0.01, piece, 2)
    one = solids(found.sum(0, keepdims=True), np.array([200.0]))[0]
    spread = np.cov(surface.xyz.T / 0.01, bias=True)
    np.testing.assert_allclose(one[:3], np.sqrt(np.linalg.eigvalsh(spread)), rtol=1e-9)
    assert one[3] == pytest.approx(np.linalg.norm(surface.normal.mean(0)))
    for each in (0, 1):
        inner = np.cov(surface.xyz[piece == each].T / 0.01, bias=True)
        size = np.array([(piece == each).sum()], float)
        alone = solids(found[[each]], size)[0]
        np.testing.assert_allclose(alone[:3], np.sqrt(np.linalg.eigvalsh(inner)), rtol=1e-9)


def face(corner, side, other, normal, cells=(20, 10)):
    """Surfels of a rectangle, one a cell of 0.01."""
    u, v = (each.ravel() + 0.5 for each in np.meshgrid(*map(np.arange, cells)))
    xyz = np.array(corner) + 0.01 * (u[:, None] * np.array(side) + v[:, None] * np.array(other))
    return xyz, np.tile(np.array(normal, float), (len(xyz), 1))


def test_two_faces_of_a_box_meet_along_their_whole_edge():
    """A top of 20 x 10 cells and a front of 20 x 6, and another that is moved by 5 along it."""
    top = face([0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1])
    for shift in (0.0, 0.05):
        front = face([shift, 0, -0.06], [1, 0, 0], [0, 0, 1], [0, -1, 0], (20, 6))
        xyz, normal = (np.concatenate(each) for each in zip(top, front, strict=True))
        lab = np.zeros((len(xyz), 3), np.float32)
        piece = np.repeat([0, 1], [200, 120])
        found = moments(Surfels(xyz, normal, lab, np.arange(len(xyz))), 0.01, piece, 2)
        size = np.array([200.0, 120])
        wide, wider, beside = meetings(found[:1], size[:1], found[1:], size[1:])[0]
        assert wide == pytest.approx(20, rel=0.01)
        assert wider == pytest.approx(20, rel=0.01)
        assert beside == pytest.approx(shift / 0.01, abs=1e-6)
        filled = solids(found, size)[:, 4]
        np.testing.assert_allclose(filled, 1, rtol=0.03)


def test_pieces_that_face_alike_meet_across_the_line_between_them():
    left = face([0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], (8, 30))
    right = face([0.08, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], (6, 15))
    xyz, normal = (np.concatenate(each) for each in zip(left, right, strict=True))
    piece = np.repeat([0, 1], [240, 90])
    lab = np.zeros((len(xyz), 3), np.float32)
    found = moments(Surfels(xyz, normal, lab, np.arange(len(xyz))), 0.01, piece, 2)
    size = np.array([240.0, 90])
    # The middles are 7 apart across and 7.5 along: the line between them is oblique.
    wide, wider, beside = meetings(found[:1], size[:1], found[1:], size[1:])[0]
    assert np.isnan(beside)
    # Widths along (7.5, 7) / 10.26 of rectangles of 8 x 30 and 6 x 15 cells.
    for found_wide, across, along in ((wide, 8, 30), (wider, 6, 15)):
        expected = np.hypot(across * 7.5, along * 7) / np.hypot(7.5, 7)
        assert found_wide == pytest.approx(expected, rel=0.02)
