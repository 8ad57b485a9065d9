"""Edits as lines of a file, and their replay on labels: exact, and found by where things are."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lift3d.correction import edits as edits_module
from lift3d.correction import state as state_module
from lift3d.correction.edits import Counting, Edit, EditFile
from lift3d.correction.history import Corrections, History, objects_of
from lift3d.correction.places import Finder, Place, PointSet
from lift3d.correction.splitting import SurfaceOf, touched_most
from lift3d.correction.state import State
from lift3d.correction.stored import Unfit
from lift3d.scene import LabelledPoints, Points
from lift3d.scene.errors import InputError

STEP = 0.05


def block(x, y=0.0, side=8, step=STEP):
    """A flat square of points at z = 0, from (x, y) on."""
    u, v = np.meshgrid(np.arange(side), np.arange(side))
    xy = np.stack([u.ravel(), v.ravel()], 1) * step + [x, y]
    return np.c_[xy, np.zeros(len(xy))].astype(np.float32)


def cloud(*blocks, labels=None, rgb=None):
    xyz = np.concatenate(blocks)
    sizes = [len(each) for each in blocks]
    label = np.repeat(np.arange(1, len(blocks) + 1) if labels is None else labels, sizes)
    colours = np.full((len(xyz), 3), 90, np.uint8) if rgb is None else rgb
    up = np.tile(np.float32([0, 0, 1]), (len(xyz), 1))
    points = Points(xyz, colours, up, np.ones(len(xyz), np.float32))
    return LabelledPoints(points, label.astype(np.int32), np.full(len(xyz), 0.5, np.float32))


def state_of(labelled, sets=None, base="b", confidence=0.8):
    ids = np.unique(labelled.instance[labelled.instance > 0]).tolist()
    objects = objects_of(dict.fromkeys(ids, confidence), dict.fromkeys(ids, 3), labelled)

    def points(edit, ending):
        if sets is None or edit.n not in sets:
            raise Unfit("no points")
        return sets[edit.n]

    return State(labelled, base, Path("."), objects, points, {}, max(ids, default=0))


def edit(n, do, ids=(), new=(), base="b", who="ann", where=None, points=0, **details):
    return Edit(
        n, do, "2026-01-02T03:04:05Z", who, base, STEP, tuple(ids), tuple(new), points,
        where or {}, {}, details,
    )  # fmt: skip


def followed(state, *edits):
    history = History(state)
    history.follow(edits)
    return history


FOUR = cloud(*(block(x) for x in (0.0, 1.0, 2.0, 3.0)))


# The file.


def test_a_line_holds_everything_of_an_edit():
    place = {1: Place.of(block(0))}
    first = edit(1, "merge", (1, 2), where=place, into=1)
    again = Edit.of_line(json.loads(json.dumps(first.line())))
    assert again.line() == first.line()
    assert again.into == 1
    assert str(again) == "merge 1 and 2 into 1"


def test_edits_are_appended_and_read_in_order(tmp_path):
    file = EditFile(tmp_path / "edits.jsonl")
    assert file.read() == ()
    for n in (1, 2):
        file.append(edit(n, "name", (n,), name=f"chair {n}"))
    assert [each.details["name"] for each in file.read()] == ["chair 1", "chair 2"]
    assert len(file.path.read_text().splitlines()) == 2


def test_a_last_line_that_was_cut_off_is_moved_aside_and_told(tmp_path):
    file = EditFile(tmp_path / "edits.jsonl")
    file.append(edit(1, "name", (1,), name="a"))
    whole = file.path.read_bytes()
    file.append(edit(2, "name", (2,), name="b"))
    file.path.write_bytes(file.path.read_bytes()[:-9])
    assert [each.n for each in file.read()] == [1]
    assert "cut off" in file.repair()
    assert file.path.read_bytes() == whole
    assert b'"name": "b' in file.torn.read_bytes() or file.torn.stat().st_size > 10
    assert file.repair() is None
    file.append(edit(2, "name", (3,), name="c"))
    assert [each.n for each in file.read()] == [1, 2]


def test_a_last_line_without_its_end_counts_where_it_is_complete(tmp_path):
    file = EditFile(tmp_path / "edits.jsonl")
    file.append(edit(1, "name", (1,), name="a"))
    file.path.write_text(file.path.read_text().rstrip("\n"))
    assert file.repair() is None
    file.append(edit(2, "name", (1,), name="b"))
    assert [each.n for each in file.read()] == [1, 2]


def test_a_full_disk_leaves_no_part_of_a_line(tmp_path, monkeypatch):
    file = EditFile(tmp_path / "edits.jsonl")
    file.append(edit(1, "name", (1,), name="a"))
    before = file.path.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(edits_module, "_to_disk", full)
    with pytest.raises(OSError, match="No space"):
        file.append(edit(2, "name", (1,), name="b"))
    assert file.path.read_bytes() == before


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{]", "line 2 is no edit"),
        ('"text"', "line 2 is no edit .it is no JSON object"),
        ("{}", "line 2 is no edit .it lacks 'do'"),
        ('{"n": 2, "do": "mrege", "at": "", "who": "", "base": ""}', "did you mean 'merge'"),
        ('{"n": 4, "do": "merge", "at": "", "who": "", "base": ""}', "lines were removed"),
        ('{"n": 2, "do": "undo", "at": "", "who": "", "base": "", "of": 9}', "about edit 9"),
        ('{"n": 2, "do": "undo", "at": "", "who": "", "base": ""}', "no edit"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, message):
    file = EditFile(tmp_path / "edits.jsonl")
    file.append(edit(1, "name", (1,), name="a"))
    with file.path.open("a") as text:
        text.write(line + "\n")
    with pytest.raises(InputError, match=message):
        file.read()


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "edits.jsonl").mkdir()
    with pytest.raises(InputError, match=r"edits.jsonl cannot be read \(Is a directory\)"):
        EditFile(tmp_path / "edits.jsonl").read()


def test_undo_takes_the_own_last_edit_and_a_new_edit_ends_redo():
    made = [
        edit(1, "name", (1,), who="ann", name="a"),
        edit(2, "name", (2,), who="bob", name="b"),
        edit(3, "undo", who="ann", of=1),
    ]
    found = Counting.of(made)
    assert [each.n for each in found.active] == [2]
    assert [each.n for each in found.undone["ann"]] == [1]
    assert [each.n for each in found.done["bob"]] == [2]
    assert not found.done["ann"]
    redone = Counting.of([*made, edit(4, "redo", who="ann", of=1)])
    assert [each.n for each in redone.active] == [1, 2]
    other = Counting.of([*made, edit(4, "name", (3,), who="ann", name="c")])
    assert not other.undone["ann"]


# Replay.


def test_merging_keeps_the_largest_confidence_and_the_only_name():
    state = state_of(FOUR)
    state.objects[2] = replace(state.objects[2], confidence=0.95)
    history = followed(state, edit(1, "name", (2,), name="shelf"), edit(2, "merge", (1, 2), into=1))
    assert not history.doubts
    assert (state.label == 1).sum() == 128
    assert 2 not in state.objects
    assert state.objects[1].name == "shelf"
    assert state.objects[1].confidence == 0.95
    assert state.objects[1].edited == (2,)
    assert state.whole[2] == 1


def test_a_part_has_the_confidence_of_its_parent_and_at_most_0_9():
    inside = np.arange(10, dtype=np.int64)
    sets = {1: PointSet.of(inside, np.ones(10, np.int32), FOUR.points.xyz, STEP)}
    for own, expected in ((0.6, 0.6), (1.0, 0.9)):
        state = state_of(FOUR, sets, confidence=own)
        followed(state, edit(1, "split", (1,), (5,), points=10))
        assert (state.label[inside] == 5).all()
        assert (state.label == 1).sum() == 54
        assert state.objects[5].confidence == state.objects[1].confidence == expected


def test_a_deleted_object_leaves_unlabelled_points_or_goes_to_its_neighbour():
    state = state_of(FOUR)
    followed(state, edit(1, "delete", (1,), into=0), edit(2, "delete", (2,), into=3))
    assert (state.label[:64] == 0).all()
    assert (state.score[:64] == 0).all()
    assert (state.label[64:192] == 3).all()
    assert state.whole == {1: 0, 2: 3, 3: 3, 4: 4}


def test_an_object_that_lost_its_last_point_is_gone():
    every = np.arange(64, dtype=np.int64)
    sets = {1: PointSet.of(every, np.ones(64, np.int32), FOUR.points.xyz, STEP)}
    state = state_of(FOUR, sets)
    followed(state, edit(1, "select", new=(5,), points=64))
    assert 1 not in state.objects
    assert state.whole[1] == 5


def test_what_cannot_be_applied_is_in_doubt_and_all_else_is_applied():
    history = followed(
        state_of(FOUR),
        edit(1, "delete", (1,), into=0),
        edit(2, "merge", (1, 2), into=2),
        edit(3, "name", (3,), name="box"),
    )
    (doubt,) = history.doubts
    assert doubt.edit.n == 2
    assert "object 1 is not there" in str(doubt)
    assert history.state.objects[3].name == "box"
    assert str(history.summary) == "3 edits by 1 person, 1 in doubt"


def test_a_class_that_is_a_number_is_that_of_the_points():
    state = state_of(FOUR)
    followed(state, edit(1, "class", (2,), **{"class": "7"}), edit(2, "class", (3,)))
    semantic = state.corrected().semantic
    assert semantic[64:128].tolist() == [7] * 64
    assert not semantic[:64].any()
    assert state_of(FOUR).corrected().semantic is None


actions = st.lists(
    st.tuples(
        st.sampled_from(["merge", "delete", "name", "split", "select", "lock", "undo", "redo"]),
        st.integers(1, 9),
        st.integers(1, 9),
    ),
    max_size=14,
)


def lines(actions):
    """Random edits, and the points of those that have some."""
    made, sets, number = [], {}, 5
    for n, (do, a, b) in enumerate(actions, start=1):
        if do in ("undo", "redo"):
            of = min(a, n - 1)
            if of == 0 or made[of - 1].do in ("undo", "redo"):
                made.append(edit(n, "name", (a,), name="x"))
            else:
                made.append(edit(n, do, of=of))
        elif do in ("split", "select"):
            index = np.arange(20 * b, 20 * b + 25, dtype=np.int64)
            sets[n] = PointSet.of(index, np.ones(25, np.int32), FOUR.points.xyz, STEP)
            ids = (a,) if do == "split" else ()
            made.append(edit(n, do, ids, (number,), points=25))
            number += 1
        elif do == "merge":
            made.append(edit(n, do, (a, b), into=a))
        else:
            details = {"into": 0} if do == "delete" else {"name": f"n{b}"} if do == "name" else {}
            made.append(edit(n, do, (a,), **details))
    return made, sets


def picture(state):
    layers = [(each.n, each.id) for each in state.layers]
    arrays = state.label.tobytes(), state.score.tobytes()
    return arrays, dict(state.objects), dict(state.whole), layers


@settings(max_examples=40, deadline=None)
@given(actions, st.sampled_from([0, 1 << 20]))
def test_the_live_state_is_that_of_a_fresh_replay_and_taking_back_all_gives_the_first(made, kept):
    made, sets = lines(made)
    live = History(state_of(FOUR, sets))
    first = picture(live.state)
    before, state_module.KEPT_BYTES = state_module.KEPT_BYTES, kept
    try:
        for n in range(1, len(made) + 1):
            live.follow(tuple(made[:n]))
            fresh = followed(state_of(FOUR, sets), *made[:n])
            assert picture(live.state) == picture(fresh.state)
            assert [str(each) for each in live.doubts] == [str(each) for each in fresh.doubts]
        live.follow(())
        assert picture(live.state) == first
    finally:
        state_module.KEPT_BYTES = before


# Another base: by where things are.


def test_an_object_is_found_in_a_cloud_of_other_points():
    coarse = cloud(
        *(block(x, side=6, step=0.07) for x in (0.0, 1.0, 2.0, 3.0)), labels=[9, 7, 5, 3]
    )
    where = {each: Place.of(block(each - 1.0)) for each in (1, 2)}
    history = followed(state_of(coarse), edit(1, "merge", (1, 2), base="old", where=where, into=2))
    assert not history.doubts
    assert (history.state.label == 7).sum() == 72
    assert 9 not in history.state.objects


def test_places_are_found_relative_to_another_local_origin():
    far = cloud(block(4.0), block(5.0), labels=[9, 7])
    far = replace(far, points=replace(far.points, offset=(5e5 - 4, 0.0, 0.0)))
    where = {1: Place.of(block(0.0)), 2: Place.of(block(1.0))}
    merged = edit(1, "merge", (1, 2), base="old", where=where, into=2)
    history = followed(state_of(far), replace(merged, offset=(5e5, 0.0, 0.0)))
    assert not history.doubts
    assert history.state.label.tolist() == [7] * len(far)
    assert followed(state_of(far), merged).doubts


def test_an_object_that_is_glued_to_another_now_is_in_doubt():
    glued = cloud(np.concatenate([block(0.0), block(0.4), block(0.8)]), block(3.0))
    where = {1: Place.of(block(0.0))}
    (doubt,) = followed(
        state_of(glued), edit(1, "name", (1,), base="old", where=where, name="box")
    ).doubts
    assert "3.0 times its surface" in doubt.reason


def with_points(made, xyz, index):
    """An edit that keeps the points of its object, and where its state finds them."""
    kept = PointSet.of(index, np.ones(len(index), np.int32), xyz, STEP)
    return replace(made, files={"edits/000001.objects.npz": "digest"}), lambda *asked: kept


def test_what_one_edit_has_put_back_is_what_later_edits_of_it_are_about():
    xyz = np.concatenate([block(0.0), block(0.4), block(0.8)])
    state = state_of(cloud(xyz, block(3.0)))
    where = {1: Place.of(block(0.0))}
    named = edit(1, "name", (1,), base="old", where=where, name="box")
    named, state.sets = with_points(named, xyz, np.arange(64))
    classed = replace(named, n=2, do="class", details={"class": "cabinet"})
    history = History(state)
    history.follow((named, classed))
    assert not history.doubts
    assert [(own.name, own.class_name) for own in state.objects.values() if own.name] == [
        ("box", "cabinet")
    ]
    assert [each.edit.n for each in history.altered] == [1]


GROWN = np.concatenate([block(0.0), block(0.4)[block(0.4)[:, 0] < 0.49]])
"""An object that has come back a quarter larger: IoU 0.8 of 64 and 80 points, 0.73 of 64 and 88."""


def test_an_object_that_came_back_otherwise_is_put_back_where_its_points_were_kept():
    larger = np.concatenate([GROWN, block(0.5)[:8]])
    state = state_of(cloud(larger, block(3.0)))
    named = edit(1, "name", (1,), base="old", where={1: Place.of(block(0.0))}, name="box")
    named, state.sets = with_points(named, larger, np.arange(64))
    history = History(state)
    history.follow((named,))
    assert not history.doubts
    (box,) = (each for each, own in state.objects.items() if own.name == "box")
    assert np.flatnonzero(state.label == box).tolist() == list(range(64))
    little = np.concatenate([block(0.0), block(0.4)[:4]])
    state = state_of(cloud(little, block(3.0)))
    state.sets = with_points(named, little, np.arange(64))[1]
    history = History(state)
    history.follow((named,))
    assert state.objects[1].name == "box"
    assert not history.altered


def test_an_edit_of_what_came_back_otherwise_is_applied_and_told():
    larger = np.concatenate([GROWN, block(0.5)[:8]])
    state = state_of(cloud(larger, block(3.0)))
    accepted = edit(1, "accept", (1,), base="old", where={1: Place.of(block(0.0))})
    history = followed(state, accepted)
    assert not history.doubts
    assert state.objects[1].reviewed
    (told,) = history.altered
    assert 0.7 < told.iou < 0.8
    assert not told.put_back
    assert f"object 1 here, which overlaps with what it was by an IoU of {told.iou:.2f}" in str(
        told
    )
    history.follow(())
    assert not history.altered


def test_of_an_object_that_a_person_has_named_nothing_is_put_back():
    larger = np.concatenate([GROWN, block(0.5)[:8]])
    state = state_of(cloud(larger, block(3.0)))
    own = edit(1, "name", (1,), name="desk")
    named = edit(2, "name", (1,), base="old", where={1: Place.of(block(0.0))}, name="box")
    named, state.sets = with_points(named, larger, np.arange(64))
    history = followed(state, own, named)
    assert not history.doubts
    assert state.objects[1].name == "box"
    assert [(each.now, round(each.iou, 2)) for each in history.altered] == [(1, 0.73)]
    state = state_of(cloud(np.concatenate([larger, block(0.5, 0.5)]), block(3.0)))
    state.sets = with_points(named, larger, np.arange(64))[1]
    assert followed(state, own, named).altered[0].put_back  # it is less than half of that one
    state = state_of(cloud(larger, block(3.0)))
    state.sets = with_points(named, larger, np.arange(0, 64, 2))[1]
    history = followed(state, edit(1, "lock", (1,)), named)
    assert [each.edit.n for each in history.doubts] == [2]


def test_an_object_that_is_glued_now_is_put_back_where_its_points_were_kept():
    xyz = np.concatenate([block(0.0), block(0.4), block(0.8)])
    state = state_of(cloud(xyz, block(3.0)))
    kept = PointSet.of(np.arange(64), np.ones(64, np.int32), xyz, STEP)
    where = {1: Place.of(block(0.0))}
    named = edit(1, "name", (1,), base="old", where=where, name="box")
    named = replace(named, files={"edits/000001.objects.npz": "digest"})
    state.sets = lambda edit, ending: {"objects.npz": kept}[ending]
    first = state.label.copy()
    history = History(state)
    history.follow((named,))
    assert not history.doubts
    assert [(each.was, each.put_back) for each in history.altered] == [(1, True)]
    (box,) = (each for each, own in state.objects.items() if own.name == "box")
    assert box not in first
    assert (state.label[:64] == box).all()
    assert np.array_equal(state.label[64:], first[64:])
    assert 1 in state.objects[box].edited
    history.follow((named, edit(2, "undo", of=1)))
    assert np.array_equal(state.label, first)
    assert box not in state.objects
    locked = edit(1, "lock", (1,))
    history.follow((locked, replace(named, n=2)))  # no point of a locked object is taken
    assert [each.edit.n for each in history.doubts] == [2]
    assert np.array_equal(state.label, first)


def test_an_object_that_is_half_or_twice_as_large_now_is_in_doubt():
    where = {1: Place.of(block(0.0))}
    for grown in (block(0.0)[::2], np.concatenate([block(0.0), block(0.0) + 0.02])):
        (doubt,) = followed(
            state_of(cloud(grown, *(block(x) for x in (1.0, 2.0, 3.0, 4.0)))),
            edit(1, "name", (1,), base="old", where=where, name="box"),
        ).doubts
        assert "times its surface" in doubt.reason


@pytest.mark.parametrize(
    ("labels", "reason"),
    [((0, 2), "no object is there"), ((2, 0), "in the place of two of its objects")],
)
def test_objects_that_are_gone_or_one_now_are_in_doubt(labels, reason):
    two = cloud(block(0.0), block(0.4), labels=labels)
    where = {1: Place.of(block(0.0)), 2: Place.of(block(0.0)[4:])}
    merged = edit(1, "merge", (1, 2), base="old", where=where, into=2)
    (doubt,) = followed(state_of(two), merged).doubts
    assert reason in doubt.reason


def test_points_are_found_in_another_cloud_up_to_their_border():
    fine = block(0.0, side=12)
    left = np.flatnonzero(fine[:, 0] < 0.28)
    points = PointSet.of(left.astype(np.int64), np.ones(len(left), np.int32), fine, STEP)
    other = block(0.013, 0.011, side=10, step=0.06)
    index, part, share = Finder(other, 0.06).set_at(points, STEP)
    assert set(part.tolist()) == {1}
    assert share > 0.9
    inside = np.isin(np.arange(len(other)), index)
    assert np.mean(inside == (other[:, 0] < 0.275)) > 0.95
    assert other[inside][:, 0].max() < 0.33


def test_a_number_of_another_lift_becomes_a_free_one():
    fine = FOUR.points.xyz
    sets = {1: PointSet.of(np.arange(10), np.ones(10, np.int32), fine, STEP)}
    state = state_of(FOUR, sets)
    followed(state, edit(1, "select", new=(3,), base="old", points=10))
    assert sorted(state.objects) == [1, 2, 3, 4, 7]
    assert (state.label == 7).sum() == 10


def test_a_person_settles_a_doubt_by_naming_the_objects():
    merged = edit(1, "merge", (11, 12), base="old", into=12)
    history = History(state_of(FOUR))
    history.follow((merged,))
    assert history.doubts
    history.follow((merged, edit(2, "settle", (3, 4), of=1)))
    assert not history.doubts
    assert (history.state.label == 4).sum() == 128


# Splitting.


def test_clicks_divide_along_a_change_of_colour_and_of_normal():
    rgb = np.full((192, 3), 60, np.uint8)
    rgb[64:128] = 200
    row = cloud(block(0.0), block(0.4), block(0.8), labels=[1, 1, 1], rgb=rgb)
    surface = SurfaceOf(row.points, np.arange(192), STEP)
    # Close to the border: by straight distance the middle block would be divided elsewhere.
    parts = surface.by_clicks([[0.05, 0.2, 0], [0.7, 0.2, 0], [1.1, 0.2, 0]])
    assert parts.count == 3
    for start in (0, 64, 128):
        assert len(np.unique(parts.part[start : start + 64])) == 1
    both = surface.by_clicks([[0.05, 0.2, 0], [0.7, 0.2, 0], [1.1, 0.2, 0]], [0, 1, 0])
    assert both.part.tolist() == [0] * 64 + [1] * 64 + [0] * 64


@pytest.mark.parametrize(
    ("clicks", "groups", "message"),
    [
        ([[0, 0, 0]], None, "two or more"),
        ([[0, 0, 0], [0.3, 0, 0]], [1, 1], "two or more"),
        ([[0, 0, 0], [0.001, 0, 0]], None, "further apart"),
        ([[0, 0, 0], [np.nan, 0, 0]], None, "no place"),
        ([[0, 0, 0], [0.3, 0, 0]], [1], "one each"),
        ([[0, 0, 0], [1.3, 0, 0]], None, "1.3, 0, 0 is 0.95 from the object, which lies between 0"),
    ],
)
def test_clicks_that_make_no_parts_are_refused(clicks, groups, message):
    with pytest.raises(InputError, match=message):
        SurfaceOf(FOUR.points, np.arange(64), STEP).by_clicks(np.array(clicks), groups)


def test_a_plane_and_what_does_not_hang_together_divide_too():
    whole = np.arange(128)
    surface = SurfaceOf(FOUR.points, whole, STEP)
    assert surface.by_plane([1, 0, 0, -0.5]).part.tolist() == [0] * 64 + [1] * 64
    assert surface.connected().count == 2
    assert SurfaceOf(FOUR.points, whole[:64], STEP).connected().count == 1
    with pytest.raises(InputError, match="no plane"):
        surface.by_plane([0, 0, 0, 1])


def test_what_an_object_touches_most():
    row = cloud(block(0.0), block(0.4), block(0.0, 0.6), block(9.0))
    assert touched_most(row.points.xyz, row.instance, [1], STEP) == 2
    assert touched_most(row.points.xyz, row.instance, [4], STEP) == 0


def test_corrections_in_words():
    assert str(Corrections(14, 2, 0)) == "14 edits by 2 people"
    assert str(Corrections(0, 0, 0)) == "no edits"
    assert Corrections.of_json(Corrections(3, 1, 2).as_json()) == Corrections(3, 1, 2)
