"""Features on points, classes on points, and H of features, against slow twins."""

import dataclasses

import numpy as np
import pytest
from tiny_scan import tiny_scan, write_scannet

from lift3d.association.votes.classes import (
    classes_of_objects,
    vote_classes,
    with_classes,
)
from lift3d.association.votes.features import _blocks, average_features
from lift3d.association.votes.weight import vote_weight
from lift3d.datasets import read_scene
from lift3d.evaluation.consistency.features import feature_consistency, scene_feature_consistency
from lift3d.geometry.visibility import sightings
from lift3d.reconstruction.fusion import BACKENDS
from lift3d.scene import LabelledPoints
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.labelmaps import LabelMaps, write_label_map


def slow_H(xyz, feature, view, epsilon, exclude):
    """Eq. 5 and 6 in loops."""
    place = xyz.astype(np.float64)
    unit = feature.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    h, chance = [], []
    for i in range(len(xyz)):
        near, by_chance = [], []
        others = [k for k in range(len(xyz)) if view[k] != view[i]]
        drawn = np.mean([unit[i] @ unit[k] for k in others]) if others else 0.0
        for j in range(len(xyz)):
            d = place[j] - place[i]
            if (d[0] * d[0] + d[1] * d[1]) + d[2] * d[2] > epsilon * epsilon:
                continue
            if (exclude == "self" and i == j) or (exclude == "view" and view[i] == view[j]):
                continue
            near.append(unit[i] @ unit[j])
            by_chance.append(unit[i] @ unit[j] if view[i] == view[j] else drawn)
        h.append(np.mean(near) if near else np.nan)
        chance.append(np.mean(by_chance) if near else np.nan)
    return np.array(h), np.nanmean(h), np.nanmean(chance)


@pytest.mark.parametrize("exclude", ["nothing", "self", "view"])
@pytest.mark.parametrize("seed", range(3))
def test_H_of_features_equals_the_loops(seed, exclude):
    rng = np.random.default_rng(seed)
    # On a grid of quarters, so that many pairs are exactly at epsilon.
    xyz = (rng.integers(0, 9, (160, 3)) / 4 - 1).astype(np.float32)
    feature = rng.normal(0.3, 1, (160, 5)).astype(np.float32)
    view = rng.integers(0, 4, 160).astype(np.int32)
    got = feature_consistency(xyz, feature, view, 0.25, exclude)
    h, H, H0 = slow_H(xyz, feature, view, 0.25, exclude)
    np.testing.assert_allclose(got.h, h, atol=2e-6)
    assert pytest.approx(H, abs=1e-6) == got.H
    assert pytest.approx(H0, abs=1e-6) == got.H0
    assert got.alone == np.isnan(h).sum()
    assert got.pixels + got.alone == 160
    mine = [np.nanmean(h[view == each]) for each in range(4)]
    np.testing.assert_allclose(got.view_H, mine, atol=1e-6)


def test_one_hot_features_have_the_H_of_labels():
    from lift3d.evaluation.consistency import consistency

    rng = np.random.default_rng(0)
    xyz = rng.random((300, 3)).astype(np.float32)
    label = rng.integers(0, 4, 300).astype(np.int32)
    view = rng.integers(0, 3, 300).astype(np.int32)
    one_hot = (np.eye(4)[label] * 7).astype(np.float32)
    for exclude in ("nothing", "self", "view"):
        got = feature_consistency(xyz, one_hot, view, 0.2, exclude)
        expected = consistency(xyz, label, view, 0.2, exclude)
        assert pytest.approx(expected.H, abs=1e-9) == got.H
        assert got.alone == expected.alone


def test_a_constant_feature_has_no_H_prime():
    xyz, view = np.zeros((4, 3), np.float32), np.array([0, 0, 1, 1], np.int32)
    got = feature_consistency(xyz, np.ones((4, 3), np.float32), view, 1.0, "view")
    assert pytest.approx(1) == got.H
    assert got.summary()["H_prime"] is None
    nothing = np.zeros((0, 3), np.float32)
    assert np.isnan(feature_consistency(nothing, nothing, view[:0], 1.0).H)
    for broken in (0 * xyz, xyz + np.nan):
        with pytest.raises(InputError, match="leave those pixels out"):
            feature_consistency(xyz, broken, view, 1.0)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    root = tmp_path_factory.mktemp("scan") / "scene0001_00"
    scan = tiny_scan()
    write_scannet(root, scan)
    scene = read_scene(root)
    views = [
        dataclasses.replace(view, load_instances=lambda ids=ids: ids)
        for view, ids in zip(scene.views, scan.instances, strict=True)
    ]
    return scene.with_views(views)


@pytest.fixture(scope="module")
def points(scene):
    return BACKENDS["voxel"](voxel=0.04).build().fuse(scene)


def maps_of(scene, channels=6, rows=20, columns=16):
    rng = np.random.default_rng(5)
    maps = [rng.normal(size=(rows, columns, channels)).astype(np.float32) for _ in scene.views]
    maps[0][3, 4] = 0  # no feature here
    maps[1][5, 6] = np.nan
    return maps.__getitem__


