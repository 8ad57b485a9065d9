"""Objects by the shape of the surface: crates on a floor, with and without masks."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from lift3d.association.looks import looks
from lift3d.association.shape import Shape
from lift3d.association.shape.agreement import Agreement, shares
from lift3d.association.shape.layout import layout
from lift3d.association.shape.patchwork import ONE_PIECE
from lift3d.association.shape.surfels import ALIKE, _onto_planes, surfels
from lift3d.correction.joins import JoinTree
from lift3d.geometry.visibility import DepthTolerance
from lift3d.scene import Camera, Points, Scene, View

WIDTH, HEIGHT = 64, 48
SPACING = 0.05


def plate(corner, side, other, step=SPACING):
    """Points on a rectangle and their normal, side x other."""
    side, other = np.array(side, float), np.array(other, float)
    u, v = (np.arange(step / 2, np.linalg.norm(each), step) for each in (side, other))
    u, v = (each.ravel() for each in np.meshgrid(u, v))
    xyz = (
        corner
        + u[:, None] * side / np.linalg.norm(side)
        + v[:, None] * other / np.linalg.norm(other)
    )
    normal = np.cross(side, other)
    return xyz, np.tile(normal / np.linalg.norm(normal), (len(xyz), 1))


def crate(x, y, z, wide, high, turned=0.0, deep=None):
    """The top and the sides of a crate with its middle at x, y and its foot at z."""
    deep = wide if deep is None else deep
    cosine, sine = np.cos(np.radians(turned)), np.sin(np.radians(turned))
    a, b = wide * np.array([cosine, sine, 0]), deep * np.array([-sine, cosine, 0])
    c = np.array([0, 0, high])
    at = np.array([x, y, z]) - a / 2 - b / 2
    return [
        plate(at + c, a, b),
        plate(at, a, c),
        plate(at, c, b),
        plate(at + b, c, a),
        plate(at + a, b, c),
    ]


def room(*crates):
    """A floor of 7 x 7 m with crates on it, all of one grey; and the part of each point."""
    parts = [[plate(np.zeros(3), [7, 0, 0], [0, 7, 0])], *crates]
    xyz = np.concatenate([each[0] for part in parts for each in part]).astype(np.float32)
    normal = np.concatenate([each[1] for part in parts for each in part]).astype(np.float32)
    of = np.repeat(np.arange(len(parts)), [sum(len(x) for x, _ in part) for part in parts])
    rgb = np.full((len(xyz), 3), 128, np.uint8)
    return Points(xyz, rgb, normal, np.ones(len(xyz), np.float32)), of


def upright():
    """A camera that looks along y, its top towards z."""
    pose = np.eye(4)
    pose[:3, :3] = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    return Camera(np.eye(3), WIDTH, HEIGHT, pose)


def from_above(points, of, count=4):
    """Views from 6 m above the middle of the floor: (view, depth), and the part in each pixel."""
    K = np.array([[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]])
    pose = np.diag([1.0, -1, -1, 1])
    seen = []
    for index in range(count):
        pose[:3, 3] = [3.0 + 0.2 * index, 3.5, 6.0]
        camera = Camera(K, WIDTH, HEIGHT, pose.copy())
        local = (points.xyz - pose[:3, 3]) @ pose[:3, :3]
        column, row = (np.rint(60 * local[:, i] / local[:, 2] + K[i, 2]) for i in (0, 1))
        inside = (column >= 0) & (column < WIDTH) & (row >= 0) & (row < HEIGHT)
        depth, part = np.full((HEIGHT, WIDTH), 9, np.float32), np.zeros((HEIGHT, WIDTH), np.int32)
        for point in np.flatnonzero(inside)[np.argsort(-local[inside, 2])]:
            at = int(row[point]), int(column[point])
            depth[at], part[at] = local[point, 2], of[point] + 1
        depth[depth == 9] = 0
        grey = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        seen.append((View(f"{index}", camera, lambda grey=grey: grey), depth, part))
    return seen


def looks_at(points, seen, table=None):
    """Observations of points by views; `table` gives new labels."""
    views = [replace(view, load_depth=partial(np.copy, depth)) for view, depth, _ in seen]
    maps = {view.name: labels if table is None else table[labels] for view, _, labels in seen}
    return looks(points, Scene("room", tuple(views), False, "test"), maps, DepthTolerance(0.1))


def objects(points, cameras=(), seen=()):
    """Object of each point."""
    shape = Shape(points, SPACING, list(cameras), metric=False)
    for look in looks_at(points, seen):
        shape.add(look)
    return shape.objects().object


def mostly(label, of):
    """The object with most points of each part, and the share of the part in it."""
    found = [np.bincount(label[of == part] + 1) for part in range(of.max() + 1)]
    return [int(each.argmax()) for each in found], [each.max() / each.sum() for each in found]


def test_a_crate_of_the_floors_colour_is_one_object():
    points, of = room(crate(2.5, 2.5, 0, 1.0, 0.8))
    best, share = mostly(objects(points, [upright()]), of)
    assert best[0] != best[1]
    assert min(share) > 0.97


def test_a_small_rug_is_floor_but_a_node_of_the_tree():
    """No mask tells it from the floor; a node of two patches lets clicks take it out."""
    points, of = room(crate(1.5, 1.5, 0, 1.0, 0.8))
    x, y = points.xyz[:, 0], points.xyz[:, 1]
    rug = (of == 0) & (np.abs(x - 5) < 0.35) & (np.abs(y - 5) < 0.35)
    points.rgb[rug & (x < 5)] = [200, 60, 60]
    points.rgb[rug & (x >= 5)] = [160, 60, 90]
    shape = Shape(points, SPACING, [upright()], metric=False)
    found = shape.objects()
    surface = found.surface(found.object + 1)
    assert len(np.unique(found.object[rug | (of == 0)])) == 1
    tree = JoinTree(surface)
    middle = int(np.flatnonzero(rug)[0])
    best = max(
        len(np.intersect1d(members, np.flatnonzero(rug)))
        / len(np.union1d(members, np.flatnonzero(rug)))
        for members in map(tree.points_of, tree.path(middle))
    )
    assert best > 0.8
    of_edge = surface.object[surface.edges]
    within = (of_edge == surface.object[surface.superpoint[middle]]).all(1)
    np.testing.assert_allclose(surface.strength[within], ONE_PIECE)


def pile(count, dark, wide=1.6, high=1.0):
    """Equal flush crates of one grey: no fold, step or colour edge between them, only a line that
    is darker by `dark`.
    """
    crates = [crate(3.5, 3.5, high * level, wide, high) for level in range(count)]
    points, of = room(*(sides[1:] for sides in crates[:-1]), crates[-1])
    for level in range(1, count):
        at = (np.abs(points.xyz[:, 2] - high * level) < 0.6 * SPACING) & (of > 0)
        points.rgb[at] -= np.uint8(dark)
    return points, of


@pytest.mark.parametrize("dark", [0, 30, 60])
def test_flush_crates_of_one_colour_are_one_object_unless_a_dark_line_is_between_them(dark):
    points, of = pile(2, dark)
    best, share = mostly(objects(points, [upright()]), of)
    assert min(share) > 0.75
    assert best[0] not in best[1:]
    assert len(set(best[1:])) == (2 if dark else 1)


@pytest.mark.parametrize("count", [2, 3])
def test_pieces_end_at_dark_lines(count):
    """Merging cannot divide a piece again."""
    held = []
    for dark in (0, 30):
        points, of = pile(count, dark, 1.2, 0.8)
        shape = Shape(points, SPACING, [upright()], metric=False)
        piece = shape.of_points(shape.piece)
        shared = np.zeros((piece.max() + 1, count + 1))
        np.add.at(shared, (piece[piece >= 0], of[piece >= 0]), 1)
        crates = shared[shared[:, 1:].sum(1) > shared[:, 0], 1:]
        held.append(crates.max(1).sum() / crates.sum())
    assert held[1] > 0.95
    assert held[0] < held[1] - 0.1


def bonds(points, of, seen=()):
    """Pairs of neighbouring pieces: their parts, and the probability that they are one object."""
    shape = Shape(points, SPACING, [upright()], metric=False)
    for look in looks_at(points, seen):
        shape.add(look)
    pieces = shape.pieces()
    pairs = [(a, b) for a, edges in enumerate(pieces.edge) for b in edges if a < b]
    surfel = shape.surface.of_point
    found = np.zeros((len(pieces.layout), of.max() + 1))
    np.add.at(found, (shape.piece[surfel[surfel >= 0]], of[surfel >= 0]), 1)
    part = found.argmax(1)
    return [sorted((part[a], part[b])) for a, b in pairs], pieces.merge_probability(pairs)


def test_a_crates_own_edges_join_its_two_colours_and_a_fold_divides_it_from_another():
    points, of = room(crate(2.6, 2.6, 0, 1.2, 0.8), crate(2.6, 2.6, 0.8, 0.8, 0.6))
    points.rgb[(of == 1) & (points.xyz[:, 2] < 0.4)] = (150, 60, 60)
    points.rgb[of == 2] = (60, 60, 150)
    parts, probability = bonds(points, of)
    own = np.array([one == other > 0 for one, other in parts])
    other = np.array([pair == [1, 2] for pair in parts])
    assert np.median(probability[own]) > 0.9
    assert np.median(probability[other]) < 0.2


def test_views_that_keep_two_crates_apart_make_them_less_likely_one():
    """One colour and one concave edge between them."""
    points, of = room(crate(3.5, 3.5, 0, 1.8, 0.8), crate(3.5, 3.5, 0.8, 1.0, 0.8))
    apart = from_above(points, of)
    together = [(view, depth, np.minimum(part, 2)) for view, depth, part in apart]
    means = []
    for seen in (together, apart):
        parts, found = bonds(points, of, seen)
        means.append(np.mean([p for pair, p in zip(parts, found, strict=True) if pair == [1, 2]]))
    odds = [each / (1 - each) for each in means]
    assert odds[1] < 0.5 * odds[0]


def test_an_object_with_a_leg_on_broad_ground_stays_separate():
    """A rug or a stage is ground; an object with one leg on one of its own size is a part of it."""
    for wide, count in ((5.0, 3), (2.0, 2)):
        stage, leg = crate(3.5, 3.5, 0, wide, 0.5), crate(3.5, 3.5, 0.5, 0.2, 0.5)
        under = plate(np.array([2.2, 2.2, 1.0]), [0, 2.6, 0], [2.6, 0, 0])
        points, of = room(stage, [*leg[1:], *crate(3.5, 3.5, 1.0, 2.6, 0.6), under])
        points.rgb[of == 1] = (150, 60, 60)
        best, _ = mostly(objects(points, [upright()]), of)
        assert len(set(best)) == count


@pytest.mark.parametrize(
    ("spacing", "metric", "cell"),
    [
        (0.005, True, 1.93 * 0.005),
        (0.015, True, 0.025),
        (0.05, True, 0.055),
        (0.05, False, 1.93 * 0.05),
    ],
    ids=["dense", "capped", "coarse", "unit unknown"],
)
def test_surfels_are_small_or_as_small_as_the_points_allow(spacing, metric, cell):
    points, _ = room()
    assert Shape(points, spacing, [], metric).cell == pytest.approx(cell)


def test_objects_are_the_same_every_time_and_none_without_normals():
    points, _ = room(crate(2.5, 2.5, 0, 1.0, 0.8))
    first, second = (objects(points) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    blank = Points(points.xyz, points.rgb, 0 * points.normal, points.confidence)
    assert (objects(blank) == -1).all()


def test_a_large_compact_object_has_more_confidence_than_a_strip_along_the_wall():
    points, of = room(crate(3.5, 3.5, 0, 1.2, 1.0), crate(1.5, 1.5, 0, 2.0, 0.1, deep=0.15))
    points.rgb[of == 2] = (60, 60, 150)
    shape = Shape(points, SPACING, [upright()], metric=False)
    found = shape.objects()
    confidence = found.confidence
    best, _ = mostly(found.object, of)
    assert len(set(best)) == 3
    floor, crate_, strip = (confidence[each - 1] for each in best)
    assert 1 >= floor > crate_ > strip > 0


def test_surfels_of_a_noisy_plane_are_on_the_plane():
    points, _ = room()
    rng = np.random.default_rng(0)
    noisy = points.xyz + rng.normal(0, 0.01, points.xyz.shape).astype(np.float32)
    found = surfels(Points(noisy, points.rgb, points.normal, points.confidence), 0.1)
    assert np.abs(found.xyz[:, 2]).mean() < 0.004
    planes, plane = layout(found, np.zeros(len(found), np.int32), 0.1)
    assert len(planes) == 1
    assert (plane == 0).mean() > 0.95
    assert planes[0].normal[2] > 0.999


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [(1, 1, 1.0), (1, 2, 0.0), (0, 1, np.nan)],
    ids=["one mask", "two masks", "unlabelled"],
)
def test_agreement_is_the_share_of_views_with_one_mask(left, right, expected):
    points, _ = room()
    piece = (points.xyz[:, 0] > 3.5).astype(np.int64)
    pair = np.array([0]), np.array([1])
    seen = from_above(points, piece)
    agreement = Agreement(points, piece, *pair)
    for look in looks_at(points, seen, np.array([0, left, right], np.int32)):
        agreement.add(look)
    np.testing.assert_allclose(shares(*agreement.counts()[1:]), [expected])
    opposite = np.array([0, 1, 1 if expected == 0 else 2], np.int32)
    for look in looks_at(points, seen, opposite):  # as many views with the opposite labels
        agreement.add(look)
    if not np.isnan(expected):
        np.testing.assert_allclose(shares(*agreement.counts()[1:]), [0.5], atol=0.02)


def test_points_move_onto_the_planes_of_a_slow_twin():
    rng = np.random.default_rng(0)
    xyz, normal, weight = rng.normal(size=(30, 3)), rng.normal(size=(30, 3)), rng.random(30) + 0.1
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    near = np.array([rng.permutation(31)[:8] for _ in range(30)])  # 30: no further neighbour
    first = rng.normal(size=(30, 3))
    moved, turned = _onto_planes(xyz, normal, weight, near, first, 4.0)
    for i in range(30):
        end = np.flatnonzero(near[i] == 30)
        known = near[i, : end[0] if len(end) else None]
        apart = np.linalg.norm(first[known] - first[i], axis=1) / 4
        facing, middle = normal[i], xyz[i]
        for _ in range(2):
            cosine = normal[known] @ facing
            share = np.where(cosine < ALIKE, 0, weight[known] * np.exp(-2 * apart**2) * cosine)
            if share.sum() > 0:
                middle = share @ xyz[known] / share.sum()
                facing = share @ normal[known] / np.linalg.norm(share @ normal[known])
        np.testing.assert_allclose(turned[i], facing, atol=1e-12)
        np.testing.assert_allclose(moved[i], xyz[i] - (xyz[i] - middle) @ facing * facing)
