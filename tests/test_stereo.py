"""Depth of a rendered room by stereo."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pytest
from textured import SIZE, K, photos, poses, render, texture, textured

from lift3d.geometry import unproject
from lift3d.reconstruction.sensor import SensorConfig
from lift3d.reconstruction.stereo import StereoConfig, dense_views, densify
from lift3d.run.lift import lift
from lift3d.run.scene_file import read_scene
from lift3d.run.settings import LiftConfig
from lift3d.scene import Points
from lift3d.scene.errors import InputError
from lift3d.scene.labelmaps import write_label_map
from lift3d.segmentation.folder import FolderConfig


def dense(scene, folder, **options):
    answer = densify(
        scene, StereoConfig(seed=0, planes=64, **options), folder / "out", folder / "work"
    )
    return scene.with_views(list(dense_views(scene, folder / "out", answer.camera))), answer


def compared(scene, truth):
    """Share answered, and the relative errors."""
    found = np.stack([view.depth() for view in scene.views])
    truth = np.stack(truth)
    there = found > 0
    return there.mean(), np.abs(found - truth)[there] / truth[there]


def test_depth_of_a_textured_room_is_right(tmp_path):
    scene, truth = textured()
    result, answer = dense(scene, tmp_path)
    share, error = compared(result, truth)
    assert share > 0.7
    assert np.median(error) < 0.01
    assert np.mean(error < 0.05) > 0.95
    assert answer.answered == pytest.approx(share)
    assert all(view.estimated and not view.sparse for view in result.views)


def test_confidence_is_0_exactly_where_there_is_no_depth(tmp_path):
    scene, _ = textured()
    for view in dense(scene, tmp_path)[0].views:
        np.testing.assert_array_equal(view.confidence() > 0, view.depth() > 0)
        assert view.confidence().max() <= 1


def test_normals_point_at_the_camera(tmp_path):
    scene, _ = textured()
    dense(scene, tmp_path)
    stored = np.load(tmp_path / "out" / "02.npz")
    normal = stored["normal"][stored["depth"] > 0].astype(float) / 127
    np.testing.assert_allclose(np.linalg.norm(normal, axis=1), 1, atol=0.02)
    assert np.median(normal[:, 2]) < -0.9  # wall and front of the box face the camera


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    scene, _ = textured()
    for name in ("a", "b"):
        dense(scene, tmp_path / name)
    for path in sorted((tmp_path / "a" / "out").glob("*.npz")):
        a, b = np.load(path), np.load(tmp_path / "b" / "out" / path.name)
        for what in a.files:
            np.testing.assert_array_equal(a[what], b[what])


def test_a_surface_without_texture_stays_empty_rather_than_wrong(tmp_path):
    scene, truth = textured(plain=True)
    result, _ = dense(scene, tmp_path)
    _, error = compared(result, truth)
    assert np.mean(error < 0.05) > 0.9
    plain = np.zeros(SIZE[::-1], bool)
    plain[20:100, 125:] = True  # inside the plain half in the middle views
    assert np.mean(result.views[2].depth()[plain] > 0) < 0.5


def test_poses_that_are_a_little_off_are_adjusted(tmp_path):
    at, random = poses(), np.random.default_rng(1)
    given = []
    for pose in at:
        moved = pose.copy()
        moved[:3, :3] = cv2.Rodrigues(random.normal(0, 0.008, 3))[0] @ pose[:3, :3]
        given.append(moved)
    scene, truth = textured(at, given)
    with_, answer = dense(scene, tmp_path / "a")
    without, _ = dense(scene, tmp_path / "b", adjust=False)
    good, bad = (np.sum(compared(each, truth)[1] < 0.05) for each in (with_, without))
    assert good > 1.1 * bad
    assert "once adjusted" in answer.notes[0]
    assert np.array_equal(with_.views[0].camera.pose, given[0])  # the scene keeps its own


def test_depth_of_a_bent_lens_has_a_camera_of_its_own(tmp_path):
    scene, _ = textured()
    lens = (-0.1, 0.01, 0.0, 0.0)
    bent = scene.with_views(
        [replace(each, camera=replace(each.camera, distortion=lens)) for each in scene.views]
    )
    view = dense(bent, tmp_path)[0].views[0]
    assert view.depth_camera is not None
    assert view.depth_camera.distortion == ()
    assert view.depth().shape == SIZE[::-1]


def test_large_pictures_are_compared_at_the_working_size(tmp_path):
    scene, truth = textured()
    result, _ = dense(scene, tmp_path, size=120)
    assert result.views[0].depth().shape == (90, 120)
    smaller = [cv2.resize(each, (120, 90), interpolation=cv2.INTER_NEAREST) for each in truth]
    assert np.median(compared(result, smaller)[1]) < 0.01


def test_a_killed_run_goes_on_where_it_stopped(tmp_path):
    scene, _ = textured()

    class Killed(Exception):
        pass

    def kill(done, total):
        if done == 9:  # of 18: half of the views are matched
            raise Killed

    config = StereoConfig(seed=0, planes=64)
    with pytest.raises(Killed):
        densify(scene, config, tmp_path / "out", tmp_path / "work", kill)
    before = {each.name: each.stat().st_ino for each in (tmp_path / "work").glob("*.npz")}
    assert len(before) == 3
    kept = {}

    def look(done, total):
        if done == 12:
            kept.update(
                {each.name: each.stat().st_ino for each in (tmp_path / "work").glob("*.npz")}
            )

    densify(scene, config, tmp_path / "out", tmp_path / "work", look)
    assert len(kept) == 6
    assert all(kept[name] == inode for name, inode in before.items())
    assert not (tmp_path / "work").exists()


def test_two_photos_are_enough(tmp_path):
    at = [poses()[0], poses()[4]]
    scene, truth = textured(at)
    share, error = compared(dense(scene, tmp_path)[0], truth)
    assert share > 0.3
    assert np.median(error) < 0.02


def test_one_photo_is_refused(tmp_path):
    scene, _ = textured(poses()[:1])
    with pytest.raises(InputError, match="1 views with a pose; depth needs at least 2"):
        dense(scene, tmp_path)


def test_cameras_that_only_turn_are_refused(tmp_path):
    at = []
    for i in range(4):
        pose = np.eye(4)
        pose[:3, :3] = cv2.Rodrigues(np.array([0.0, 0.05 * i, 0]))[0]
        at.append(pose)
    with pytest.raises(InputError, match="stand at one place"):
        dense(textured(at)[0], tmp_path)


def test_the_same_photo_again_and_again_is_refused(tmp_path):
    image = render(poses()[0])[0]
    with pytest.raises(InputError, match=r"do not fit the cameras|show no parallax"):
        dense(photos([image] * 5, poses()[:5]), tmp_path)


def test_photos_that_share_nothing_are_refused(tmp_path):
    images = [texture(seed=i)[:120, :160].astype(np.uint8) for i in range(3)]
    with pytest.raises(InputError, match="share"):
        dense(photos(images, poses()[:3]), tmp_path)


def test_a_wrong_focal_length_is_told(tmp_path):
    at = []
    for angle in np.linspace(-0.3, 0.3, 5):  # around the box: only there the focal length shows
        pose = np.eye(4)
        pose[:3, :3] = cv2.Rodrigues(np.array([0, -angle, 0]))[0]
        pose[:3, 3] = [-0.1 + 2.2 * np.sin(angle), 0, 2.2 - 2.2 * np.cos(angle)]
        at.append(pose)
    images = [render(pose)[0] for pose in at]
    wrong = K * np.array([[2.2], [2.2], [1]])
    try:
        said = dense(photos(images, at, wrong), tmp_path)[1].warnings
    except InputError as error:
        said = (str(error),)
    assert any("fit badly" in each or "do not fit the cameras" in each for each in said)


def test_what_moved_once_is_not_believed(tmp_path):
    at = poses()
    pictures = [render(pose, offset=(0.15 if i == 5 else 0.0, 0, 0)) for i, pose in enumerate(at)]
    result, _ = dense(photos([each for each, _ in pictures], at), tmp_path)
    _, error = compared(result, [depth for _, depth in pictures])
    assert np.mean(error < 0.05) > 0.85


def test_a_lift_of_posed_pictures_without_depth_is_dense_and_says_so(tmp_path):
    scene, _ = textured()
    scene = replace(scene, metric=False)
    run = lift(
        LiftConfig(tmp_path / "none", tmp_path / "run", stereo=StereoConfig(planes=64)), scene
    )
    result = run.records["stereo"].result
    assert result["answered"] > 0.6
    assert "depth estimated at" in result["notes"][0]
    assert run.scene.has_dense_depth
    assert all(view.estimated for view in read_scene(tmp_path / "run", scene).views)
    assert run.records["fuse"].result["points"] > 1000
    again = lift(
        LiftConfig(tmp_path / "none", tmp_path / "run", stereo=StereoConfig(planes=64)), scene
    )
    assert again.records["stereo"].reused


def test_dense_false_refuses_what_has_no_depth(tmp_path):
    config = LiftConfig(
        tmp_path / "none", tmp_path / "run", reconstruction=SensorConfig(dense=False)
    )
    with pytest.raises(InputError, match="has depth"):
        lift(config, textured()[0])


def test_where_stereo_fails_the_sparse_points_stay(tmp_path):
    scene, truth = textured(poses()[:1] * 2)  # two photos from one place
    points = Points(
        unproject(scene.views[0].camera, truth[0]).reshape(-1, 3),
        scene.views[0].image().reshape(-1, 3),
        np.zeros((truth[0].size, 3), np.float32),
        np.ones(truth[0].size, np.float32),
    )
    scene = replace(scene, load_points=partial(same, points))
    masks = FolderConfig(path=masks_of(scene, tmp_path))
    run = lift(LiftConfig(tmp_path / "none", tmp_path / "run", segmentation=masks), scene)
    assert run.records["fuse"].result["points"] == truth[0].size
    assert "only sparse points" in run.records["stereo"].result["warnings"][0]


def same(value):
    return value


def masks_of(scene, folder):
    for view in scene.views:
        write_label_map(folder / "masks", view.name, np.ones(SIZE[::-1], np.int32))
    return folder / "masks"
