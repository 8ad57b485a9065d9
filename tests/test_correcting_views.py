"""Correct a run: what becomes of the pixels of every view."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from corrected_room import by_size, config, ends

from lift3d.correction.maps import SPLAT
from lift3d.geometry.visibility import cloud_spacing, front_points
from lift3d.run.correct import automatic_map
from lift3d.run.lift import lift
from lift3d.run.run import Run
from lift3d.scene.errors import InputError
from lift3d.scene.labelmaps import read_label_map


@pytest.fixture(scope="module")
def lifted(tmp_path_factory):
    return lift(config(tmp_path_factory.mktemp("room") / "run")).folder


@pytest.fixture
def run(lifted, tmp_path):
    shutil.copytree(lifted, tmp_path / "run")
    return Run.open(tmp_path / "run")


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
