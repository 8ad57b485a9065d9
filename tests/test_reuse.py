"""A second lift into the same folder runs only the stages whose inputs changed."""

import dataclasses
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_scan as tiny

from lift3d import segmentation
from lift3d.reconstruction.fusion.voxel import VoxelConfig
from lift3d.run.exporting import export
from lift3d.run.lift import lift
from lift3d.run.record import read_json
from lift3d.run.run import Run
from lift3d.run.settings import LiftConfig
from lift3d.scene import Camera, Scene, View, sources
from lift3d.scene.errors import InputError
from lift3d.scene.labelmaps import read_label_map, write_label_map
from lift3d.scene.mask_sets import MaskSet

Folder = segmentation.BACKENDS["folder"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A scan, masks in a folder per view, and the run lifted from them."""
    root = tmp_path_factory.mktemp("place")
    scan = tiny.tiny_scan(views=3)
    tiny.write_scannet(root / "scan", scan)
    for name, ids in zip(scan.names, scan.instances, strict=True):
        (root / "masks" / name).mkdir(parents=True)
        for each in (1, 2):
            mask = ((ids == each) * 255).astype(np.uint8)
            cv2.imwrite(str(root / "masks" / name / f"{each}.png"), mask)
    lift(config(root))
    return root


@pytest.fixture
def here(place, tmp_path):
    """A copy of them in another folder."""
    shutil.copytree(place, tmp_path / "here")
    return tmp_path / "here"


def config(root, **changes):
    given = LiftConfig(
        root / "scan", root / "run", voxel=0.1, segmentation=Folder(path=root / "masks")
    )
    return dataclasses.replace(given, **changes)


def redone(lifted):
    return [name for name, record in lifted.records.items() if not record.reused]


def objects(root):
    return len(read_json(root / "run", "instances.json")["instances"])


def test_a_copied_scan_and_run_are_the_same_scan_and_run(here):
    assert redone(lift(config(here))) == []


def test_the_same_scan_by_a_relative_path_and_a_link_is_the_same_scan(here, monkeypatch):
    monkeypatch.chdir(here)
    (here / "link").symlink_to(here / "scan")
    for scan in (Path("scan"), Path("./link")):
        relative = dataclasses.replace(
            config(here, input=scan), segmentation=Folder(path=Path("masks"))
        )
        assert redone(lift(relative)) == []


def test_masks_rewritten_in_place_are_noticed(here):
    assert objects(here) == 2
    for path in (here / "masks").glob("*/*.png"):
        cv2.imwrite(str(path), np.full((60, 80), 255, np.uint8))
    assert redone(lift(config(here)))[0] == "track"
    assert objects(here) == 1


def test_a_picture_overwritten_with_the_same_size_and_date_is_noticed(here):
    picture = next((here / "scan/color").iterdir())
    when, data = picture.stat().st_mtime_ns, bytearray(picture.read_bytes())
    other = cv2.imdecode(np.frombuffer(bytes(data), np.uint8), 1)
    _, coded = cv2.imencode(picture.suffix, 255 - other)
    data = coded.tobytes().ljust(len(data), b"\0")
    picture.write_bytes(data)
    os.utime(picture, ns=(when, when))
    assert redone(lift(config(here)))[:1] == ["reconstruct"]


def test_edited_masks_are_used_and_not_tracked_over(here):
    name = sorted((here / "run/masks").iterdir())[0].stem
    edited = read_label_map(here / "run/masks" / f"{name}.png").copy()
    edited[:] = 0
    write_label_map(here / "run/masks", name, edited)
    written = (here / "run/masks" / f"{name}.png").read_bytes()
    lifted = lift(config(here))
    assert redone(lifted)[0] == "associate"
    assert (here / "run/masks" / f"{name}.png").read_bytes() == written
    assert not read_label_map(here / "run/labels" / f"{name}.png").any()
    assert any("masks was changed since" in each for each in lifted.warnings)
    again = lift(config(here))
    assert redone(again) == []
    assert any("masks was changed since" in each for each in again.warnings)


@pytest.fixture(scope="module")
def overlapping(tmp_path_factory):
    """The same scan; in its first view a mask over both objects lies under theirs."""
    root = tmp_path_factory.mktemp("overlapping")
    scan = tiny.tiny_scan(views=3)
    tiny.write_scannet(root / "scan", scan)
    for number, (name, ids) in enumerate(zip(scan.names, scan.instances, strict=True)):
        (root / "masks" / name).mkdir(parents=True)
        masks = {1: ids == 1, 2: ids == 2} | ({3: ids > 0} if number == 0 else {})
        for each, mask in masks.items():
            cv2.imwrite(str(root / "masks" / name / f"{each}.png"), (mask * 255).astype(np.uint8))
    lift(config(root))
    return root


@pytest.fixture
def nested(overlapping, tmp_path):
    shutil.copytree(overlapping, tmp_path / "nested")
    return tmp_path / "nested"


def test_a_run_keeps_masks_that_overlap_beside_the_label_map(nested):
    lifted = lift(config(nested))
    assert redone(lifted) == []
    first, *others = lifted.cameras
    assert [path.name for path in (nested / "run/masks").glob("*.npz")] == [f"{first}.masks.npz"]
    found = lifted.mask_sets[first]
    assert isinstance(found, MaskSet)
    assert len(found.ids) == 3
    np.testing.assert_array_equal(found.labels, lifted.masks[first])
    for name in others:
        np.testing.assert_array_equal(lifted.mask_sets[name], lifted.masks[name])


def test_why_names_every_mask_at_the_pixel(nested):
    lifted = lift(config(nested))
    first = next(iter(lifted.cameras))
    row, column = np.argwhere(lifted.masks[first] == 1)[0].tolist()
    why = lifted.why(first, (float(column), float(row)))
    assert [mask.id for mask in why.masks] == list(lifted.mask_sets[first].ids_at(row, column))
    assert len(why.masks) == 2
    assert why.masks[0].became == why.label
    assert str(why).count("mask: ") == 2


def test_edited_mask_sets_are_noticed(nested):
    before = lift(config(nested))
    path = next((nested / "run/masks").glob("*.npz"))
    with np.load(path) as stored:
        arrays = dict(stored)
    np.savez(path, **(arrays | {"scores": np.float32([1, 1, 0.25])}))
    lifted = lift(config(nested))
    assert redone(lifted)[0] == "associate"
    assert any("masks was changed since" in each for each in lifted.warnings)
    assert lifted.mask_sets[next(iter(before.cameras))].scores.tolist() == [1, 1, 0.25]
    name = path.name.removesuffix(".masks.npz")
    write_label_map(nested / "run/masks", name, np.zeros_like(lifted.masks[name]))
    lifted = lift(config(nested))
    assert redone(lifted)[0] == "associate"
    assert not lifted.mask_sets[name].any()


def test_edited_labels_are_checked_and_not_associated_over(here):
    path = sorted((here / "run/labels").iterdir())[0]
    before = read_json(here / "run", "consistency.json")
    write_label_map(path.parent, path.stem, np.ones((60, 80), np.int32))
    written = path.read_bytes()
    assert redone(lift(config(here))) == ["check", "report"]
    assert path.read_bytes() == written
    assert read_json(here / "run", "consistency.json") != before


def test_edited_labels_are_moved_away_where_they_must_be_written_again(here):
    path = sorted((here / "run/labels").iterdir())[0]
    write_label_map(path.parent, path.stem, np.full((60, 80), 7, np.int32))
    written = path.read_bytes()
    lifted = lift(config(here, voxel=0.08))
    assert "associate" in redone(lifted)
    assert path.read_bytes() != written
    assert (here / "run/edited/labels" / path.name).read_bytes() == written
    assert any("edited/labels" in each for each in lifted.warnings)
    lift(config(here, voxel=0.09))
    assert sorted(each.name for each in (here / "run/edited").iterdir()) == ["labels"]


def test_the_warning_names_edited_files_and_removing_them_makes_them_again(here):
    paths = sorted((here / "run/labels").iterdir())
    before = {path: path.read_bytes() for path in paths}
    write_label_map(paths[0].parent, paths[0].stem, np.full((60, 80), 7, np.int32))
    (warning,) = (each for each in lift(config(here)).warnings if "was changed since" in each)
    assert f"labels/{paths[0].name}) and is used as it is" in warning
    assert warning.endswith("to have it made again, remove that file")
    paths[0].unlink()
    lifted = lift(config(here))
    assert redone(lifted)[0] == "correct"
    assert {path: path.read_bytes() for path in paths} == before
    assert not [each for each in lifted.warnings if "changed since" in each or "moved" in each]


def test_the_warning_names_at_most_three_edited_files(here):
    names = [path.stem for path in sorted((here / "run/labels").iterdir())] + ["x", "y"]
    for name in names:
        write_label_map(here / "run/labels", name, np.full((60, 80), 7, np.int32))
    (warning,) = (each for each in lift(config(here)).warnings if "was changed since" in each)
    assert [f"{name}.png" in warning for name in names] == [True] * 3 + [False] * 2
    assert "and 2 more" in warning


def test_a_stage_whose_code_changed_runs_again(here, monkeypatch):
    """As after `git pull`: the version is the same, the code is not."""
    original = sources._code

    def other(module, name):
        return original(module, name) + (b"changed" if module == VoxelConfig.__module__ else b"")

    monkeypatch.setattr(sources, "_code", other)
    assert redone(lift(config(here))) == ["fuse"]  # the same cloud comes out, so no other stage


def notebook_scene(views, shade):
    """A scene as made in a notebook: loaders without arguments, over arrays."""
    made = []
    for index in range(views):
        scan = tiny.tiny_scan(views=views)
        image = np.minimum(scan.images[index].astype(int) + shade, 255).astype(np.uint8)
        depth, ids = scan.depths[index], scan.instances[index]
        camera = Camera(scan.K, 80, 60, scan.poses[index])
        made.append(
            View(
                str(index),
                camera,
                lambda image=image: image,
                lambda depth=depth: depth,
                load_instances=lambda ids=ids: ids,
            )
        )
    return Scene("made", tuple(made), metric=True, source="a notebook")


def test_a_scene_of_arrays_is_lifted_again_when_they_change(tmp_path):
    settings = LiftConfig(tmp_path / "none", tmp_path / "run", voxel=0.1)
    lift(settings, notebook_scene(3, 0))
    cloud = (tmp_path / "run/cloud.ply").read_bytes()
    assert redone(lift(settings, notebook_scene(3, 0))) == []
    assert redone(lift(settings, notebook_scene(3, 40)))[:2] == ["reconstruct", "fuse"]
    assert (tmp_path / "run/cloud.ply").read_bytes() != cloud


def test_an_export_refuses_pictures_that_changed_since_the_lift(here):
    assert export(Run.open(here / "run", here / "scan"), ["nerfstudio"])
    picture = sorted((here / "scan/color").iterdir())[1]
    cv2.imwrite(str(picture), 255 - cv2.imread(str(picture)))
    with pytest.raises(InputError, match=r"1 of 3 pictures .* changed since \(1\)"):
        export(Run.open(here / "run", here / "scan"), ["nerfstudio"])
    picture.unlink()
    with pytest.raises(InputError, match=r"lacks 1 of 3 pictures"):
        export(Run.open(here / "run", here / "scan"), ["nerfstudio"])


def test_an_export_changed_by_hand_to_the_same_size_is_not_replaced(here):
    made = export(Run.open(here / "run"), ["npz"])[0]
    file = next(each for each in made.rglob("*.npz"))
    file.write_bytes(file.read_bytes()[::-1])
    with pytest.raises(InputError, match="were changed since"):
        export(Run.open(here / "run"), ["npz"])


def test_two_exports_do_not_write_to_one_folder(here):
    from lift3d.run.stages import alone_in

    out = here / "out"
    out.mkdir()
    with alone_in(out, out), pytest.raises(InputError, match="another lift3d is writing"):
        export(Run.open(here / "run"), ["ply"], out)
    assert export(Run.open(here / "run"), ["ply"], out)


def test_an_export_killed_while_it_replaces_another_can_be_repeated(here, monkeypatch):
    """At every rename the folder must stay recognisable as an export's."""
    out, rename = here / "out", os.replace
    for formats in (["ply"], ["npz"]):
        for step in range(8):
            export(Run.open(here / "run"), formats, out)
            child = os.fork()
            if child == 0:
                count = [0]

                def dies(source, target, count=count, step=step):
                    if count[0] == step:
                        os._exit(9)
                    count[0] += 1
                    rename(source, target)

                os.replace = dies
                export(Run.open(here / "run"), formats, out)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            if os.waitstatus_to_exitcode(status) == 0:
                break
            assert export(Run.open(here / "run"), formats, out)
        assert not [each.name for each in out.iterdir() if each.name.endswith((".part", ".old"))]
