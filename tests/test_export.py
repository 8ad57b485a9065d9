"""Files of a run are opened by other programs and read back unchanged."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from plyfile import PlyData

from lift3d.export.instances import write_instances
from lift3d.export.ply import coloured_by_label, read_cloud, write_cloud
from lift3d.run.scene_file import read_cameras, write_scene
from lift3d.scene import Camera, LabelledPoints, Points, Scene, Skipped, View
from lift3d.scene.colours import label_colours
from lift3d.scene.errors import InputError
from lift3d.scene.palette import distinct_colours, rgb_of


def cloud(points: int = 6) -> LabelledPoints:
    random = np.random.default_rng(0)
    normal = random.normal(size=(points, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return LabelledPoints(
        Points(
            random.normal(size=(points, 3)).astype(np.float32),
            random.integers(0, 256, (points, 3)).astype(np.uint8),
            normal.astype(np.float32),
            random.random(points).astype(np.float32),
        ),
        np.resize(np.array([0, 3, 3, 70_000], np.int32), points),
        random.random(points).astype(np.float32),
    )


def assert_same(a: LabelledPoints, b: LabelledPoints) -> None:
    for name in ("xyz", "rgb", "normal", "confidence"):
        np.testing.assert_array_equal(getattr(a.points, name), getattr(b.points, name))
    for name in ("instance", "score", "semantic"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("points", [0, 1, 6])
def test_a_cloud_is_read_back_bit_for_bit(tmp_path, points):
    written = cloud(points)
    write_cloud(tmp_path / "cloud.ply", written)
    back = read_cloud(tmp_path / "cloud.ply")
    assert_same(written, back)
    assert back.instance.dtype == np.int32
    assert back.points.xyz.flags.writeable


def test_classes_are_written_only_where_known(tmp_path):
    plain, path = cloud(), tmp_path / "cloud.ply"
    classes = replace(plain, semantic=np.arange(6, dtype=np.int32))
    write_cloud(path, classes)
    assert_same(classes, read_cloud(path))
    write_cloud(path, plain)
    assert read_cloud(path).semantic is None


def test_plyfile_reads_the_documented_properties(tmp_path):
    write_cloud(tmp_path / "cloud.ply", cloud())
    ply = PlyData.read(str(tmp_path / "cloud.ply"))
    assert ply.byte_order == "<"
    assert not ply.text
    assert [(one.name, one.val_dtype) for one in ply["vertex"].properties] == [
        *((name, "f4") for name in ("x", "y", "z", "nx", "ny", "nz")),
        *((name, "u1") for name in ("red", "green", "blue")),
        ("label", "i4"),
        ("score", "f4"),
        ("confidence", "f4"),
        ("quality", "f4"),
    ]
    np.testing.assert_array_equal(ply["vertex"]["label"], cloud().instance)


def test_open3d_reads_points_colours_and_normals(tmp_path):
    try:
        import open3d as o3d
    except (ImportError, OSError) as error:
        pytest.skip(f"needs Open3D and its system libraries ({error})")
    written = cloud()
    write_cloud(tmp_path / "cloud.ply", written)
    legacy = o3d.io.read_point_cloud(str(tmp_path / "cloud.ply"))
    np.testing.assert_array_equal(np.asarray(legacy.points, np.float32), written.points.xyz)
    np.testing.assert_array_equal(np.asarray(legacy.normals, np.float32), written.points.normal)
    rgb = np.rint(np.asarray(legacy.colors) * 255)
    np.testing.assert_array_equal(rgb, written.points.rgb)
    tensor = o3d.t.io.read_point_cloud(str(tmp_path / "cloud.ply"))
    np.testing.assert_array_equal(tensor.point["label"].numpy().ravel(), written.instance)


def test_the_same_cloud_gives_the_same_bytes(tmp_path):
    for name in ("a.ply", "b.ply"):
        write_cloud(tmp_path / name, cloud())
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()


@pytest.mark.parametrize("keep", [0, 40, -5])
def test_a_damaged_cloud_is_an_error(tmp_path, keep):
    path = tmp_path / "cloud.ply"
    write_cloud(path, cloud())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"cloud\.ply"):
        read_cloud(path)


def test_a_foreign_ply_is_an_error_that_names_the_missing_properties(tmp_path):
    path = tmp_path / "cloud.ply"
    path.write_text(
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\n"
        "property float z\nend_header\n0 0 0\n"
    )
    with pytest.raises(InputError, match=r"no nx.*label"):
        read_cloud(path)
    with pytest.raises(InputError, match="no such file"):
        read_cloud(tmp_path / "absent.ply")


def test_label_colours_replace_the_colours_only():
    before = cloud()
    after = coloured_by_label(before)
    expected = label_colours(before.instance, distinct_colours(before))
    np.testing.assert_array_equal(after.rgb, expected)
    np.testing.assert_array_equal(after.xyz, before.points.xyz)


def test_instances_are_counted_and_boxed(tmp_path):
    xyz = np.array([[0, 0, 0], [1, 2, 3], [3, 2, 1], [2, 9, 2], [7, 7, 7]], np.float32)
    labelled = LabelledPoints(
        Points(xyz, np.zeros((5, 3), np.uint8), np.zeros_like(xyz), np.ones(5, np.float32)),
        np.array([0, 4, 4, 4, 2], np.int32),
        np.array([0, 0.5, 1, 0.75, 1], np.float32),
    )
    path = tmp_path / "instances.json"
    write_instances(path, labelled, {4: 0.9, 2: 0.25, 8: 0.5}, {4: 12})
    told = json.loads(path.read_text())
    assert (told["points"], told["unlabelled"]) == (5, 1)
    two, four, eight = told["instances"]
    assert [two["id"], four["id"], eight["id"]] == [2, 4, 8]
    assert four["points"] == 3
    assert four["bbox"] == {"min": [1, 2, 1], "max": [3, 9, 3]}
    assert four["centre"] == [2, 2, 2]
    assert (four["views"], four["score"], four["confidence"]) == (12, 0.75, 0.9)
    assert rgb_of(four["colour"]) == distinct_colours(labelled)[4]
    assert (two["views"], two["confidence"]) == (0, 0.25)
    assert (eight["points"], eight["bbox"], eight["score"]) == (0, None, 0)


def test_cameras_are_read_back_with_every_digit(tmp_path):
    pose = np.eye(4)
    pose[:3, 3] = 1 / 3, np.pi, -1e-9
    K = np.array([[500 / 3, 0, 31.5], [0, 167, 23.5], [0, 0, 1]])
    cameras = {
        "a": Camera(K, 64, 48, pose, (0.1, -0.02, 0.0, 0.001)),
        "b": Camera(K, 64, 48),
    }
    views = tuple(View(name, camera, partial(_no_image)) for name, camera in cameras.items())
    scene = Scene("room", views, True, "test", (Skipped("c", "blurred"),))
    write_scene(tmp_path, scene, scene, lambda done, total: None)
    back = read_cameras(tmp_path)
    assert list(back) == ["a", "b"]
    np.testing.assert_array_equal(back["a"].pose, pose)
    np.testing.assert_array_equal(back["a"].K, K)
    assert back["a"].distortion == cameras["a"].distortion
    assert back["b"].world_from_camera is None
    assert json.loads((tmp_path / "scene.json").read_text())["skipped"][0]["name"] == "c"
    (tmp_path / "scene.json").write_text('{"format": 2, "views": [{"name": "a"}]}')
    with pytest.raises(InputError, match=r"scene\.json"):
        read_cameras(tmp_path)


def _no_image():
    raise AssertionError("no picture is decoded to write cameras")
