"""Before an edit: one click, what is likely wrong, H about, and corrections as training data."""

import contextlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_edits import STEP, block, cloud, edit, state_of

from lift3d.association.surface import Surface
from lift3d.cli import main
from lift3d.correction.clicks.asking import inner_points
from lift3d.correction.clicks.choosing import corrected
from lift3d.correction.clicks.pointing import Click, PointClick, in_best_view
from lift3d.correction.doubts import Known, to_look_at
from lift3d.correction.history import Doubt
from lift3d.correction.joins import JoinTree, by_strength
from lift3d.correction.proposals import by_view
from lift3d.correction.state import Layer, Properties
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.run.lift import lift
from lift3d.run.run import Run
from lift3d.run.settings import LiftConfig
from lift3d.scene import Masks, Prompt
from lift3d.scene.errors import InputError
from lift3d.scene.labelmaps import read_label_map, write_label_map
from lift3d.scene.protocols import Segmenter
from lift3d.segmentation.simulated import SimulatedConfig

ROOM = SyntheticConfig(views=6, width=96, height=72)
BROKEN = SimulatedConfig(split=0.6, merge=0.3, rough=2.0, drop=0.1)


@pytest.fixture(scope="module")
def lifted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("looking") / "run"
    config = LiftConfig(Path("synthetic:2"), folder, reader=ROOM, voxel=0.05, segmentation=BROKEN)
    return lift(config).folder


@pytest.fixture
def run(lifted, tmp_path):
    shutil.copytree(lifted, tmp_path / "run")
    return Run.open(tmp_path / "run")


# The tree of joins.

TREE = Surface(
    superpoint=np.repeat(np.int32([0, 1, 2, 3, -1]), 4),
    edges=np.int32([[0, 1], [1, 2], [2, 3]]),
    strength=np.float32([0.9, 0.4, 0.8]),
    joins=np.int32([[0, 1], [2, 3], [4, 5]]),
    likelihood=np.float32([0.9, 0.8, 0.3]),
    node=np.int32([4, 4, 5, 5]),
    object=np.int32([1, 1, 2, 2]),
)


def test_a_click_gives_the_node_of_its_object_with_parts_below_and_wholes_above():
    tree = JoinTree(TREE)
    level, path = tree.level(0)
    assert tree.points_of(path[level]).tolist() == list(range(8))
    assert tree.points_of(path[level + 1]).tolist() == list(range(16))
    assert tree.points_of(path[level - 1]).tolist() == [0, 1, 2, 3]
    assert tree.level(0, 99)[0] == 2
    assert tree.level(0, -5)[0] == 0


def test_a_node_without_a_point_is_found_further_down():
    tree = JoinTree(TREE)
    level, path = tree.level(0, remove=[5])
    assert tree.points_of(path[level]).tolist() == [0, 1, 2, 3]
    with pytest.raises(InputError, match="without the others"):
        tree.level(0, remove=[1])
    with pytest.raises(InputError, match="no piece"):
        tree.level(17)


def test_the_last_joins_are_taken_back_and_crumbs_make_no_part():
    tree = JoinTree(TREE)
    every = np.arange(20)
    assert tree.division(every[:16], 2).tolist() in ([0] * 8 + [1] * 8, [1] * 8 + [0] * 8)
    four = tree.division(every[:18], 9)
    assert len(np.unique(four)) == 4  # no more than superpoints; noise stays with a part
    assert len(np.unique(four[:16].reshape(4, 4), axis=1)[0]) == 1
    few = np.append(every[:8], 8)  # one point of another half, a crumb where it is a hundredth
    assert len(np.unique(tree.division(few, 2))) == 2
    many = np.append(np.repeat(every[:8], 20), 8)
    assert np.bincount(tree.division(many, 2)).tolist() in ([80, 81], [81, 80])
    assert tree.division(every[16:], 3).tolist() == [0] * 4  # noise only


