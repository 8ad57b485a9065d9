"""Pictures and depth in the formats that people have: HEIC, EXR, 16 bits, CMYK, floats."""

import sys

import cv2
import numpy as np
import pytest
import tiny_scan as tiny
from PIL import Image as Pillow
from tiny_captures import nerfcapture, open3d_system, views, write
from tiny_scan import tiny_scan

from lift3d import cli
from lift3d.datasets import optional_formats, read_scene
from lift3d.datasets.depth_range import depth_range, scale_doubt
from lift3d.datasets.images import DepthCode, image_size, read_color, read_depth
from lift3d.scene.errors import FrameError, InputError

SCAN = tiny_scan(names=["0", "1", "2"], views=3)


@pytest.fixture
def absent(monkeypatch):
    """A function that makes a library impossible to import."""
    return lambda name: monkeypatch.setitem(sys.modules, name, None)


def heic(path, image):
    library = pytest.importorskip("pillow_heif")
    exif = Pillow.Exif()
    exif.get_ifd(0x8769)[0xA405] = 26  # FocalLengthIn35mmFilm
    library.from_pillow(Pillow.fromarray(image)).save(path, quality=100, exif=exif.tobytes())


def exr(path, channels):
    library = pytest.importorskip("OpenEXR")
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {"compression": library.ZIP_COMPRESSION, "type": library.scanlineimage}
    library.File(kind, channels).write(str(path))


def close(found, expected, within=6):
    assert found.shape == expected.shape
    return np.median(np.abs(found.astype(int) - expected)) <= within


def test_heic_photos_are_read_beside_others(tmp_path):
    heic(tmp_path / "a.HEIC", SCAN.images[0])
    tiny.save(tmp_path / "b.jpg", SCAN.images[1])
    scene = read_scene(tmp_path)
    assert [view.name for view in scene.views] == ["a", "b"]
    assert close(scene.views[0].image(), SCAN.images[0])
    # 26 mm of a frame whose diagonal is 43.27 mm; the picture's is 100 pixels.
    assert scene.views[0].camera.K[0, 0] == pytest.approx(26 / 43.2666 * 100, rel=1e-4)


