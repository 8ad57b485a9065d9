import numpy as np
import pytest
from PIL import Image

from lift3d.export.ply import write_cloud
from lift3d.geometry.rendering import camera_up, guess_up, orbit_cameras, render
from lift3d.run.run import Run
from lift3d.run.scene_file import write_scene
from lift3d.scene import Camera, LabelledPoints, Points, Scene
from lift3d.scene.errors import InputError
from lift3d.viewing.window import colours_of, frustum, show, view_run


def floor_and_box():
    """A grey floor (id 1) and a red table top (id 2) half a metre above it; z is up."""
    x, y = np.meshgrid(np.arange(-1, 1, 0.02), np.arange(-1, 1, 0.02))
    floor = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], 1)
    top = floor[(np.abs(floor[:, :2]) < 0.4).all(1)] + [0, 0, 0.5]
    xyz = np.concatenate([floor, top]).astype(np.float32)
    rgb = np.full((len(xyz), 3), 128, np.uint8)
    rgb[len(floor) :] = (220, 30, 30)
    normal = np.tile(np.array([0, 0, 1], np.float32), (len(xyz), 1))
    ids = np.repeat(np.array([1, 2], np.int32), [len(floor), len(top)])
    ids[:50] = 0
    points = Points(xyz, rgb, normal, np.ones(len(xyz), np.float32))
    return LabelledPoints(points, ids, np.where(ids > 0, 0.5, 0).astype(np.float32))


def test_the_picture_shows_the_table_before_the_floor():
    cloud = floor_and_box()
    camera = orbit_cameras(cloud.points, 1, 320, 240, elevation=80.0)[0]
    picture = render(cloud.points, camera=camera).astype(int)
    red = (picture[..., 0] - picture[..., 1]) > 40
    white = (picture == 255).all(-1)
    assert 0.02 < red.mean() < 0.4
    assert white.any()
    assert red[110:130, 150:170].mean() > 0.9


def test_points_that_turn_their_back_are_left_out():
    cloud = floor_and_box()
    below = orbit_cameras(cloud.points, 1, 160, 120, elevation=-60.0)[0]
    assert (render(cloud.points, camera=below) == 255).all()
    assert not (render(cloud.points, camera=below, cull=False) == 255).all()


def test_every_mode_colours_every_point():
    cloud = floor_and_box()
    for mode in ("labels", "colour", "score"):
        assert colours_of(cloud, mode).shape == (len(cloud), 3)
    labels = colours_of(cloud, "labels")
    assert len(np.unique(labels, axis=0)) == 3
    assert (labels[0] == labels[49]).all()


def test_a_frustum_opens_towards_what_the_camera_sees():
    K = np.array([[100.0, 0, 49.5], [0, 100.0, 39.5], [0, 0, 1]])
    pose = np.eye(4)
    pose[:3, 3] = [1, 2, 3]
    corners, lines = frustum(Camera(K, 100, 80, pose), 2.0)
    np.testing.assert_allclose(corners[0], [1, 2, 3])
    np.testing.assert_allclose(corners[1], [1 - 1.0, 2 - 0.8, 5])
    np.testing.assert_allclose(corners[3], [1 + 1.0, 2 + 0.8, 5])
    assert len(lines) == 8


def test_a_screenshot_needs_no_display(tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    write_cloud(tmp_path / "cloud.ply", floor_and_box())
    empty = Scene("room", (), True, "test")
    write_scene(tmp_path, empty, empty, lambda done, total: None)
    view_run(Run(tmp_path), screenshot=tmp_path / "picture.png", width=400)
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size == (400, 300)
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 20
    with pytest.raises(InputError, match=r"\.png or \.jpg"):
        view_run(Run(tmp_path), screenshot=tmp_path / "picture.bmp")


def test_without_a_display_the_error_names_the_screenshot(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(InputError, match="--screenshot"):
        show(floor_and_box(), [])


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="finished"):
        Run.open(tmp_path)


def test_up_is_where_the_tops_of_the_pictures_point():
    cloud = floor_and_box()
    sideways = np.diag([1.0, 1.0, 1.0, 1.0])
    sideways[:3, :3] = [[0, -1, 0], [0, 0, -1], [1, 0, 0]]  # the camera's -y is the world's x
    held = camera_up([Camera(np.eye(3), 4, 4, sideways)] * 3)
    np.testing.assert_allclose(guess_up(cloud.points), [0, 0, 1])
    np.testing.assert_allclose(held, [1, 0, 0])
    np.testing.assert_allclose(guess_up(cloud.points, held), [1, 0, 0])
    assert camera_up([]) is None
