"""One click, all views: prompts to masks in every view and to points."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tiny_export import lifted_run
from walls import TrueMasks, wall_scene

from lift3d.association.surface import Surface
from lift3d.cli import main
from lift3d.correction.clicks.answering import answer, everything, told
from lift3d.correction.clicks.asking import ask, coarse_prompt
from lift3d.correction.clicks.evidence import Evidence, sides
from lift3d.correction.clicks.gaps import by_colour, closed
from lift3d.correction.clicks.nearest import Cells
from lift3d.correction.clicks.nodes import (
    coming_along,
    explaining,
    objects_of,
    of_shown_pieces,
    taken_away,
)
from lift3d.correction.clicks.place import Place
from lift3d.correction.clicks.pointing import point_at
from lift3d.correction.clicks.preparing import place_of
from lift3d.correction.clicks.solving import ClickConfig
from lift3d.correction.clicks.walker import walk
from lift3d.correction.joins import JoinTree
from lift3d.export.ply import read_cloud
from lift3d.reconstruction.fusion import BACKENDS
from lift3d.run.prompting import prompt_of, read_prompts, segmenter_of
from lift3d.run.run import Run
from lift3d.scene import Points, Prompt
from lift3d.scene.errors import InputError
from lift3d.segmentation import BACKENDS as SEGMENTERS

SQUARES = [(40, 30, 40, 5), (100, 40, 30, 9)]
SHIFTS = [0, 10, 20, 60, 300]


def iou(one, other):
    return (one & other).sum() / max((one | other).sum(), 1)


def masked(mask):
    return Prompt(np.zeros((0, 2)), np.zeros(0, bool), mask)


def masks(result, number=0):
    return {name: found[number].mask for name, found in result.views()}


@pytest.fixture(scope="module")
def wall():
    scene = wall_scene(SQUARES, SHIFTS)
    points = BACKENDS["voxel"](voxel=0.02).build().fuse(scene)
    return scene, place_of(scene, points)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Run.open(lifted_run(tmp_path_factory.mktemp("lifted")))


def test_how_many_of_some_points_each_view_sees(wall):
    _, place = wall
    inside = np.random.default_rng(0).random(len(place.points)) < 0.3
    counted = {name: int(inside[place.seen(name).points.point].sum()) for name in place.views}
    assert place.sees(inside) == counted
    assert len(set(counted.values())) > 1


def test_labels_that_edits_change_in_place_are_counted_again(wall):
    _, place = wall
    own = replace(place, label=np.ones(len(place.points), np.int32))
    assert own.object_of_piece.max() == 1
    own.label[:] = 2
    assert own.object_of_piece.max() == 2


def test_a_mask_in_one_view_is_carried_to_all_views_that_show_the_object(wall):
    scene, place = wall
    truth = {view.name: view.instances() == 5 for view in scene.views}
    result = answer(place, [{"view000": masked(truth["view000"])}])
    found = masks(result)
    for name in ("view010", "view020"):
        assert iou(found[name], truth[name]) > 0.9
    assert (found["view000"] == truth["view000"]).all()
    assert not found["view300"].any()
    assert result.in_view("view300")[0].score == 0


def test_objects_compete_for_pixels(wall):
    scene, place = wall
    ids = scene.views[0].instances()
    result = answer(place, [{"view000": masked(ids == 5)}, {"view000": masked(ids == 9)}])
    for name, (one, other) in result.views():
        assert not (one.mask & other.mask).any(), name
    assert not set(result.points(0)) & set(result.points(1))
    assert len(result.points(0)) > len(result.points(1)) > 50


def test_two_clicks_on_one_surface_divide_it_where_one_click_means_all_of_it(wall):
    scene, place = wall
    truth = scene.views[0].instances() == 5
    left, right = prompt_of([(48, 50)]), prompt_of([(72, 50)])
    alone = answer(place, [{"view000": left}]).in_view("view000")[0].mask
    assert iou(alone, truth) > 0.8
    both = answer(place, [{"view000": left}, {"view000": right}])
    for name in ("view000", "view010"):
        one, other = (each.mask for each in both.in_view(name))
        assert not (one & other).any()
        whole = next(view for view in scene.views if view.name == name).instances() == 5
        assert 0.3 < one.sum() / whole.sum() < 0.7
        assert iou(one | other, whole) > 0.8


def test_gaps_of_one_pixel_are_closed_and_steps_of_depth_are_not():
    depth = np.full((6, 12), 2.0, np.float32)
    depth[:, 6:] = 3.0
    sparse = np.where((np.arange(12) % 2 == 0) & (np.arange(6) % 2 == 0)[:, None], depth, 0)
    found = closed(sparse.astype(np.float32))
    assert (found[:5, :5] == 2).all()
    assert (found[:5, 6:11] == 3).all()
    assert (found[:, 5] == 0).all()  # between both surfaces


def test_a_grid_of_depth_is_shown_through_its_points(wall):
    scene, place = wall

    def thin(view):
        depth = view.depth()
        keep = np.zeros(depth.shape, bool)
        keep[::2, ::2] = True
        keep[:, :30] = False
        return replace(view, load_depth=lambda: np.where(keep, depth, 0).astype(np.float32))

    thinned = scene.with_views([thin(view) for view in scene.views])
    place = place_of(thinned, place.points, place.surface)
    seen = place.seen("view000")
    assert (seen.nearest[1:-1, 31:-1] >= 0).all()
    truth = scene.views[0].instances() == 9
    result = answer(place, [{"view010": masked(scene.views[1].instances() == 9)}])
    assert iou(result.in_view("view000")[0].mask, truth) > 0.9
    assert point_at(place, "view000", np.array([60.0, 50.0])) is not None


def test_a_segmenter_s_answer_in_another_view_has_to_agree(wall):
    scene, _ = wall
    view = scene.views[1]
    truth = view.instances() == 5
    coarse = np.where(truth, 0.9, 0.1)
    mask, score = ask(TrueMasks(), view, coarse)
    assert (mask == truth).all()
    assert score == 1
    moved = np.roll(coarse, 30, axis=1)
    assert ask(TrueMasks(), view, moved) is None
    assert coarse_prompt(np.zeros((20, 20))) is None


def test_prompts_for_another_view_lie_well_inside_and_outside(wall):
    scene, _ = wall
    truth = scene.views[0].instances() == 5
    prompt = coarse_prompt(np.where(truth, 0.9, 0.1))
    x, y = prompt.xy.astype(int).T
    assert (truth[y, x] == prompt.positive).all()
    assert prompt.positive.sum() == 3
    assert (~prompt.positive).sum() >= 1
    assert prompt.box == pytest.approx([36.1, 26.1, 82.9, 72.9])


def test_hidden_points_are_not_decided_by_a_mask():
    """A wall behind a pillar: the pillar's mask in one view says nothing of the wall behind."""
    xyz = np.array(
        [[x / 50, y / 50, z] for z in (1.0, 2.0) for x in range(-20, 20) for y in range(-20, 20)],
        np.float32,
    )
    keep = (xyz[:, 2] == 2) | (np.abs(xyz[:, 0]) < 0.1)
    points = Points(
        xyz[keep],
        np.zeros((keep.sum(), 3), np.uint8),
        np.zeros_like(xyz[keep]),
        np.ones(keep.sum(), np.float32),
    )
    scene = wall_scene([], [0])
    view = replace(scene.views[0], load_depth=None)
    surface = Surface(
        np.where(points.xyz[:, 2] == 1, 0, 1).astype(np.int32),
        np.array([[0, 1]], np.int32), np.array([0.1], np.float32), np.zeros((0, 2), np.int32),
        np.zeros(0, np.float32), np.arange(2, dtype=np.int32), np.array([1, 2], np.int32),
    )  # fmt: skip
    place = Place(points, surface, {view.name: view})
    seen = place.seen(view.name).points
    hidden = (points.xyz[:, 2] == 2) & (np.abs(points.xyz[:, 0]) < 0.1)
    assert not np.isin(np.flatnonzero(hidden), seen.point).any()
    assert np.isin(np.flatnonzero(hidden), everything(place, view.name).point).all()


