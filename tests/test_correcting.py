"""Correct a run: its files follow, nothing is lost, and a later lift keeps the work."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lift3d.cli import main
from lift3d.correction import applying
from lift3d.correction.maps import SPLAT
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.geometry.visibility import cloud_spacing, front_points
from lift3d.run.correct import automatic_map
from lift3d.run.lift import lift
from lift3d.run.run import Run
from lift3d.run.session import Conflict
from lift3d.run.settings import CHOICES, LiftConfig, as_json, names, read_settings
from lift3d.run.taking import take
from lift3d.scene.errors import InputError, MissingExtra
from lift3d.scene.labelmaps import read_label_map
from lift3d.scene.registry import KINDS
from lift3d.segmentation.simulated import SimulatedConfig

ROOT = Path(__file__).resolve().parents[1]
ROOM = SyntheticConfig(views=6, width=96, height=72)
PUBLIC = ("labels", "cloud.ply", "cloud_labels.ply", "instances.json", "consistency.json")


def config(folder, voxel=0.05):
    return LiftConfig(
        Path("synthetic:2"), folder, reader=ROOM, voxel=voxel, segmentation=SimulatedConfig()
    )


@pytest.fixture(scope="module")
def lifted(tmp_path_factory):
    return lift(config(tmp_path_factory.mktemp("room") / "run")).folder


@pytest.fixture
def run(lifted, tmp_path):
    shutil.copytree(lifted, tmp_path / "run")
    return Run.open(tmp_path / "run")


def by_size(edits):
    return sorted(edits.objects, key=lambda each: -each.points)


def ends(run, each):
    """The two places of an object that are furthest apart along x."""
    xyz = run.points.xyz[run.edits.points_of(each)]
    return xyz[[xyz[:, 0].argmin(), xyz[:, 0].argmax()]]


def content(folder):
    files = [path for name in PUBLIC for path in sorted(folder.glob(f"{name}*"))]
    files = [each for path in files for each in ([path] if path.is_file() else path.iterdir())]
    return {each.relative_to(folder).as_posix(): each.read_bytes() for each in files}


def several(run):
    """Edits of many kinds; returns how many."""
    edits = run.edits
    a, b, c, d, e, f = (each.id for each in by_size(edits)[:6])
    edits.merge([b, c])
    edits.split(a, ends(run, a))
    edits.name(b, "long wall")
    edits.delete([e])
    mask = np.zeros((72, 96), bool)
    mask[30:50, 40:64] = True
    edits.paint("0002", mask)
    edits.select(edits.points_of(d)[:40], f)
    edits.accept([f])
    return 7


def test_every_file_follows_and_says_that_it_is_corrected(run):
    assert not run.corrections
    automatic = content(run.folder / "automatic" / "..")
    before = (run.folder / "automatic/cloud.npz").read_bytes()
    count = several(run)
    assert content(run.folder) == automatic  # the public files follow when they are written
    assert run.edits.save().waiting == ()
    assert run.corrections.edits == run.record["edits"]["edits"] == count
    assert run.edits.written == run.edits.revision == count
    in_maps = set()
    for view in run.cameras:
        assert np.array_equal(run.labels[view], run.edits.label_map(view))
        in_maps |= set(np.unique(run.labels[view]).tolist()) - {0}
    assert in_maps == {each.id for each in run.objects if each.views}
    assert np.array_equal(run.cloud.instance, run.edits.label)
    assert (run.folder / "automatic/cloud.npz").read_bytes() == before
    checked = run.consistency
    assert checked["edits"]["edits"] == count
    assert checked["automatic"]["printed"] != checked["printed"]
    assert "7 edits" in (run.folder / "report.html").read_text()
    named = next(each for each in run.objects if each.name)
    assert named.name == "long wall"
    assert named.edited == (1, 3)


def test_merging_is_a_table_of_ids_in_every_view(run):
    a, b = (each.id for each in by_size(run.edits)[2:4])
    automatic = {view: run.labels[view] for view in run.cameras}
    run.edits.merge([a, b], into=b)
    run.edits.write()
    for view, labels in automatic.items():
        assert np.array_equal(run.labels[view], np.where(labels == a, b, labels))
    colours = {each.id: each.colour for each in run.objects}
    assert colours == {
        each: "#{:02x}{:02x}{:02x}".format(*rgb) for each, rgb in run.edits.palette.items()
    }


def test_a_part_keeps_its_place_in_every_view(run):
    whole = by_size(run.edits)[0].id
    kept = run.edits.split(whole, ends(run, whole))
    (new,) = kept.edit.new
    for view in run.cameras:
        before = run.labels[view] == whole
        now = run.edits.label_map(view)
        assert np.array_equal(np.isin(now, (whole, new)), before)
        seen = run.edits.seen(view)
        own = (run.labels[view][seen.row, seen.column] == whole) & (
            run.edits.automatic[seen.point] == whole
        )
        at = now[seen.row[own], seen.column[own]]
        if own.sum() > 50:
            assert np.mean(at == run.edits.label[seen.point[own]]) > 0.97


def test_painted_pixels_are_as_painted_and_follow_what_becomes_of_their_points(run):
    mask = np.zeros((72, 96), bool)
    mask[30:50, 40:64] = True
    kept = run.edits.paint("0002", mask)
    (new,) = kept.edit.new
    assert (run.edits.label_map("0002")[mask] == new).all()
    assert len(kept.index)
    others = [view for view in run.cameras if view != "0002"]
    assert any((run.edits.label_map(view) == new).any() for view in others)
    target = by_size(run.edits)[0].id
    run.edits.merge([new, target], into=target)
    assert (run.edits.label_map("0002")[mask] == target).all()
    run.edits.undo()
    run.edits.undo()
    assert np.array_equal(run.edits.label_map("0002"), run.labels["0002"])


def test_a_stroke_for_one_view_changes_its_pixels_and_no_point(run):
    edits, (view, other) = run.edits, list(run.cameras)[:2]
    before, elsewhere = edits.label.copy(), edits.label_map(other).copy()
    mask = np.zeros(edits.label_map(view).shape, bool)
    mask[20:40, 30:60] = True
    kept = edits.paint(view, mask, everywhere=False)
    (new,) = kept.edit.new
    edits.write()
    assert np.array_equal(read_label_map(run.folder / f"labels/{view}.png") == new, mask)
    assert np.array_equal(edits.label, before)
    assert np.array_equal(edits.label_map(other), elsewhere)
    assert new in {each.id for each in Run.open(run.folder).edits.objects}
    edits.undo()
    assert not (edits.label_map(view) == new).any()


def test_divided_pixels_show_what_the_cloud_shows_there(run):
    edits = run.edits
    largest = max(edits.objects, key=lambda each: each.points).id
    xyz = run.points.world
    own = edits.points_of(largest)
    edits.split(largest, xyz[own[[0, len(own) // 2]]])
    for view in run.scene.views:
        front, _ = front_points(run.points.xyz, view.camera, SPLAT * cloud_spacing(run.points))
        automatic = read_label_map(automatic_map(run.files, view.name))
        shown = (front >= 0) & (automatic == largest)
        shown[shown] = edits.automatic[front[shown]] == largest
        assert np.array_equal(edits.label_map(view.name)[shown], edits.label[front[shown]])


def test_a_mask_of_the_segmenter_goes_to_an_object(run):
    view = "0001"
    mask = int(np.unique(run.masks[view])[-1])
    target = by_size(run.edits)[0].id
    run.edits.assign(view, mask, target)
    assert (run.edits.label_map(view)[run.masks[view] == mask] == target).all()
    with pytest.raises(InputError, match="no mask 9999"):
        run.edits.assign(view, 9999, target)


def test_all_edits_undone_give_the_first_labels_and_redone_the_last(run):
    edits = run.edits
    count = several(run)
    last = edits.label.copy(), edits.objects, edits.label_map("0002")
    for _ in range(count):
        edits.undo()
    with pytest.raises(InputError, match="no edit to undo"):
        edits.undo()
    assert np.array_equal(edits.label, edits.automatic)
    assert np.array_equal(edits.label_map("0002"), run.labels["0002"])
    for _ in range(count):
        edits.redo()
    assert np.array_equal(edits.label, last[0])
    assert edits.objects == last[1]
    assert np.array_equal(edits.label_map("0002"), last[2])
    again = Run.open(run.folder).edits
    assert np.array_equal(again.label, last[0])
    assert again.objects == last[1]
    edits.write()
    for _ in range(count):
        edits.undo()
    edits.write()
    assert run.corrections.edits == 0


def test_an_older_edit_is_undone_alone_unless_others_build_on_it(run):
    edits = run.edits
    a, b, c, d = (each.id for each in by_size(edits)[:4])
    first = edits.split(a, ends(run, a))
    (part,) = first.edit.new
    second = edits.name(b, "wall")
    third = edits.merge([part, c])
    with pytest.raises(InputError, match=rf"edit {third.edit.n} .* builds on edit 1"):
        edits.undo(first.edit.n)
    edits.undo(second.edit.n)
    assert edits.object(b).name == ""
    assert edits.revision == 4
    with pytest.raises(InputError, match="undone already"):
        edits.undo(second.edit.n)
    edits.undo(third.edit.n)
    edits.undo(first.edit.n)
    assert np.array_equal(edits.label, edits.automatic)
    assert d in {each.id for each in edits.objects}


def test_what_changes_nothing_is_no_edit(run):
    edits = run.edits
    a = by_size(edits)[0].id
    edits.name(a, "floor")
    for nothing in (
        lambda: edits.name(a, "floor"),
        lambda: edits.select(edits.points_of(a), a),
        lambda: edits.cut(a, [0, 0, 1, -100]),
        lambda: edits.unlock([a]),
        lambda: edits.merge([a, a]),
    ):
        with pytest.raises(InputError, match=r"nothing|two or more"):
            nothing()
    assert edits.revision == 1
    kept = [each.name for each in (run.folder / "edits").glob("*")]
    assert kept == ["000001.objects.npz"]  # of the edit that was made


def test_a_locked_object_is_never_changed(run):
    edits = run.edits
    a, b = (each.id for each in by_size(edits)[:2])
    edits.lock([a])
    before = edits.points_of(a)
    for refused in (
        lambda: edits.merge([a, b]),
        lambda: edits.delete([a]),
        lambda: edits.split(a, ends(run, a)),
        lambda: edits.name(a, "x"),
    ):
        with pytest.raises(InputError, match=f"object {a} is locked"):
            refused()
    edits.select(np.arange(len(edits.label)), b)
    assert np.array_equal(edits.points_of(a), before)
    edits.unlock([a])
    edits.merge([a, b])


def test_an_edit_on_what_another_changed_meanwhile_is_refused(run):
    ann, bob = run.edits, Run.open(run.folder).edits
    a, b, c, d = (each.id for each in by_size(ann)[:4])
    seen = bob.revision
    ann.merge([a, b], who="ann")
    bob.merge([c, d], who="bob", on=seen)
    with pytest.raises(Conflict, match=rf"object {b} was changed meanwhile: edit 1 of ann"):
        bob.name(b, "wall", who="bob", on=seen)
    assert ann.summary().people == 2
    assert set(ann.since(1).objects) == {c, d}
    assert ann.undo(who="ann").edit.details["of"] == 1  # one's own last


def test_a_server_holds_the_run(run):
    other = Run.open(run.folder).edits
    a, b = (each.id for each in by_size(other)[:2])
    with run.edits.hold():
        with pytest.raises(InputError, match="another lift3d is writing"):
            other.merge([a, b])
        run.edits.merge([a, b])
    other.name(a, "wall")
    assert run.edits.revision == 2


def test_a_killed_process_loses_no_edit_that_it_has_named(run):
    code = (
        "import sys, os, itertools\n"
        "from lift3d.run.run import Run\n"
        "edits = Run.open(sys.argv[1]).edits\n"
        "for n in itertools.count():\n"
        "    print(edits.name(1, f'name {os.getpid()} {n}').edit.n, flush=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    told = 0
    for lines in (1, 3, 7):
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(run.folder)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert child.stdout is not None
        for _ in range(lines):
            told = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        told = int(([str(told)] + child.stdout.read().split())[-1])
        child.wait()
        child.stdout.close()
        assert told <= len(Run.open(run.folder).edits.all) <= told + 1
        assert Run.open(run.folder).edits.object(1).name.startswith("name")


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


def test_an_object_has_the_colour_that_a_person_gave_it_until_that_is_taken_back(run):
    edits = run.edits
    a, b = (each.id for each in by_size(edits)[:2])
    before = edits.palette
    edits.colour(a, "#2F80ED")
    assert edits.palette == {**before, a: (47, 128, 237)}
    edits.write()
    listed = {each["id"]: each["colour"] for each in run.instances["instances"]}
    assert listed[a] == "#2f80ed"
    assert listed[b] == "#{:02x}{:02x}{:02x}".format(*before[b])
    with pytest.raises(InputError, match="has that colour already"):
        edits.colour(a, "#2f80ed")
    with pytest.raises(InputError, match="'blue' is no colour"):
        edits.colour(b, "blue")
    edits.merge([a, b], into=a)
    assert edits.palette[a] == (47, 128, 237)
    edits.colour(a, "")
    assert edits.palette[a] == before[a]


def test_the_command_edits_and_lists(run, capsys):
    folder = str(run.folder)
    a, b, c = (each.id for each in by_size(run.edits)[:3])
    first, second = (",".join(map(str, each)) for each in ends(run, a).tolist())
    for words in (
        ("merge", str(b), str(c), "--into", str(c)),
        ("split", str(a), "--at", first, "--at", second),
        ("name", str(a), "the", "floor"),
        ("class", str(a), "2"),
        ("colour", str(a), "#2F80ED"),
        ("undo",),
    ):
        assert main(["edit", folder, *words]) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert main(["edit", folder, "list"]) == 0
    shown = capsys.readouterr().out
    assert f"merge {b} and {c} into {c}" in shown
    assert "(undone)" in shown
    assert "4 edits by 1 person" in shown
    named = {each.id: each.name for each in Run.open(run.folder).objects}
    assert named[a] == "the floor"
    assert b not in named
    lines = [json.loads(line) for line in (run.folder / "edits.jsonl").read_text().splitlines()]
    assert [each["do"] for each in lines] == [
        *("merge", "split", "name"),
        *("class", "colour", "undo"),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("mrege", "1", "2"), "did you mean 'merge'"),
        (("merge", "1"), "2 or more ids"),
        (("merge", "1", "x"), "'x' is no number of an object"),
        (("merge", "1", "999"), "no object 999"),
        (("split", "1", "--at", "1,2"), "expected 3 numbers"),
        (("split", "1", "--at", "1,2,3"), "two or more"),
        (("assign", "0001"), "VIEW MASK OBJECT"),
        (("assign", "9001", "1"), "unknown view"),
        (("undo", "4"), "no edit 4"),
        (("undo", "1", "2"), "one edit at a time"),
        (("delete", "1", "--into", "2"), "--into is an option of merge, not of delete"),
        (("merge", "1", "2", "--at", "1,2,3"), "--at is an option of split, not of merge"),
        (("list", "--neighbours"), "--neighbours is an option of delete, not of list"),
        (("paint", "0001", "nowhere.png", "1"), "give a black and white picture"),
        (("list", "1"), "takes no more words"),
    ],
)
def test_wrong_words_get_one_line(lifted, capsys, words, message):
    assert main(["edit", str(lifted), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (lifted / "edits.jsonl").exists()


def test_evaluation_names_corrected_labels_and_scores_automatic_ones(run, tmp_path, capsys):
    truth = tmp_path / "truth.txt"
    np.savetxt(truth, run.edits.automatic, fmt="%d")
    assert "labels" not in run.evaluate(truth)
    a, b = (each.id for each in by_size(run.edits)[:2])
    run.edits.merge([a, b])
    run.edits.write()
    found = run.evaluate(truth)
    assert found["labels"] == "corrected: 1 edit by 1 person"
    assert found["ap"] < found["automatic"]["ap"] == 1.0
    assert run.evaluate(truth, automatic=True)["ap"] == 1.0
    assert main(["evaluate", str(run.folder), "--truth", str(truth), "--automatic"]) == 0
    assert "automatic" in capsys.readouterr().out


def test_without_its_scan_a_run_is_corrected_and_says_what_waits(run):
    stored = json.loads((run.folder / "scene.json").read_text())
    stored["origin"] |= {"path": "/gone", "reader": "scannet-folder", "options": {}}
    (run.folder / "scene.json").write_text(json.dumps(stored))
    moved = Run.open(run.folder)
    a, b = (each.id for each in by_size(moved.edits)[:2])
    moved.edits.merge([a, b])
    saved = moved.edits.save()
    assert saved.done == ("correct",)
    assert "cannot be opened" in saved.reason
    assert b not in {each.id for each in Run.open(run.folder).objects}


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


def test_a_stroke_on_the_seen_rim_of_a_large_piece_does_not_take_the_piece(run):
    """A view may see only a corner of a wall: painting it must not take the wall."""
    surface = run.surface
    assert surface is not None
    whole = replace(surface, superpoint=np.zeros_like(surface.superpoint))  # one piece is all
    vars(run)["surface"] = whole
    mask = np.ones((72, 96), bool)
    seen = run.edits.seen("0002")
    assert len(seen) < len(run.points) / 2
    assert len(run.edits.under("0002", mask)) <= len(seen)
