import json

import numpy as np
import pytest
from PIL import Image

from lift3d.export.ply import write_cloud
from lift3d.geometry.rendering import camera_up, guess_up, orbit_cameras, render, render_each
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


def room(noise=0.3):
    """A floor (id 1) and four walls (2 to 5) of 4 x 4 x 2.5 m whose normals are noisy."""
    rng = np.random.default_rng(0)
    a, b = (grid.ravel() for grid in np.meshgrid(np.arange(0, 4, 0.02), np.arange(0, 4, 0.02)))
    low = b < 2.5
    flat, tall, end = np.zeros_like(a), b[low], np.full(low.sum(), 4.0)
    sides = [
        (np.stack([a, b, flat], 1), (0, 0, 1)),
        (np.stack([0 * end, a[low], tall], 1), (1, 0, 0)),
        (np.stack([end, a[low], tall], 1), (-1, 0, 0)),
        (np.stack([a[low], 0 * end, tall], 1), (0, 1, 0)),
        (np.stack([a[low], end, tall], 1), (0, -1, 0)),
    ]
    xyz = np.concatenate([points for points, _ in sides]).astype(np.float32)
    normal = np.concatenate([np.tile(n, (len(points), 1)) for points, n in sides])
    normal = normal + noise * rng.normal(size=normal.shape)
    normal = (normal / np.linalg.norm(normal, axis=1, keepdims=True)).astype(np.float32)
    ids = np.repeat(np.arange(1, 6, dtype=np.int32), [len(points) for points, _ in sides])
    colours = np.full((len(xyz), 3), 200, np.uint8)
    points = Points(xyz, colours, normal, np.ones(len(xyz), np.float32))
    return LabelledPoints(points, ids, np.ones(len(xyz), np.float32))


def test_near_walls_are_left_out_and_far_walls_are_shown():
    cloud = room()
    grey, red, green, blue, yellow = [90] * 3, [250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 0]
    colours = np.array([grey, grey, red, green, blue, yellow], np.uint8)[cloud.instance]
    # From beyond the corner at 4, 4: its two walls (3 and 5) have their backs to the camera.
    camera = orbit_cameras(cloud.points, 1, 640, 480, start=45.0)[0]
    assert (camera.pose[:2, 3] > 4).all()
    picture = render(cloud.points, colours, camera).astype(int)
    dominant = picture.max(-1) - picture.min(-1) > 60
    seen = {
        2: dominant & (picture[..., 0] > picture[..., 1] + 60),
        3: dominant & (picture[..., 1] > picture[..., 0] + 60),
        4: dominant & (picture[..., 2] > picture[..., 0] + 60),
        5: dominant & (np.abs(picture[..., 0] - picture[..., 1]) < 20) & (picture[..., 2] < 60),
    }
    shares = {wall: float(mask.mean()) for wall, mask in seen.items()}
    assert shares[2] > 0.05
    assert shares[4] > 0.05
    assert shares[3] + shares[5] < 0.001


def test_each_colouring_is_the_picture_that_it_has_alone():
    cloud = room()
    colours = np.random.default_rng(0).integers(0, 256, (len(cloud), 3)).astype(np.uint8)
    camera = orbit_cameras(cloud.points, 1, 160, 120)[0]
    own, given = render_each(cloud.points, (cloud.points.rgb, colours), camera, 0.04)
    np.testing.assert_array_equal(own[..., :3], render(cloud.points, None, camera, 0.04))
    np.testing.assert_array_equal(given[..., :3], render(cloud.points, colours, camera, 0.04))
    covered = own[..., 3] == 255
    assert 0.1 < covered.mean() < 0.9
    assert (given[~covered] == (255, 255, 255, 0)).all()


@pytest.mark.parametrize("size", [(640, 480), (300, 600)])
def test_the_scene_fills_its_picture(size):
    cloud = room(noise=0.0)
    for camera in orbit_cameras(cloud.points, 4, *size):
        covered = (render(cloud.points, camera=camera) != 255).any(-1)
        rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
        tall, wide = np.ptp(rows) / size[1], np.ptp(columns) / size[0]
        assert max(tall, wide) > 0.92
        assert abs(rows.mean() / size[1] - 0.5) < 0.06
        assert abs(columns.mean() / size[0] - 0.5) < 0.06
        assert not covered[[0, -1]].any()
        assert not covered[:, [0, -1]].any()


