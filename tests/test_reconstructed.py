"""What a reconstruction makes is kept and read back; sparse clouds are labelled as they are."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tiny_scan import tiny_scan, write_scannet

from lift3d.datasets import read_scene as read_scene_at
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.export.ply import read_cloud
from lift3d.geometry import unproject
from lift3d.run.lift import lift
from lift3d.run.run import Run
from lift3d.run.scene_file import read_scene, write_scene
from lift3d.run.settings import LiftConfig
from lift3d.scene import Points, Scene, Skipped
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.labelmaps import write_label_map
from lift3d.segmentation import BACKENDS


def quiet(done, total):
    pass


@pytest.fixture(scope="module")
def scene() -> Scene:
    return SyntheticConfig(views=6, width=80, height=60).read()


def held(value):
    return value


def sparse_of(scene: Scene) -> tuple[Scene, Points]:
    """Some pixels of the first view, and where the others see the same points: as from COLMAP."""
    first = scene.views[0]
    depth = first.depth()
    row, column = (each.ravel() for each in np.mgrid[3:60:5, 3:80:5])
    there = depth[row, column] > 0
    xyz = unproject(first.geometry_camera, depth)[row, column][there]
    rgb = first.image()[row, column][there]
    points = Points(xyz, rgb, np.zeros_like(xyz), np.ones(len(xyz), np.float32))
    views = []
    for view in scene.views:
        own = view.camera.camera_from_world
        z = xyz @ own[2, :3] + own[2, 3]
        pixel = np.rint((xyz @ own[:3, :3].T + own[:3, 3]) @ view.camera.K.T / z[:, None])
        seen = view.depth()
        sparse = np.zeros_like(seen)
        for (x, y, _), deep in zip(pixel.astype(int), z, strict=True):
            if deep > 0 and 0 <= x < 80 and 0 <= y < 60 and abs(seen[y, x] - deep) < 0.03:
                sparse[y, x] = deep
        views.append(replace(view, load_depth=partial(held, sparse), sparse=True))
    return replace(scene, views=tuple(views), load_points=partial(held, points)), points


def test_what_was_kept_is_read_back(scene, tmp_path):
    made, points = sparse_of(scene)
    moved = [
        replace(view, camera=view.camera.at(view.camera.pose @ np.diag([1.0, -1, -1, 1])))
        for view in made.views[:4]
    ]
    made = replace(
        made, views=tuple(moved), skipped=(Skipped("x", "y"),), notes=("n",), metric=False
    )
    write_scene(tmp_path, scene, made, quiet)
    found = read_scene(tmp_path, scene)
    assert [view.name for view in found.views] == [view.name for view in moved]
    assert (found.skipped, found.notes, found.metric) == (made.skipped, made.notes, False)
    for one, two in zip(found.views, moved, strict=True):
        assert np.array_equal(one.camera.pose, two.camera.pose)
        assert np.array_equal(one.depth(), two.depth())
        assert one.sparse
        assert one.load_image is two.load_image or one.load_image == two.load_image
    assert np.array_equal(found.load_points().xyz, points.xyz)


def test_depth_of_the_pictures_own_is_not_copied(scene, tmp_path):
    write_scene(tmp_path, scene, scene, quiet)
    assert not list((tmp_path / "depth").iterdir())
    assert read_scene(tmp_path, scene).views[0].load_depth == scene.views[0].load_depth


def test_scene_json_opens_by_itself_and_says_where_depth_is(scene, tmp_path):
    """No source is given: cameras and stored depth are there; pictures need the scan."""
    made, points = sparse_of(scene)
    made = made.with_views([*made.views[:5], replace(made.views[5], load_depth=None, sparse=False)])
    write_scene(tmp_path, replace(scene, origin=None), made, quiet)
    entries = json.loads((tmp_path / "scene.json").read_text())["views"]
    assert [each["depth"] for each in entries] == [*(f"depth/000{i}.npz" for i in range(5)), None]
    assert [each.get("sparse", False) for each in entries] == [True] * 5 + [False]
    found = read_scene(tmp_path)
    assert [view.sparse for view in found.views] == [True] * 5 + [False]
    assert np.array_equal(found.views[0].depth(), made.views[0].depth())
    assert found.views[5].depth() is None
    assert np.array_equal(found.load_points().xyz, points.xyz)
    with pytest.raises(InputError, match="made from Python"):
        found.views[0].image()


def test_a_sensors_depth_is_read_from_the_scan(tmp_path):
    """The room is found again by its own options, whatever the command line was."""
    config = SyntheticConfig(views=3, width=64, height=48, noise=False)
    room = read_scene_at(Path("synthetic:3"), config)
    write_scene(tmp_path, room, room, quiet)
    entries = json.loads((tmp_path / "scene.json").read_text())["views"]
    assert [each["depth"] for each in entries] == ["scan"] * 3
    found = read_scene(tmp_path)
    for ours, theirs in zip(found.views, room.views, strict=True):
        assert np.array_equal(ours.image(), theirs.image())
        assert np.array_equal(ours.depth(), theirs.depth())


def test_a_damaged_or_foreign_folder_says_what_to_do(scene, tmp_path):
    made, _ = sparse_of(scene)
    write_scene(tmp_path, scene, made, quiet)
    (tmp_path / "depth" / f"{scene.views[0].name}.npz").write_bytes(b"PK")
    with pytest.raises(FrameError, match="cannot be read"):
        read_scene(tmp_path, scene).views[0].depth()
    fewer = scene.with_views(scene.views[1:])
    with pytest.raises(InputError, match="lacks"):
        read_scene(tmp_path, fewer)


def with_true_masks(scene, folder):
    """Settings for a cloud of few points."""
    for view in scene.views:
        write_label_map(folder / "masks", view.name, view.instances())
    masks = BACKENDS["folder"](path=folder / "masks")
    config = LiftConfig(Path("in"), folder / "run", segmentation=masks)
    return replace(config, association=replace(config.association, points=3, views=1))


def test_posed_pictures_with_a_cloud_and_no_depth_are_lifted(scene, tmp_path):
    """As from a nerfstudio folder: what a picture sees of the cloud takes the place of depth."""
    made, points = sparse_of(scene)
    bare = [replace(view, load_depth=None, sparse=False) for view in made.views]
    bare = replace(made, views=tuple(bare))
    lifted = lift(with_true_masks(scene, tmp_path), bare)
    cloud = read_cloud(lifted.folder / "cloud.ply")
    assert np.array_equal(cloud.points.xyz, points.xyz)
    assert (cloud.instance > 0).mean() > 0.5
    first = lifted.scene.views[0]
    assert first.sparse
    there = first.depth() > 0
    # The first picture is where the points are from: it sees them, at their depth.
    assert there.sum() > 0.7 * len(points)  # its own splat hides some
    assert np.allclose(first.depth()[there], scene.views[0].depth()[there], atol=0.05)


def test_a_sparse_cloud_is_labelled_on_its_own_points(scene, tmp_path):
    """With the true masks nearly every point gets the id that its pixel has in the first view."""
    made, points = sparse_of(scene)
    lifted = lift(with_true_masks(scene, tmp_path), made)
    cloud = read_cloud(lifted.folder / "cloud.ply")
    assert np.array_equal(cloud.points.xyz, points.xyz)
    assert "points of the reconstruction" in lifted.records["fuse"].result["notes"][0]
    assert (cloud.instance > 0).mean() > 0.7
    row, column = (each.ravel() for each in np.mgrid[3:60:5, 3:80:5])
    there = scene.views[0].depth()[row, column] > 0
    true = scene.views[0].instances()[row, column][there]
    large = [each for each in np.unique(true[true > 0]) if (true == each).sum() >= 8]
    assert large
    pure = [
        np.bincount(cloud.instance[true == each]).max() / (true == each).sum() for each in large
    ]
    assert np.mean(pure) > 0.7


def test_a_finished_run_is_opened_again_where_its_pictures_are(tmp_path):
    masks = BACKENDS["simulated"]()
    config = SyntheticConfig(views=6, width=80, height=60, noise=False)
    room = read_scene_at(Path("synthetic"), config)
    run = tmp_path / "run"
    lift(LiftConfig(Path("synthetic"), run, voxel=0.08, segmentation=masks), room)
    again = Run.open(run).whole_scene  # the recorded options, not those of `synthetic` alone
    assert len(again) == 6
    for ours, theirs in zip(again.views, room.views, strict=True):
        np.testing.assert_array_equal(ours.image(), theirs.image())
        np.testing.assert_allclose(ours.camera.pose, theirs.camera.pose, atol=1e-9)
    write_scannet(tmp_path / "scan", tiny_scan(views=8))
    with pytest.raises(InputError, match="lacks 6 of 6 pictures"):
        Run.open(run, tmp_path / "scan").whole_scene  # noqa: B018 - a property that reads
    with pytest.raises(InputError, match=r"cannot be opened.*--scan"):
        Run.open(run, tmp_path / "nowhere").whole_scene  # noqa: B018
