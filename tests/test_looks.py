"""The one pass over the views: seen, looked up, and what cannot be read is left out."""

import logging
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from lift3d.association import AssociationConfig, associate
from lift3d.association.looks import looks
from lift3d.association.votes.features import average_features
from lift3d.geometry.visibility import DepthTolerance, sightings
from lift3d.scene import Camera, Points, Scene, View
from lift3d.scene.errors import FrameError

K = np.array([[10.0, 0, 4.5], [0, 10.0, 4.5], [0, 0, 1]])
LABELS = np.arange(100, dtype=np.int32).reshape(10, 10)


def torn():
    raise FrameError("0002.png is torn")


def view(name, x=0.0, **changes):
    """Of a wall 2 m ahead; the camera stands at (x, 0, 0)."""
    pose = np.eye(4)
    pose[0, 3] = x
    depth = partial(np.full, (10, 10), 2.0, np.float32)
    image = partial(np.zeros, (10, 10, 3), np.uint8)
    return replace(View(name, Camera(K, 10, 10, pose), image, depth), **changes)


def scene_of(*views):
    return Scene("wall", views, True, "test")


def wall(count=300):
    xy = np.random.default_rng(0).uniform(-0.9, 0.9, (count, 2))
    xyz = np.c_[xy, np.full(count, 2.0)].astype(np.float32)
    normal = np.tile(np.array([0, 0, -1], np.float32), (count, 1))
    return Points(xyz, np.zeros((count, 3), np.uint8), normal, np.ones(count, np.float32))


def maps_of(scene):
    return {each.name: LABELS + 100 * i for i, each in enumerate(scene.views)}


def test_a_look_is_what_the_view_sees_and_how_it_labels_it():
    scene, points = scene_of(view("a"), view("b", 0.3)), wall()
    found = list(looks(points, scene, maps_of(scene)))
    assert [(each.index, each.view.name) for each in found] == [(0, "a"), (1, "b")]
    for each in found:
        seen = sightings(points, scene.views[each.index])
        np.testing.assert_array_equal(each.seen.point, seen.point)
        expected = maps_of(scene)[each.view.name][seen.row, seen.column]
        np.testing.assert_array_equal(each.label, expected)
        assert len(each.weight) == len(seen)
    few = found[1].at(points.take(np.arange(5)))
    np.testing.assert_array_equal(few.label, found[1].label[found[1].seen.point < 5])


def test_each_view_is_decoded_once():
    loaded = []

    def depth(name):
        loaded.append(name)
        return np.full((10, 10), 2.0, np.float32)

    scene = scene_of(*(view(name, load_depth=partial(depth, name)) for name in "abc"))
    for each in looks(wall(), scene, maps_of(scene)):
        each.at(wall(10))
    assert loaded == ["a", "b", "c"]


@pytest.mark.parametrize("what", ["load_depth", "load_confidence"])
def test_a_view_that_cannot_be_read_sees_nothing_and_is_named(what, caplog):
    scene, points = scene_of(view("a"), view("b", **{what: torn}), view("c")), wall()
    skipped = []
    with caplog.at_level(logging.WARNING):
        found = list(looks(points, scene, maps_of(scene), DepthTolerance(), skipped))
        assert not caplog.messages
        list(looks(points, scene))
    assert [len(each.seen) > 0 for each in found] == [True, False, True]
    assert [(each.name, each.reason) for each in skipped] == [("b", "0002.png is torn")]
    assert caplog.messages == ["view b sees nothing: 0002.png is torn"]


@pytest.mark.parametrize("association", [{}, {"by_shape": True}, {"trust_ids": True}])
@pytest.mark.parametrize("what", ["load_depth", "load_confidence"])
def test_no_way_of_associating_ends_at_a_view_that_cannot_be_read(association, what, caplog):
    points = wall(2000)
    scene = scene_of(*(view(str(i), 0.05 * i) for i in range(5)))
    maps = dict.fromkeys("01234", np.repeat(np.array([[1, 2]], np.int32), 5, 1).repeat(10, 0))
    config = AssociationConfig(points=20, **association)
    whole = associate(points, scene, maps, config)
    bad = scene.with_views([*scene.views[:2], view("2", 0.1, **{what: torn}), *scene.views[3:]])
    found = associate(points, bad, maps, config)
    assert "view 2 has no vote: 0002.png is torn" in found.warnings
    assert (found.cloud.instance > 0).sum() > 0.9 * (whole.cloud.instance > 0).sum() > 0
    for index, each in enumerate(bad.views):
        assert found.relabel(index, each, maps[each.name]).shape == (10, 10)


def test_features_of_a_view_that_cannot_be_read_are_left_out(caplog):
    scene = scene_of(view("a"), view("b", load_depth=torn))
    maps = [np.full((1, 1, 2), value, np.float32) for value in ([1, 0], [0, 1])]
    done = []
    found = average_features(
        wall(), scene, maps.__getitem__, progress=lambda at, of: done.append((at, of))
    )
    np.testing.assert_allclose(found[np.any(found, 1)], [[1, 0]] * int(np.any(found, 1).sum()))
    assert caplog.messages == ["view b sees nothing: 0002.png is torn"]
    assert done == [(1, 2), (2, 2)]