def test_a_few_points_far_from_the_scene_do_not_shrink_it():
    cloud = room(noise=0.0)
    rng = np.random.default_rng(1)
    far = (rng.random((200, 3)) * 0.05 + [4.9, -0.9, 2.0]).astype(np.float32)
    more = Points(
        np.concatenate([cloud.points.xyz, far]),
        np.zeros((len(cloud) + 200, 3), np.uint8),
        np.concatenate([cloud.points.normal, np.tile(np.float32([0, 0, 1]), (200, 1))]),
        np.ones(len(cloud) + 200, np.float32),
    )
    for alone, beside in zip(orbit_cameras(cloud.points, 4), orbit_cameras(more, 4), strict=True):
        np.testing.assert_allclose(beside.pose, alone.pose, atol=0.1)


def test_a_single_point_can_be_rendered():
    zero = np.zeros((1, 3), np.float32)
    points = Points(zero, np.zeros((1, 3), np.uint8), zero, np.ones(1, np.float32))
    assert (render(points, splat=0.001) == 0).all(-1).any()


def test_pictures_are_taken_at_an_angle_to_the_walls_however_the_world_is_turned():
    cloud = room(noise=0.0)
    turn = np.radians(20)
    turned = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    points = Points(
        (cloud.points.xyz @ turned.T).astype(np.float32),
        cloud.points.rgb,
        (cloud.points.normal @ turned.T).astype(np.float32),
        cloud.points.confidence,
    )
    camera = orbit_cameras(points, 1)[0]
    ahead = turned.T @ camera.pose[:3, 2]
    assert abs(abs(ahead[0]) - abs(ahead[1])) < 0.02


def list_objects(folder, *colours):
    """Write the instances.json of objects 1, 2, ... with these colours."""
    rest = {"points": 1, "views": 1, "confidence": 1.0, "score": 1.0, "centre": None, "bbox": None}
    listed = [{"id": i, "colour": each, **rest} for i, each in enumerate(colours, start=1)]
    content = {"points": len(listed), "unlabelled": 0, "instances": listed}
    (folder / "instances.json").write_text(json.dumps(content))


def test_the_screenshot_has_the_colours_of_the_run(tmp_path):
    cloud = floor_and_box()
    write_cloud(tmp_path / "cloud.ply", cloud)
    list_objects(tmp_path, "#0000ff", "#ff0000")
    empty = Scene("room", (), True, "test")
    write_scene(tmp_path, empty, empty, lambda done, total: None)
    view_run(Run(tmp_path), screenshot=tmp_path / "picture.png", width=400)
    with Image.open(tmp_path / "picture.png") as picture:
        below = np.asarray(picture)[150:].astype(int)
    blue = (below[..., 2] > 120) & (below[..., :2].max(-1) < 20)
    red = (below[..., 0] > 120) & (below[..., 1:].max(-1) < 20)
    assert blue.mean() > 0.1
    assert red.mean() > 0.01


def test_the_picture_shows_the_table_before_the_floor():
    cloud = floor_and_box()
    camera = orbit_cameras(cloud.points, 1, 320, 240, elevation=80.0)[0]
    picture = render(cloud.points, camera=camera).astype(int)
    red = (picture[..., 0] - picture[..., 1]) > 40
    white = (picture == 255).all(-1)
    assert 0.02 < red.mean() < 0.4
    assert white.any()
    assert red[110:130, 150:170].mean() > 0.9


def test_points_facing_away_are_left_out():
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


def test_a_frustum_opens_in_the_direction_of_the_camera():
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
    list_objects(tmp_path, "#0000ff", "#ff0000")
    view_run(Run(tmp_path), screenshot=tmp_path / "picture.png", width=400)
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size == (400, 300)
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 20
    with pytest.raises(InputError, match=r"neither \.png nor \.jpg"):
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
