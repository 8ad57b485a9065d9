"""Files under the names that people's programs gave them, and scans where people put them."""

import json
import shutil

import numpy as np
import pytest
import tiny_scan as tiny
from tiny_captures import polycam, views
from tiny_scan import tiny_scan

from lift3d.datasets import detect, read_scene
from lift3d.datasets.colmap_model import ColmapModel
from lift3d.datasets.stored_names import Folders, renamed
from lift3d.scene.errors import InputError


def touch(*files):
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


@pytest.mark.parametrize(
    ("stored", "there"),
    [
        ("0001.png", "0001.png"),
        ("cam\\0001.png", "cam/0001.png"),
        (".\\cam\\0001.png", "cam/0001.png"),
        ("C:\\Users\\me\\scan\\cam\\0001.png", "cam/0001.png"),
        ("/home/me/scan/cam/0001.png", "cam/0001.png"),
        ("images/0001.png", "0001.png"),
        ("0001.JPG", "0001.jpg"),
        ("0001.jpg", "0001.JPG"),
        ("Cam/0001.jpg", "cam/0001.jpg"),
        ("0001", "0001.png"),
        ("a b (1)", "a b (1).jpg"),
        ("v1.2", "v1.2.jpg"),
        ("0001.png", "0001.png.png"),
        ("0001.png.png", "0001.png"),
        ("0001.jpeg", "0001.jpg"),
        ("0001.png", "0001.jpg"),
    ],
)
def test_a_stored_name_finds_its_file(tmp_path, stored, there):
    touch(tmp_path / there, tmp_path / "0002.png", tmp_path / "0001.txt")
    assert Folders([tmp_path]).find(stored) == tmp_path / there


def test_nothing_is_guessed_where_two_files_fit(tmp_path):
    touch(tmp_path / "a.png", tmp_path / "a.jpg", tmp_path / "B.png", tmp_path / "b.PNG")
    folders = Folders([tmp_path])
    assert folders.find("a") is None
    assert folders.find("a.tif") is None
    assert folders.find("b.png") is None
    assert folders.find("a.jpeg") == tmp_path / "a.jpg"  # the same format
    assert folders.find("c.png") is None


def test_one_file_does_not_stand_for_two_names(tmp_path):
    touch(tmp_path / "0001.png")
    assert Folders([tmp_path]).all(["left/0001.png", "right/0001.png"]) == {}
    assert Folders([tmp_path]).all(["left/0001.png"]) == {"left/0001.png": tmp_path / "0001.png"}


def test_another_name_is_told_and_a_missing_suffix_is_not(tmp_path):
    assert renamed({"a": tmp_path / "a.png", "b.png": tmp_path / "b.png"}) is None
    assert "such as A.png for a.jpg" in renamed({"a.jpg": tmp_path / "A.png"})


def test_patterns_take_capitals_backslashes_and_doubled_suffixes(tmp_path):
    scan = tiny_scan(names=["0", "1", "2"], views=3)
    for name, image, depth, pose in zip(*views(scan), strict=True):
        tiny.save(tmp_path / f"Color/000{name}.png", image)
        (tmp_path / f"Color/000{name}.png").rename(tmp_path / f"Color/000{name}.PNG.png")
        tiny.save(tmp_path / f"depth/{name}.png", tiny.stored(depth))
        tiny.text(tmp_path / f"pose/{name}.TXT", pose)
    tiny.text(tmp_path / "cam/K.txt", scan.K)
    options = {"images": "color\\*.png", "intrinsics": "cam\\K.txt"}
    (tmp_path / "rgbd.json").write_text(json.dumps(options))
    scene = read_scene(tmp_path)
    assert [view.name for view in scene.views] == ["0000", "0001", "0002"]
    np.testing.assert_array_equal(scene.views[1].image(), scan.images[1])


def test_a_wrong_suffix_of_a_pattern_gets_a_suggestion(tmp_path):
    tiny.write_rgbd_json(tmp_path, tiny_scan(), images="pictures/*.jpg")
    with pytest.raises(InputError, match=r"did you mean pictures/\*\.png\?"):
        read_scene(tmp_path)


def colmap_text(folder, scan, names, place="sparse/0"):
    """A model in text, as programs that are not COLMAP write it: CRLF, names with spaces."""
    pycolmap = pytest.importorskip("pycolmap")
    xyz = [[0.1 * i - 0.4, 0.05 * i - 0.2, 2.0] for i in range(9)]
    model = tiny.colmap_model(scan, np.array(xyz), suffix="")
    (folder / place).mkdir(parents=True)
    model.write_text(str(folder / place))
    for extra in ("rigs.txt", "frames.txt"):
        (folder / place / extra).unlink(missing_ok=True)
    file = folder / place / "images.txt"
    lines = file.read_text()
    for old, new in zip(scan.names, names, strict=True):
        lines = lines.replace(f" {old}\n", f" {new}\n")
    file.write_bytes(lines.replace("\n", "\r\n").encode())
    assert pycolmap


