"""Errors and notes of readers for faulty folders."""

import json

import cv2
import numpy as np
import pytest
import tiny_scan as tiny
from tiny_scan import COLOR_K, COLOR_SIZE, DEPTH_K, DEPTH_SIZE, tiny_scan

from lift3d.datasets import read_scene
from lift3d.datasets.images import DepthCode, read_depth
from lift3d.datasets.rgbd_folder import RgbdFolder
from lift3d.scene.errors import FrameError, InputError

TUM = {
    "images": "rgb/*.png",
    "poses": "groundtruth.txt",
    "pose_format": "tum",
    "K": (COLOR_K[0, 0], COLOR_K[1, 1], COLOR_K[0, 2], COLOR_K[1, 2]),
}


@pytest.fixture
def scan(tmp_path):
    """An exported ScanNet folder of six frames."""
    written = tiny_scan((COLOR_K, COLOR_SIZE), (DEPTH_K, DEPTH_SIZE), views=6)
    tiny.write_scannet(tmp_path, written)
    return tmp_path


def test_the_error_for_an_empty_folder_has_the_expected_layout(tmp_path):
    with pytest.raises(InputError, match=r"found: nothing\)(.|\n)*scannet-folder: color") as caught:
        read_scene(tmp_path)
    assert "rgbd.json" in str(caught.value)


def test_the_error_for_an_unknown_folder_has_its_content(tmp_path):
    for name in ("a.jpg", "b.jpg", "c.txt", "more/d.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"2 \.jpg, 1 \.txt, more/ \(1 entries\)"):
        read_scene(tmp_path)


def test_a_missing_path_is_an_error(tmp_path):
    with pytest.raises(InputError, match="nothing-here does not exist"):
        read_scene(tmp_path / "nothing-here")


def test_an_unknown_reader_gets_did_you_mean(scan):
    with pytest.raises(InputError, match="unknown reader 'scanet-folder'; did you mean 'scannet-f"):
        read_scene(scan, "scanet-folder")


def test_one_image_is_too_few(tmp_path):
    tiny.write_scannet(tmp_path, tiny_scan(views=1))
    with pytest.raises(InputError, match="found 1 usable frame; a scene needs at least 2"):
        read_scene(tmp_path)


def test_frames_with_missing_files_are_skipped_with_the_reason(scan):
    (scan / "depth/2.png").unlink()
    (scan / "pose/4.txt").unlink()
    scene = read_scene(scan)
    assert [view.name for view in scene.views] == ["0", "1", "3", "5"]
    assert [(s.name, s.reason) for s in scene.skipped] == [
        ("2", "nothing for it in depth/*"),
        ("4", "nothing for it in pose/*.txt"),
    ]


@pytest.mark.parametrize(
    ("folder", "count"), [("depth/*", 2), ("pose/*.txt", 2), ("depth/*", 0), ("pose/*.txt", 1)]
)
def test_mostly_missing_files_are_an_error_with_the_counts(scan, folder, count):
    for file in sorted(scan.glob(folder))[count:]:
        file.unlink()
    with pytest.raises(InputError) as caught:
        read_scene(scan)
    assert f"{scan / folder} has {count} but color/* has 6" in str(caught.value)


def test_missing_intrinsics_are_an_error_that_names_the_file(scan):
    (scan / "intrinsic/intrinsic_color.txt").unlink()
    with pytest.raises(InputError, match=r"no colour intrinsics; expected one of intrinsic/intr"):
        read_scene(scan, "scannet-folder")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("-inf " * 16, "pose is not finite"),
        ("-1.#INF " * 16, "pose is not finite"),
        ("nan " * 16, "pose is not finite"),
        ("0 " * 16, "pose is not invertible"),
        ("2 0 0 0  0 2 0 0  0 0 2 0  0 0 0 1", "pose is not a rotation and a translation"),
        ("1 0 0 0  0 1 0 0  0 0 -1 0  0 0 0 1", "pose mirrors (determinant below 0)"),
        ("1 0 0 0  0 1 0 0  0 0 1 0  3 4 5 1", "the last row of the pose"),
        ("1 0 0", "pose cannot be read"),
        ("", "pose cannot be read"),
        ("hello", "pose cannot be read"),
    ],
)
def test_a_frame_whose_pose_cannot_be_used_is_skipped_with_the_reason(scan, content, reason):
    (scan / "pose/3.txt").write_text(content)
    scene = read_scene(scan)
    assert len(scene) == 5
    assert [s.name for s in scene.skipped] == ["3"]
    assert scene.skipped[0].reason.startswith(reason)


