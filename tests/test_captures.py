"""What is special about each capture: what it leaves out, tells or refuses."""

import json
from collections import Counter

import cv2
import numpy as np
import pytest
import tiny_captures as captures
import tiny_scan as tiny
from tiny_scan import tiny_scan

from lift3d import cli
from lift3d.datasets import read_scene
from lift3d.datasets.polycam import Polycam
from lift3d.datasets.scannetpp import ScanNetPP
from lift3d.export.nerfstudio import _lists
from lift3d.run.layout import run_of
from lift3d.run.run import Run
from lift3d.run.scene_file import read_scene as read_run_scene
from lift3d.run.scene_file import write_scene
from lift3d.scene.errors import FrameError, InputError


def test_polycam_without_optimized_poses_is_told(tmp_path):
    captures.polycam(tmp_path)
    assert any("Loop Closure" in note for note in read_scene(tmp_path).notes)


def test_polycam_skips_a_frame_whose_camera_is_damaged(tmp_path):
    scan = captures.polycam(tmp_path)
    (tmp_path / f"keyframes/cameras/{scan.names[1]}.json").write_text('{"t_00": 1}')
    scene = read_scene(tmp_path)
    assert len(scene) == 2
    assert "its camera cannot be read" in scene.skipped[0].reason


def test_polycam_keeps_the_first_cameras_where_asked(tmp_path):
    captures.polycam_corrected(tmp_path)
    with pytest.raises(InputError, match="its camera cannot be read"):
        read_scene(tmp_path, Polycam(corrected=False))


def test_the_confidence_of_a_phone_is_scaled_to_one(tmp_path):
    for name in ("polycam", "stray", "scanner_app"):
        getattr(captures, name)(tmp_path / name)
        confidence = read_scene(tmp_path / name).views[0].confidence()
        assert np.unique(confidence).tolist() == [1.0]


def grey_video(path, levels):
    """A video whose frames are of one grey each."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30, tiny.COLOR_SIZE)
    assert writer.isOpened()
    for level in levels:
        writer.write(np.full((*tiny.COLOR_SIZE[::-1], 3), level, np.uint8))
    writer.release()


def test_stray_frames_come_from_the_video_in_any_order(tmp_path):
    captures.stray(tmp_path)
    for file in (tmp_path / "rgb").iterdir():
        file.unlink()
    (tmp_path / "rgb").rmdir()
    grey_video(tmp_path / "rgb.mp4", [40, 120, 200])
    views = read_scene(tmp_path).views
    for index in (2, 0, 1, 1):
        assert abs(views[index].image().mean() - [40, 120, 200][index]) < 6


def test_a_stray_row_beyond_the_video_is_a_frame_error(tmp_path):
    captures.stray(tmp_path)
    for file in (tmp_path / "rgb").iterdir():
        file.unlink()
    (tmp_path / "rgb").rmdir()
    grey_video(tmp_path / "rgb.mp4", [40, 120])
    with pytest.raises(FrameError, match="has no frame 2: it ends before"):
        read_scene(tmp_path).views[2].image()


def test_stray_tables_that_are_another_kind_are_refused(tmp_path):
    captures.stray(tmp_path)
    (tmp_path / "odometry.csv").write_text("time,a,b\n1,2,3\n")
    with pytest.raises(InputError, match="expected columns x, y, z, qx"):
        read_scene(tmp_path)


def test_3d_scanner_app_frames_without_a_picture_are_told(tmp_path):
    captures.scanner_app(tmp_path)
    scene = read_scene(tmp_path)
    assert len(scene) == 3
    assert "3 frames have no picture and are not used" in scene.notes


def test_an_r3d_without_its_library_names_the_line_that_installs_it(tmp_path, monkeypatch):
    pytest.importorskip("lzfse")
    captures.record3d_unzipped(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "lzfse", None)
    with pytest.raises(FrameError, match="pip install lzfse"):
        read_scene(tmp_path).views[0].depth()


def test_arkitscenes_pictures_between_poses_are_told(tmp_path):
    captures.arkitscenes(tmp_path)
    scene = read_scene(tmp_path)
    assert len(scene) == 3
    assert "1 pictures have no pose near their time and are not used" in scene.notes


def test_3rscan_without_its_calibration_is_refused(tmp_path):
    captures.rscan(tmp_path)
    (tmp_path / "sequence/_info.txt").write_text("m_versionNumber = 4\n")
    with pytest.raises(InputError, match="has no m_calibrationColorIntrinsic"):
        read_scene(tmp_path)


def dslr(root, file="transforms_undistorted.json", folder="undistorted_images"):
    """The toolkit's undistorted pictures: names are relative to their folder."""
    scan = tiny_scan(names=["DSC1", "DSC2", "DSC3"], views=3)
    tiny.write_transforms(root / "made", scan)
    content = json.loads((root / "made/transforms.json").read_text())
    for frame in content["frames"]:
        frame["file_path"] = frame["file_path"].removeprefix("images/")
        del frame["depth_file_path"]
    content["test_frames"] = [content["frames"].pop()]
    (root / "scene/dslr/nerfstudio").mkdir(parents=True)
    (root / "made/images").rename(root / "scene/dslr" / folder)
    (root / "scene/dslr/nerfstudio" / file).write_text(json.dumps(content))
    return root / "scene", scan


