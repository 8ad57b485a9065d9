"""Colour beside depth: the colour camera of a scan is fitted, told and used."""

from dataclasses import replace

import numpy as np
import pytest

from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.geometry import project, unproject
from lift3d.reconstruction.registration import (
    checked_registration,
    find_registration,
    registered,
)
from lift3d.reconstruction.sensor import Sensor, SensorConfig
from lift3d.scene import View


class Constant:
    def __init__(self, value):
        self.value = value

    def __call__(self):
        return self.value


@pytest.fixture(scope="module")
def room():
    scene = SyntheticConfig(views=24, width=320, height=240).read()
    views = tuple(
        replace(view, load_image=Constant(view.image()), load_depth=Constant(view.depth()))
        for view in scene.views
    )
    return replace(scene, views=views)


@pytest.fixture(scope="module")
def beside(room):
    """Its depth, nearer and turned aside by its place, but said to have the colour's camera."""

    def moved(view: View) -> View:
        xyz = unproject(
            view.camera.resized(960, 720), np.kron(view.depth(), np.ones((3, 3), np.float32))
        )
        K = view.camera.K.copy()
        K[0, 0] *= 1.1
        K[1, 1] *= 1.1
        aside = np.eye(4)
        aside[0, 3] = -0.025
        camera = replace(view.camera, K=K, world_from_camera=view.camera.pose @ aside)
        xy, z = project(camera, xyz.reshape(-1, 3))
        column, row = np.rint(np.nan_to_num(xy, nan=-1)).astype(int).T
        inside = (column >= 0) & (row >= 0) & (column < 320) & (row < 240)
        depth = np.full((240, 320), np.inf, np.float32)
        np.minimum.at(depth, (row[inside], column[inside]), z[inside].astype(np.float32))
        depth[~np.isfinite(depth)] = 0
        return replace(view, camera=camera, load_depth=Constant(depth))

    return replace(room, views=tuple(moved(view) for view in room.views))


def distance(scene, room):
    """Median distance in pixels of surface points from their true colour pixels."""
    found = []
    for view, true in zip(scene.views, room.views, strict=True):
        xyz = unproject(view.geometry_camera, view.depth()).reshape(-1, 3)
        xyz = xyz[np.isfinite(xyz).all(1)][::50]
        ours, theirs = project(view.camera, xyz)[0], project(true.camera, xyz)[0]
        found.append(np.linalg.norm(ours - theirs, axis=1))
    return np.nanmedian(np.concatenate(found))


def test_a_right_scan_is_left_as_it_is(room):
    found = find_registration(room)
    assert not found.wrong
    assert found.median < 1
    assert checked_registration(room, "mend") is room


def test_the_colour_camera_is_found_and_used(room, beside):
    assert distance(beside, room) > 10
    found = find_registration(beside)
    assert found.wrong
    assert distance(registered(beside, found), room) < 1
    assert found.median == pytest.approx(distance(beside, room), rel=0.1)


def test_it_is_told_or_mended_as_asked(room, beside):
    told = Sensor(SensorConfig(registration="tell")).reconstruct(beside)
    assert all(view.depth_camera is None for view in told.views)
    assert "px beside depth" in told.warnings[0]
    assert "registration mend" in told.warnings[0]
    mended = Sensor().reconstruct(beside)
    assert "registration off" in mended.warnings[0]
    assert distance(mended, room) < 1
    off = Sensor(SensorConfig(registration="off")).reconstruct(beside)
    assert not off.warnings


def test_given_masks_keep_the_stated_camera():
    auto = SensorConfig()
    assert auto.for_masks(True).registration == "tell"
    assert auto.for_masks(False).registration == "mend"
    assert SensorConfig(registration="mend").for_masks(True).registration == "mend"


def test_a_lag_in_time_is_found():
    dense = SyntheticConfig(views=600, width=160, height=120).read().views
    scene = SyntheticConfig(views=6).read()
    views = tuple(replace(dense[n], load_image=dense[n + 2].load_image) for n in range(20, 260, 10))
    found = find_registration(replace(scene, views=views))
    assert found.lag == pytest.approx(0.2, abs=0.05)
    assert found.wrong
    fitted = registered(replace(scene, views=views), found)
    true = [dense[n + 2].camera.pose for n in range(20, 260, 10)]
    ours = [view.camera.pose for view in fitted.views]
    before = [view.camera.pose for view in views]
    moved = np.linalg.norm(np.subtract(true, before)[:, :3, 3], axis=1)
    left = np.linalg.norm(np.subtract(true, ours)[1:-1, :3, 3], axis=1)
    assert np.median(left) < 0.4 * np.median(moved)


@pytest.mark.parametrize(
    "change",
    [
        lambda view: replace(view, depth_camera=view.camera),
        lambda view: replace(view, load_depth=None),
        lambda view: replace(view, camera=replace(view.camera, distortion=(0.1, 0.0, 0.0, 0.0))),
    ],
)
def test_nothing_is_said_where_it_cannot_be_told(room, change):
    assert find_registration(replace(room, views=tuple(map(change, room.views)))) is None
    assert find_registration(replace(room, views=room.views[:4])) is None


def test_each_picture_is_decoded_once(room):
    decoded = []

    def counted(view: View) -> View:
        def picture():
            decoded.append(f"picture of {view.name}")
            return view.image()

        def depth():
            decoded.append(f"depth of {view.name}")
            return view.depth()

        return replace(view, load_image=picture, load_depth=depth)

    assert find_registration(replace(room, views=tuple(map(counted, room.views)))) is not None
    assert len(decoded) == len(set(decoded)) == 2 * len(room.views)
