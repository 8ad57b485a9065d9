"""H is exact: the fast counts equal the definition written as nested loops."""
# ruff: noqa: SIM300 (H is a symbol here, not a constant)

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lift3d.evaluation.consistency import (
    consistency,
    neighbour_counts,
    scene_consistencies,
    scene_consistency,
)
from lift3d.evaluation.consistency import counts as counts_module
from lift3d.scene import Camera, Scene, View
from lift3d.scene.errors import InputError
from lift3d.scene.labelmaps import by_name

EXCLUDES = ("nothing", "self", "view")


def slow_h(xyz, label, view, epsilon, exclude):
    """Eq. 4-6 as nested loops: h of each pixel, None where E is empty."""
    h = []
    for i in range(len(xyz)):
        members = agreeing = 0
        for j in range(len(xyz)):
            if exclude == "self" and i == j:
                continue
            if exclude == "view" and view[i] == view[j]:
                continue
            dx, dy, dz = (float(xyz[i, axis]) - float(xyz[j, axis]) for axis in range(3))
            if (dx * dx + dy * dy) + dz * dz <= epsilon * epsilon:
                members += 1
                agreeing += int(label[i] == label[j])
        h.append(agreeing / members if members else None)
    return h


def mean(values):
    kept = [value for value in values if value is not None]
    return sum(kept) / len(kept) if kept else float("nan")


def assert_equals_twin(xyz, label, view, epsilon):
    for exclude in EXCLUDES:
        expected = slow_h(xyz, label, view, epsilon, exclude)
        found = consistency(xyz, label, view, epsilon, exclude, return_pixels=True)
        for mine, h in zip(found.h, expected, strict=True):
            assert np.isnan(mine) if h is None else mine == np.float32(h)
        assert found.H == pytest.approx(mean(expected), nan_ok=True)
        assert found.alone == expected.count(None)
        assert found.pixels == len(expected) - expected.count(None)
        for index, mine in enumerate(found.view_H):
            own = [h for h, v in zip(expected, view, strict=True) if v == index]
            assert mine == pytest.approx(mean(own), nan_ok=True)


def random_pixels(seed, n, spread=1.0, labels=4, views=3):
    rng = np.random.default_rng(seed)
    xyz = (rng.random((n, 3)) * spread).astype(np.float32)
    xyz[:, 2] *= 0.2
    label = rng.integers(0, labels, n).astype(np.int32)
    view = rng.integers(0, views, n).astype(np.int32)
    return xyz, label, view


@pytest.mark.parametrize("epsilon", [0.01, 0.15, 0.4, 10.0])
def test_counts_equal_nested_loops(epsilon):
    assert_equals_twin(*random_pixels(0, 250), epsilon)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.integers(-4, 4)] * 3, st.integers(0, 3), st.integers(0, 2)),
        min_size=1,
        max_size=40,
    ),
    st.sampled_from([1.0, 2.0, 3.0, 5.0]),
)
def test_pixels_exactly_at_epsilon_and_duplicates_count(rows, epsilon):
    # With integers, many pairs have a distance of exactly 1, 2, 3 and (3, 4, 0) 5.
    table = np.array(rows)
    xyz, label, view = table[:, :3].astype(np.float32), table[:, 3], table[:, 4]
    assert_equals_twin(xyz, label.astype(np.int32), view.astype(np.int32), epsilon)


@pytest.mark.parametrize("offset", [0.0, 100.0, -5000.0])
def test_the_boundary_is_decided_in_float64(offset):
    # A grid of 0.1 in float32: distances that are "0.3" differ in their last bits.
    grid = np.stack(np.meshgrid(*[np.arange(6)] * 3), -1).reshape(-1, 3)
    xyz = (grid * np.float32(0.1) + np.float32(offset)).astype(np.float32)
    rng = np.random.default_rng(1)
    label = rng.integers(0, 3, len(xyz)).astype(np.int32)
    view = rng.integers(0, 4, len(xyz)).astype(np.int32)
    assert_equals_twin(xyz, label, view, float(np.float32(0.3)))


@pytest.mark.parametrize("reach", [1, 2, 3, 5, 8])
def test_the_size_of_cells_does_not_matter(reach, monkeypatch):
    xyz, label, view = random_pixels(2, 400)
    expected = pairwise_table(xyz, label, view, 0.2)
    monkeypatch.setattr(counts_module, "_reach", lambda *_: reach)
    np.testing.assert_array_equal(neighbour_counts(xyz, label, view, 0.2).table, expected)


