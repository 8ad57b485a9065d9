"""Content that a format cannot hold is refused before writing; foreign files are not lost."""

import os
import resource
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tiny_export import crooked, lifted_run

from lift3d.cli import main
from lift3d.export import rerun
from lift3d.export.content import Options
from lift3d.export.registry import FORMATS, table
from lift3d.run.exporting import MARKER, export
from lift3d.run.run import Run
from lift3d.scene.contents import content
from lift3d.scene.errors import FrameError, InputError, MissingExtra

ROOT = Path(__file__).resolve().parents[1]
LENS = (0.1, -0.05, 0.001, 0.001)
STRAIGHT = ["gaussian-grouping", "objectgs", "npz", "rerun"]
PICTURES = [name for name, each in FORMATS.items() if each.pictures]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return lifted_run(tmp_path_factory.mktemp("lifted"), views=3)


def bytes_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- names


def test_the_help_has_a_line_for_every_format(capsys):
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name, each in FORMATS.items():
        assert f"{name}: {each.about}" in said


def test_the_table_in_the_docs_is_that_of_the_formats():
    assert table() in (ROOT / "docs/exports.md").read_text()


def test_the_docs_name_every_option():
    text = (ROOT / "docs/exports.md").read_text()
    for each in fields(Options):
        assert f"--{each.name.replace('_', '-')}" in text


def test_every_writer_states_frames_and_pixel_origin():
    for each in FORMATS.values():
        text = sys.modules[each.write.__module__].__doc__.lower()
        assert "pixel" in text if each.pictures else "no camera" in text, each.name
        assert "world" in text or "no coordinates" in text, each.name


def test_an_unknown_format_gets_did_you_mean_and_the_list(run, capsys):
    assert main(["export", str(run), "--to", "ply", "nerfstudoi"]) == 2
    said = capsys.readouterr().err
    assert "did you mean 'nerfstudio'" in said
    assert "gaussian-grouping" in said
    assert not (run / "export").exists()


# --- ids


@pytest.mark.parametrize("name", ["gaussian-grouping", "objectgs"])
def test_more_objects_than_fit_8_bits_are_refused(name):
    content = crooked(objects=tuple(range(1, 140)), centred=True)
    more = {
        view.name: np.full((36, 48), 300 + i, np.int32) for i, view in enumerate(views(content))
    }
    few = replace(content, label_maps=more)
    FORMATS[name].check(few)
    many = np.arange(36 * 48, dtype=np.int32).reshape(36, 48)
    with pytest.raises(InputError, match=r"at most 255 objects.*--largest 255"):
        FORMATS[name].check(replace(content, label_maps=dict.fromkeys(more, many)))


def views(content):
    return content.scene.views


def test_the_largest_objects_are_kept_and_counted_from_1(run, tmp_path):
    from lift3d.export.ply import read_cloud

    before = read_cloud(run / "cloud.ply").instance
    ids, counts = np.unique(before[before > 0], return_counts=True)
    largest = ids[np.argsort(-counts, kind="stable")[:2]]
    export(Run.open(run), ["ply", "gaussian-grouping"], tmp_path, Options(largest=2))
    after = read_cloud(tmp_path / "cloud.ply").instance
    assert set(np.unique(after)) == {0, 1, 2}
    for number, each in enumerate(largest, start=1):
        np.testing.assert_array_equal(after == number, before == each)


def test_a_format_gets_the_objects_of_the_run_with_their_boxes(run, tmp_path, monkeypatch):
    seen = []
    form = replace(FORMATS["npz"], write=lambda content, folder, tick: seen.append(content) or [])
    monkeypatch.setitem(FORMATS._own, "npz", form)
    export(Run.open(run), ["npz"], tmp_path / "all")
    export(Run.open(run), ["npz"], tmp_path / "two", Options(largest=2))
    complete, largest = seen
    assert complete.objects == Run.open(run).objects
    assert [each.id for each in largest.objects] == [1, 2]
    for written in seen:
        for each in written.objects:
            xyz = written.cloud.points.xyz[written.cloud.instance == each.id]
            assert len(xyz) == each.points
            np.testing.assert_allclose(xyz.min(0), each.low, atol=1e-4)
            np.testing.assert_allclose(xyz.max(0), each.high, atol=1e-4)


def test_ids_that_are_not_exact_as_floats_are_refused():
    with pytest.raises(InputError, match="float32"):
        FORMATS["glb"].check(crooked(objects=(1, 2**24 + 1)))


