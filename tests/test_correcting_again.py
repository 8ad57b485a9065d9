"""Lift a corrected run again, or take the edits of another: the work is kept, or is in doubt."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from corrected_room import by_size, config, content, ends, several

from lift3d.cli import main
from lift3d.correction import applying
from lift3d.run.lift import lift
from lift3d.run.run import Run
from lift3d.run.settings import CHOICES, LiftConfig, as_json, names, read_settings
from lift3d.run.taking import take
from lift3d.scene.errors import InputError, MissingExtra
from lift3d.scene.registry import KINDS


@pytest.fixture(scope="module")
def lifted(tmp_path_factory):
    return lift(config(tmp_path_factory.mktemp("room") / "run")).folder


@pytest.fixture
def run(lifted, tmp_path):
    shutil.copytree(lifted, tmp_path / "run")
    return Run.open(tmp_path / "run")


def test_lifting_again_keeps_the_work_byte_for_byte(run):
    several(run)
    run.edits.save()
    before = content(run.folder)
    again = lift(config(run.folder))
    assert all(each.reused for each in again.records.values())
    assert content(run.folder) == before
    run.edits.undo()
    lifted_again = lift(config(run.folder))
    assert not lifted_again.records["correct"].reused
    assert lifted_again.corrections.edits == 6
    assert lifted_again.records["associate"].reused


def test_another_voxel_finds_the_objects_or_lists_the_edit(run):
    edits = run.edits
    objects = [each.id for each in by_size(edits)][:12]
    wanted = {}
    for each in objects[:6]:
        edits.name(each, f"thing {each}")
        wanted[f"thing {each}"] = run.points.xyz[edits.points_of(each)]
    edits.merge(objects[6:8])
    edits.delete([objects[8]])
    edits.split(objects[0], ends(run, objects[0]))
    again = lift(config(run.folder, voxel=0.06))
    doubts = again.edits.doubts
    listed = [text for text in again.warnings if "in doubt" in text]
    assert len(listed) == len(doubts) == again.corrections.doubts
    assert len(again.edits.active) == 9
    assert len(doubts) <= 2
    from scipy.spatial import cKDTree

    for each in again.objects:
        if each.name and each.id != objects[0]:
            far, _ = cKDTree(wanted[each.name]).query(again.points.xyz[again.points_of(each.id)])
            assert np.mean(far < 0.12) > 0.8
    back = lift(config(run.folder))
    assert not back.edits.doubts


def test_what_a_person_has_named_is_not_taken_away_by_what_is_put_back(run, monkeypatch):
    edits = run.edits
    a = by_size(edits)[1].id
    edits.name(a, "desk")
    edits.name(a, "table")
    for limit in ("SAME", "NEAR"):
        monkeypatch.setattr(applying, limit, 2.0)  # no object is the same as any
    again = lift(config(run.folder, voxel=0.06)).edits
    assert [each.edit.n for each in again.doubts] == [2]
    assert [each.name for each in again.objects if each.name] == ["desk"]
    assert any("edit 2" in each.reason for each in again.queue() if each.kind == "edit")


def test_objects_that_another_lift_has_otherwise_are_told(run, monkeypatch, capsys):
    edits = run.edits
    a = by_size(edits)[1].id
    edits.name(a, "desk")
    edits.name(a, "table")
    monkeypatch.setattr(applying, "SAME", 2.0)  # no object is the same as any
    again = lift(config(run.folder, voxel=0.06))
    first, second = again.edits.altered
    assert (first.put_back, second.put_back) == (True, False)
    (told,) = (each for each in again.warnings if "is applied, but" in each)
    assert f"object {second.now} here, which overlaps" in told
    assert [(e.edit, e.ids) for e in again.edits.queue() if e.kind == "edit"] == [
        (2, (second.now,))
    ]
    assert main(["edit", str(run.folder), "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "put back from its points" in lines[0]
    assert "which overlaps with what it was" in lines[1]


def test_edits_of_another_run_of_the_place_are_taken(run, lifted, tmp_path, capsys):
    count = several(run)
    shutil.copytree(lifted, tmp_path / "other")
    other = Run.open(tmp_path / "other").edits
    assert main(["edit", str(tmp_path / "other"), "take", str(run.folder)]) == 0
    assert f"{count} edits taken" in capsys.readouterr().out
    assert np.array_equal(other.label, run.edits.label)
    assert {each.name for each in other.objects} == {each.name for each in run.edits.objects}
    assert main(["edit", str(tmp_path / "other"), "take", str(run.folder)]) == 2
    assert "edits of its own" in capsys.readouterr().err
    assert main(["edit", str(lifted), "take", str(lifted)]) == 2
    assert "has no edits" in capsys.readouterr().err
    assert main(["edit", str(lifted), "take", str(tmp_path / "nowhere")]) == 2
    assert "no such run or file; name a run that was corrected, or its edits.jsonl" in " ".join(
        capsys.readouterr().err.split()
    )


def test_files_named_elsewhere_in_edits_of_others_are_not_copied(run, lifted, tmp_path):
    several(run)
    lines = run.files.edits.read_text().splitlines()
    named = json.loads(next(each for each in lines if '"files"' in each))
    named["files"] = {"../scene.json": "0", **named["files"]}
    at = named["n"] - 1
    lines[at] = json.dumps(named)
    run.files.edits.write_text("\n".join(lines) + "\n")
    shutil.copytree(lifted, tmp_path / "other")
    take(Run.open(tmp_path / "other").edits, run.folder)
    assert not list(tmp_path.glob("scene.json"))


@pytest.mark.parametrize("name", ["000001.npz", "000001.png"])
def test_a_missing_or_changed_file_of_an_edit_is_a_doubt_that_says_so(run, name):
    edits = run.edits
    a = by_size(edits)[0].id
    mask = np.zeros((72, 96), bool)
    mask[30:50, 40:64] = True
    edits.paint("0002", mask)
    edits.name(a, "floor")
    file = run.folder / "edits" / name
    stored = file.read_bytes()
    file.unlink()
    again = Run.open(run.folder).edits
    assert f"{name} is missing; put it back" in str(again.doubts[0])
    assert again.object(a).name == "floor"
    file.write_bytes(stored[:-50])
    assert "was changed" in str(Run.open(run.folder).edits.doubts[0])
    assert main(["edit", str(run.folder), "save"]) == 0
    file.write_bytes(stored)
    assert not Run.open(run.folder).edits.doubts


def test_settings_of_every_backend_are_read_back(tmp_path):
    plain = LiftConfig(Path("scan"), tmp_path, cloud=Path("a.ply"), views=3)
    for kind in CHOICES:
        for name in names(kind):
            if name == "auto":
                continue
            try:
                backend = KINDS[kind][name]
            except (InputError, MissingExtra):
                continue
            try:
                chosen = replace(plain, **{kind: backend()})
            except TypeError:  # an option without a default
                continue
            stored = json.loads(json.dumps(as_json(chosen)))
            assert as_json(read_settings(stored)) == as_json(chosen), (kind, name)
    assert read_settings(json.loads(json.dumps(as_json(plain)))) == plain


def test_a_name_needs_no_new_check(run):
    run.edits.name(1, "floor")
    assert run.edits.save().waiting == ()
    assert run.records["check"].reused
    assert not run.records["report"].reused
    assert "floor" in (run.folder / "report.html").read_text()


def test_edits_copied_into_another_run_of_the_scene_correct_it_too(run, lifted, tmp_path):
    several(run)
    other = tmp_path / "other"
    shutil.copytree(lifted, other)
    shutil.copy(run.folder / "edits.jsonl", other)
    shutil.copytree(run.folder / "edits", other / "edits")
    assert np.array_equal(Run.open(other).edits.label, run.edits.label)