def test_every_pixel_takes_the_nearest_point_as_a_slow_search_does():
    rng = np.random.default_rng(0)
    xyz = rng.random((400, 3)).astype(np.float32)
    pixels = rng.random((9, 7, 3)).astype(np.float32)
    pixels[0, 0] = np.nan
    found = Cells(xyz, 0.15).nearest(pixels)
    away = np.linalg.norm(pixels[:, :, None] - xyz, axis=-1)
    wanted = np.where(
        np.nanmin(np.nan_to_num(away, nan=9.0), -1) <= 0.15,
        np.nan_to_num(away, nan=9.0).argmin(-1),
        -1,
    )
    assert (found == wanted).all()
    assert found[0, 0] == -1
    assert (wanted >= 0).any()


def test_random_walks_follow_the_conductances():
    exits = np.array([1e6, 0, 0, 0]), np.array([0, 0, 1e6, 0])
    found = walk(np.array([0, 1, 1]), np.array([1, 2, 3]), np.array([1.0, 3.0, 2.0]), *exits)
    assert found.round(3).tolist() == [1.0, 0.25, 0.0, 0.25]
    assert walk(np.zeros(0, int), np.zeros(0, int), np.zeros(0), np.zeros(1), np.zeros(1))[0] == 0.5


def tree_of_four():
    """((0, 1), (2, 3)): the association took the nodes 4 and 5."""
    surface = Surface(
        np.arange(4, dtype=np.int32), np.array([[0, 1], [1, 2], [2, 3]], np.int32),
        np.array([0.9, 0.2, 0.8], np.float32), np.array([[0, 1], [2, 3], [4, 5]], np.int32),
        np.array([0.9, 0.8, 0.2], np.float32), np.array([4, 4, 5, 5], np.int32),
        np.array([1, 1, 2, 2], np.int32),
    )  # fmt: skip
    return JoinTree(surface), surface