def test_the_undistorted_pictures_of_scannetpp_are_read_with_their_split(tmp_path):
    path, scan = dslr(tmp_path)
    scene = read_scene(path)
    assert scene.source == f"reader scannetpp (DSLR) at {path}"
    assert scene.metric
    assert Counter(view.split for view in scene.views) == {"train": 2, "test": 1}
    for view, image in zip(scene.views, scan.images, strict=True):
        np.testing.assert_array_equal(view.image(), image)


def test_scannetpp_as_released_gets_the_commands_of_its_toolkit(tmp_path):
    path, _ = dslr(tmp_path, "transforms.json", "resized_images")
    for camera in ("auto", "iphone", "dslr"):
        with pytest.raises(InputError, match=r"python -m iphone\.prepare_iphone_data"):
            read_scene(path, ScanNetPP(camera=camera))


def blender(root):
    """Blender's synthetic scenes: a file a split, the same names in each."""
    scan = tiny_scan(names=["a", "b", "c", "d"])
    angle = 2 * np.arctan(40 / 75.0)
    for split, members in {"train": (0, 1), "val": (2,), "test": (3,)}.items():
        frames = []
        for number, i in enumerate(members):
            tiny.save(root / f"{split}/r_{number}.png", scan.images[i])
            pose = (scan.poses[i] @ captures.OPENGL).tolist()
            frames.append({"file_path": f"./{split}/r_{number}", "transform_matrix": pose})
        captures.write(
            root / f"transforms_{split}.json", {"camera_angle_x": angle, "frames": frames}
        )
    return scan


def test_the_splits_of_blender_are_read_together_and_kept(tmp_path, capsys):
    scan = blender(tmp_path)
    scene = read_scene(tmp_path)
    assert [view.name for view in scene.views] == ["train-r_0", "train-r_1", "val-r_0", "test-r_0"]
    for view, pose in zip(scene.views, scan.poses, strict=True):
        np.testing.assert_allclose(view.camera.pose, pose, atol=1e-6)
    assert cli.main(["info", str(tmp_path)]) == 0
    assert "2 train, 1 val, 1 test" in capsys.readouterr().out
    assert len(read_scene(tmp_path / "transforms_train.json")) == 2


def test_splits_that_nerfstudio_lists_are_kept(tmp_path):
    scan = tiny_scan()
    train, test = ["images/0.png", "images/2.png"], ["images/3.png"]
    tiny.write_transforms(tmp_path, scan, train_filenames=train, test_filenames=test)
    scene, expected = read_scene(tmp_path), ["train", "", "train", "test"]
    assert [view.split for view in scene.views] == expected
    run = tmp_path / "run"
    run.mkdir()
    write_scene(run, scene, scene, lambda *_: None)
    for again in (read_run_scene(run), read_run_scene(run, scene)):
        assert [view.split for view in again.views] == expected


def test_an_export_lists_every_split_because_nerfstudio_asks_for_all(tmp_path):
    assert _lists({}) == {}
    assert _lists({"train": ["a"], "test": ["b"]}) == {
        "train_filenames": ["a"],
        "val_filenames": ["b"],
        "test_filenames": ["b"],
    }
    tiny.write_transforms(tmp_path, tiny_scan())
    file = tmp_path / "transforms.json"
    content = json.loads(file.read_text())
    content["frames"][0]["split"] = "val"
    content |= {"test_filenames": [content["frames"][0]["file_path"]]}
    file.write_text(json.dumps(content))
    assert Counter(v.split for v in read_scene(tmp_path).views) == {"": 3, "val": 1}


def test_info_shows_the_range_of_depth_and_how_it_is_stored(tmp_path, capsys):
    captures.nerfcapture(tmp_path)
    assert cli.main(["info", str(tmp_path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "median" in shown
    assert "stored as uint16, 6553.5 units are 1 m" in shown


def test_a_file_of_a_run_stands_for_the_run(tmp_path):
    files = ("run.json", "cloud.ply", "labels/0.png", "export/nerfstudio/transforms.json")
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("{}")
    for file in files[:3]:
        assert run_of(tmp_path / file) == tmp_path
        with pytest.raises(InputError, match=f"{tmp_path}/run.json is damaged"):
            Run.open(tmp_path / file)
    assert run_of(tmp_path / files[3]) == tmp_path / files[3]  # an export can be lifted itself
    with pytest.raises(InputError, match="did you mean"):
        Run.open(f"{tmp_path}x")


@pytest.mark.parametrize(
    "words",
    [
        ["lift", "", "--out", "x"],
        ["lift", "scan", "--out", ""],
        ["info", " "],
        ["view", ""],
        ["batch", "", "--out", "x"],
    ],
)
def test_an_empty_path_is_refused(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    assert "is empty" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
