"""Seams on the surface, the trained classifiers, and merging by a classifier."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from lift3d.association.shape import nodes
from lift3d.association.shape.borders import Neighbours, borders
from lift3d.association.shape.cues import CUES, cues
from lift3d.association.shape.hierarchy import build_hierarchy
from lift3d.association.shape.joining import joining
from lift3d.association.shape.pieces import SIZE, SMALL_PIECE, Pieces, largest
from lift3d.association.shape.seams import AROUND, lines, seams
from lift3d.association.shape.surfels import Surfels
from lift3d.association.shape.trees import LEAF, Trees
from lift3d.association.superpoints import lab
from lift3d.scene import Points

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pipelines"))
from train_joining import mean_of, trees_of

CELL = 0.02


def sheet(width=40, height=30):
    """A flat sheet of surfels, one a cell, light grey."""
    x, y = (each.ravel() * CELL for each in np.meshgrid(np.arange(width), np.arange(height)))
    xyz = np.stack([x, y, np.zeros(len(x))], axis=1)
    normal = np.tile([0.0, 0, 1], (len(x), 1))
    lab = np.tile(np.array([60, 0, 0], np.float32), (len(x), 1))
    return Surfels(xyz, normal, lab, np.arange(len(x)))


def columns(surface):
    return np.rint(surface.xyz[:, 0] / CELL).astype(int)


LIGHT, DARK = 150, 110
STEP = float(np.subtract(*lab(np.repeat([[LIGHT], [DARK]], 3, axis=1).astype(np.uint8))[:, 0]))
"""Lightness between those greys."""


def neighbours(surface, grey):
    """With a point of that grey on each surfel."""
    rgb = np.repeat(np.asarray(grey, np.uint8)[:, None], 3, axis=1)
    count = len(surface)
    points = Points(
        surface.xyz.astype(np.float32), rgb, np.zeros((count, 3), np.float32),
        np.ones(count, np.float32),
    )  # fmt: skip
    return Neighbours(surface, lines(surface, points, CELL), CELL)


def test_the_mean_of_models_has_the_weighted_sum_of_their_log_odds():
    random = np.random.default_rng(0)
    rows = random.normal(size=(300, 4))
    models = [
        trees_of(
            HistGradientBoostingClassifier(max_iter=10, random_state=0).fit(
                rows, rows[:, each] > random.normal(size=300)
            )
        )
        for each in range(3)
    ]
    weights = 0.5, 0.3, 0.2
    odds = [np.log(each(rows) / (1 - each(rows))) for each in (*models, mean_of(models, weights))]
    np.testing.assert_allclose(odds[3], np.dot(weights, odds[:3]), atol=1e-5)


def test_a_dark_line_is_a_seam_between_its_sides_and_nowhere_else():
    surface = sheet()
    column = columns(surface)
    near = neighbours(surface, np.where(column == 20, DARK, LIGHT))
    low, high = (f(column[near.a], column[near.b]) for f in (np.minimum, np.maximum))
    over = (
        (low < 20) & (high > 20) & (np.abs(surface.xyz[near.a, 1] - surface.xyz[near.b, 1]) < 1e-6)
    )
    assert over.any()
    np.testing.assert_allclose(near.seam[over], STEP, atol=0.05 * STEP)
    away = (high < 17) | (low > 23)
    assert near.seam[away].max() == 0


@pytest.mark.parametrize("sign", [1, -1], ids=["shadow", "light line"])
def test_the_edge_of_a_shadow_and_a_light_line_are_no_seams(sign):
    surface = sheet()
    column = columns(surface)
    shadow, light = np.where(column < 20, DARK, LIGHT), np.where(column == 20, LIGHT, DARK)
    near = neighbours(surface, shadow if sign > 0 else light)
    across = (column[near.a] < 20) != (column[near.b] < 20)
    inner = np.abs(surface.xyz[near.a, 1] - 0.3) < 0.2
    if sign < 0:
        across = (column[near.a] == 20) & (column[near.b] != 20)
    # Slanting lines find a little of a step on the grid of the points.
    assert near.seam[across & inner].max() < 0.15 * STEP


def test_a_line_thinner_than_a_surfel_is_found_by_its_points():
    """Four points a surfel; the line is one point wide."""
    fine = sheet(80, 60)
    coarse = sheet()
    column, row = columns(fine), np.rint(fine.xyz[:, 1] / CELL).astype(int)
    surfel = (row // 2) * 40 + column // 2
    middle = np.array([0.5, 0.5, 0]) * CELL
    points = Points(
        fine.xyz.astype(np.float32),
        np.repeat(np.where(column == 40, DARK, LIGHT).astype(np.uint8)[:, None], 3, axis=1),
        np.zeros((len(fine), 3), np.float32),
        np.ones(len(fine), np.float32),
    )
    surface = Surfels(2 * coarse.xyz + middle, coarse.normal, coarse.lab, surfel)
    depth, across = lines(surface, points, CELL)
    at = columns(coarse)
    inner = np.abs(coarse.xyz[:, 1] - 0.3) < 0.2
    np.testing.assert_allclose(depth[(at == 20) & inner], STEP, rtol=0.05)
    np.testing.assert_allclose(np.abs(across[(at == 20) & inner, 0]), 1, atol=1e-6)
    assert depth[(np.abs(at - 20) > 2) & inner].max() == 0


def test_lines_do_not_depend_on_the_size_of_chunks(monkeypatch):
    surface = sheet()
    rng = np.random.default_rng(0)
    grey = rng.integers(90, 160, len(surface)).astype(np.uint8)
    count = len(surface)
    points = Points(
        surface.xyz.astype(np.float32), np.repeat(grey[:, None], 3, axis=1),
        np.zeros((count, 3), np.float32), np.ones(count, np.float32),
    )  # fmt: skip
    # Three points a surfel, far apart in order, so that its deepest line may be of any chunk.
    shared = replace(surface, of_point=np.arange(count) % (count // 3))
    at_once = lines(shared, points, CELL)
    monkeypatch.setattr("lift3d.association.shape.seams.CHUNK", 97)
    for one, other in zip(at_once, lines(shared, points, CELL), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (at_once[0][: count // 3] > 0).mean() > 0.9


def test_one_point_has_no_line():
    surface = Surfels(
        np.zeros((1, 3)), np.eye(3)[:1], np.zeros((1, 3), np.float32), np.zeros(1, int)
    )
    blank = np.zeros((1, 3), np.float32)
    points = Points(blank, np.zeros((1, 3), np.uint8), blank, np.ones(1, np.float32))
    depth, across = lines(surface, points, CELL)
    assert depth.tolist() == [0]
    assert across.shape == (1, 3)


def test_a_surface_of_one_surfel_has_no_seams():
    surface = Surfels(
        np.zeros((1, 3)), np.eye(3)[:1], np.zeros((1, 3), np.float32), np.zeros(1, int)
    )
    line, none = (np.zeros(1), np.zeros((1, 3))), np.zeros(0, np.int32)
    near = np.zeros((1, AROUND), np.int32)
    assert seams(surface, *line, CELL, none, none, near).shape == (0,)
    assert len(Neighbours(surface, line, CELL).seam) == 0


def test_trees_predict_as_scikit_learn(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 4))
    y = x[:, 0] + x[:, 1] ** 2 > rng.normal(size=400)
    x[rng.random(x.shape) < 0.1] = np.nan
    model = HistGradientBoostingClassifier(max_iter=20, max_leaf_nodes=6).fit(x, y)
    trees = trees_of(model)
    expected = model.predict_proba(x)[:, 1]
    np.testing.assert_allclose(trees(x), expected, atol=2e-5)
    np.savez(tmp_path / "trees.npz", **trees.as_arrays("some"))
    with np.load(tmp_path / "trees.npz") as arrays:
        np.testing.assert_array_equal(Trees.of_arrays(arrays, "some")(x), trees(x))


@pytest.mark.parametrize("name", [name for name, way in CUES.items() if way])
def test_features_with_a_constrained_sign_obey_it(name):
    """The classifier in the package, on features about as large as its thresholds."""
    rng = np.random.default_rng(0)
    trees = joining().join
    inner = trees.flags < LEAF
    rows = np.zeros((5000, len(CUES)))
    for each in range(len(CUES)):
        known = trees.threshold[inner & (trees.feature == each)]
        rows[:, each] = rng.choice(known, len(rows)) * rng.uniform(0.9, 1.1, len(rows))
    at = list(CUES).index(name)
    before = joining().join(rows)
    rows[:, at] += np.abs(rows[:, at]) * rng.uniform(0, 2, len(rows))
    change = CUES[name] * (joining().join(rows) - before)
    assert change.min() > -1e-6
    assert change.max() > 0  # and it has an effect


def test_the_classifiers_use_as_many_features_as_there_are():
    learned = joining()
    for trees, count in ((learned.join, len(CUES)), (learned.node, len(nodes.CUES))):
        assert trees.feature.max() < count
        assert 0 < trees(np.full((1, count), np.nan))[0] < 1


def quarters(probability, layout=()):
    """A sheet in four strips, 10 columns each, with a small piece at the end of the last."""
    surface = sheet()
    piece = (columns(surface) // 10).astype(np.int64)
    piece[np.arange(len(piece)) >= len(piece) - 5] = 4
    near = neighbours(surface, np.full(len(surface), LIGHT))
    up = np.array([0.0, 0, 1])
    is_layout = np.isin(np.arange(5), layout)
    return Pieces(
        surface, CELL, piece, is_layout, borders(surface, piece, near, up), up, probability
    )


def ends(pieces):
    """The tree, and the node that contains each piece where no node is chosen."""
    tree = build_hierarchy(pieces)
    return tree, tree.cut(np.zeros(len(tree.parent), bool))


def test_pieces_are_merged_the_most_probable_pair_first():
    rated = []

    def probability(pieces, pairs):
        rated.append(pairs)
        return np.array(
            [0.9 if set(p) == {0, 1} else 0.6 if set(p) == {1, 2} else 0.05 for p in pairs]
        )

    pieces = quarters(probability)
    tree, end = ends(pieces)
    # After the merge of 0 and 1 their neighbours are rated again.
    assert tree.children[0].tolist() == [0, 1]
    assert len(rated) > 1
    assert end[0] == end[1]
    assert end[3] not in end[:3]
    assert (tree.probability[5:] > 0.1).all()


def test_only_small_pieces_merge_with_walls_at_any_probability():
    tree, end = ends(quarters(lambda pieces, pairs: np.full(len(pairs), 0.99), layout=(3,)))
    assert SMALL_PIECE > 5
    assert end[4] == end[3]
    assert end[0] == end[1] == end[2] != end[3]
    assert tree.layout[end[3]]
    assert not tree.layout[end[0]]


def test_features_of_a_node_are_its_size_its_border_and_its_place_in_the_tree():
    def probability(pieces, pairs):
        return np.array([0.9 if max(p) < 2 else 0.3 for p in pairs])

    tree = build_hierarchy(quarters(probability, layout=(4,)))
    column = {name: tree.cues[:, at] for at, name in enumerate(nodes.CUES)}
    node = 5
    assert tree.children[0].tolist() == [0, 1]
    np.testing.assert_allclose(column["size"][[0, node]], np.log1p([300, 600]))
    assert column["pieces"][node] == np.log(2)
    assert column["share of the larger child"][node] == 0.5
    assert column["merge probability"][node] == column["merge probability of the parent"][0] == 0.9
    assert column["most probable neighbour"][node] == 0.3
    # The border of the two is the line to the third; walls are not objects.
    assert column["border along objects"][node] == 1
    assert 0 < column["border along floor and walls"][3] < 1
    assert column["faces one way"][node] == pytest.approx(1)
    assert column["filled"][node] == pytest.approx(1, rel=0.02)
    assert column["share of the sibling"][0] == 0.5
    assert tree.layout.tolist()[:6] == [False] * 4 + [True, False]


def test_the_largest_part_is_known_whichever_is_the_root():
    pieces = quarters(lambda pieces, pairs: np.zeros(len(pairs)))
    size = pieces.sums[:, SIZE].copy()
    kept = pieces.merge(4, 3)  # the small piece and the strip below it
    found = largest(pieces.roots(), size)[kept]
    assert found == 3
    assert size[3] > size[4]


def test_groups_are_merged_and_their_sums_add_up():
    pieces = quarters(lambda pieces, pairs: np.zeros(len(pairs)))
    size, moments = pieces.sums[:, SIZE].copy(), pieces.moments.copy()
    pieces.merge_groups(np.array([7, 7, 3, 3, 7]))  # piece 4 touches none of its group
    root = pieces.roots()
    assert root[0] == root[1] != root[2] == root[3]
    assert root[4] == 4
    assert pieces.sums[root[0], SIZE] == size[0] + size[1]
    np.testing.assert_allclose(pieces.moments[root[2]], moments[2] + moments[3])
    assert set(pieces.edge[root[0]]) == {root[2]}


def test_cues_are_the_same_from_either_side():
    pieces = quarters(lambda pieces, pairs: np.zeros(len(pairs)))
    there, back = cues(pieces, [(0, 1), (3, 4)]), cues(pieces, [(1, 0), (4, 3)])
    assert there.shape == (2, len(CUES))
    np.testing.assert_allclose(there[1], back[1])


def test_merging_a_copy_leaves_the_pieces_as_they_are():
    pieces = quarters(lambda pieces, pairs: np.zeros(len(pairs)))
    before = cues(pieces, [(0, 1), (1, 2)])
    pieces.copy().merge_groups(np.zeros(5, np.int64))
    assert pieces.alive.all()
    np.testing.assert_array_equal(cues(pieces, [(0, 1), (1, 2)]), before)
