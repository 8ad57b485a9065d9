"""The readers on real scans: the figures that came with the data, measured again."""

from itertools import pairwise

import numpy as np
import pytest

from lift3d.datasets import read_scene
from lift3d.geometry import project, unproject


def differences(a, b):
    """|dz| of the pixels of `a` that `b` measured too, and the share of `a` they are."""
    xyz = unproject(a.geometry_camera, a.depth())[::2, ::2].reshape(-1, 3)
    xyz = xyz[np.isfinite(xyz[:, 0])]
    xy, z = project(b.geometry_camera, xyz)
    with np.errstate(invalid="ignore"):
        column, row = np.round(np.nan_to_num(xy, nan=-9)).astype(int).T
    camera = b.geometry_camera
    inside = (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
    there = b.depth()[row[inside], column[inside]]
    return np.abs(there - z[inside])[there > 0]


@pytest.mark.parametrize(
    ("name", "recipe", "views", "size", "median", "within"),
    [
        ("hololens_dvmvs_000", "hololens-subset", 60, (540, 360), 0.0080, (0.05, 0.95)),
        ("apc_shelf_scene0000", "apc-shelf", 15, (640, 480), 0.0050, (0.02, 0.75)),
        ("open3d_livingroom1_clean", "open3d-trajectory", 53, (640, 480), 0.0012, (0.05, 0.97)),
    ],
)
def test_neighbouring_views_measure_the_same_surface(
    shared_data, name, recipe, views, size, median, within
):
    scene = read_scene(shared_data(name))
    assert scene.source.startswith(f"recipe {recipe} (rgbd folder) at ")
    assert len(scene) == views
    assert not scene.skipped
    assert not scene.notes
    assert {(view.camera.width, view.camera.height) for view in scene.views} == {size}
    assert scene.views[0].image().mean() > 10
    pairs = list(pairwise(scene.views))[:: max(1, views // 12)]
    dz = np.concatenate([differences(a, b) for a, b in pairs])
    assert len(dz) > 50_000
    assert np.median(dz) < median
    assert (dz < within[0]).mean() > within[1]


def test_the_shelf_has_its_four_objects_in_every_view(shared_data):
    for view in read_scene(shared_data("apc_shelf_scene0000")).views:
        assert np.unique(view.instances()).tolist() == [0, 8, 19, 22, 24]
