"""Identities that cover the same points become one, on a wall of coloured panels."""

from dataclasses import replace

import numpy as np
import pytest
from panel_wall import (
    HEIGHT,
    POSITIONS,
    WIDTH,
    found_equals_true,
    panels,
    scan,
    shuffled,
    wall,
    wall_x,
)
from scipy import sparse

from lift3d.association import UNSEEN, AssociationConfig, _decide, _usual, associate
from lift3d.association.anchors import choose_anchors
from lift3d.association.clusters import (
    join_distant,
)
from lift3d.association.evidence import Observations, Packed
from lift3d.association.labelling import Evidence
from lift3d.association.scoring import VOTES_COUNT
from lift3d.association.superpoints import surface_graph
from lift3d.association.votes.ballot import Ballot
from lift3d.scene import Points
from lift3d.scene.labelmaps import by_name


def test_ids_shuffled_in_every_view_become_one_id_per_object():
    points = wall()
    scene, maps = scan()
    maps = shuffled(maps)
    result = associate(points, scene, by_name(scene, maps))
    assert found_equals_true(points, result.cloud.instance)
    assert result.summary["objects"] == 3
    assert set(result.confidence) == {1, 2, 3}
    relabelled = [result.relabel(i, scene.views[i], m) for i, m in enumerate(maps)]
    truth = dict(zip(panels(points.xyz[:, 0]), result.cloud.instance, strict=True))
    for position, labels in zip(POSITIONS, relabelled, strict=True):
        expected = [truth[p] for p in panels(wall_x(position))]
        np.testing.assert_array_equal(labels, np.broadcast_to(expected, labels.shape))


def test_larger_objects_have_smaller_ids():
    points = wall()
    scene, maps = scan()
    instance = associate(points, scene, by_name(scene, maps)).cloud.instance
    assert (np.diff(np.bincount(instance)[1:]) <= 0).all()


def test_an_object_left_and_seen_again_is_one_object():
    points = wall()
    there_and_back = np.concatenate([np.linspace(-0.8, 1.8, 8), np.linspace(1.8, -0.8, 8)])
    scene, maps = scan(there_and_back)
    # A tracker that lost everything on the way: new ids from the turning point on.
    maps = maps[:8] + [m + 10 for m in maps[8:]]
    result = associate(points, scene, by_name(scene, maps))
    assert found_equals_true(points, result.cloud.instance)
    assert result.summary["identities"] == 6
    assert result.summary["identities_merged"] == 3


def test_a_mask_over_two_objects_is_divided_and_said_so():
    points = wall()
    scene, maps = scan()
    maps[5] = np.minimum(maps[5], 2)  # panel 3 goes under panel 2's id
    assert set(np.unique(maps[5])) == {1, 2}
    assert (panels(wall_x(POSITIONS[5])) == 3).any()
    result = associate(points, scene, by_name(scene, maps))
    assert found_equals_true(points, result.cloud.instance)
    assert result.summary["masks_divided"] == 1
    assert any("divided" in line for line in result.warnings)
    assert len(np.unique(result.relabel(5, scene.views[5], maps[5]))) == 3


def test_masks_split_in_some_views_still_make_one_object():
    points = wall()
    scene, maps = scan()
    for index in range(0, 12, 3):  # every third view cuts its masks in two
        maps[index] = maps[index] + 10 * (np.arange(HEIGHT) > 20 + index)[:, None]
    maps = [m.astype(np.int32) for m in maps]
    result = associate(points, scene, by_name(scene, maps))
    assert found_equals_true(points, result.cloud.instance)


def test_rough_masks_do_not_move_the_border_the_surface_shows():
    points = wall()
    scene, maps = scan()
    rng = np.random.default_rng(0)
    maps = [
        np.stack(
            [np.roll(row, shift) for row, shift in zip(m, rng.integers(-3, 4, HEIGHT), strict=True)]
        )
        for m in maps
    ]
    result = associate(points, scene, by_name(scene, maps))
    wrong = np.bincount(panels(points.xyz[:, 0]) * 10 + result.cloud.instance).astype(float)
    assert np.sort(wrong)[-3:].sum() / len(points) > 0.99


@pytest.mark.parametrize("by_shape", [False, True])
def test_a_point_nobody_sees_stays_unlabelled(by_shape):
    points = wall(high=5.0)
    scene, maps = scan()
    config = AssociationConfig(by_shape=by_shape)
    cloud = associate(points, scene, by_name(scene, maps), config).cloud
    unseen = points.xyz[:, 0] > 1.8 + 1.4
    assert unseen.any()
    assert not cloud.instance[unseen].any()
    assert not cloud.score[unseen].any()
    seen = np.flatnonzero(points.xyz[:, 0] < 1.8 + 1.2)
    assert found_equals_true(points.take(seen), cloud.instance[seen])


