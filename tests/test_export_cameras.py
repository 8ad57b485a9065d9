"""A point lands on the same pixel through every exported camera, read by the format's own rules.

Nothing of lift3d reads the files here: each parser is written from the format's description.
"""

import json
import struct
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from tiny_export import crooked

from lift3d.export.frames import Limits, check_frames, frames
from lift3d.export.registry import FORMATS
from lift3d.geometry import project
from lift3d.scene import Camera

LENS = (0.11, -0.06, 0.004, -0.003)
NO_TICK = lambda done, total: None  # noqa: E731


def bend(x, y, k1=0.0, k2=0.0, p1=0.0, p2=0.0, k3=0.0):
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    return (
        x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
        y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
    )


def read_nerfstudio(folder):
    """stem -> function from world points to pixels, with the first pixel's centre at 0.5."""
    content = json.loads((folder / "transforms.json").read_text())
    for frame in content["frames"]:
        value = content | frame
        assert (folder / value["file_path"]).is_file()

        def to_pixel(xyz, value=value):
            opengl = np.linalg.inv(np.array(value["transform_matrix"]))
            local = xyz @ opengl[:3, :3].T + opengl[:3, 3]
            x, y = local[:, 0] / -local[:, 2], -local[:, 1] / -local[:, 2]
            x, y = bend(x, y, *(value[k] for k in ("k1", "k2", "p1", "p2", "k3")))
            return np.stack([value["fl_x"] * x + value["cx"], value["fl_y"] * y + value["cy"]], 1)

        yield value["file_path"].split("/")[1].split(".")[0], to_pixel


def turned(quaternion):
    w, x, y, z = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def colmap_text(model):
    rows = [r for r in (model / "cameras.txt").read_text().splitlines() if r[:1] != "#"]
    cameras = {int(r.split()[0]): (r.split()[1], [*map(float, r.split()[4:])]) for r in rows}
    rows = [r for r in (model / "images.txt").read_text().split("\n") if r[:1] != "#"]
    for first, second in zip(rows[:-1:2], rows[1::2], strict=True):
        words = first.split()
        yield words[9], [*map(float, words[1:8])], cameras[int(words[8])]
        assert len(second.split()) % 3 == 0


def colmap_binary(model):
    data, cameras, at = (model / "cameras.bin").read_bytes(), {}, 8
    names = {1: ("PINHOLE", 4), 4: ("OPENCV", 8), 6: ("FULL_OPENCV", 12)}
    for _ in range(struct.unpack_from("<Q", data)[0]):
        number, kind, _, _ = struct.unpack_from("<iiQQ", data, at)
        name, count = names[kind]
        cameras[number] = name, [*struct.unpack_from(f"<{count}d", data, at + 24)]
        at += 24 + 8 * count
    assert at == len(data)
    data, at = (model / "images.bin").read_bytes(), 8
    for _ in range(struct.unpack_from("<Q", data)[0]):
        _, *pose, camera = struct.unpack_from("<i7di", data, at)
        end = data.index(b"\0", at + 64)
        yield data[at + 64 : end].decode(), pose, cameras[camera]
        at = end + 9 + 24 * struct.unpack_from("<Q", data, end + 1)[0]
    assert at == len(data)


def read_colmap(folder):
    model = folder / "sparse/0"
    read = colmap_text if (model / "cameras.txt").exists() else colmap_binary
    for name, pose, (kind, values) in read(model):
        assert (folder / "images" / name).is_file()

        def to_pixel(xyz, pose=pose, kind=kind, values=values):
            local = xyz @ turned(pose[:4]).T + pose[4:]
            x, y = local[:, 0] / local[:, 2], local[:, 1] / local[:, 2]
            if kind != "PINHOLE":
                x, y = bend(x, y, *values[4:9])
            return np.stack([values[0] * x + values[2], values[1] * y + values[3]], 1)

        yield name.split(".")[0], to_pixel


def read_npz(folder):
    for path in sorted((folder / "views").iterdir()):
        view = np.load(path)
        camera = np.linalg.inv(view["camera_poses"])

        def to_pixel(xyz, camera=camera, K=view["intrinsics"]):
            local = (xyz @ camera[:3, :3].T + camera[:3, 3]) @ K.T
            return local[:, :2] / local[:, 2:] + 0.5  # its pixel (0, 0) is a centre

        yield path.stem, to_pixel


def read_rerun(folder):
    chunk = pytest.importorskip("rerun.chunk")
    got = {}
    for each in chunk.RrdReader(folder / "run.rrd").stream().to_chunks():
        batch = each.to_record_batch()
        if "view" not in batch.schema.names:
            continue
        columns = {
            name: batch.column(name).to_pylist()
            for name in batch.schema.names
            if name != "log_time"
        }
        for row, view in enumerate(columns["view"]):
            into = got.setdefault(view, {})
            into.update({name: values[row] for name, values in columns.items() if values[row]})
    for view, value in sorted(got.items()):
        # Both matrices are column-major.
        R = np.array(value["Transform3D:mat3x3"][0]).reshape(3, 3).T
        t = np.array(value["Transform3D:translation"][0])
        K = np.array(value["Pinhole:image_from_camera"][0]).reshape(3, 3).T
        assert value["Pinhole:camera_xyz"] == [[3, 2, 5]]  # right, down, forward

        def to_pixel(xyz, R=R, t=t, K=K):
            local = (xyz - t) @ R @ K.T
            return local[:, :2] / local[:, 2:]

        yield f"img_{view:02d}", to_pixel