def test_crowded_cells_are_counted_exactly():
    # 3000 pixels in a few cells: long runs and growing buffers.
    xyz, label, view = random_pixels(3, 3000, spread=0.5, labels=6, views=5)
    for epsilon in (0.1, 0.25, 1.0):
        expected = pairwise_table(xyz, label, view, epsilon)
        found = neighbour_counts(xyz, label, view, epsilon)
        np.testing.assert_array_equal(found.table, expected)


def test_buffers_grow_with_crowded_cells():
    xyz, label, view = random_pixels(4, 9000, spread=0.01)
    found = neighbour_counts(xyz, label, view, 1.0)
    assert (found.all == 9000).all()
    np.testing.assert_array_equal(found.same, np.bincount(label)[label])
    np.testing.assert_array_equal(found.view_all, np.bincount(view)[view])


def test_huge_ids_and_far_outliers_stay_exact():
    xyz, label, view = random_pixels(5, 300)
    xyz[7] = [1e7, -1e7, 3e6]
    sparse = np.where(label > 0, label * 700_000_001 % 2_000_000_011, 0).astype(np.int32)
    expected = pairwise_table(xyz, sparse, view, 0.2)
    np.testing.assert_array_equal(neighbour_counts(xyz, sparse, view, 0.2).table, expected)
    found = consistency(xyz, sparse, view, 0.2)
    assert found.labels == 3
    assert found.H == consistency(xyz, label, view, 0.2).H


@pytest.mark.parametrize("outlier", [1e6, 1e9])
def test_a_scene_too_large_for_small_cells_stays_exact(outlier):
    # One outlier makes cells thousands of radii wide; clusters are at opposite ends of a cell.
    grid = np.stack(np.meshgrid(*[np.arange(5)] * 3), -1).reshape(-1, 3) * np.float32(0.1)
    xyz = np.concatenate([grid, grid + np.float32(400), [[outlier, 0, 0]]]).astype(np.float32)
    rng = np.random.default_rng(1)
    label, view = rng.integers(0, 3, (2, len(xyz))).astype(np.int32)
    expected = pairwise_table(xyz, label, view, 0.3)
    np.testing.assert_array_equal(neighbour_counts(xyz, label, view, 0.3).table, expected)


def pairwise_table(xyz, label, view, epsilon):
    """All six counts from the full matrix of pairs."""
    difference = xyz[:, None].astype(np.float64) - xyz[None].astype(np.float64)
    square = difference**2
    near = (square[..., 0] + square[..., 1]) + square[..., 2] <= epsilon * epsilon
    same = label[:, None] == label
    kind = (label > 0)[:, None] == (label > 0)
    own = view[:, None] == view
    masks = (near, near & same, near & kind, near & own, near & own & same, near & own & kind)
    return np.stack([mask.sum(1) for mask in masks], 1)


def test_two_views_by_hand():
    # One wall, three distant points. View 0: labels 1 1 2. View 1: labels 1 2 2.
    place = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0]], np.float32)
    xyz, view = np.concatenate([place, place]), np.repeat([0, 1], 3).astype(np.int32)
    label = np.array([1, 1, 2, 1, 2, 2], np.int32)
    # h with the pixel itself in E: 1, 1/2, 1 in both views.
    assert consistency(xyz, label, view, 0.1).H == pytest.approx(5 / 6)
    assert consistency(xyz, label, view, 0.1, "self").H == pytest.approx(4 / 6)
    found = consistency(xyz, label, view, 0.1, "view")
    assert found.H == pytest.approx(4 / 6)
    # Two ids permuted at random agree half of the time: H0 1/2, so H' is 1/3.
    assert found.H0 == pytest.approx(1 / 2)
    assert found.H_prime == pytest.approx(1 / 3)
    assert (found.coverage, found.labels, found.pixels, found.alone) == (1.0, 2, 6, 0)


@pytest.mark.parametrize("exclude", EXCLUDES)
@pytest.mark.parametrize("foreground", [False, True])
def test_chance_is_the_mean_over_all_permutations(exclude, foreground):
    xyz, label, view = random_pixels(6, 40, labels=4, views=2)
    found = consistency(xyz, label, view, 0.4, exclude, foreground)
    results = []
    for first in itertools.permutations([1, 2, 3]):
        for second in itertools.permutations([1, 2, 3]):
            renamed = np.array([[0, *first], [0, *second]], np.int32)[view, label]
            results.append(consistency(xyz, renamed, view, 0.4, exclude, foreground).H)
    assert len(set(np.round(results, 9))) > 3
    assert found.H0 == pytest.approx(np.mean(results))