@pytest.mark.parametrize(
    ("stored", "there"),
    [
        (["a b (1).png", "a b (2).png", "a b (3).png"],) * 2,
        (["IMG_1", "IMG_2", "IMG_3"], ["IMG_1.png", "IMG_2.png", "IMG_3.png"]),
        ([f"cam 1\\{i}.png" for i in range(3)], [f"cam 1/{i}.png" for i in range(3)]),
        (["x.PNG", "y.PNG", "z.PNG"], ["x.png", "y.png", "z.png"]),
    ],
)
@pytest.mark.parametrize("folder", ["images", "Images", "input", "my photos"])
def test_colmap_names_as_other_programs_write_them(tmp_path, stored, there, folder):
    scan = tiny_scan(names=["q0", "q1", "q2"], views=3)
    colmap_text(tmp_path, scan, stored)
    for name, image in zip(there, scan.images, strict=True):
        tiny.save(tmp_path / folder / name, image)
        tiny.save(tmp_path / "masks" / name, 255 - image)
    scene = read_scene(tmp_path)
    assert len(scene) == 3
    assert not scene.skipped
    for view, image, pose in zip(scene.views, scan.images, scan.poses, strict=True):
        np.testing.assert_array_equal(view.image(), image)
        np.testing.assert_allclose(view.camera.pose, pose, atol=1e-6)
        assert view.depth().any()


def test_of_several_colmap_models_the_largest_is_taken_and_told(tmp_path):
    small = tiny_scan(names=["a", "b"], views=2)
    large = tiny_scan(names=["a", "b", "c", "d"])
    colmap_text(tmp_path, small, ["a.png", "b.png"], "colmap/sparse/0")
    colmap_text(tmp_path, large, ["a.png", "b.png", "c.png", "d.png"], "colmap/sparse/1")
    for name, image in zip(large.names, large.images, strict=True):
        tiny.save(tmp_path / f"images/{name}.png", image)
    scene = read_scene(tmp_path)
    assert len(scene) == 4
    told = "sparse/1 is taken, which has most images (4); there is also colmap/sparse/0 with 2"
    assert any(told in note for note in scene.notes)
    assert len(read_scene(tmp_path / "colmap/sparse/0", ColmapModel(tmp_path / "images"))) == 2


def test_a_scan_one_folder_deeper_is_read_and_told(tmp_path):
    (tmp_path / "export").mkdir()
    scan = polycam(tmp_path / "export/capture")
    scene = read_scene(tmp_path)
    assert [view.name for view in scene.views] == scan.names
    assert scene.notes[0] == "the scan is in export/capture/"
    assert scene.origin.path == tmp_path / "export/capture"


def test_several_scans_inside_are_listed(tmp_path):
    polycam(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with pytest.raises(InputError, match=r"has 2 scans inside \(a, b\).* lift3d batch"):
        read_scene(tmp_path)


def test_photos_inside_are_taken_only_where_nothing_else_is_there(tmp_path):
    for i, image in enumerate(tiny_scan().images):
        tiny.save(tmp_path / f"images/{i}.jpg", image)
    assert len(read_scene(tmp_path)) == 4
    touch(tmp_path / "poses.csv")
    with pytest.raises(InputError, match="no reader knows this"):
        detect(tmp_path)
    (tmp_path / "poses.csv").unlink()
    touch(tmp_path / "depth/0.png")
    with pytest.raises(InputError, match=r"lift3d lift \S*images --out OUT"):
        detect(tmp_path)


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("room.r3d", r"unzip \S*room\.r3d -d \S*room\n  lift3d lift \S*room --out"),
        ("scan 1.zip", r"unzip '\S*scan 1\.zip' -d"),
        ("scan.tar.gz", r"tar -xf \S*scan\.tar\.gz -C \S*scan\n"),
        ("room.bag", r"RGBDVideoReader\.create\(.*save_frames"),
        ("room.ply", r"lift3d lift SCAN --out OUT --cloud \S*room\.ply"),
    ],
)
def test_a_file_that_has_to_be_converted_gets_the_commands(tmp_path, file, command):
    (tmp_path / file).write_bytes(b"PK\x03\x04")
    with pytest.raises(InputError, match=command):
        read_scene(tmp_path / file)


def test_a_recording_with_depth_is_no_video(tmp_path):
    (tmp_path / "azure.mkv").write_bytes(b"\x1aE\xdf\xa3" + b"\0" * 500 + b"K4A_DEPTH_MODE")
    with pytest.raises(InputError, match="RGBDVideoReader"):
        read_scene(tmp_path / "azure.mkv")


def test_folders_that_have_to_be_converted_get_the_commands(tmp_path):
    touch(tmp_path / "raw/a.CR2", tmp_path / "raw/b.CR2", tmp_path / "film/walk.mp4")
    with pytest.raises(InputError, match=r"magick mogrify -format jpg \S*raw/\*\.CR2"):
        read_scene(tmp_path / "raw")
    with pytest.raises(InputError, match=r"lift3d lift \S*film/walk\.mp4"):
        read_scene(tmp_path / "film")


def test_a_misspelled_path_gets_the_nearest(tmp_path):
    touch(tmp_path / "Kitchen/a.txt")
    with pytest.raises(InputError, match=r"does not exist; did you mean \S*Kitchen\?"):
        read_scene(tmp_path / "kitchn")
    with pytest.raises(InputError, match="did you mean"):
        read_scene(tmp_path / "kitchn/color")
