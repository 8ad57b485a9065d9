"""BYOCL: features are clustered in batches, and the means of the clusters again."""

import numpy as np
import pytest
from walls import HEIGHT, WIDTH, TrueMasks, wall_scene

from lift3d.scene import Camera, View
from lift3d.scene.errors import InputError
from lift3d.segmentation.tracking.byocl import (
    ByoclConfig,
    HasFeatures,
    colour_features,
    enlarge,
    features_of,
    kmeans,
    prototypes_of,
)

SQUARES = ((20, 20, 30, 2), (90, 40, 40, 3))


def rng():
    return np.random.default_rng(0)


def same_partition(a, b):
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1)
    return pairs.shape[1] == len(np.unique(a)) == len(np.unique(b))


def test_similar_regions_have_one_id_in_all_views_and_batches():
    scene = wall_scene(SQUARES, [0, 10, 20, 30, 40])
    tracker = ByoclConfig(batch=2, labels=3).build(TrueMasks())
    maps = np.stack(list(tracker.track(scene)))
    truth = np.stack([view.instances() for view in scene.views])
    assert same_partition(maps, truth)


def test_without_refinement_borders_follow_the_cells():
    scene = wall_scene(SQUARES, [0])
    (labels,) = ByoclConfig(grid=16, labels=3, refine="nearest").build(TrueMasks()).track(scene)
    cells = labels.reshape(HEIGHT // 10, 10, WIDTH // 10, 10)
    assert (cells == cells[:, :1, :, :1]).all()


def test_every_prototype_is_the_mean_of_its_cluster_in_the_features_themselves():
    rows = rng().normal(size=(60, 5)) + np.repeat(np.eye(5)[:3] * 40, 20, axis=0)
    member, means = prototypes_of(rows, components=2, clusters=3, rng=rng())
    assert sorted(np.bincount(member)) == [20, 20, 20]
    for cluster in range(3):
        np.testing.assert_allclose(means[cluster], rows[member == cluster].mean(0))


def test_kmeans_finds_separate_groups_and_at_most_one_per_row():
    rows = np.repeat([[0.0, 0], [50, 0], [0, 50]], 10, axis=0) + rng().normal(size=(30, 2))
    assert same_partition(kmeans(rows, 3, rng()), np.repeat(np.arange(3), 10))
    twice = np.array([[1.0], [1.0], [2.0]])
    assert len(np.unique(kmeans(twice, 10, rng()))) == 2


def test_kmeans_ends_when_every_row_is_nearest_to_its_own_mean():
    rows = rng().normal(size=(200, 3))
    member = kmeans(rows, 7, rng())
    means = np.stack([rows[member == c].mean(0) for c in range(7)])
    away = ((rows[:, None] - means[None]) ** 2).sum(2)
    assert np.array_equal(away.argmin(1), member)


def test_guided_labels_follow_the_borders_of_colour():
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, 17:] = 200
    coarse = np.repeat([[0, 0, 1, 1]], 4, axis=0)  # cells of 10: the border is 3 pixels off
    np.testing.assert_array_equal(enlarge(coarse, image, guided=True)[0], np.arange(40) >= 17)
    np.testing.assert_array_equal(enlarge(coarse, image, guided=False)[0], np.arange(40) >= 20)


def view(height=60, width=80, depth=None):
    image = np.zeros((height, width, 3), np.uint8)
    image[:, width // 2 :: 2] = 255
    K = np.array([[50.0, 0, 40], [0, 50, 30], [0, 0, 1]])
    load = None if depth is None else (lambda: np.full((height, width), depth, np.float32))
    return View("v", Camera(K, width, height), lambda: image, load)


def test_colour_features_contain_texture_and_normals():
    grid = colour_features(view(), 16)
    assert grid.shape == (12, 16, 11)
    assert np.abs(grid[:, :7]).max() < 1e-5
    assert grid[5, 12, 3] > 1  # a spread of lightness
    assert grid[5, 12, 6] == pytest.approx(0, abs=1e-6)  # every second column: no slope in mean
    assert not grid[..., 8:].any()
    facing = colour_features(view(depth=2.0), 16)
    np.testing.assert_allclose(facing[6, 8, 8:], [0, 0, -1], atol=1e-5)


def test_features_come_from_the_segmenter_if_it_has_them():
    own = np.ones((3, 4, 5), np.float32)

    class Seeing(TrueMasks):
        def features(self, view):
            return own

    assert isinstance(Seeing(), HasFeatures)
    assert features_of(Seeing(), view(), 8) is own
    assert not isinstance(TrueMasks(), HasFeatures)
    np.testing.assert_array_equal(features_of(TrueMasks(), view(), 8), colour_features(view(), 8))


def test_the_number_of_ids_is_at_most_labels():
    scene = wall_scene(SQUARES, range(0, 80, 10))
    for labels in (1, 2, 30):
        maps = np.stack(list(ByoclConfig(labels=labels).build(TrueMasks()).track(scene)))
        assert 1 <= maps.min() <= maps.max() <= labels


def test_settings_that_make_no_sense_are_refused():
    for wrong in ({"batch": 0}, {"labels": 0}, {"grid": 1}):
        with pytest.raises(InputError, match="byocl needs"):
            ByoclConfig(**wrong).build(TrueMasks())
