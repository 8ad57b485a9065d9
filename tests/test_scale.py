"""Default tolerances follow the scene: centimetres where it is metric, else its own scale."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from walls import DISTANCE, HEIGHT, WIDTH, K, wall_scene

from lift3d.association import AssociationConfig, associate
from lift3d.association.votes.ballot import vote_labels
from lift3d.association.votes.features import average_features
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.evaluation.check import check
from lift3d.evaluation.reprojection import reprojection_check
from lift3d.evaluation.scores import at_vertices
from lift3d.geometry.scale import fitted, median_depth
from lift3d.geometry.visibility import DepthTolerance
from lift3d.run.lift import lift
from lift3d.run.record import read_json
from lift3d.run.settings import LiftConfig
from lift3d.scene import Camera, LabelledPoints, Points, Scene, View
from lift3d.scene.labelmaps import true_label_maps
from lift3d.segmentation import tracking
from lift3d.segmentation.matching.depth import DepthMatcherConfig

SQUARES = ((20, 20, 30, 2), (90, 40, 40, 3))
SCALES = [0.01, 1.0, 100.0]


def resized(scene, scale, metric=False):
    """The same scene in other units."""
    views = []
    for view in scene.views:
        pose = view.camera.pose.copy()
        pose[:3, 3] *= scale
        camera = replace(view.camera, world_from_camera=pose)
        depth = None if view.load_depth is None else partial(times, view.load_depth, scale)
        views.append(replace(view, camera=camera, load_depth=depth))
    return replace(scene, views=tuple(views), metric=metric)


def times(load, scale):
    return (load() * scale).astype(np.float32)


def wall(scale=1.0, depth=DISTANCE):
    """A point at every pixel of the view at shift 0."""
    y, x = np.mgrid[:HEIGHT:2, :WIDTH:2]
    xyz = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones(x.shape)], -1)
    xyz = (xyz.reshape(-1, 3) * depth * scale).astype(np.float32)
    n = len(xyz)
    normal = np.tile(np.array([0, 0, -1], np.float32), (n, 1))
    return Points(xyz, np.zeros((n, 3), np.uint8), normal, np.ones(n, np.float32))


def seen(points, scene):
    """Share of the points that got a vote."""
    maps = true_label_maps(scene)
    return float((vote_labels(points, scene, maps).looked > 0).mean())


@pytest.mark.parametrize("scale", SCALES)
def test_points_behind_the_surface_are_not_seen_whatever_the_unit(scale):
    scene = resized(wall_scene(SQUARES, [0]), scale)
    assert seen(wall(scale), scene) == 1
    assert seen(wall(scale, 1.01 * DISTANCE), scene) == 1
    assert seen(wall(scale, 1.3 * DISTANCE), scene) == 0


@pytest.mark.parametrize("scale", SCALES)
def test_the_tolerance_without_metres_is_a_share_of_the_median_depth(scale):
    scene = resized(wall_scene(SQUARES, [0, 10]), scale)
    found = fitted(DepthTolerance(), scene)
    assert found.absolute == pytest.approx(0.02 * scale, rel=1e-6)  # of 2 units of depth: 1 %
    assert found.relative == 0.01


def test_in_a_metric_scene_the_tolerance_is_2_cm_at_any_depth():
    for scale in SCALES:
        scene = resized(wall_scene(SQUARES, [0]), scale, metric=True)
        assert fitted(DepthTolerance(), scene) == DepthTolerance(0.02, 0.01)


@pytest.mark.parametrize("absolute", [0.0, 0.02, 3.0])
def test_a_tolerance_that_was_given_is_kept(absolute):
    scene = resized(wall_scene(SQUARES, [0]), 0.01)
    given = DepthTolerance(absolute, 0.5)
    assert fitted(given, scene) is given


def test_views_without_depth_measure_the_cloud():
    scene = resized(wall_scene(SQUARES, [0]), 0.01)
    bare = scene.with_views([replace(view, load_depth=None) for view in scene.views])
    assert median_depth(bare, wall(0.01)) == pytest.approx(0.02, rel=1e-3)
    assert seen(wall(0.01), bare) == 1


@pytest.mark.parametrize("scale", SCALES)
def test_every_step_that_compares_depth_uses_the_scale(scale):
    scene = resized(wall_scene(SQUARES, [0, 8]), scale)
    maps = true_label_maps(scene)
    near, far = wall(scale), wall(scale, 1.3 * DISTANCE)
    for config in (AssociationConfig(trust_ids=True), AssociationConfig(points=3)):
        found = associate(near, scene, maps, config)
        assert (found.cloud.instance > 0).all()
        assert found.tolerance.absolute == pytest.approx(0.02 * scale, rel=1e-6)
        assert not associate(far, scene, maps, config).cloud.instance.any()
    ones = np.ones((4, 4, 1), np.float32)
    assert average_features(near, scene, lambda index: ones).all()
    assert not average_features(far, scene, lambda index: ones).any()
    cloud = LabelledPoints(far, np.ones(len(far), np.int32), np.ones(len(far), np.float32))
    shown = reprojection_check(cloud, scene, maps, 0.05 * scale)
    assert shown.seen == 0
    assert check(scene, cloud, maps, 0.1 * scale)[0]["reprojection"]["seen"] == 0


@pytest.mark.parametrize("scale", SCALES)
def test_a_tracker_that_carries_masks_by_depth_uses_the_scale(scale):
    """The second view's wall stands 30 % further away: nothing of the first is carried there."""
    from walls import TrueMasks

    scene = resized(wall_scene(SQUARES, [0, 8]), scale)
    moved = replace(scene.views[1], load_depth=partial(times, scene.views[1].load_depth, 1.3))
    scene = scene.with_views([scene.views[0], moved])
    config = tracking.BACKENDS["mastsam"]()
    first, second = config.build(TrueMasks(), DepthMatcherConfig().build()).track(scene)
    assert not set(np.unique(first)) & set(np.unique(second))


