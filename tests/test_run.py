"""A run as one thing: opened lazily, wherever it lies, and asked why a label is what it is."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_export import lifted_run

from lift3d.association import AssociationConfig, associate
from lift3d.association.assignments import KEPT, REASONS, SMALL, UNCONFIRMED, Assignments
from lift3d.association.surface import Surface, majority
from lift3d.cli import main
from lift3d.datasets import read_scene
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.export.ply import write_cloud
from lift3d.run.lift import lift
from lift3d.run.run import Run
from lift3d.run.settings import LiftConfig
from lift3d.run.why import NEAR, MaskAt, Point, Why
from lift3d.scene import LabelledPoints
from lift3d.scene.errors import InputError
from lift3d.scene.labelmaps import read_label_map, write_label_map
from lift3d.segmentation.folder import FolderConfig
from lift3d.segmentation.simulated import SimulatedConfig

ROOM = SyntheticConfig(views=6, width=96, height=72)


@pytest.fixture(scope="module")
def lifted(tmp_path_factory):
    """A run of a small room whose masks have other ids in every view."""
    folder = tmp_path_factory.mktemp("room") / "run"
    return lift(simulated(folder)).folder


def simulated(folder):
    return LiftConfig(
        Path("synthetic:2"), folder, reader=ROOM, voxel=0.05, segmentation=SimulatedConfig()
    )


def answers(folder, scan=None):
    """What a run says, in words that can be compared."""
    run = Run.open(folder, scan)
    view = list(run.cameras)[2]
    why = [str(run.why(view, (x, 30))) for x in (10, 40, 70)]
    return {
        "name": run.name,
        "objects": run.objects,
        "points": run.cloud.points.xyz.tobytes(),
        "instance": run.cloud.instance.tobytes(),
        "labels": {name: labels.tobytes() for name, labels in run.labels.items()},
        "masks": {name: masks.tobytes() for name, masks in run.masks.items()},
        "poses": [camera.pose.tobytes() for camera in run.cameras.values()],
        "depth": [view.depth().tobytes() for view in run.scene.views],
        "H": run.consistency["printed"],
        "why": why,
    }


def test_nothing_is_read_before_it_is_asked_for(lifted, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(lifted, copy)
    run = Run.open(copy)
    (copy / "cloud.ply").write_bytes(b"not a cloud")
    (copy / "labels/0003.png").unlink()
    assert run.objects
    with pytest.raises(InputError, match="cloud"):
        run.cloud  # noqa: B018 - a property that reads
    with pytest.raises(InputError, match="no label map of view 0003"):
        run.labels["0003"]


def test_a_moved_copied_renamed_or_linked_run_answers_alike(lifted, tmp_path, monkeypatch):
    first = answers(lifted)
    copied = tmp_path / "copied"
    shutil.copytree(lifted, copied)
    assert answers(copied) == first
    renamed = tmp_path / "deeper" / "another name"
    renamed.parent.mkdir()
    copied.rename(renamed)
    assert answers(renamed) == first
    (tmp_path / "link").symlink_to(renamed)
    assert answers(tmp_path / "link") == first
    monkeypatch.chdir(renamed.parent)
    assert answers(Path("another name")) == first


def test_a_scan_that_moved_together_with_its_run_is_found(tmp_path):
    from tiny_scan import tiny_scan, write_scannet

    place = tmp_path / "before"
    write_scannet(place / "scan", tiny_scan(views=6))
    masks = place / "masks"
    for view in read_scene(place / "scan").views:
        labels = np.zeros((view.camera.height, view.camera.width), np.int32)
        labels[:, : labels.shape[1] // 2] = 1
        write_label_map(masks, view.name, labels)
    command = [*("lift", str(place / "scan"), "--out", str(place / "run"), "--voxel", "0.05")]
    assert main([*command, "segmentation:folder", "--segmentation.path", str(masks)]) == 0
    picture = Run.open(place / "run").scene.views[0].image()
    place.rename(tmp_path / "after")
    moved = Run.open(tmp_path / "after" / "run")
    assert np.array_equal(moved.scene.views[0].image(), picture)
    assert len(moved.whole_scene) == len(moved.cameras)


def test_without_its_scan_a_run_opens_and_says_what_is_missing(lifted, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(lifted, copy)
    content = json.loads((copy / "scene.json").read_text())
    content["origin"] |= {"path": str(tmp_path / "gone"), "reader": "scannet-folder", "options": {}}
    (copy / "scene.json").write_text(json.dumps(content))
    run = Run.open(copy)
    assert len(run.cloud) == len(Run.open(lifted).cloud)
    assert run.objects
    assert run.why("0002", (40, 30)).view == "0002"
    with pytest.raises(InputError, match=r"cannot be opened.*put the scan back"):
        run.scene.views[0].image()


def test_an_unfinished_run_is_refused(lifted, tmp_path):
    shutil.copytree(lifted, tmp_path / "copy")
    (tmp_path / "copy/run.json").unlink()
    with pytest.raises(InputError, match="finished"):
        Run.open(tmp_path / "copy")


def test_why_follows_a_pixel_from_its_mask_to_its_object(lifted):
    run = Run.open(lifted)
    cloud, checked = run.cloud, 0
    for view in run.cameras:
        masks, labels = run.masks[view], run.labels[view]
        for x, y in ((20, 20), (48, 36), (70, 50)):
            why = run.why(view, (x, y))
            assert (why.mask, why.label) == (masks[y, x], labels[y, x])
            for mask in why.masks:
                if mask.became and not mask.divided:
                    assert why.label == mask.became
                    assert mask.reason == REASONS[KEPT]
                    assert f"became object {mask.became}" in str(why)
                    checked += 1
            if why.point is not None:
                assert why.point.object == cloud.instance[why.point.index]
    assert checked > 5


def test_why_of_a_pixel_or_view_that_is_not_there_is_refused(lifted):
    run = Run.open(lifted)
    with pytest.raises(InputError, match="96 columns and 72 rows"):
        run.why("0000", (96, 0))
    with pytest.raises(InputError, match="unknown view '00000'; did you mean '0000'"):
        run.why("00000", (1, 1))


def test_why_of_no_number_is_refused(lifted):
    for x in (np.nan, np.inf):
        with pytest.raises(InputError, match="no place"):
            Run.open(lifted).why("0000", (x, 1))


def test_what_why_reads_is_made_again_where_it_is_missing(lifted, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(lifted, copy)
    run = Run.open(copy)
    before = str(run.why("0002", (40, 30)))
    run.files.evaluation.write_text("{}")
    for path in (run.files.automatic.assignments, run.files.automatic.surface):
        path.unlink()
    with pytest.raises(InputError, match=r"assignments\.npz is missing"):
        Run.open(copy).why("0002", (40, 30))
    again = lift(simulated(copy))
    assert str(again.why("0002", (40, 30))) == before
    assert not [each for each in again.warnings if "evaluation" in each]  # the same labels
    again = lift(replace(simulated(copy), association=AssociationConfig(points=200)))
    assert [each for each in again.warnings if "evaluation.json has scores" in each]


def test_why_shows_whether_the_pixel_has_depth(lifted):
    run = Run.open(lifted)
    for view in run.scene.views:
        depth = view.depth()
        for present in (True, False):
            rows, columns = np.nonzero((depth > 0) == present)
            if len(rows):
                why = run.why(view.name, (columns[0], rows[0]))
                assert why.has_depth is present
                word = "measured" if present else "none"
                assert f"depth: {word} at this pixel" in str(why).splitlines()


def test_why_shows_how_far_the_nearest_visible_point_is(lifted):
    why = Run.open(lifted).why("0002", (40, 30))
    assert 0 <= why.point.distance <= NEAR
    assert f"nearest visible point, {why.point.distance:.0f} px away" in str(why)
    assert "without the depth map" in str(why)
    assert f"no point is seen within {NEAR:.0f} px" in str(replace(why, point=None))


def test_why_shows_that_a_label_was_edited_by_hand(lifted, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(lifted, copy)
    labels = read_label_map(copy / "labels/0002.png").copy()
    before = int(labels[30, 40])
    labels[30, 40] = before + 7
    write_label_map(copy / "labels", "0002", labels)
    why = str(Run.open(copy).why("0002", (40, 30)))
    assert f"object {before + 7}, edited by hand; it was object {before}" in why
    assert "edited by hand" not in str(Run.open(copy).why("0002", (20, 20)))


def test_why_uses_the_word_divided(lifted):
    why = Run.open(lifted).why("0002", (40, 30))
    why = replace(why, masks=(replace(why.masks[0], divided=True),))
    assert "\ndivided: it covers several objects" in str(why)
    assert "split" not in str(why)


QUOTED = re.compile(r"```console\n(.*?)```", re.DOTALL)


def test_the_page_on_wrong_labels_quotes_what_the_program_prints():
    """Every quoted answer has the words of the code around its numbers and reasons."""
    page = (Path(__file__).resolve().parents[1] / "docs/wrong-labels.md").read_text()
    quotes = [line for block in QUOTED.findall(page) for line in block.splitlines()]
    point = Point(1, 2, 0.7, 3, 1.0, (0.5, 1.0, 2.0))
    kept = MaskAt(1, 1.0, 1, REASONS[SMALL], 9, 0.5)
    of_two = replace(kept, second=4, second_share=0.4, divided=True)
    samples = [
        Why("0016", (1, 2), label, masks, at, automatic, depth)
        for label, masks, at, automatic, depth in (
            (5, (kept, of_two), point, 5, True),
            (0, (replace(kept, became=0), replace(of_two, became=0)), point, 0, False),
            (0, (), None, 4, None),
            (3, (MaskAt(2),), None, 3, None),
        )
    ]
    forms = {_form(line) for each in samples for line in str(each).splitlines()}
    assert len(quotes) > 8
    assert [line for line in quotes if _form(line) not in forms] == []
    cells = re.findall(r"^\| ((?:mask|cloud|depth|divided)\b[^|]*?) \|", page, re.MULTILINE)
    assert len(cells) > 4
    starts = tuple({each.partition(":")[0] + ":" for each in forms})
    assert [each for each in cells if not each.startswith(starts)] == []
    quoted = re.findall(r"was dropped: ([^|;]*?) \|", page)
    assert len(quoted) == 3
    assert set(quoted) <= set(REASONS)


def _form(line):
    """A line without its numbers."""
    return re.sub(r"[0-9]+", "#", line)


def test_the_command_answers_why(lifted, capsys):
    assert main(["why", str(lifted), "0002", "40", "30"]) == 0
    printed = capsys.readouterr().out
    assert printed.strip() == str(Run.open(lifted).why("0002", (40, 30)))
    assert main(["why", str(lifted), "0002", "400", "30"]) == 2
    assert "outside view 0002" in capsys.readouterr().err


def test_what_became_of_the_masks_is_what_the_label_maps_show(lifted):
    run = Run.open(lifted)
    found = run.assignments
    masks = sum(len(np.unique(m[m > 0])) for m in run.masks.values())
    assert 0.9 * masks <= len(found) <= masks  # those in which no point is seen have no row
    for index, view in enumerate(run.cameras):
        masks, labels = run.masks[view], run.labels[view]
        for row in range(*found.of_view(index).indices(len(found))):
            if not found.divided[row]:
                assert set(np.unique(labels[masks == found.mask[row]])) == {found.object[row]}
            assert (found.object[row] > 0) == (found.reason[row] == KEPT)
    assert ((found.share >= found.second_share) & (found.share <= 1)).all()


def test_superpoints_hold_the_points_of_their_object(lifted):
    run = Run.open(lifted)
    surface, cloud = run.surface, run.cloud
    assert len(surface.superpoint) == len(cloud)
    count = len(surface.object)
    assert np.array_equal(majority(surface.superpoint, cloud.instance, count), surface.object)
    assert (surface.edges[:, 0] < surface.edges[:, 1]).all()
    assert ((surface.strength >= 0) & (surface.strength <= 1)).all()


def test_the_tree_that_decided_by_shape_is_kept(tmp_path):
    config = LiftConfig(Path("synthetic:2"), tmp_path / "run", reader=ROOM, voxel=0.05)
    run = lift(config)
    surface = run.surface
    leaves = len(surface.node)
    assert len(surface.joins) == len(surface.likelihood) > 0
    for number, children in enumerate(surface.joins, start=leaves):
        assert children.max() < number  # a join is of nodes that were there
    assert surface.node.max() < leaves + len(surface.joins)


def test_objects_of_vertices_far_apart_are_found_on_the_fused_surface(tmp_path):
    """Also in a sparse subset of its points a fused cloud has the objects of the whole."""
    config = LiftConfig(Path("synthetic:2"), tmp_path / "run", reader=ROOM, voxel=0.05)
    fused = lift(config).cloud
    cloud = tmp_path / "few.ply"
    few = np.arange(0, len(fused.points), 9)
    instance, score = fused.instance[few], fused.score[few]
    write_cloud(cloud, LabelledPoints(fused.points.take(few), instance, score))
    found = lift(replace(config, cloud=cloud, out=tmp_path / "few")).cloud
    for each in np.unique(fused.instance[fused.instance > 0]):
        true = fused.instance[few] == each
        if true.sum() < config.association.points:
            continue
        best = max((true & (found.instance == i)).sum() for i in range(1, found.instance.max() + 1))
        assert best > 0.9 * true.sum()


def test_masks_that_came_to_nothing_say_why():
    """Panel 3 has a mask in the last view only, though several see it."""
    from panel_wall import scan, wall

    points = wall()
    scene, maps = scan()
    names = [view.name for view in scene.views]
    lost = {
        name: labels if name == names[-1] else np.where(labels == 3, 0, labels).astype(np.int32)
        for name, labels in zip(names, maps, strict=True)
    }
    found = associate(points, scene, lost, AssociationConfig(views=2)).assignments
    row = found.row(len(names) - 1, 3)
    assert row is not None
    assert (found.object[row], found.reason[row]) == (0, UNCONFIRMED)
    assert (found.reason[found.mask < 3] == KEPT).all()


def test_masks_of_objects_that_are_too_small_say_so():
    """Eight points are left of panel 1, too few for an object."""
    from panel_wall import scan, wall

    points = wall()
    left = points.xyz[:, 0] < 0
    points = points.take(~left | (np.cumsum(left) <= 8))
    scene, maps = scan()
    named = {view.name: labels for view, labels in zip(scene.views, maps, strict=True)}
    found = associate(points, scene, named, AssociationConfig(points=100)).assignments
    assert {SMALL} <= set(found.reason[found.mask == 1].tolist()) <= {SMALL, UNCONFIRMED}
    assert set(found.reason[found.mask == 2].tolist()) == {KEPT}


def test_what_is_kept_beside_the_labels_is_read_back(lifted, tmp_path):
    run = Run.open(lifted)
    for kind, value in ((Assignments, run.assignments), (Surface, run.surface)):
        value.save(tmp_path / "kept.npz")
        again = kind.load(tmp_path / "kept.npz")
        for name, array in vars(value).items():
            assert np.array_equal(getattr(again, name), array)
            assert getattr(again, name).dtype == array.dtype
        (tmp_path / "kept.npz").write_bytes(b"PK")
        with pytest.raises(InputError, match="cannot be read"):
            kind.load(tmp_path / "kept.npz")


def test_automatic_labels_are_kept_apart_and_correct_changes_nothing_without_edits(lifted):
    run = Run.open(lifted)
    assert list(run.records)[-4:] == ["associate", "correct", "check", "report"]
    assert np.array_equal(run.automatic.instance, run.cloud.instance)
    for name in run.cameras:
        automatic = read_label_map(run.files.automatic.labels / f"{name}.png")
        assert np.array_equal(automatic, run.labels[name])


def test_labels_changed_by_hand_leave_the_automatic_ones_alone(lifted, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(lifted, copy)
    before = (copy / "automatic/labels/0000.png").read_bytes()
    run = Run.open(copy)
    write_label_map(run.files.labels, "0000", np.zeros_like(run.labels["0000"]))
    assert (copy / "automatic/labels/0000.png").read_bytes() == before
    assert not Run.open(copy).labels["0000"].any()


def test_edits_that_this_version_cannot_apply_are_not_passed_over(tmp_path):
    folder = lifted_run(tmp_path)
    (folder / "edits.jsonl").write_text('{"n": 1, "do": "merge", "ids": [1, 2]}\n')
    masks = FolderConfig(path=tmp_path / "masks", ids="consistent")
    room = SyntheticConfig(views=5, width=64, height=48)
    config = LiftConfig(Path("synthetic"), folder, reader=room, voxel=0.08, segmentation=masks)
    with pytest.raises(InputError, match=r"edits\.jsonl, line 1 is no edit"):
        lift(config)