def slow_average(points, scene, maps, channels=6):
    sums, weight = np.zeros((len(points), channels)), np.zeros(len(points))
    for index, view in enumerate(scene.views):
        seen, held = sightings(points, view), maps(index).astype(np.float64)
        votes = vote_weight(points, seen, view.geometry_camera)
        for p, x, y, w in zip(seen.point, seen.column, seen.row, votes, strict=True):
            one = held[
                int((y + 0.5) * len(held) / view.camera.height),
                int((x + 0.5) * held.shape[1] / view.camera.width),
            ]
            if np.isfinite(one).all() and one.any():
                sums[p] += w * one / np.linalg.norm(one)
                weight[p] += w
    return sums / np.where(weight > 0, weight, 1)[:, None]


def test_the_mean_feature_equals_the_loops(points, scene):
    maps = maps_of(scene)
    got = average_features(points, scene, maps)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, slow_average(points, scene, maps), atol=1e-6)
    length = np.linalg.norm(got, axis=1)
    assert length.max() <= 1 + 1e-6
    assert (length > 0).mean() > 0.9


def test_blocks_give_the_same_mean_within_the_budget(points, scene, tmp_path):
    maps, whole = maps_of(scene), None
    loaded, progress = [], []

    def counted(index):
        loaded.append(index)
        return maps(index)

    whole = average_features(points, scene, maps)
    budget = len(points) * 28 // 5
    with pytest.raises(InputError, match="above the budget"):
        average_features(points, scene, maps, budget)
    out = tmp_path / "f.npy"
    got = average_features(
        points, scene, counted, budget, out, progress=lambda *at: progress.append(at)
    )
    np.testing.assert_allclose(got, whole, atol=1e-6)
    assert not got.flags.writeable
    assert 4 < len(loaded) <= 6 * 4 + 1
    assert progress[-1][0] == progress[-1][1]
    blocks = list(_blocks(points.xyz, budget // 28))
    assert sorted(np.concatenate(blocks).tolist()) == list(range(len(points)))
    assert max(map(len, blocks)) * 28 <= budget


def test_views_without_features_are_ignored(points, scene, caplog):
    maps = maps_of(scene)

    def some(index):
        if index == 0:
            raise FrameError("no features")
        return maps(index)

    rest = scene.with_views(scene.views[1:])
    expected = average_features(points, rest, lambda index: maps(index + 1))
    np.testing.assert_array_equal(average_features(points, scene, some), expected)
    assert f"view {scene.views[0].name} has no features" in caplog.text
    with pytest.raises(InputError, match="same network"):
        average_features(points, scene, lambda index: maps(index)[..., : 3 + index])
    one = scene.with_views(scene.views[:1])
    with pytest.raises(InputError, match=r"no view has features \(no features\)"):
        average_features(points, one, some)


def test_H_of_a_scene_that_agrees_and_of_one_that_does_not(scene):
    views = [view.instances() for view in scene.views]
    true = [np.eye(3, dtype=np.float32)[ids] for ids in views]
    agrees = scene_feature_consistency(scene, true.__getitem__, 0.03, "view", stride=2)
    assert agrees.H > 0.97
    assert agrees.H_prime > 0.85
    rng = np.random.default_rng(0)
    noise = [rng.normal(size=(9, 8, 30)).astype(np.float32) for _ in views]
    scattered = scene_feature_consistency(scene, noise.__getitem__, 0.03, "view", stride=2)
    assert abs(scattered.H) < 0.1
    assert abs(scattered.H_prime) < 0.1


def test_classes_are_voted_like_instances(points, scene, tmp_path):
    for number, view in enumerate(scene.views):
        labels = np.where(view.instances() == 2, 5, 1).astype(np.int32)
        labels = np.full_like(labels, 9) if number == 0 else labels  # one view has a wrong class
        # Half the size: maps cover the image at any resolution.
        write_label_map(tmp_path, view.name, labels[::2, ::2] if number == 1 else labels)
    names = [view.name for view in scene.views]
    maps = LabelMaps.found(tmp_path, names, "class map")
    semantic, share = vote_classes(points, scene, maps)
    assert {1, 5} <= set(semantic.tolist()) <= {0, 1, 5, 9}
    assert (semantic == 9).mean() < 0.1
    assert 0.6 < np.median(share[semantic > 0]) < 0.9
    on_box = points.xyz[:, 2] < 2.55
    assert (semantic[on_box] == 5).mean() > 0.8
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="has no class map of any"):
        LabelMaps.found(tmp_path / "none", names, "class map")


def test_an_object_has_the_most_frequent_class_of_its_points(points):
    few = points.take(np.arange(7))
    instance = np.array([0, 1, 1, 1, 2, 2, 3], np.int32)
    semantic = np.array([8, 5, 5, 4, 9, 7, 0], np.int32)
    assert classes_of_objects(instance, semantic) == {1: 5, 2: 7}  # a tie: the smaller
    cloud = LabelledPoints(few, instance, np.ones(7, np.float32))
    assert with_classes(cloud, semantic).semantic.tolist() == [8, 5, 5, 5, 7, 7, 0]
    assert with_classes(cloud, semantic, whole_objects=False).semantic.tolist() == semantic.tolist()