def test_an_object_of_the_surface_that_nobody_sees_is_none():
    points = wall()
    scene, maps = scan()
    kept = [0, 1]  # the cameras on the left see nothing of panel 3
    some = replace(scene, views=tuple(scene.views[i] for i in kept))
    named = by_name(some, [maps[i] for i in kept])
    result = associate(points, some, named, AssociationConfig(by_shape=True))
    third = panels(points.xyz[:, 0]) == 3
    assert not result.cloud.instance[third].any()
    assert set(np.unique(result.cloud.instance)) == {0, *result.confidence} == {0, 1, 2}
    assert result.summary["objects"] == 2


def test_a_point_labelled_in_few_of_its_looks_is_background():
    points = wall()
    scene, maps = scan()
    maps = [np.where(m == 2, 0, m).astype(np.int32) for m in maps]
    maps[4] = maps[4] + 2 * (maps[4] == 0).astype(np.int32)  # one view alone masks panel 2
    cloud = associate(points, scene, by_name(scene, maps)).cloud
    assert not cloud.instance[panels(points.xyz[:, 0]) == 2].any()
    assert cloud.instance[panels(points.xyz[:, 0]) == 1].all()


def test_scores_are_the_confidence_of_the_object_and_a_little_the_share_of_the_looks():
    def shares(maps):
        found = associate(points, scene, by_name(scene, maps))
        sure = np.array([found.confidence[i] for i in found.cloud.instance])
        return (found.cloud.score / sure) ** (1 / VOTES_COUNT)

    points = wall()
    scene, maps = scan()
    np.testing.assert_allclose(shares(maps), 1, atol=1e-5)
    half = [np.where(i % 2, m, 0).astype(np.int32) for i, m in enumerate(maps)]
    assert 0.3 < np.median(shares(half)) < 0.7


def test_trusted_ids_are_kept_as_they_are():
    points = wall()
    scene, maps = scan()
    maps = [np.array([0, 7, 300, 41], np.int32)[m] for m in maps]
    result = associate(points, scene, by_name(scene, maps), AssociationConfig(trust_ids=True))
    expected = np.array([0, 7, 300, 41])[panels(points.xyz[:, 0])]
    np.testing.assert_array_equal(result.cloud.instance, expected)
    assert result.relabel(0, scene.views[0], maps[0]) is maps[0]


def test_two_sides_that_no_view_shows_together_are_joined_by_a_track():
    points = wall(-1.5, 3.5)
    scene, _ = scan([-0.6, -0.4, -0.3, 2.3, 2.4, 2.6])

    def ends(x, right):
        return np.broadcast_to(
            np.where(x < 0.0, 5, 0) + np.where(x > 2.0, right, 0), (HEIGHT, WIDTH)
        ).astype(np.int32)

    one = [ends(wall_x(v.camera.pose[0, 3]), 5) for v in scene.views]
    two = [ends(wall_x(v.camera.pose[0, 3]), 6) for v in scene.views]
    assert associate(points, scene, by_name(scene, one)).summary["objects"] == 1
    assert associate(points, scene, by_name(scene, two)).summary["objects"] == 2


def test_no_mask_at_all_gives_an_unlabelled_cloud_and_says_so():
    points = wall()
    scene, maps = scan()
    result = associate(points, scene, by_name(scene, [np.zeros_like(m) for m in maps]))
    assert not result.cloud.instance.any()
    assert any("no object" in line for line in result.warnings)


def test_the_same_input_and_seed_give_the_same_labels():
    points = wall()
    scene, maps = scan()
    maps = shuffled(maps)
    first, second = (associate(points, scene, by_name(scene, maps), seed=3).cloud for _ in range(2))
    assert first.instance.tobytes() == second.instance.tobytes()
    assert first.score.tobytes() == second.score.tobytes()


@pytest.mark.parametrize("count", [1, 50, 2000])
def test_anchors_are_few_and_even(count):
    points = wall()
    chosen = choose_anchors(points.xyz, count)
    assert 1 <= len(chosen) <= count
    assert (np.diff(chosen) > 0).all()
    if count == 50:
        apart = np.linalg.norm(points.xyz[chosen][:, None] - points.xyz[chosen][None], axis=-1)
        assert (apart + 9 * np.eye(len(chosen))).min(1).mean() > 0.1


def test_things_of_the_surface_stand_though_masks_say_otherwise():
    points = wall()
    scene, maps = scan()
    torn = [np.where(np.arange(HEIGHT)[:, None] < 20, m, m + 3).astype(np.int32) for m in maps]
    config = AssociationConfig(by_shape=True)
    result = associate(points, scene, by_name(scene, torn), config)
    assert found_equals_true(points, result.cloud.instance)
    assert set(np.unique(result.relabel(0, scene.views[0], torn[0]))) <= {0, 1, 2, 3}


def test_few_vertices_take_the_objects_of_a_denser_surface():
    """Too few for pieces of surface by themselves; one far from the surface stays unlabelled."""
    points = wall()
    scene, maps = scan()
    few = points.take(np.arange(0, len(points), 40))
    few.xyz[0] += np.float32(9)
    config, named = AssociationConfig(by_shape=True, points=1), by_name(scene, maps)
    alone = associate(few, scene, named, config)
    assert not found_equals_true(few, alone.cloud.instance)
    result = associate(few, scene, named, config, surface=points)
    whole = associate(points, scene, named, config).cloud.instance[::40]
    assert result.cloud.instance[0] == 0
    np.testing.assert_array_equal(result.cloud.instance[1:], whole[1:])
    assert len(result.surface.superpoint) == len(few)


