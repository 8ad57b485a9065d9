"""`--views`: the views that cover most of the scene; evenly spaced without poses."""

import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from tiny_scan import tiny_scan, write_scannet

from lift3d.datasets import read_scene
from lift3d.datasets.selection import AGAIN, most_covering, select, shown_cells
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.reconstruction.fusion.voxel import VoxelConfig
from lift3d.scene import Camera, Scene, View
from lift3d.scene.errors import FrameError, InputError

K = np.array([[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]])


def wall(metres):
    return np.full((48, 64), metres, np.float32)


TWO_METRES = partial(wall, 2.0)


def nothing():
    raise AssertionError("pictures are not looked at")


def broken():
    raise FrameError("truncated")


def scene_at(places, load_depth=TWO_METRES):
    """Views at these x, all facing a wall along x."""
    views = []
    for number, x in enumerate(places):
        pose = None if x is None else np.eye(4)
        if pose is not None:
            pose[0, 3] = x
        views.append(View(f"{number}", Camera(K, 64, 48, pose), nothing, load_depth))
    return Scene("walls", tuple(views), True, "made here")


def names(scene, **options):
    return [int(view.name) for view in select(scene, **options).views]


def slow_greedy(cells, count):
    """The definition: after the first, the view with the largest gain each time."""
    worth = {}
    chosen = [0]
    while True:
        for cell in cells[chosen[-1]].tolist():
            worth[cell] = worth.get(cell, 1.0) * AGAIN
        if len(chosen) == count:
            return sorted(chosen)
        left = [i for i in range(len(cells)) if i not in chosen]
        gain = [sum(worth.get(cell, 1.0) for cell in cells[i].tolist()) for i in left]
        chosen.append(left[int(np.argmax(gain))])


def test_without_poses_views_are_evenly_spaced():
    scene = scene_at([None] * 8)
    assert names(scene) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert names(scene, stride=3) == [0, 3, 6]
    assert names(scene, views=3) == [0, 4, 7]
    assert names(scene, views=2, stride=3) == [0, 6]
    assert names(scene, views=1) == [0]
    assert names(scene, views=99) == names(scene)
    with pytest.raises(InputError, match="views is 0"):
        names(scene, views=0)
    with pytest.raises(InputError, match="stride is 0"):
        names(scene, stride=0)


def test_a_camera_that_stands_still_is_not_selected_twice():
    assert names(scene_at([0, 0, 0, 0, 0, 0, 0, 4, 8, 12]), views=4) == [0, 7, 8, 9]


def test_every_place_is_covered_once_before_any_is_covered_twice():
    assert names(scene_at([0, 5, 10, 10, 5, 0]), views=3) == [0, 1, 2]
    assert len(names(scene_at([0, 5, 10, 10, 5, 0]), views=5)) == 5


def test_stride_comes_first_and_the_first_view_stays():
    places = [0, 50, 0, 50, 4, 50, 8, 50]
    assert names(scene_at(places), views=3, stride=2) == [0, 4, 6]
    assert names(scene_at([3, 9]), views=1) == [0]


@pytest.mark.parametrize("depth", [None, broken], ids=["no depth", "unreadable depth"])
def test_poses_without_depth_are_enough(depth):
    assert names(scene_at([0, 0, 0, 0, 0, 4, 8], depth), views=3) == [0, 5, 6]


def test_cameras_in_one_place_without_depth_give_the_requested_number():
    assert len(names(scene_at([0, 0, 0, 0], None), views=2)) == 2


def test_sparse_depth_counts_by_its_median():
    sparse = wall(0.0)
    sparse[5, 7] = 2.0
    scene = scene_at([0, 0, 0, 0, 4, 8], partial(sparse.copy))
    scene = scene.with_views([replace(view, sparse=True) for view in scene.views])
    assert names(scene, views=3) == [0, 4, 5]


def test_lazy_and_plain_greedy_choose_the_same():
    rng = np.random.default_rng(0)
    for count in (1, 2, 7, 30):
        cells = [np.unique(rng.integers(0, 60, rng.integers(0, 20))) for _ in range(30)]
        assert most_covering(cells, count) == slow_greedy(cells, count)


def test_few_views_fuse_to_more_of_the_surface_than_evenly_spread_ones(shared_data):
    scene = read_scene(shared_data("hololens_dvmvs_000"))
    even = scene.with_views([scene.views[i] for i in np.linspace(0, 59, 20).round().astype(int)])

    def cells(some):
        xyz = VoxelConfig().build().fuse(some).xyz
        return set(map(tuple, np.floor(xyz / 0.05).astype(int).tolist()))

    whole = cells(scene)
    chosen, spread = (len(whole & cells(s)) / len(whole) for s in (select(scene, 20), even))
    print(f"surface of 60 views in 20: {chosen:.3f}, evenly spread {spread:.3f}")
    assert chosen > spread + 0.1


def test_the_same_scan_gives_the_same_views_again(tmp_path):
    write_scannet(tmp_path / "scan", tiny_scan(views=9))
    found = [names(read_scene(tmp_path / "scan"), views=4) for _ in range(2)]
    assert found[0] == found[1]
    assert found[0][0] == 0


def test_a_scan_of_5578_views_is_chosen_from_in_seconds():
    room = SyntheticConfig(views=5578, width=64, height=48)
    poses = [view.camera.pose for view in room.read().views]
    scene = scene_at([0.0] * 5578)
    views = [
        replace(v, camera=v.camera.at(pose)) for v, pose in zip(scene.views, poses, strict=True)
    ]
    began = time.perf_counter()
    assert len(select(scene.with_views(views), 300)) == 300
    assert time.perf_counter() - began < 10


def test_time_grows_with_the_number_of_views_not_with_its_square():
    def seconds(count):
        scene = scene_at(np.linspace(0, count / 10, count).tolist())
        began = time.perf_counter()
        most_covering(shown_cells(scene.views), count // 20)
        return time.perf_counter() - began

    short, long = (min(seconds(count) for _ in range(2)) for count in (500, 4000))
    assert long < 8 * short * 3
