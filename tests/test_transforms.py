"""transforms.json: the variants that nerfstudio and instant-ngp write."""

import json

import numpy as np
import pytest
import tiny_scan as tiny
from plyfile import PlyData, PlyElement
from tiny_scan import COLOR_K, tiny_scan

from lift3d.datasets import read_scene
from lift3d.datasets.transforms_json import TransformsJson
from lift3d.geometry import transform
from lift3d.scene.errors import InputError

TURN = np.array([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0.5], [0, 0, 0, 1]])
"""As `ns-process-data` turns what COLMAP gave: z up, rigid."""


def edit(root, change):
    """The written file, changed by a function of its content."""
    file = root / "transforms.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def write_ply(path, xyz, rgb=None):
    kinds = [(axis, "f4") for axis in "xyz"] + [(c, "u1") for c in ("red", "green", "blue")]
    vertex = np.zeros(len(xyz), kinds[: 3 if rgb is None else 6])
    for i, axis in enumerate("xyz"):
        vertex[axis] = xyz[:, i]
    for i, name in enumerate(("red", "green", "blue") if rgb is not None else ()):
        vertex[name] = rgb[:, i]
    PlyData([PlyElement.describe(vertex, "vertex")]).write(str(path))


def moved(content, matrix):
    for frame in content["frames"]:
        frame["transform_matrix"] = (matrix @ np.array(frame["transform_matrix"])).tolist()


def without_depth(content):
    for frame in content["frames"]:
        del frame["depth_file_path"]


def test_without_depth_or_cloud_views_are_posed_too(tmp_path):
    scan = tiny_scan()
    tiny.write_transforms(tmp_path, scan)
    edit(tmp_path, without_depth)
    scene = read_scene(tmp_path)
    assert scene.load_points is None
    assert not scene.metric
    for view, pose in zip(scene.views, scan.poses, strict=True):
        assert view.depth() is None
        np.testing.assert_allclose(view.camera.pose, pose, atol=1e-9)


@pytest.mark.parametrize("key", ["fl_x", "fl_y", "camera_angle_x"])
def test_a_focal_length_of_0_is_an_error_and_not_unset(tmp_path, key):
    tiny.write_transforms(tmp_path, tiny_scan())

    def change(content):
        if key == "camera_angle_x":
            for frame in [content, *content["frames"]]:
                frame.pop("fl_x", None)
        content[key] = 0
        for frame in content["frames"]:
            frame.pop(key, None)

    edit(tmp_path, change)
    with pytest.raises(InputError, match=f"{key} is 0"):
        read_scene(tmp_path)


def test_the_depth_unit_is_an_option(tmp_path):
    scan = tiny_scan()
    tiny.write_transforms(tmp_path, scan)
    depth = read_scene(tmp_path, TransformsJson(depth_unit_scale_factor=0.01)).views[0].depth()
    assert np.median(depth) == pytest.approx(10 * np.median(scan.depths[0]), rel=0.01)


def test_intrinsics_of_a_frame_come_before_those_of_the_file(tmp_path):
    tiny.write_transforms(tmp_path, tiny_scan())

    def own(content):
        for i, frame in enumerate(content["frames"][::-1]):
            frame |= {"fl_x": 100.0 + i, "fl_y": 90.0, "cx": 40.0, "cy": 30.0, "w": 80, "h": 60}

    edit(tmp_path, own)
    cameras = [view.camera for view in read_scene(tmp_path).views]
    assert [camera.K[0, 0] for camera in cameras] == [100, 101, 102, 103]
    assert cameras[0].K[:2, 2].tolist() == [39.5, 29.5]


def test_distortion_is_read(tmp_path):
    tiny.write_transforms(tmp_path, tiny_scan(), k1=0.1, k2=-0.05, p1=0.001, p2=0.002)
    camera = read_scene(tmp_path).views[0].camera
    assert camera.distortion == (0.1, -0.05, 0.001, 0.002, 0.0)


def test_a_field_of_view_is_a_focal_length(tmp_path):
    """Blender's files: camera_angle_x alone, and no suffix on the images."""
    tiny.write_transforms(tmp_path, tiny_scan())

    def blender(content):
        without_depth(content)
        for key in ("fl_x", "fl_y", "cx", "cy", "w", "h", "camera_model"):
            del content[key]
        content["camera_angle_x"] = float(2 * np.arctan(40 / COLOR_K[0, 0]))
        for frame in content["frames"]:
            frame["file_path"] = frame["file_path"].removesuffix(".png")

    edit(tmp_path, blender)
    camera = read_scene(tmp_path).views[0].camera
    assert camera.K[0, 0] == camera.K[1, 1] == pytest.approx(75.0)
    assert camera.K[:2, 2].tolist() == [39.5, 29.5]


def test_images_that_were_shrunk_get_the_camera_of_their_size(tmp_path):
    scan = tiny_scan()
    tiny.write_transforms(tmp_path, scan)
    edit(tmp_path, without_depth)
    for name, image in zip(scan.names, scan.images, strict=True):
        tiny.save(tmp_path / f"images/{name}.png", image[::2, ::2])
    view = read_scene(tmp_path).views[0]
    assert view.camera.K[0, 0] == 37.5
    assert view.image().shape == (30, 40, 3)