def test_without_joins_superpoints_are_joined_by_strength():
    nothing = np.zeros((0, 2), np.int32), np.zeros(0, np.float32)
    own = np.arange(4, dtype=np.int32)
    bare = Surface(TREE.superpoint, TREE.edges, TREE.strength, *nothing, own, TREE.object)
    tree = JoinTree(bare)
    level, path = tree.level(0)
    assert [len(tree.points_of(node)) for node in path] == [4, 8, 16]
    assert level == 0
    assert by_strength(bare.edges, bare.strength, 4).tolist() == [[0, 1], [2, 3], [4, 5]]


# The queue.


def known(labelled, **more):
    objects = {each: Properties(0.9, 3) for each in np.unique(labelled.instance).tolist() if each}
    return Known(labelled.instance, objects, xyz=labelled.points.xyz, **more)


ROW = cloud(*(block(x) for x in (0.0, 0.4, 0.8, 1.2)))


def test_what_is_right_is_not_listed():
    assert to_look_at(known(ROW)) == ()


def test_edits_in_doubt_come_first_then_the_largest_gain():
    base = known(
        ROW,
        overlap={2: 0.3},
        view_agreement={"a": 0.99, "b": 0.98, "c": 0.8, "d": None},
        doubts=(Doubt(edit(7, "name", (9,), name="x"), "object 9 is not found"),),
    )
    objects = {**base.objects, 3: Properties(0.01, 1), 4: Properties(0.02, 1)}
    found = to_look_at(replace(base, objects=objects))
    assert found[0].edit == 7
    assert [each.gain for each in found] == sorted((each.gain for each in found), reverse=True)
    by_kind = {each.kind: each for each in found}
    assert len(by_kind) == len(found) == 4
    assert by_kind["several"].ids == (2,)
    assert "30%" in by_kind["several"].reason
    assert by_kind["crumb"].proposal == ("sweep", {"ids": (3, 4)})
    assert by_kind["view"].view == "c"
    accepted = {each: replace(own, reviewed=True) for each, own in objects.items()}
    left = to_look_at(replace(base, objects=accepted))
    assert [each.kind for each in left] == ["edit", "view"]


def test_neighbours_that_were_nearly_joined_are_proposed_as_one():
    pieces = np.repeat(np.int32([0, 1, 2, 3]), 64)
    surface = replace(TREE, superpoint=pieces)
    found = to_look_at(known(ROW, surface=surface))
    assert [(each.kind, each.proposal) for each in found] == [("one", ("merge", {"ids": (2, 3)}))]


def test_floor_and_walls_are_proposed_with_nothing_also_where_an_edit_changed_their_confidence():
    floor = block(0.0, side=24)
    stands = np.stack([floor[:, 0], floor[:, 1] * 0 + 0.3, 0.02 + floor[:, 1]], 1)
    room = cloud(floor, stands[:300], stands[300:])
    pieces = np.repeat(np.int32([0, 1, 2]), [len(floor), 300, len(stands) - 300])
    edges, strength = np.int32([[0, 1], [1, 2]]), np.float32([0.45, 0.45])
    surface = replace(TREE, superpoint=pieces, edges=edges, strength=strength)
    found = to_look_at(known(room, surface=surface))
    assert [each.ids for each in found] == [(2, 3)]  # what stands in the middle


def test_an_object_that_is_likely_several_is_divided_where_the_tree_joined_it():
    pieces = np.repeat(np.int32([0, 1, 2, 3]), 64)
    surface = replace(TREE, superpoint=pieces)
    one = cloud(block(0.0), block(0.4), block(0.8), block(1.2), labels=[1, 1, 2, 2])
    base = replace(known(one, tree=JoinTree(surface)), overlap={1: 0.2})
    (first,) = to_look_at(base)
    method, words = first.proposal
    assert method == "split"
    assert words["object_id"] == 1
    sides = sorted(each[0] < 0.38 for each in words["clicks"])
    assert sides == [False, True]