def test_a_pose_with_few_digits_is_made_exactly_rigid(scan):
    pose = np.loadtxt(scan / "pose/3.txt")
    np.savetxt(scan / "pose/3.txt", pose, fmt="%.3f")
    rotation = read_scene(scan).views[3].camera.pose[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(rotation, pose[:3, :3], atol=1e-3)


def test_colour_resized_without_its_intrinsics_is_noticed(scan):
    whole = read_scene(scan).views[0]
    for file in (scan / "color").iterdir():
        image = cv2.imread(str(file))
        assert cv2.imwrite(str(file), cv2.resize(image, (40, 30), interpolation=cv2.INTER_AREA))
    scene = read_scene(scan)
    assert "colour images are 40x30 but their intrinsics belong to 79x59" in scene.notes[0]
    # Made for 80x60: the middle says 79x59, which is as near as one can know.
    np.testing.assert_allclose(
        scene.views[0].camera.K, whole.camera.resized(40, 30).K, rtol=0.02, atol=0.1
    )
    assert scene.views[0].image().shape == (30, 40, 3)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("keep", [0, 5, 60, 0.5, -1])
def test_a_truncated_image_is_a_frame_error_that_names_the_file(scan, suffix, keep):
    """OpenCV would return an image with a grey lower half."""
    file = scan / ("depth/1.png" if suffix == ".png" else "color/1.jpg")
    data = file.read_bytes()
    cut = data[: int(len(data) * keep)] if isinstance(keep, float) else data[:keep]
    file.write_bytes(cut)
    view = read_scene(scan).views[1]
    with pytest.raises(FrameError) as caught:
        view.depth() if suffix == ".png" else view.image()
    assert file.name in str(caught.value)
    assert f"found {len(cut)} bytes" in str(caught.value)


def test_a_first_image_that_is_broken_does_not_stop_the_scan(scan):
    (scan / "color/0.jpg").write_bytes(b"")
    (scan / "depth/0.png").write_bytes(b"")
    assert len(read_scene(scan)) == 6


def test_a_bit_flipped_inside_a_png_is_noticed(scan):
    file = scan / "depth/1.png"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(FrameError, match="is damaged"):
        read_scene(scan).views[1].depth()


def test_bytes_after_the_end_of_a_jpeg_are_ignored(scan):
    file = scan / "color/1.jpg"
    file.write_bytes(file.read_bytes() + b"\xff\xd8\xff\xda trailer of a phone")
    assert read_scene(scan).views[1].image().shape == (60, 80, 3)


def test_a_thumbnails_end_is_not_taken_for_the_pictures(scan):
    """A JPEG inside a segment of the JPEG, as cameras write; the outer one cut short."""
    file = scan / "color/1.jpg"
    data = file.read_bytes()
    segment = b"\xff\xe1" + (len(data) + 2).to_bytes(2, "big") + data
    with_thumbnail = data[:2] + segment + data[2:]
    file.write_bytes(with_thumbnail)
    assert read_scene(scan).views[1].image().shape == (60, 80, 3)
    file.write_bytes(with_thumbnail[:-200])
    with pytest.raises(FrameError, match="truncated JPEG"):
        read_scene(scan).views[1].image()


def test_an_image_of_another_size_is_a_frame_error(scan):
    tiny.save(scan / "color/2.jpg", np.zeros((50, 80, 3), np.uint8))
    tiny.save(scan / "depth/2.png", np.ones((50, 64), np.uint16))
    view = read_scene(scan).views[2]
    with pytest.raises(FrameError, match="image is 80x50, its camera expects 80x60"):
        view.image()
    with pytest.raises(FrameError, match="depth is 64x50, its camera expects 64x48"):
        view.depth()


def test_an_empty_depth_is_a_frame_error(scan):
    tiny.save(scan / "depth/2.png", np.zeros((48, 64), np.uint16))
    with pytest.raises(FrameError, match=r"2\.png has no depth at any pixel"):
        read_scene(scan).views[2].depth()


def test_depth_that_is_nan_is_missing(tmp_path):
    raw = np.array([[1.5, np.nan, np.inf], [-1.0, 0.0, -np.inf]], np.float32)
    np.save(tmp_path / "d.npy", raw)
    assert cv2.imwrite(str(tmp_path / "d.tiff"), raw)
    for name in ("d.npy", "d.tiff"):
        depth = read_depth(tmp_path / name, DepthCode(scale=1.0))
        assert depth.tolist() == [[1.5, 0, 0], [0, 0, 0]]


def test_depth_decoding_follows_its_description():
    from lift3d.datasets.images import to_metres

    raw = np.array([[8000, 65535, 0, 40000]], np.uint16)
    rotated = (raw << 3) | (raw >> 13)
    code = DepthCode(scale=10000.0, invalid=(65535.0,), max_metres=2.0)
    expected = np.array([[0.8, 0, 0, 0]], np.float32)
    np.testing.assert_array_almost_equal_nulp(to_metres(raw, code, "it"), expected)
    turned = DepthCode(scale=10000.0, rotate_right=3, max_metres=2.0)
    np.testing.assert_array_almost_equal_nulp(to_metres(rotated, turned, "it"), expected)


def test_a_colour_picture_as_depth_is_refused(scan):
    tiny.save(scan / "depth/2.png", np.ones((48, 64, 3), np.uint8))
    with pytest.raises(FrameError, match="depth has one number per pixel"):
        read_scene(scan).views[2].depth()


def test_two_files_for_one_frame_are_an_error(scan):
    (scan / "depth/02.png").write_bytes((scan / "depth/2.png").read_bytes())
    with pytest.raises(InputError, match="both belong to frame '2'"):
        read_scene(scan)


def test_the_folders_own_options_are_checked_by_name_and_type(tmp_path):
    tiny.write_rgbd_json(tmp_path, tiny_scan())
    file = tmp_path / "rgbd.json"
    good = json.loads(file.read_text())
    for change, message in (
        ({"depth_scal": 5}, "unknown option 'depth_scal'; did you mean 'depth_scale'"),
        ({"depth_scale": "five"}, "option depth_scale is 'five'; expected float"),
        ({"pose_axes": "blender"}, "expected 'opencv' or 'opengl'"),
        ({"K": [1, 2, 3]}, r"option K is \[1, 2, 3\]"),
        ({"images": "pictures/img_0.png"}, "use single stars"),
        ({"depth": "nowhere/*.png"}, r"has no nowhere/\*.png"),
        ({"depth_scale": True}, "option depth_scale is True"),
        ({"depth_scale": 0}, "option depth_scale is 0.0; expected above 0"),
        (
            {"depth_K": good["K"], "depth_from_color": [0] * 16},
            "option depth_from_color: pose is not invertible",
        ),
        ({"depth_from_color": [1, 0]}, "depth_from_color needs depth_K"),
        ({"depth_K": good["K"], "depth_from_color": [1, 0]}, "depth_from_color: found 2 numbers"),
        ({"K": None}, "intrinsics.txt is missing"),
        ({"K": [0, 0, 0, 0]}, "is not the K of a pinhole camera"),
    ):
        file.write_text(json.dumps(good | change))
        with pytest.raises(InputError, match=message):
            read_scene(tmp_path)
    file.write_text("{")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        read_scene(tmp_path)


def test_poses_in_rows_must_be_as_many_as_the_images(tmp_path):
    scan = tiny_scan(names=["00051", "00055", "00060", "00063"])
    tiny.write_hololens(tmp_path, scan)
    (tmp_path / "frame_index.txt").unlink()
    with pytest.raises(InputError, match="has 8 poses but there are 4 images; give frame_index"):
        read_scene(tmp_path)


def test_an_image_without_a_pose_near_in_time_is_skipped(tmp_path):
    names = [f"{i}.500000" for i in (8, 9, 10, 11)]
    tiny.write_tum(tmp_path, tiny_scan(names=names))
    trajectory = tmp_path / "groundtruth.txt"
    lines = trajectory.read_text().splitlines()
    trajectory.write_text("\n".join(line for line in lines if not line.startswith("9.")))
    scene = read_scene(tmp_path, RgbdFolder(**TUM))
    assert [view.name for view in scene.views] == ["8.500000", "10.500000", "11.500000"]
    assert [(s.name, s.reason) for s in scene.skipped] == [
        ("9.500000", "nothing for it in groundtruth.txt")
    ]


def test_depth_of_another_shape_than_colour_needs_its_own_camera(tmp_path):
    K = COLOR_K
    scan = tiny_scan(depth=(K, (80, 40)))
    tiny.write_rgbd_json(tmp_path, scan)
    with pytest.raises(InputError, match=r"colour is 80x60 and depth 80x40(.|\n)*give depth_K"):
        read_scene(tmp_path)


def test_depth_at_half_the_size_is_registered_at_its_own_size(tmp_path):
    scan = tiny_scan()
    tiny.write_rgbd_json(tmp_path, scan)
    for file in (tmp_path / "range").iterdir():
        raw = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        assert cv2.imwrite(str(file), raw[::2, ::2])
    scene = read_scene(tmp_path)
    assert "registered to colour at its own size" in scene.notes[0]
    view = scene.views[0]
    assert view.depth().shape == (30, 40)
    np.testing.assert_allclose(view.geometry_camera.K, view.camera.resized(40, 30).K)


def test_a_folder_without_depth_has_a_note(tmp_path):
    tiny.write_rgbd_json(tmp_path, tiny_scan())
    K = (COLOR_K[0, 0], COLOR_K[1, 1], COLOR_K[0, 2], COLOR_K[1, 2])
    options = RgbdFolder(images="pictures/img_*.png", depth="", poses="cams/*.txt", K=K)
    scene = read_scene(tmp_path, options)
    assert scene.views[0].depth() is None
    assert scene.notes == ("there is no depth: it has to be reconstructed",)