def test_a_frame_with_a_missing_file_is_skipped(tmp_path):
    tiny.write_transforms(tmp_path, tiny_scan())
    (tmp_path / "images/1.png").unlink()
    (tmp_path / "depth/2.png").unlink()
    scene = read_scene(tmp_path)
    assert [view.name for view in scene.views] == ["0", "3"]
    assert [frame.name for frame in scene.skipped] == ["1", "2"]
    assert all("is missing" in frame.reason for frame in scene.skipped)


def test_cameras_and_cloud_agree_whether_the_turn_is_undone_or_not(tmp_path):
    scan = tiny_scan()
    cloud = np.random.default_rng(0).uniform(-1, 1, (20, 3)) + [0, 0, 3]
    tiny.write_transforms(tmp_path, scan, applied_transform=TURN[:3].tolist())
    edit(tmp_path, lambda content: content.update(ply_file_path="sparse.ply"))
    edit(tmp_path, lambda content: moved(content, TURN))
    colours = np.arange(60).reshape(20, 3).astype(np.uint8)
    write_ply(tmp_path / "sparse.ply", transform(TURN, cloud), colours)
    turned = read_scene(tmp_path)
    undone = read_scene(tmp_path, TransformsJson(undo_applied_transform=True))
    for scene, turn in ((turned, TURN), (undone, np.eye(4))):
        points = scene.load_points()
        np.testing.assert_allclose(points.xyz, transform(turn, cloud), atol=1e-6)
        np.testing.assert_array_equal(points.rgb, colours)
        assert (points.confidence == 1).all()
        for view, pose in zip(scene.views, scan.poses, strict=True):
            np.testing.assert_allclose(view.camera.pose, turn @ pose, atol=1e-9)


def test_cameras_that_were_scaled_come_back_to_the_scale_of_depth_and_cloud(tmp_path):
    scan = tiny_scan()
    tiny.write_transforms(tmp_path, scan, applied_scale=0.25)

    def scaled(content):
        for frame in content["frames"]:
            matrix = np.array(frame["transform_matrix"])
            matrix[:3, 3] *= 0.25
            frame["transform_matrix"] = matrix.tolist()

    edit(tmp_path, scaled)
    for view, pose in zip(read_scene(tmp_path).views, scan.poses, strict=True):
        np.testing.assert_allclose(view.camera.pose, pose, atol=1e-9)


def test_a_cloud_without_colour_is_grey_and_a_missing_one_gives_a_note(tmp_path):
    tiny.write_transforms(tmp_path, tiny_scan(), ply_file_path="cloud.ply")
    scene = read_scene(tmp_path)
    assert scene.load_points is None
    assert scene.notes == ("cloud.ply is missing: going without",)
    write_ply(tmp_path / "cloud.ply", np.eye(3))
    assert (read_scene(tmp_path).load_points().rgb == 128).all()


def test_a_broken_cloud_is_named(tmp_path):
    tiny.write_transforms(tmp_path, tiny_scan(), ply_file_path="cloud.ply")
    (tmp_path / "cloud.ply").write_bytes(b"ply\nnothing")
    load = read_scene(tmp_path).load_points
    with pytest.raises(InputError, match=r"cloud\.ply cannot be read as PLY"):
        load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("frames"), "has no list of frames"),
        (lambda c: c.update(camera_model="OPENCV_FISHEYE"), "undistort the images first"),
        (lambda c: (c.pop("fl_x"), c.pop("fl_y")), "no fl_x"),
        (lambda c: c.update(k4=0.1), "k4 cannot be read"),
        (lambda c: c.update(cx="left"), "cx is 'left'; expected a number"),
        (lambda c: c["frames"][1].pop("file_path"), "frame 1 has no file_path"),
        (lambda c: c["frames"][0].update(transform_matrix=[[1, 2]]), "expected 4x4 or 3x4"),
        (lambda c: c["frames"][0].pop("transform_matrix"), "transform_matrix"),
        (lambda c: c.update(applied_scale=0), "applied_scale is 0"),
    ],
)
def test_errors_in_the_file_are_named(tmp_path, change, message):
    tiny.write_transforms(tmp_path, tiny_scan())
    edit(tmp_path, change)
    with pytest.raises(InputError, match=message):
        read_scene(tmp_path)


def test_a_file_that_is_not_json_is_refused(tmp_path):
    (tmp_path / "transforms.json").write_text("{frames")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        read_scene(tmp_path)


def test_a_frame_with_a_pose_that_is_not_finite_is_skipped(tmp_path):
    tiny.write_transforms(tmp_path, tiny_scan())
    nan = np.full((4, 4), np.nan).tolist()
    edit(tmp_path, lambda c: c["frames"][0].update(transform_matrix=nan))
    scene = read_scene(tmp_path)
    assert len(scene) == 3
    assert scene.skipped[0].reason == "pose is not finite"