def test_two_views_painted_against_each_other_are_listed():
    first = Layer(3, "a", Path(), 1, np.arange(40))
    second = Layer(5, "b", Path(), 2, np.arange(20, 60))
    (found,) = to_look_at(known(ROW, layers=(first, second)))
    assert (found.kind, found.edit, found.view) == ("edit", 5, "b")
    assert "20 points otherwise than edit 3" in found.reason
    assert not to_look_at(known(ROW, layers=(first, replace(second, id=1))))


# On a run.


def test_what_the_queue_proposes_can_be_done(run):
    queue = run.edits.queue()
    assert queue
    assert [each.gain for each in queue] == sorted((each.gain for each in queue), reverse=True)
    for each in queue:
        if each.proposal is not None:
            method, words = each.proposal
            with contextlib.suppress(InputError):  # an earlier proposal changed its objects
                getattr(run.edits, method)(**words)
    assert run.edits.active
    assert not run.edits.doubts


class TrueMasks(Segmenter):
    """A segmenter that answers with the true mask under the first click."""

    def __init__(self):
        self.asked = []

    def segment(self, view):
        return Masks.from_label_map(view.instances())

    def prompt(self, view, prompts):
        self.asked.append(view.name)
        truth = view.instances()
        stack = []
        for each in prompts:
            column, row = each.xy[each.positive][0].round().astype(int)
            stack.append((truth == truth[row, column]) & (truth[row, column] > 0))
        return Masks(np.array(stack), np.full(len(stack), 0.97, np.float32))