def test_without_its_library_each_heic_is_left_out_with_the_line_that_installs_it(
    tmp_path, absent, capsys
):
    absent("pillow_heif")
    for i in range(5):
        (tmp_path / f"IMG_{i}.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(InputError, match=r"IMG_0: \S*IMG_0.HEIC needs pillow-heif.* pip install"):
        read_scene(tmp_path)
    for i in range(2):
        tiny.save(tmp_path / f"b{i}.jpg", SCAN.images[i])
    scene = read_scene(tmp_path)
    assert len(scene) == 2
    assert [frame.name for frame in scene.skipped] == [f"IMG_{i}" for i in range(5)]
    assert all("pip install pillow-heif" in frame.reason for frame in scene.skipped)
    assert cli.main(["info", str(tmp_path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "5 x ... needs pillow-heif" in shown
    assert "(IMG_0, IMG_1, IMG_2, IMG_3, IMG_4)" in shown


def test_a_damaged_heic_is_a_frame_error_with_its_name(tmp_path):
    pytest.importorskip("pillow_heif")
    path = tmp_path / "x.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 99)
    for read in (read_color, image_size):
        with pytest.raises(FrameError, match=r"x\.heic cannot be read as a picture"):
            read(path)


def test_exr_colour_is_encoded_as_srgb(tmp_path):
    linear = np.full((4, 6, 3), 0.2140, np.float32)  # 0.5 in sRGB
    exr(tmp_path / "a.exr", {"RGB": linear})
    assert image_size(tmp_path / "a.exr") == (6, 4)
    assert np.abs(read_color(tmp_path / "a.exr").astype(int) - 128).max() <= 1


def test_a_truncated_exr_is_a_frame_error(tmp_path, capfd):
    path = tmp_path / "a.exr"
    exr(path, {"Z": np.random.default_rng(0).random((64, 64), np.float32)})
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(FrameError, match=r"a\.exr cannot be read as a picture"):
        read_depth(path, DepthCode())
    assert capfd.readouterr().out == ""


def test_without_openexr_the_file_is_named_with_the_line_that_installs_it(tmp_path, absent):
    absent("OpenEXR")
    (tmp_path / "a.exr").write_bytes(b"v/1\1")
    for read in (read_color, image_size, lambda path: read_depth(path, DepthCode())):
        with pytest.raises(FrameError, match=r"a\.exr needs openexr.* pip install openexr"):
            read(tmp_path / "a.exr")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_colour_is_scaled(tmp_path, suffix):
    image = SCAN.images[0]
    wide = image[..., ::-1].astype(np.uint16) * 257
    for name in "ab":
        assert cv2.imwrite(str(tmp_path / f"{name}{suffix}"), wide)
    scene = read_scene(tmp_path)
    assert close(scene.views[0].image(), image, 1)


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_photos_have_their_colours(tmp_path, suffix):
    image = np.full((32, 48, 3), (200, 50, 20), np.uint8)
    for name in "ab":
        Pillow.fromarray(image).convert("CMYK").save(tmp_path / f"{name}{suffix}")
    assert close(read_scene(tmp_path).views[0].image(), image)


def test_raw_files_beside_photos_are_told(tmp_path):
    for name in "ab":
        tiny.save(tmp_path / f"{name}.jpg", SCAN.images[0])
        (tmp_path / f"{name}.dng").touch()
    assert any("2 files such as a.dng are left out" in note for note in read_scene(tmp_path).notes)


def rgbd(root, encode, suffix=".npy", **options):
    for name, image, depth, pose in zip(*views(SCAN), strict=True):
        tiny.save(root / f"color/{name}.png", image)
        path = root / f"depth/{name}{suffix}"
        path.parent.mkdir(exist_ok=True)
        if suffix == ".npy":
            np.save(path, encode(depth))
        elif suffix == ".exr":
            exr(path, {"Z": encode(depth)})
        else:
            assert cv2.imwrite(str(path), encode(depth))
        tiny.text(root / f"pose/{name}.txt", pose)
    K = SCAN.K
    write(root / "rgbd.json", {"K": [K[0, 0], K[1, 1], K[0, 2], K[1, 2]]} | options)
    return read_scene(root)


@pytest.mark.parametrize(
    ("encode", "suffix"),
    [
        (lambda depth: depth, ".npy"),
        (lambda depth: depth.astype(np.float64), ".npy"),
        (lambda depth: depth[..., None], ".npy"),
        (lambda depth: depth[None], ".npy"),
        (lambda depth: np.where(depth > 2.5, np.inf, depth), ".npy"),
        (lambda depth: tiny.stored(depth), ".npy"),
        (lambda depth: tiny.stored(depth)[..., None], ".npy"),
        (lambda depth: tiny.stored(depth), ".png"),
        (lambda depth: depth, ".tiff"),
        (lambda depth: depth, ".exr"),
    ],
)
def test_depth_without_a_scale_is_metres_in_floats_and_millimetres_in_whole_numbers(
    tmp_path, encode, suffix
):
    scene = rgbd(tmp_path, encode, suffix)
    depth = scene.views[1].depth()
    known = depth > 0
    assert known.mean() > 0.05
    np.testing.assert_allclose(depth[known], SCAN.depths[1][known], atol=0.0006)
    assert scale_doubt(scene, depth_range(scene)) is None


def test_a_scale_that_is_given_counts_for_floats_too(tmp_path):
    scene = rgbd(tmp_path, lambda depth: depth * 1000, depth_scale=1000)
    np.testing.assert_allclose(scene.views[0].depth(), SCAN.depths[0], atol=1e-4)


@pytest.mark.parametrize(
    ("encode", "options"),
    [
        (lambda depth: depth * 1000, {}),  # float millimetres
        (lambda depth: depth, {"depth_scale": 1000}),  # metres, and a scale for millimetres
    ],
)
def test_an_absurd_range_of_depth_is_told(tmp_path, encode, options):
    scene = rgbd(tmp_path, encode, **options)
    doubt = scale_doubt(scene, depth_range(scene))
    assert "hardly is right" in doubt
    assert "set depth_scale (stored units per metre) in rgbd.json" in doubt


def test_depth_in_8_bits_is_told(tmp_path):
    scene = rgbd(tmp_path, lambda depth: (depth * 60).astype(np.uint8), ".png")
    assert "8 bits" in scale_doubt(scene, depth_range(scene))


def test_nerfstudio_depth_in_npy_with_an_axis_more_is_metres(tmp_path):
    tiny.write_transforms(tmp_path, SCAN)
    for file in sorted((tmp_path / "depth").iterdir()):
        np.save(file.with_suffix(".npy"), read_depth(file, DepthCode())[..., None])
        file.unlink()
    # The file still names .png: what lies there is found.
    scene = read_scene(tmp_path)
    np.testing.assert_allclose(scene.views[0].depth(), SCAN.depths[0], atol=0.0006)


def test_depth_that_a_file_names_and_nobody_wrote_is_told(tmp_path):
    nerfcapture(tmp_path)
    for file in (tmp_path / "images").glob("*.depth.png"):
        file.unlink()
    scene = read_scene(tmp_path)
    assert len(scene) == 3
    assert not any(view.load_depth for view in scene.views)
    assert "no depth map that transforms.json names is there: going without" in scene.notes


def test_open3d_takes_the_scale_beside_the_intrinsics(tmp_path):
    """As of an L515, whose unit is a quarter of a millimetre."""
    scan = open3d_system(tmp_path)
    for name, depth in zip(scan.names, scan.depths, strict=True):
        tiny.save(tmp_path / f"depth/{name}.png", tiny.stored(depth, 4000))
    size = {"width": 80, "height": 60, "depth_scale": 4000.0}
    lens = {"intrinsic_matrix": scan.K.T.ravel().tolist()}
    (tmp_path / "camera_intrinsic.json").unlink()
    write(tmp_path / "intrinsic.json", size | lens)
    np.testing.assert_allclose(read_scene(tmp_path).views[0].depth(), scan.depths[0], atol=0.0003)


def test_a_recording_without_poses_gets_the_commands_that_make_them(tmp_path):
    open3d_system(tmp_path)
    (tmp_path / "scene/trajectory.log").unlink()
    with pytest.raises(InputError, match=r"run_system\.py --config config\.json --make"):
        read_scene(tmp_path)


def test_a_huge_exr_is_refused_before_its_pixels_are_read(tmp_path, monkeypatch):
    path = tmp_path / "a.exr"
    exr(path, {"Z": np.ones((64, 64), np.float32)})
    monkeypatch.setattr(optional_formats, "PIXELS", 1000)
    monkeypatch.setattr(optional_formats, "_channels", None)
    with pytest.raises(FrameError, match=r"a\.exr has more than 0 megapixels"):
        optional_formats.plane(path)