def test_a_mask_is_explained_by_few_nodes_and_their_unseen_parts_belong_to_it():
    tree, _ = tree_of_four()
    members, iou_of_it = explaining(tree, np.array([10.0, 0, 0, 0]), np.array([0.0, 0, 0, 10]))
    assert members.tolist() == [True, True, False, False]  # 1 is not seen, and is part of node 4
    assert iou_of_it == 1
    members, _ = explaining(tree, np.array([10.0, 0, 10, 0]), np.array([0.0, 10, 0, 0]))
    assert members.tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    ("likelihood", "inside", "along"),
    [
        ([0.98, 0.3, 0.3], [60.0, 0, 0, 0], True),
        ([0.9, 0.3, 0.3], [60.0, 0, 0, 0], False),  # not one piece
        ([0.98, 0.3, 0.3], [1.0, 0, 0, 0], False),  # a rim of 100 points
    ],
)
def test_the_rest_of_a_wall_of_which_masks_show_more_inside_comes_along(likelihood, inside, along):
    tree, _ = tree_of_four()
    likelihood, inside = np.float32(likelihood), np.array(inside)
    size, none = np.array([60, 40, 50, 50]), np.zeros(4)
    found = of_shown_pieces(tree, likelihood, inside, none, size)
    assert found.tolist() == [False, along, False, False]
    assert not of_shown_pieces(tree, likelihood, none, inside, size).any()


def test_points_mean_their_objects_and_a_contrary_one_the_largest_node_without_them():
    tree, surface = tree_of_four()
    assert objects_of(tree, [0], surface.object).tolist() == [True, True, False, False]
    assert taken_away(tree, [1], [0]).tolist() == [False, True, False, False]
    assert taken_away(tree, [2], [0]).tolist() == [False, False, True, True]
    assert not taken_away(tree, [0], [0]).any()
    label = np.int32([7, 7, 7, 0])  # a person has joined 2 to the first object
    object_of = np.int32([7, 7, 7, 0])
    assert objects_of(tree, [0], object_of, label).tolist() == [True, True, True, False]