def clicked(run):
    """A view and a pixel of an object of middle size, and its true id."""
    view = run.whole_scene.views[2]
    truth = view.instances()
    ids, counts = np.unique(truth[truth > 0], return_counts=True)
    each = ids[np.argsort(counts)[len(ids) // 2]]
    rows, columns = np.nonzero(truth == each)
    at = len(rows) // 2
    return view.name, (float(columns[at]), float(rows[at])), each


def test_a_click_in_a_picture_is_carried_to_other_views_and_kept_with_its_prompts(run):
    run = Run(run.folder, scene=run.whole_scene)
    view, xy, _ = clicked(run)
    segmenter = TrueMasks()
    proposals = list(run.edits.propose_segmented([Click(view, np.array(xy), True)], segmenter))
    assert [each.views for each in proposals] == list(range(1, proposals[0].of + 1))
    last = proposals[-1]
    assert 0 < last.score <= 0.9
    assert segmenter.asked[0] == view
    assert len(set(segmenter.asked)) == len(segmenter.asked) > 1
    point = run.edits.point_at(view, xy)
    assert point in last.points
    kept = run.edits.segment(last)
    (new,) = kept.edit.new
    assert np.array_equal(run.edits.points_of(new), last.points)
    assert kept.edit.details["prompts"][0]["view"] == view
    again = Run.open(run.folder).edits  # without any segmenter
    assert np.array_equal(again.points_of(new), last.points)
    assert run.edits.label_map(view)[int(xy[1]), int(xy[0])] == new


def test_a_click_of_the_page_in_all_views_is_what_run_prompt_gives(run):
    run = Run(run.folder, scene=run.whole_scene)
    view, xy, _ = clicked(run)
    *_, last = run.edits.propose_segmented([Click(view, np.array(xy), True)], TrueMasks(), 99)
    found = run.prompt({view: Prompt(np.array([xy]), np.array([True]))}, TrueMasks())
    np.testing.assert_array_equal(last.points, found.points())
    assert set(last.masks) == {view, *found.answer.asked[0]}


def test_clicks_in_several_views_are_for_the_segmenter_what_they_are_for_run_prompt(
    run, monkeypatch
):
    run = Run(run.folder, scene=run.whole_scene)
    first, further = corrections(run)
    point = run.edits.point_at(further[0].view, tuple(further[0].xy))
    *_, last = run.edits.propose_segmented([first, *further], TrueMasks(), 99)
    prompts = by_view(run.clickable.place, [first, *further])
    told = [(name, sign) for name, each in prompts.items() for sign in each.positive]
    assert told == [(each.view, each.positive) for each in [first, *further]]
    found = run.prompt(prompts, TrueMasks())
    np.testing.assert_array_equal(last.points, found.points())
    assert set(last.masks) >= {each.view for each in [first, *further] if each.positive}
    signs = [each.positive.tolist() for each in prompts.values()]
    assert [each["positive"] for each in last.prompts[: len(prompts)]] == signs
    in_cloud = PointClick(point, True)
    there = in_best_view(run.clickable.place, in_cloud)
    proposals = list(run.edits.propose_segmented([first, in_cloud], TrueMasks()))
    assert proposals[0].views == 1 + (there.view != first.view)
    assert there.view in proposals[0].masks
    monkeypatch.setattr("lift3d.correction.proposals.in_best_view", lambda *_: None)
    with pytest.raises(InputError, match="no view sees the clicked point"):
        next(run.edits.propose_segmented([first, in_cloud], TrueMasks()))


def corrections(run):
    """A first click in the view of `clicked`, and further ones: on what else the object is there,
    and on what it is not, in other views.
    """
    view, xy, truth = clicked(run)
    first = Click(view, np.array(xy), True)
    further = []
    for other in run.whole_scene.views[3:5]:
        at = inner_points(other.instances() == truth, 1)
        beside = inner_points((other.instances() != truth) & (other.instances() > 0), 1)
        further += [Click(other.name, each, True) for each in at]
        further += [Click(other.name, each, False) for each in beside]
    return first, further


def test_clicks_in_several_views_correct_a_proposal_of_the_tree_in_their_order(run):
    run = Run(run.folder, scene=run.whole_scene)
    first, further = corrections(run)
    point = run.edits.point_at(first.view, tuple(first.xy.tolist()))
    alone = run.edits.propose_tree(point)
    found = run.edits.propose_clicks([first, *further])
    assert (found.tool, found.level, found.levels) == ("tree", alone.level, alone.levels)
    meaning, *_ = corrected(run.clickable.place, [first, *further])
    assert len(meaning.positive) + len(meaning.negative) > 1  # some of them say something
    assert np.isin(meaning.positive, found.points).all()
    assert not np.isin(meaning.negative, found.points).any()
    kept = run.edits.segment(found)
    told = kept.edit.details["prompts"]
    assert [each["positive"] for each in told] == [True, *(each.positive for each in further)]
    assert told[0]["level"] == found.level
    (new,) = kept.edit.new
    assert np.array_equal(Run.open(run.folder).edits.points_of(new), found.points)


def test_a_click_in_the_cloud_counts_as_one_in_the_view_that_shows_it_best(run):
    run = Run(run.folder, scene=run.whole_scene)
    view, xy, _ = clicked(run)
    point = run.edits.point_at(view, xy)
    place = run.clickable.place
    click = in_best_view(place, PointClick(point, False))
    assert not click.positive
    seen = place.seen(click.view).points
    (at,) = np.flatnonzero(seen.point == point)
    assert click.xy.tolist() == [seen.column[at], seen.row[at]]
    piece = place.surface.superpoint[point]
    shows = dict(zip(place.views, place.pieces_seen[:, piece], strict=True))
    seen_by = [name for name in place.views if point in place.seen(name).points.point]
    assert shows[click.view] == max(shows[name] for name in seen_by)
    whole = run.edits.propose_clicks([PointClick(point, True)], 999)
    part = run.edits.propose_clicks([PointClick(point, True)], 0)
    assert part.level == 0
    assert part.prompts[0]["at"] == run.points.xyz[point].tolist()
    assert whole.level == whole.levels - 1 > 0
    assert point in part.points
    assert len(part.points) < len(whole.points)


def test_a_box_in_a_picture_is_proposed_and_corrected(run):
    run = Run(run.folder, scene=run.whole_scene)
    view, _, truth = clicked(run)
    mask = next(v for v in run.whole_scene.views if v.name == view).instances() == truth
    rows, columns = np.nonzero(mask)
    box = np.array([columns.min(), rows.min(), columns.max(), rows.max()], np.float64)
    found = run.edits.propose_clicks([], boxes={view: box})
    same = run.prompt({view: Prompt(np.zeros((0, 2)), np.zeros(0, bool), None, box)})
    assert np.array_equal(found.points, same.points())
    assert (found.level, found.levels) == (0, 1)
    assert found.prompts == ({"view": view, "box": box.tolist()},)
    beside = PointClick(int(found.points[0]), False)
    less = run.edits.propose_clicks([beside], boxes={view: box})
    assert less.prompts[1]["positive"] is False
    assert less.points.tolist() != found.points.tolist()
    with pytest.raises(InputError, match="upside down"):
        run.edits.propose_clicks([], boxes={view: box[[2, 3, 0, 1]]})
    with pytest.raises(InputError, match="nothing was measured"):
        run.edits.propose_clicks([], boxes={view: np.array([0.0, 0.0, 0.0, 0.0])})


def test_corrections_leave_locked_objects_alone_and_bad_ones_are_refused(run):
    run = Run(run.folder, scene=run.whole_scene)
    view, xy, _ = clicked(run)
    point = run.edits.point_at(view, xy)
    run.edits.lock([int(run.edits.label[point])])
    assert point not in run.edits.propose_clicks([PointClick(point, True)]).points
    for clicks, words in (
        ([PointClick(-1, True)], "points are indices"),
        ([Click(view, np.array([-9.0, 0.0]), True)], "outside of view"),
        ([Click("nowhere", np.array([1.0, 1.0]), True)], "unknown view"),
        ([PointClick(point, False)], "first click"),
        ([], "a click on the object is needed"),
    ):
        with pytest.raises(InputError, match=words):
            run.edits.propose_clicks(clicks)


def test_a_click_on_nothing_is_refused(run):
    class Nothing(TrueMasks):
        def prompt(self, view, prompts):
            shape = (len(prompts), view.camera.height, view.camera.width)
            return Masks(np.zeros(shape, bool), np.zeros(len(prompts), np.float32))

    view, xy, _ = clicked(run)
    with pytest.raises(InputError, match="finds nothing"):
        next(run.edits.propose_segmented([Click(view, np.array(xy), True)], Nothing()))
    with pytest.raises(InputError, match="a click on the object is needed"):
        next(run.edits.propose_segmented([Click(view, np.array(xy), False)], TrueMasks()))


def test_H_about_is_near_that_of_the_check_before_and_after(run):
    edits = run.edits
    assert edits.agreement() is None
    edits.prepare_agreement()
    largest = sorted(edits.objects, key=lambda each: -each.points)
    edits.merge([each.id for each in largest[:4]])
    edits.delete([largest[5].id])
    edits.select(edits.points_of(largest[6].id)[::2])
    edits.save()
    about, checked = edits.agreement(), run.consistency
    before = checked["automatic"]["printed"]["foreground"]
    assert (about.automatic.H, about.automatic.H_prime) == pytest.approx(
        (before["H"], before["H_prime"])
    )
    for found, exact in ((about.automatic, checked["automatic"]), (about.corrected, checked)):
        assert abs(found.H - exact["printed"]["foreground"]["H"]) < 0.02
        assert abs(found.coverage - exact["printed"]["coverage"]) < 0.02
        assert abs(found.labels - exact["printed"]["labels"]) <= 1


def test_exports_and_the_feed_mark_what_a_person_corrected(run, tmp_path, capsys):
    folder = str(run.folder)
    assert main(["export", folder, "--to", "corrections", "--out", str(tmp_path / "x")]) == 2
    assert "no corrections" in capsys.readouterr().err
    run.export("pointcept", "ply", to=tmp_path / "before")
    assert not list((tmp_path / "before").rglob("corrected.json"))
    a, b, c = (each.id for each in sorted(run.objects, key=lambda each: -each.points)[:3])
    run.edits.merge([a, b])
    run.edits.name(c, "chair")
    assert run.unwritten == 2
    run.edits.write()
    assert run.unwritten == 0
    assert main(["export", folder, "--to", "corrections", "pointcept", "ply", "scannet"]) == 0
    shown = capsys.readouterr().err
    assert "corrected by hand, 2 edits by 1 person" in shown
    assert "say so where you submit them" in shown
    out = run.folder / "export"
    listed = json.loads((out / "pointcept/corrected.json").read_text())
    assert [each["id"] for each in listed["objects"]] == sorted([a, c])
    with np.load(out / "corrections/cloud.npz") as pair:
        assert np.array_equal(pair["automatic"], run.edits.automatic)
        assert np.array_equal(pair["corrected"], run.edits.label)
        assert np.array_equal(pair["decided"], np.isin(run.edits.label, (a, c)))
    lost = a if b in {each.id for each in run.objects} else b
    automatic = (run.folder / "automatic/labels").iterdir()
    changed = {each.stem for each in automatic if (read_label_map(each) == lost).any()}
    assert {each.stem for each in (out / "corrections/views").iterdir()} == changed
    assert len((out / "corrections/edits.jsonl").read_text().splitlines()) == 2
    pytest.importorskip("torch")
    from lift3d.run.feed import FeedConfig, LabelledClouds

    places = [run.folder, out / "cloud.ply", *(out / "pointcept/train").iterdir()]
    for sample in LabelledClouds(places, FeedConfig(voxel=None)):
        ids = set(sample.instance[sample.corrected].tolist())
        assert ids == {a, c}
    before = LabelledClouds([tmp_path / "before/cloud.ply"], FeedConfig(voxel=None))[0]
    assert not before.corrected.any()


def test_the_state_in_memory_counts_as_a_state(tmp_path):
    assert state_of(ROW).spacing() == pytest.approx(STEP, rel=0.01)


def test_a_run_without_objects_and_one_without_points_can_be_opened_and_edited(run):
    """Everything answers, and what needs an object says that there is none."""
    from lift3d.run.correct import write_automatic
    from lift3d.run.scene_file import write_points
    from lift3d.scene import LabelledPoints

    for points in (run.points, run.points.take(np.zeros(0, int))):
        folder = run.folder
        count = len(points)
        write_points(folder / "points.npz", points)
        nothing = LabelledPoints(points, np.zeros(count, np.int32), np.zeros(count, np.float32))
        write_automatic(run.files.automatic, nothing, {}, {})
        surface = Surface(
            np.full(count, -1, np.int32), np.zeros((0, 2), np.int32), np.zeros(0, np.float32),
            np.zeros((0, 2), np.int32), np.zeros(0, np.float32), np.zeros(0, np.int32),
            np.zeros(0, np.int32),
        )  # fmt: skip
        surface.save(run.files.automatic.surface)
        for path in run.files.automatic.labels.iterdir():
            write_label_map(path.parent, path.stem, np.zeros((72, 96), np.int32))
        (folder / "edits.jsonl").unlink(missing_ok=True)
        edits = Run.open(folder).edits
        assert edits.objects == ()
        assert edits.palette == {}
        assert not [each for each in edits.queue() if each.kind != "view"]
        with pytest.raises(InputError, match="no object 1; it has none"):
            edits.name(1, "chair")
        mask = np.zeros((72, 96), bool)
        mask[10:40, 10:60] = True
        new = edits.paint("0001", mask).edit.new[0]
        assert (edits.label_map("0001")[mask] == new).all()
        edits.write()
        assert [each.id for each in Run.open(folder).objects] == [new]