def test_ids_above_the_class_ids_of_rerun_are_refused():
    pytest.importorskip("rerun")
    with pytest.raises(InputError, match="16-bit"):
        FORMATS["rerun"].check(crooked(objects=(1, 70_000)))


@pytest.mark.parametrize(
    ("option", "said"), [(("--keep", "999"), "999"), (("--largest", "0"), "1 or")]
)
def test_options_with_missing_objects_are_an_error(run, tmp_path, option, said, capsys):
    command = ["export", str(run), "--to", "colmap", "--out", str(tmp_path / "out")]
    assert main([*command, *option]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# --- cameras


@pytest.mark.parametrize("name", STRAIGHT)
def test_lens_distortion_is_refused_if_the_format_has_none(name):
    if name == "rerun":
        pytest.importorskip("rerun")
    with pytest.raises(InputError, match=r"lens distortion.*--undistort"):
        FORMATS[name].check(crooked(distortion=LENS))
    FORMATS[name].check(crooked(distortion=LENS, undistort=True))


def test_a_principal_point_off_the_middle_is_refused_if_readers_ignore_it():
    with pytest.raises(InputError, match=r"principal point.*--undistort"):
        FORMATS["gaussian-grouping"].check(crooked())


@pytest.mark.parametrize("name", ["nerfstudio", "colmap"])
def test_unsupported_coefficients_are_refused(name):
    with pytest.raises(InputError, match="coefficients"):
        FORMATS[name].check(crooked(distortion=(*LENS, 0.0, 0.3)))


@pytest.mark.parametrize("name", PICTURES)
def test_a_view_without_a_pose_is_refused(name):
    if name == "rerun":
        pytest.importorskip("rerun")
    content = crooked()
    first, *others = content.scene.views
    unposed = replace(first, camera=replace(first.camera, world_from_camera=None))
    with pytest.raises(InputError, match="no pose"):
        FORMATS[name].check(replace(content, views=content.scene.with_views([unposed, *others])))


def test_names_that_become_equal_are_an_error():
    content = crooked()
    a, b, _ = content.scene.views
    alike = content.scene.with_views([replace(a, name="a.b"), replace(b, name="a_b")])
    with pytest.raises(InputError, match="a_b"):
        FORMATS["colmap"].write(
            replace(content, views=alike), Path("unused"), lambda done, total: None
        )


# --- pictures


def _lost():
    raise FrameError("color/7.jpg is missing")


def test_an_unreadable_picture_leaves_no_files(run, tmp_path, monkeypatch):
    scene = Run.open(run).whole_scene
    *others, last = scene.views
    broken = scene.with_views([*others, replace(last, load_image=partial(_lost))])
    monkeypatch.setattr(Run, "whole_scene", broken)
    for name in ("nerfstudio", "colmap", "gaussian-grouping", "npz"):
        with pytest.raises(FrameError, match=r"7\.jpg"):
            export(Run.open(run), [name], tmp_path / "out")
        assert bytes_of(tmp_path / "out") == {}


def test_a_scan_with_missing_pictures_is_an_error(run, tmp_path, capsys):
    """The run was of `synthetic`; a folder with fewer views replaces the scan."""
    export(Run.open(run), ["nerfstudio"], tmp_path / "scan")
    scan = tmp_path / "scan/nerfstudio"
    command = ["export", str(run), "--to", "colmap", "--out", str(tmp_path / "out")]
    assert main([*command, "--scan", str(scan)]) == 0
    (scan / "images/0001.png").unlink()
    assert main([*command, "--scan", str(scan)]) == 2
    said = capsys.readouterr().err
    assert "lacks 1 of 3 pictures" in said
    assert "0001" in said


def test_a_moved_scan_is_an_error_with_the_next_step(run, tmp_path, capsys):
    command = ["export", str(run), "--to", "colmap", "--scan", str(tmp_path / "nowhere")]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "nowhere" in said
    assert "--scan" in said


def test_clouds_are_exported_without_the_pictures(run, tmp_path):
    export(Run.open(run, tmp_path / "nowhere"), ["splat", "ply", "glb"], tmp_path)
    assert (tmp_path / "splat/point_cloud.ply").is_file()


# --- folders


def test_an_export_replaces_an_export(run, tmp_path):
    export(Run.open(run), ["ply", "splat"], tmp_path)
    first = bytes_of(tmp_path)
    (tmp_path / "cloud.ply").touch()
    export(Run.open(run), ["splat", "ply"], tmp_path)
    assert bytes_of(tmp_path) == first
    export(Run.open(run), ["ply"], tmp_path, Options(largest=1))
    assert [path.name for path in (tmp_path / "objects").iterdir()] == ["0001.ply"]


@pytest.mark.parametrize("name", ["ply", "nerfstudio", "splat"])
def test_a_foreign_folder_is_not_changed(run, tmp_path, name, capsys):
    home = tmp_path if name == "ply" else tmp_path / name
    home.mkdir(exist_ok=True)
    (home / "transforms.json").write_text("{}")
    before = bytes_of(tmp_path)
    assert main(["export", str(run), "--to", name, "--out", str(tmp_path)]) == 2
    assert "transforms.json" in capsys.readouterr().err
    assert bytes_of(tmp_path) == before


def test_files_added_or_changed_by_other_tools_are_not_lost(run, tmp_path):
    export(Run.open(run), ["colmap"], tmp_path)
    home = tmp_path / "colmap"
    (home / "output/point_cloud").mkdir(parents=True)
    (home / "output/point_cloud/iteration_7000.ply").write_text("trained")
    with pytest.raises(InputError, match=r"iteration_7000\.ply"):
        export(Run.open(run), ["colmap"], tmp_path)
    (home / "output/point_cloud/iteration_7000.ply").unlink()
    points = home / "sparse/0/points3D.bin"
    points.write_bytes(points.read_bytes() + b"edited")
    with pytest.raises(InputError, match=r"points3D\.bin"):
        export(Run.open(run), ["colmap"], tmp_path)


def test_the_cache_of_3dgs_is_removed_with_its_export(run, tmp_path):
    export(Run.open(run), ["colmap"], tmp_path)
    stale = tmp_path / "colmap/sparse/0/points3D.ply"
    stale.write_text("made by 3DGS from points3D.bin")
    export(Run.open(run), ["colmap"], tmp_path)
    assert not stale.exists()


def test_one_refusal_stops_all_formats_before_writing(run, tmp_path):
    (tmp_path / "colmap").mkdir()
    (tmp_path / "colmap/mine").write_text("x")
    with pytest.raises(InputError, match="mine"):
        export(Run.open(run), ["ply", "colmap"], tmp_path)
    assert not (tmp_path / "cloud.ply").exists()


def test_the_out_folder_may_not_be_a_file(run, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert main(["export", str(run), "--to", "ply", "--out", str(tmp_path / "file")]) == 2
    assert main(["export", str(run), "--to", "splat", "--out", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.count("file") >= 2


# --- disks and extras


@pytest.mark.parametrize(
    "names", [["ply"], ["nerfstudio"], ["colmap"], ["splat"], ["glb"], ["rerun"]]
)
def test_a_full_disk_leaves_the_earlier_export(run, tmp_path, names, capsys):
    if "rerun" in names:
        pytest.importorskip("rerun")
    export(Run.open(run), names, tmp_path)
    before = bytes_of(tmp_path)
    with no_file_larger_than(4000):
        status = main(["export", str(run), "--to", *names, "--out", str(tmp_path)])
    said = capsys.readouterr().err
    assert status == 1, said
    assert "disk" in said or "too large" in said
    assert "is unchanged" in said
    assert bytes_of(tmp_path) == before


@contextmanager
def no_file_larger_than(limit):
    """As in dying.py, without the cost of a process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_files_of_a_killed_export_are_removed(run, tmp_path):
    command = ["export", str(run), "--to", "splat", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "tests/dying.py", "after", "1", *command],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert done.returncode == -9
    assert not (tmp_path / "splat").exists()
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".splat.")
    assert left.endswith(".part")
    assert main(command) == 0
    assert os.listdir(tmp_path) == ["splat"]


def test_without_the_extra_the_message_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(MissingExtra, match=r"lift3d\[export\]"):
        rerun.library()


def test_the_marker_lists_what_was_written(run, tmp_path):
    import json

    export(Run.open(run), ["pointcept"], tmp_path)
    listed = json.loads((tmp_path / "pointcept" / MARKER).read_text())["files"]
    found = {name for name in bytes_of(tmp_path / "pointcept") if name != MARKER}
    assert listed == {name: content(tmp_path / "pointcept" / name) for name in found}