@pytest.mark.parametrize("exclude", EXCLUDES)
def test_one_label_everywhere_scores_one_but_has_no_H_prime(exclude):
    xyz, label, view = random_pixels(7, 60)
    found = consistency(xyz, np.ones_like(label), view, 0.5, exclude)
    assert found.H == 1.0
    assert found.H0 == 1.0
    assert np.isnan(found.H_prime)
    assert "H' undefined" in str(found)
    assert "1 labels" in str(found)


def test_unrelated_ids_across_views_are_at_chance():
    xyz, label, view = random_pixels(8, 2000, labels=6, views=4)
    found = consistency(xyz, label, view, 0.2, "view")
    assert abs(found.H_prime) < 0.02 < found.H


def test_unlabelled_is_a_label_like_any_other_unless_foreground():
    xyz = np.zeros((4, 3), np.float32)
    label, view = np.array([0, 0, 0, 5], np.int32), np.arange(4, dtype=np.int32)
    everything = consistency(xyz, label, view, 1.0)
    assert everything.H == pytest.approx((3 * 3 / 4 + 1 / 4) / 4)
    labelled = consistency(xyz, label, view, 1.0, foreground=True)
    assert labelled.H == pytest.approx(1 / 4)  # the three unlabelled neighbours disagree
    assert (labelled.pixels, labelled.coverage, labelled.labels) == (1, 0.25, 1)


def test_a_single_pixel_and_a_single_view():
    one = np.zeros((1, 3), np.float32), np.ones(1, np.int32), np.zeros(1, np.int32)
    assert consistency(*one, 0.1).H == 1.0
    for exclude in ("self", "view"):
        found = consistency(*one, 0.1, exclude)
        assert np.isnan(found.H)
        assert (found.pixels, found.alone) == (0, 1)
    xyz, label, _ = random_pixels(9, 50)
    alone = consistency(xyz, label, np.zeros(50, np.int32), 0.3, "view")
    assert (alone.pixels, alone.alone) == (0, 50)


def test_no_pixels_at_all_is_undefined():
    found = consistency(np.zeros((0, 3), np.float32), *[np.zeros(0, np.int32)] * 2, 0.1)
    assert np.isnan(found.H)
    assert found.pixels == 0
    assert json.loads(json.dumps(found.summary()))["H"] is None


def test_the_order_of_pixels_does_not_matter():
    xyz, label, view = random_pixels(10, 500)
    order = np.random.default_rng(0).permutation(500)
    before = neighbour_counts(xyz, label, view, 0.1).table[order]
    after = neighbour_counts(xyz[order], label[order], view[order], 0.1).table
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": 0.0}, "epsilon is 0.0"),
        ({"epsilon": float("nan")}, "epsilon is nan"),
        ({"xyz": np.full((2, 3), np.nan, np.float32)}, "NaN or infinity"),
        ({"epsilon": 1e-12, "xyz": np.eye(2, 3, dtype=np.float32) * 2}, "span 2 with epsilon"),
        ({"label": np.array([1, -1], np.int32)}, "must be 0 or more"),
    ],
)
def test_bad_input_is_an_error_that_names_the_fault(change, message):
    good = {
        "xyz": np.zeros((2, 3), np.float32),
        "label": np.ones(2, np.int32),
        "view": np.zeros(2, np.int32),
        "epsilon": 0.1,
    }
    with pytest.raises(InputError, match=message):
        consistency(**(good | change))


# --- of a scene ---------------------------------------------------------------


def flat_view(name, depth, depth_camera=None, x=0.0):
    """A camera at (x, 0, 0) that looks along z at a wall; 8 x 6 pixels, focal length 10."""
    pose = np.eye(4)
    pose[0, 3] = x
    camera = Camera(np.array([[10.0, 0, 4], [0, 10, 3], [0, 0, 1]]), 8, 6, pose)
    return View(
        name,
        camera,
        load_image=lambda: np.zeros((6, 8, 3), np.uint8),
        load_depth=None if depth is None else lambda: depth,
        depth_camera=depth_camera,
    )


