"""Captures as people bring them: each given case against the reference, which is the same room."""

from collections import Counter

import numpy as np
import pytest

from lift3d.datasets import read_scene

RIGHT = {
    "colmap_local": "colmap",
    "colmap_spaces": "colmap",
    "colmap_noext": "colmap",
    "nerfcapture": "nerfstudio",
    "depth_npy_metres": "rgbd-json",
    "ns_depth_npy": "nerfstudio",
    "rscan3": "3rscan",
    "rscan3/sequence": "3rscan",
    "blender_split": "nerfstudio",
    "polycam": "polycam",
    "polycam/keyframes": "polycam",
    "stray": "stray-scanner",
    "open3d_system": "open3d-system",
}
"""Case -> the reader that must find it. Each has the 8 views of `base/scan`."""
WITHOUT_DEPTH = ("blender_split",)


@pytest.fixture
def base(shared_data):
    """The reference scene."""
    return read_scene(shared_data("field_cases/base/scan"))


@pytest.mark.parametrize("case", RIGHT)
def test_a_field_case_is_the_same_room(case, shared_data, base):
    scene = read_scene(shared_data(f"field_cases/{case}"))
    assert scene.origin.reader == RIGHT[case]
    assert len(scene) == len(base), scene.skipped
    assert not scene.skipped
    for view, known in zip(scene.views, base.views, strict=True):
        np.testing.assert_allclose(view.camera.pose, known.camera.pose, atol=2e-4)
        np.testing.assert_allclose(view.camera.K, known.camera.K, atol=1e-3)
        difference = np.abs(view.image().astype(int) - known.image()).mean()
        assert difference < 12, "another picture"  # JPEG and H.264 lose a little
        if case not in WITHOUT_DEPTH:
            check_depth(view, known)


def check_depth(view, known):
    """The depth of `view` is that of `known`, at its own size, to the millimetre it is stored in.

    Depth maps of half the size hold every second pixel of the reference, so half a pixel beside.
    """
    depth, reference = view.depth(), known.depth()
    seen = depth > 0
    y, x = np.nonzero(seen)
    camera, other = view.geometry_camera, known.camera
    ray = np.stack([x, y, np.ones_like(x)]).astype(float)
    in_camera = np.linalg.inv(camera.K) @ ray * depth[seen]
    world = camera.pose[:3, :3] @ in_camera + camera.pose[:3, 3:]
    back = other.camera_from_world[:3, :3] @ world + other.camera_from_world[:3, 3:]
    column, row = (np.rint((other.K @ back)[:2] / back[2])).astype(int)
    inside = (column >= 0) & (row >= 0) & (column < other.width) & (row < other.height)
    error = np.abs(back[2] - reference[row.clip(0, 119), column.clip(0, 159)])[inside]
    assert inside.mean() > 0.98
    assert np.median(error) < (0.006 if camera.width == 160 else 0.025)


def test_the_splits_of_a_blender_scene_are_kept(shared_data):
    scene = read_scene(shared_data("field_cases/blender_split"))
    assert Counter(view.split for view in scene.views) == {"train": 6, "test": 2}
    assert [view.name for view in scene.views][:1] == ["train-r_0"]


def test_colmap_cases_give_the_same_names_as_their_files(shared_data):
    named = [v.name for v in read_scene(shared_data("field_cases/colmap_noext")).views]
    assert named == [f"IMG_{i:04d}" for i in range(8)]
    spaces = [v.name for v in read_scene(shared_data("field_cases/colmap_spaces")).views]
    assert spaces[0] == "A-DRONE_2024_V_map_plan-wp-2_1_"
    assert len(set(spaces)) == 8


def test_each_heic_of_a_mixed_folder_is_named_as_left_out(shared_data):
    scene = read_scene(shared_data("field_cases/heic_mixed"))
    assert [view.name for view in scene.views] == [f"IMG_{i}" for i in (2100, 2101, 2102)]
    assert [frame.name for frame in scene.skipped] == [f"IMG_{i}" for i in range(2000, 2004)]
