"""Correct a run: its files follow, and nothing is lost."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from corrected_room import ROOT, by_size, config, content, ends, several

from lift3d.cli import main
from lift3d.run.lift import lift
from lift3d.run.run import Run
from lift3d.run.session import Conflict
from lift3d.scene.errors import InputError


@pytest.fixture(scope="module")
def lifted(tmp_path_factory):
    return lift(config(tmp_path_factory.mktemp("room") / "run")).folder


@pytest.fixture
def run(lifted, tmp_path):
    shutil.copytree(lifted, tmp_path / "run")
    return Run.open(tmp_path / "run")


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
    assert found["automatic"]["ap"] == pytest.approx(1)
    assert found["ap"] < 0.99
    assert run.evaluate(truth, automatic=True)["ap"] == pytest.approx(1)
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
