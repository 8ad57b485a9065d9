from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from lift3d.reconstruction import BACKENDS
from lift3d.reconstruction.sensor import SensorConfig
from lift3d.scene import Camera, Scene, Skipped, View
from lift3d.scene.errors import FrameError, InputError

CAMERA = Camera(np.array([[4.0, 0, 1.5], [0, 4.0, 1.5], [0, 0, 1]]), 4, 4, np.eye(4))


def image():
    return np.zeros((4, 4, 3), np.uint8)


def depth(value=1.0):
    return np.full((4, 4), value, np.float32)


def torn():
    raise FrameError("frame torn.png ends early")


def view(name, **changes):
    return replace(View(name, CAMERA, image, depth), **changes)


def scene(*views, skipped=()):
    return Scene("test", views, True, "reader: folder", skipped)


def reconstruct(scene):
    return SensorConfig().build().reconstruct(scene)


def test_complete_frames_are_kept_in_order():
    before = scene(*(view(f"{i}") for i in range(10)))
    assert reconstruct(before).views == before.views


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"camera": replace(CAMERA, world_from_camera=None)}, "no pose"),
        ({"camera": CAMERA.at(np.full((4, 4), -np.inf))}, "pose is not a finite rotation"),
        ({"camera": CAMERA.at(np.diag([2.0, 2, 2, 1]))}, "pose is not a finite rotation"),
        ({"depth_camera": CAMERA.at(np.full((4, 4), np.nan))}, "pose is not a finite rotation"),
        ({"load_image": torn}, "ends early"),
        ({"load_depth": torn}, "ends early"),
        ({"load_depth": None}, "no depth"),
        ({"load_depth": partial(depth, 0.0)}, "depth is empty"),
        ({"load_depth": partial(depth, np.nan)}, "depth is empty"),
        ({"load_depth": lambda: np.ones((3, 4), np.float32)}, "depth is 4x3, its camera expects"),
    ],
)
def test_an_unusable_frame_is_skipped_with_the_reason(changes, reason):
    result = reconstruct(scene(view("a"), view("bad", **changes), view("c")))
    assert [kept.name for kept in result.views] == ["a", "c"]
    assert [frame.name for frame in result.skipped] == ["bad"]
    assert reason in result.skipped[0].reason


def test_a_frame_with_hardly_any_depth_is_skipped():
    def speck():
        sparse = np.zeros((400, 4), np.float32)
        sparse[0, 0] = 1
        return sparse

    tall = replace(CAMERA, height=400)
    spare = view("b", depth_camera=tall, load_depth=speck)
    result = reconstruct(scene(view("a"), spare))
    assert [frame.reason for frame in result.skipped] == ["depth at less than 1% of the pixels"]


def test_exactly_half_of_the_frames_may_be_skipped():
    result = reconstruct(scene(view("a"), view("b", load_image=torn)))
    assert len(result) == 1


def test_more_than_half_skipped_is_an_error_with_the_count_and_the_most_frequent_reason():
    bad = [view(f"bad{i}", load_image=partial(fail, f"bad{i}")) for i in range(3)]
    empty = view("dark", load_depth=partial(depth, 0.0))
    with pytest.raises(InputError, match=r"4 of 5 frames .*3 x … is torn; first: bad0"):
        reconstruct(scene(view("a"), *bad, empty))


def fail(name):
    raise FrameError(f"{name} is torn")


def test_frames_skipped_while_reading_are_counted_and_stay_listed():
    lost = (Skipped("x", "no pose"), Skipped("y", "no pose"))
    with pytest.raises(InputError, match=r"2 of 3 frames .*2 x no pose; first: x"):
        reconstruct(scene(view("a"), skipped=lost))
    assert reconstruct(scene(view("a"), view("b"), skipped=lost)).skipped == lost


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ([view("a", load_depth=None)], "none of the 1 frames has depth"),
        ([view("a", camera=replace(CAMERA, world_from_camera=None))], "frames has a pose"),
        ([], "no frames to work with"),
    ],
)
def test_a_scan_without_depth_or_poses_or_frames_is_an_error(views, message):
    with pytest.raises(InputError, match=message):
        reconstruct(scene(*views))


def test_progress_counts_every_frame():
    calls = []
    sensor = SensorConfig(threads=1).build()
    sensor.reconstruct(scene(view("a"), view("b", load_image=torn)), lambda *c: calls.append(c))
    assert calls == [(1, 2), (2, 2)]


def test_sensor_is_registered():
    assert BACKENDS["sensor"] is SensorConfig