def test_a_superpoint_that_a_mask_cuts_is_divided():
    xyz = np.c_[np.arange(6.0), np.zeros((6, 2))].astype(np.float32)
    evidence = Evidence.none(6)
    evidence.looked[[0, 1, 3, 4]] = 1
    evidence.inside[[0, 1]] = 1
    node, divided = sides(np.int32([0, 0, 0, 0, 0, 1]), xyz, evidence, (0.1, 0.9))
    assert divided.tolist() == [True, False]
    assert node.tolist() == [1, 1, 1, 0, 0, 2] or node.tolist() == [1, 1, 0, 0, 0, 2]
    whole, _ = sides(np.int32([0] * 6), xyz, Evidence.none(6), (0.1, 0.9))
    assert whole.tolist() == [0] * 6
    clicks = Evidence.none(6)
    clicks.positive, clicks.negative = [0], [5]
    assert sides(np.int32([0] * 6), xyz, clicks, (0.1, 0.9))[0].tolist() == [1, 1, 1, 0, 0, 0]


def test_a_click_in_a_run_finds_its_object(run):
    names = list(run.cameras)
    labels = {name: run.labels[name] for name in names}
    ids, counts = np.unique(labels[names[0]][labels[names[0]] > 0], return_counts=True)
    wanted = int(ids[counts.argmax()])
    row, column = np.argwhere(labels[names[0]] == wanted)[counts.max() // 2]
    found = run.prompt({names[0]: prompt_of([(column, row)])})
    own = run.points_of(wanted) if run.surface is None else found.points()
    assert iou(np.isin(np.arange(len(run.cloud)), found.points()),
               np.isin(np.arange(len(run.cloud)), own)) > 0.5  # fmt: skip


def test_the_command_writes_a_mask_for_every_view_a_cloud_and_the_answer(run, tmp_path, capsys):
    names = list(run.cameras)
    row, column = np.argwhere(run.labels[names[1]] > 0)[0]
    out = tmp_path / "answer"
    words = ["click", str(run.folder), "--view", names[1], "--at", f"{column},{row}"]
    assert main([*words, "--not", f"{names[0]}:0,0", "--out", str(out)]) == 0
    assert "object 1:" in capsys.readouterr().out
    assert sorted(each.stem for each in (out / "masks").iterdir()) == sorted(names)
    told = json.loads((out / "answer.json").read_text())
    (found,) = told["objects"]
    assert found["views"].keys() == set(names)
    assert {each["view"] for each in found["prompts"]} == {names[0], names[1]}
    assert len(read_cloud(out / "points.ply")) == found["points"] > 0
    assert told["used"] == {"kind": "run", "segmenter": None}
    for name in names:
        mask = np.asarray(Image.open(out / "masks" / f"{name}.png"))
        assert set(np.unique(mask)) <= {0, 255}
        assert (mask > 0).sum() == found["views"][name]["pixels"]
        assert found["views"][name]["in_view"] == bool(mask.any())
    assert main([*words[:2], "--out", str(out)]) == 2
    assert "nothing is asked for" in capsys.readouterr().err
    assert main([*words[:2], "--at", "3,4", "--out", str(out)]) == 2
    assert "needs --view" in capsys.readouterr().err


def test_an_answer_becomes_an_object_of_the_run_and_words_find_it(tmp_path, capsys):
    folder = lifted_run(tmp_path, views=3, width=48, height=36)
    run = Run.open(folder)
    name = next(iter(run.cameras))
    mask = run.labels[name] == run.labels[name].max()
    found = run.prompt({name: masked(mask)})
    before = {each.id for each in run.edits.objects}
    (made,) = found.keep(run)
    assert made not in before
    assert set(run.edits.points_of(made)) == set(found.points())
    run.edits.name(made, "Green Lamp")
    again = Run.open(folder).prompt(text="green lamp")
    assert set(again.points()) == set(found.points())
    with pytest.raises(InputError, match="did you mean"):
        Run.open(folder).prompt(text="green lump")
    with pytest.raises(InputError, match="not both"):
        Run.open(folder).prompt({name: masked(mask)}, text="green lamp")


def test_a_scene_that_was_never_lifted_can_be_asked(tmp_path, capsys):
    words = ["click", "synthetic:0", "--views", "3", "--view", "0000", "--voxel", "0.1"]
    size = ["--reader.width", "48", "--reader.height", "36", "--reader.views", "3"]
    out = ["--out", str(tmp_path / "a")]
    assert main([*words, "--at", "24,20", *out, "reader:synthetic", *size]) == 0
    assert "object 1:" in capsys.readouterr().out
    assert json.loads((tmp_path / "a" / "answer.json").read_text())["used"]["kind"] == "scene"
    assert main([*words, "--box", "0,0,1,1", *out, "reader:synthetic", *size]) == 0
    assert "nothing was measured where the prompts are" in capsys.readouterr().out
    assert main([*words, "--at", "24,20", "--keep", *out, "reader:synthetic", *size]) == 2
    assert "lift it first" in capsys.readouterr().err


def test_a_box_says_what_is_outside_and_which_nodes_fill_it(wall):
    scene, place = wall
    box = np.array([35.0, 25.0, 84.0, 74.0])
    result = answer(place, [{"view000": Prompt(np.zeros((0, 2)), np.zeros(0, bool), None, box)}])
    seen = place.seen("view000").points
    inside = np.zeros(len(place.points), bool)
    inside[result.points()] = True
    beside = (seen.column < 34) | (seen.column > 85) | (seen.row < 24) | (seen.row > 75)
    assert not inside[seen.point[beside]].any()
    assert iou(result.in_view("view000")[0].mask, scene.views[0].instances() == 5) > 0.8


def test_without_dense_depth_a_click_is_cut_out_of_its_picture(wall):
    scene, place = wall
    bare = [replace(view, load_depth=None) for view in scene.views]
    few = place.points.take(np.arange(0, len(place.points), 7))
    sparse = place_of(scene.with_views(bare), few)
    assert sparse.sparse
    result = answer(sparse, [{"view000": prompt_of([(60, 50)])}])
    for name in ("view000", "view010", "view020"):
        truth = next(view for view in scene.views if view.name == name).instances() == 5
        assert iou(result.in_view(name)[0].mask, truth) > 0.8, name


def test_prompts_that_mean_nothing_are_refused(wall):
    _, place = wall
    for prompts, words in (
        ({}, "a click on the object is needed"),
        ({"view000": prompt_of([], [(5, 5)])}, "a click on the object is needed"),
        ({"view000": prompt_of([(500, 5)])}, "outside of view view000"),
        ({"view00": prompt_of([(5, 5)])}, "did you mean"),
        ({"view000": masked(np.ones((5, 5), bool))}, "the mask has 5x5 pixels"),
        ({"view000": masked(np.zeros((120, 160), bool))}, "is empty"),
    ):
        with pytest.raises(InputError, match=words):
            answer(place, [prompts])


def test_masks_of_surfaces_are_not_asked():
    assert segmenter_of(SEGMENTERS["regions"]()) is None


def test_the_point_of_a_click_is_that_of_its_pixel(wall):
    _, place = wall
    point = place.points.xyz[point_at(place, "view010", np.array([80.0, 60.0]))]
    assert point == pytest.approx([0.01 + 0.2, 0.01, 2.0], abs=0.03)


def test_prompts_of_several_objects_come_from_a_file(tmp_path):
    (tmp_path / "a.json").write_text(
        json.dumps([{"v": {"at": [[1, 2]], "not": [[3, 4]]}}, {"v": {"box": [0, 1, 2, 3]}}])
    )
    one, other = read_prompts(tmp_path / "a.json")
    assert one["v"].xy.tolist() == [[1, 2], [3, 4]]
    assert one["v"].positive.tolist() == [True, False]
    assert other["v"].box.tolist() == [0, 1, 2, 3]
    (tmp_path / "b.json").write_text('[{"v": {"at": "here"}}]')
    with pytest.raises(InputError, match=r"b\.json"):
        read_prompts(tmp_path / "b.json")


def test_a_border_without_depth_is_where_the_colour_changes():
    image = np.full((6, 320, 3), 40, np.uint8)
    image[:, 158:] = 200
    nearest = np.full((6, 320), 7, np.int32)
    nearest[:, 160:] = 9
    nearest[:, 158:161] = -1  # a point of the left is nearer to column 158
    found = by_colour(nearest, image)
    assert (found == np.where(np.arange(320) < 158, 7, 9)).all()
    nearest[:, 100:158] = -1
    assert (by_colour(nearest, image)[:, 120] == -1).all()  # nothing is near


def test_what_no_mask_shows_comes_along_only_with_its_object_or_by_a_likely_join():
    joins = np.int32([[0, 1], [2, 3], [4, 5]])
    count = 4
    surface = Surface(
        np.arange(count, dtype=np.int32),
        np.zeros((0, 2), np.int32),
        np.zeros(0, np.float32),
        joins,
        np.float32([0.3, 0.9, 0.2]),
        np.arange(count, dtype=np.int32),
        np.int32([1, 2, 3, 3]),
    )
    tree = JoinTree(surface)
    shown, none = np.array([9.0, 0, 0, 0]), np.zeros(count)
    assert explaining(tree, shown, none)[0].all()  # nothing speaks against the largest node

    def along(likelihood, object_of):
        return coming_along(tree, np.float32(likelihood), np.int32(object_of), shown, none).tolist()

    assert along([0.3, 0.9, 0.2], [1, 2, 3, 3]) == [True, False, False, False]
    assert along([0.6, 0.9, 0.2], [1, 2, 3, 3]) == [True, True, False, False]
    assert along([0.3, 0.9, 0.2], [1, 1, 3, 3]) == [True, True, False, False]
    assert along([0.3, 0.9, 0.2], [0, 0, 0, 0]) == [True, False, False, False]  # no object


def test_walls_that_the_tree_kept_apart_are_not_joined_by_the_graph():
    zeros = np.zeros((3, 3), np.float32)
    points = Points(zeros, zeros.astype(np.uint8), zeros, zeros[0])
    pairs = np.int32([[0, 1], [0, 2]])
    surface = Surface(
        np.arange(3, dtype=np.int32),
        pairs,
        np.float32([0.9, 0.8]),
        np.int32([[0, 2]]),
        np.float32([0.7]),
        np.arange(3, dtype=np.int32),
        np.int32([1, 2, 1]),
    )
    place = Place(points, surface, {})
    assert place.strength_of(pairs).tolist() == pytest.approx([0, 0.8])
    none = np.zeros(0, np.float32)
    unjoined = replace(surface, joins=np.zeros((0, 2), np.int32), likelihood=none)
    free = Place(points, unjoined, {})
    assert free.strength_of(pairs).tolist() == pytest.approx([0.9, 0.8])


def test_a_correction_where_nothing_was_measured_does_not_move_the_points(wall):
    scene, place = wall

    def holed(view):
        depth = view.depth().copy()
        depth[45:55, 62:68] = 0
        return replace(view, load_depth=lambda: depth)

    bare = [holed(view) for view in scene.views]
    place = place_of(scene.with_views(bare), place.points, place.surface)
    hole, beside = np.array([65.0, 50.0]), np.array([50.0, 45.0])
    both = Prompt(np.array([beside, hole]), np.array([True, False]))
    evidence, _ = told(place, {"view000": both}, None, ClickConfig())
    assert len(evidence.positive) == 1
    assert not evidence.negative
    before = answer(place, [{"view000": Prompt(beside[None], np.array([True]))}])
    after = answer(place, [{"view000": both}])
    assert (before.points() == after.points()).all()
    kept, less = (each.in_view("view000")[0].mask for each in (before, after))
    assert kept[50, 65]
    assert not less[46:54, 63:67].any()  # gaps of one pixel beside known depth are closed
    assert (kept != less).sum() <= 200
    alone = Prompt(hole[None], np.array([True]))
    assert told(place, {"view000": alone}, None, ClickConfig())[0].positive