def wall(z=1.0):
    return np.full((6, 8), z, np.float32)


def scene_of(*views, metric=True):
    return Scene("wall", tuple(views), metric, "test")


def test_a_scene_disagrees_exactly_where_its_label_maps_do():
    holes = wall()
    holes[0, 0] = 0
    scene = scene_of(flat_view("a", holes), flat_view("b", wall()))
    a = np.ones((6, 8), np.int32)
    b = a.copy()
    b[2, 5] = 2
    found = scene_consistency(scene, {"a": a, "b": b}, exclude="view")  # pixels are 10 cm apart
    assert found.result.epsilon == 0.01
    assert found.result.pixels == 94
    assert found.result.alone == 1  # b's pixel at the hole in a
    assert found.result.H == pytest.approx(1 - 2 / 94)
    for index in (0, 1):
        heat = found.heat_map(index)
        assert heat.shape == (6, 8)
        assert np.isnan(heat[0, 0])
        assert heat[2, 5] == 1.0
        assert np.nansum(heat) == 1.0
    assert "every pixel with depth" in str(found)


def test_labels_are_read_through_the_colour_camera():
    # The depth camera is two pixels to the right of the colour camera.
    pose = np.eye(4)
    pose[0, 3] = 0.2
    depth_camera = Camera(np.array([[10.0, 0, 4], [0, 10, 3], [0, 0, 1]]), 8, 6, pose)
    scene = scene_of(flat_view("a", wall(), depth_camera))
    labels = np.tile(np.arange(1, 9, dtype=np.int32), (6, 1))
    found = scene_consistency(scene, {"a": labels})
    assert found.unseen == 2 * 6  # the two right columns are outside the colour image
    assert found.result.labels == 6  # ids 3 to 8
    assert np.isnan(found.heat_map(0)[:, 6:]).all()
    assert not np.isnan(found.heat_map(0)[:, :6]).any()


def test_too_many_pixels_are_sampled_on_a_reported_grid():
    scene = scene_of(flat_view("a", wall()), flat_view("b", wall()))
    labels = np.ones((6, 8), np.int32)
    found = scene_consistency(scene, {"a": labels, "b": labels}, max_pixels=24)
    assert found.stride == 2
    assert found.result.pixels == 24
    assert "one pixel with depth in 2" in found.sampling
    assert not np.isnan(found.heat_map(0)).any()  # each sample stands for its square


def test_all_excludes_come_from_one_count_and_equal_single_runs():
    scene = scene_of(flat_view("a", wall()), flat_view("b", wall(), x=0.1))
    labels = np.random.default_rng(0).integers(0, 4, (2, 6, 8)).astype(np.int32)
    together = scene_consistencies(scene, by_name(scene, labels), epsilon=0.15)
    assert len({found.result.H for found in together}) == 3
    for exclude, found in zip(EXCLUDES, together, strict=True):
        assert found.result.exclude == exclude
        single = scene_consistency(scene, by_name(scene, labels), epsilon=0.15, exclude=exclude)
        assert found.result.summary() == single.result.summary()


def test_epsilon_follows_the_pixels_in_scenes_that_are_not_metric():
    scene = scene_of(flat_view("a", wall(50.0)), metric=False)
    found = scene_consistency(scene, {"a": np.ones((6, 8), np.int32)})
    assert found.result.epsilon == pytest.approx(4 * 50.0 / 10)


def test_views_without_depth_are_ignored_and_keep_their_index():
    scene = scene_of(flat_view("a", wall()), flat_view("b", None))
    maps = by_name(scene, [np.ones((6, 8), np.int32)] * 2)
    found = scene_consistency(scene, maps)
    assert found.result.view_H[0] == 1.0
    assert np.isnan(found.result.view_H[1])
    assert np.isnan(found.heat_map(1)).all()
    with pytest.raises(InputError, match="no view has depth"):
        scene_consistency(scene_of(flat_view("b", None)), maps)


def test_wrong_label_maps_are_named():
    scene = scene_of(flat_view("a", wall()))
    with pytest.raises(InputError, match=r"1 of 1 views have no label map \(a\)"):
        scene_consistency(scene, {"b": np.ones((6, 8), np.int32)})
    with pytest.raises(InputError, match=r"view a: label map is 6x8, its image is 8x6"):
        scene_consistency(scene, {"a": np.ones((8, 6), np.int32)})