def test_a_cloud_without_normals_has_no_things_and_says_why():
    points = wall()
    scene, maps = scan()
    blank = Points(points.xyz, points.rgb, 0 * points.normal, points.confidence)
    result = associate(blank, scene, by_name(scene, maps), AssociationConfig(by_shape=True))
    assert not result.cloud.instance.any()
    assert "no object was found: the cloud has no normals" in result.warnings


@pytest.mark.parametrize("corner_is_alike", [True, False])
def test_two_sides_of_a_box_are_joined_by_views_that_see_little_of_one(corner_is_alike):
    """Six views see one side of 100 points and 15 points of the other."""
    packed = []
    for index in range(6):
        visible = np.zeros(200, bool)
        visible[:100], visible[100:115] = True, True
        number = np.where(np.arange(200) < 100, 1, 1 if corner_is_alike else 2)
        if index % 2:
            visible, number = visible[::-1], number[::-1]
        packed.append(Packed(np.packbits(visible), number[visible].astype(np.uint8), 2 * index))
    views, ids = np.divmod(np.arange(12, dtype=np.int32), 2)
    seen = Observations(200, tuple(packed), views.astype(np.int32), 2 * views + ids + 1)
    sides = np.repeat(np.arange(2, dtype=np.int32), 100)
    joined = join_distant(seen, sides, 0.5, 0.5, smallest=5)
    assert len(np.unique(joined)) == (1 if corner_is_alike else 2)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_edge_to_a_point_without_normal_is_as_different_either_way_round(order):
    xyz = np.array([[0, 0, 0], [0.1, 0, 0]], np.float32)
    normal = np.array([[0, 0, 1], [0, 0, 0]], np.float32)[list(order)]
    rgb = np.full((2, 3), 90, np.uint8)
    _, _, difference = surface_graph(Points(xyz, rgb, normal, np.ones(2, np.float32)), 1)
    assert difference.tolist() == [0.0]


def test_background_is_relative_to_how_complete_the_masks_of_an_object_are():
    share = np.float32([0.3, 0.3, 0.15, 1.0, 0.3])
    label = np.int32([1, 1, 1, 2, 2])
    size = np.array([5, 5, 2, 9, 1])
    assert _usual(share, label, size).tolist() == pytest.approx([0.3, 0.3, 0.3, 1.0, 1.0])


def test_points_with_few_masks_are_background_only_where_the_object_has_many():
    """Pieces 0 and 1 are an object that most views leave out, 2 and 3 one that none does."""
    piece = np.repeat(np.arange(4), [10, 10, 20, 5]).astype(np.int32)
    gain = sparse.csr_array(np.float32([[9, 0], [9, 0], [0, 9], [0, 9]]))
    share = np.float32([0.3, 0.3, 1.0, 0.3])
    ballot = Ballot(len(piece))  # no point is sure by itself
    for label in (piece // 2 + 1, 0 * piece, 0 * piece):
        ballot.add(np.arange(45, dtype=np.int32), label, np.ones(45, np.float32))
    evidence = Evidence(gain, share, np.ones(4, np.float32), ballot)
    a, b = np.int32([9, 19, 39]), np.int32([10, 20, 40])
    found = _decide(evidence, piece, a, b, np.full(3, 9, np.float32), AssociationConfig())
    assert [found[piece == each][0] for each in range(4)] == [1, 1, 2, 0]


def test_a_cup_of_few_points_stays_where_all_points_are_far_apart():
    """36 points 4 cm apart are as large as 576 at 1 cm."""
    points = wall(low=-6, high=8)
    scene, maps = scan()
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    for x, labels in zip(POSITIONS, maps, strict=True):
        inside = np.abs(wall_x(x)[columns] - 0.5) < 0.12
        labels[inside & (np.abs(rows - (HEIGHT - 1) / 2) < 3)] = 4
    cup = (np.abs(points.xyz[:, 0] - 0.5) < 0.12) & (np.abs(points.xyz[:, 1]) < 0.12)
    points.rgb[cup] = [200, 200, 60]
    assert 10 < cup.sum() < AssociationConfig.points
    metric = associate(points, scene, by_name(scene, maps)).summary["objects"]
    assert metric == 4
    unknown = replace(scene, metric=False)
    assert associate(points, unknown, by_name(unknown, maps)).summary["objects"] == metric - 1


@pytest.mark.parametrize("by_shape", [True, False])
def test_a_cloud_that_no_view_sees_is_told(by_shape):
    points = wall()
    scene, maps = scan()
    config = AssociationConfig(by_shape=by_shape)
    assert UNSEEN not in associate(points, scene, by_name(scene, maps), config).warnings
    points.xyz[:] += np.float32(50)
    assert UNSEEN in associate(points, scene, by_name(scene, maps), config).warnings