CASES = [
    ("nerfstudio", read_nerfstudio, {"distortion": LENS}),
    ("nerfstudio", read_nerfstudio, {"distortion": (*LENS, 0.02)}),
    ("nerfstudio", read_nerfstudio, {"distortion": LENS, "undistort": True}),
    ("colmap", read_colmap, {}),
    ("colmap", read_colmap, {"text": True, "distortion": LENS}),
    ("colmap", read_colmap, {"distortion": (*LENS, 0.02)}),
    ("colmap", read_colmap, {"distortion": LENS, "undistort": True}),
    ("gaussian-grouping", read_colmap, {"centred": True}),
    ("gaussian-grouping", read_colmap, {"undistort": True, "distortion": LENS}),
    ("objectgs", read_colmap, {}),
    ("npz", read_npz, {}),
    ("rerun", read_rerun, {}),
]


@pytest.mark.parametrize(("name", "read", "asked"), CASES)
def test_a_point_lands_on_the_same_pixel(tmp_path, name, read, asked):
    content = crooked(**asked)
    FORMATS[name].check(content)
    FORMATS[name].write(content, tmp_path, NO_TICK)
    found = dict(read(tmp_path))
    cameras = {view.name.replace(".", "_"): view.camera for view in content.scene.views}
    assert list(found) == list(cameras)
    if asked.get("undistort"):
        limits = Limits(name, centred=name == "gaussian-grouping")
        cameras = {frame.stem: frame.camera for frame in frames(content, limits, NO_TICK)}
        assert not any(camera.distortion for camera in cameras.values())
    xyz = content.cloud.points.xyz.astype(np.float64)
    for stem, camera in cameras.items():
        ours, z = project(camera, xyz)
        assert (z > 0).all()
        assert np.abs(found[stem](xyz) - 0.5 - ours).max() < 0.01


def test_the_principal_point_is_the_middle_for_readers_that_assume_it(tmp_path):
    """3DGS keeps the two fields of view and nothing else."""
    content = crooked(undistort=True)
    FORMATS["gaussian-grouping"].write(content, tmp_path, NO_TICK)
    for _, _, (_, values) in colmap_binary(tmp_path / "sparse/0"):
        assert values[2:] == [24, 18]


def test_an_undistorted_picture_shows_a_point_where_its_camera_projects_it():
    """A blob at a point's distorted pixel is found at its undistorted pixel."""
    content = crooked(1, distortion=(0.4, 0.1, 0.02, -0.02), size=(96, 72), undistort=True)
    view = content.scene.views[0]
    camera = replace(view.camera, K=np.array([[80.0, 0, 50], [0, 82, 33], [0, 0, 1]]))
    point = camera.pose @ [1.1, -0.8, 3.0, 1]
    (bent,), _ = project(camera, point[None, :3])
    x, y = np.meshgrid(np.arange(96), np.arange(72))
    blob = np.exp(-((x - bent[0]) ** 2 + (y - bent[1]) ** 2) / 8)
    image = np.repeat((blob * 255).astype(np.uint8)[..., None], 3, 2)
    view = replace(view, camera=camera, load_image=partial(_given, image))
    content = replace(content, views=content.scene.with_views([view]))
    (frame,) = frames(content, Limits("test", 0), NO_TICK)
    (straight,), _ = project(frame.camera, point[None, :3])
    shown = frame.image()[..., 0].astype(float)
    centre = np.array([(shown * x).sum(), (shown * y).sum()]) / shown.sum()
    assert np.linalg.norm(straight - bent) > 1, "the lens bends here"
    np.testing.assert_allclose(centre, straight, atol=0.15)
    labels = frame.labels((blob > 0.5).astype(np.int32)) > 0
    np.testing.assert_allclose([x[labels].mean(), y[labels].mean()], straight, atol=0.3)


def test_pictures_that_are_too_wide_are_scaled_with_their_camera():
    content = crooked(1, size=(96, 72))
    limits = Limits("test", widest=48)
    check_frames(content, limits)
    (frame,) = frames(content, limits, NO_TICK)
    assert frame.image().shape == (36, 48, 3)
    labels = content.label_maps["img.00"]
    np.testing.assert_array_equal(frame.labels(labels), labels[1::2, 1::2])
    xyz = content.cloud.points.xyz
    wide, _ = project(content.scene.views[0].camera, xyz)
    small, _ = project(frame.camera, xyz)
    np.testing.assert_allclose((wide + 0.5) / 2, small + 0.5)


def test_depth_of_another_camera_is_projected_into_the_pictures():
    """A wall that faces the picture's camera has equal depth at every pixel."""
    content = crooked(1)
    (view,) = content.scene.views
    beside = view.camera.pose.copy()
    beside[:3, 3] += 0.05 * beside[:3, 0]
    K = np.array([[60.0, 0, 47], [0, 61, 37], [0, 0, 1]])
    other = Camera(K, 96, 72, beside)
    # Both cameras have the same direction, so the wall is at z = 2 in both.
    depth = np.full((72, 96), 2, np.float32)
    depth[:, :10] = 0
    view = replace(view, load_depth=partial(_given, depth), depth_camera=other)
    content = replace(content, views=content.scene.with_views([view]))
    (frame,) = frames(content, Limits("test"), NO_TICK)
    drawn = frame.depth()
    assert drawn.shape == (72, 96)
    assert (drawn > 0).mean() > 0.3
    np.testing.assert_allclose(drawn[drawn > 0], 2, atol=1e-5)
    registered = replace(view, depth_camera=view.camera.resized(96, 72))
    scene = content.scene.with_views([registered])
    (frame,) = frames(replace(content, views=scene), Limits("test"), NO_TICK)
    np.testing.assert_array_equal(frame.depth(), depth)


def _given(array):
    return array