def test_a_run_records_the_tolerance_that_it_used(tmp_path):
    room = SyntheticConfig(views=4, width=64, height=48).read()
    small = replace(resized(room, 0.01), load_surface=None)
    config = LiftConfig(Path("none"), tmp_path / "run", matching=DepthMatcherConfig())
    lift(config, small)
    settings = read_json(tmp_path / "run", "run.json")["settings"]
    expected = 0.01 * median_depth(small)
    assert settings["tolerance"]["absolute"] == pytest.approx(expected)
    assert settings["matching"]["tolerance"]["absolute"] == pytest.approx(expected)
    assert 1e-4 < expected < 1e-3


def test_the_matcher_of_a_run_is_built_with_the_tolerance_of_the_scene(tmp_path):
    scene = resized(wall_scene(SQUARES, [0, 8]), 0.01)
    config = LiftConfig(Path("none"), tmp_path / "run", tracking=tracking.BACKENDS["mastsam"]())
    config = config.resolved(scene)
    assert config.matcher().config.tolerance.absolute == pytest.approx(2e-4)
    assert config.tracking.tolerance.absolute == pytest.approx(2e-4)


@pytest.mark.parametrize("scale", SCALES)
def test_vertices_take_the_label_of_points_near_by_whatever_the_unit(scale):
    points = wall(scale)
    cloud = LabelledPoints(points, np.ones(len(points), np.int32), np.ones(len(points), np.float32))
    gap = 2 * DISTANCE / K[0, 0] * scale  # between points
    near, far = points.xyz + [0, 0, 2 * gap], points.xyz + [0, 0, 30 * gap]
    assert at_vertices(cloud, near.astype(np.float32), metric=False).all()
    assert not at_vertices(cloud, far.astype(np.float32), metric=False).any()


def test_vertices_of_a_metric_scene_reach_10_cm():
    cloud = LabelledPoints(wall(), *(np.ones(len(wall()), kind) for kind in (np.int32, np.float32)))
    middle = wall().xyz[len(wall()) // 2]
    for off, expected in ((0.099, 1), (0.101, 0)):
        assert at_vertices(cloud, (middle + [0, 0, off])[None].astype(np.float32))[0] == expected


def scene_of(*views):
    return Scene("s", tuple(views), False, "test")


def test_a_scene_without_a_readable_depth_map_and_without_points_has_no_scale():
    camera = Camera(K, WIDTH, HEIGHT, np.eye(4))
    bare = scene_of(View("a", camera, np.zeros))
    assert median_depth(bare) is None
    assert fitted(DepthTolerance(), bare).absolute is None
