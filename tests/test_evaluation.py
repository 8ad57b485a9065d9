"""`lift3d evaluate`: scores of runs and submissions, each with its protocol."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from plyfile import PlyData, PlyElement
from test_annotation import NYU40, TABLE, write_scene

from lift3d import cli
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.evaluation.metrics.classes import SCANNET, SCANNET200
from lift3d.evaluation.metrics.scannet import Prediction
from lift3d.evaluation.metrics.submission import write_submission
from lift3d.evaluation.scores import score
from lift3d.evaluation.submitted import evaluate_submission
from lift3d.evaluation.truth import Truth, read_truth
from lift3d.export.ply import read_cloud
from lift3d.geometry.visibility import DepthTolerance
from lift3d.run.evaluating import evaluate
from lift3d.run.lift import lift
from lift3d.run.run import Run
from lift3d.run.settings import KINDS, LiftConfig
from lift3d.scene import LabelledPoints, Points
from lift3d.scene.errors import InputError
from lift3d.scene.labelmaps import read_label_map, write_label_map

CONFIG = SyntheticConfig(views=4, width=64, height=48)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small run with the true masks, its scene, and its class maps."""
    root, scene = tmp_path_factory.mktemp("run"), CONFIG.read()
    for view in scene.views:
        write_label_map(root / "masks", view.name, view.instances())
    masks = KINDS["segmentation"]["folder"](path=root / "masks", ids="consistent")
    config = LiftConfig(root / "none", root / "out", voxel=0.08, segmentation=masks)
    lift(config, scene)
    return root / "out", scene


def cloud_of(xyz, instance, semantic=None):
    n = len(xyz)
    points = Points(
        xyz, np.zeros((n, 3), np.uint8), np.zeros((n, 3), np.float32), np.ones(n, np.float32)
    )
    score = (instance > 0).astype(np.float32)
    return LabelledPoints(points, instance.astype(np.int32), score, semantic)


def scan(tmp_path, **options):
    """A scan of 5 objects of 150 vertices, and a cloud with all of them."""
    folder = write_scene(tmp_path / "scans/scene0000_00", each=150, **options)
    truth = read_truth(folder)
    return folder, truth, cloud_of(truth.points, truth.annotation.instance)


def test_a_scan_is_scored_by_both_protocols_each_named(tmp_path):
    """With wall, two chairs, trash can and an object without a class."""
    _, truth, cloud = scan(tmp_path, labels=NYU40, table=True)
    found = score(cloud, {each: 1.0 for each in range(1, 6)}, truth)
    protocols = [each["protocol"] for each in found["scores"]]
    assert protocols[0].startswith("class-agnostic (a) ScanNetV2: 18 instance classes folded")
    assert protocols[1].startswith("class-agnostic (b) ScanNet200: 198 instance classes folded")
    assert protocols[2].startswith("class-agnostic, every true instance but walls")
    objects = [each.split(" (")[-1].split(")")[0] for each in protocols]
    assert objects == ["3", "3", "4"]
    assert found["protocol"] == protocols[0]
    assert [each["ap"] for each in found["scores"]] == [1, 1, 1]
    assert [each["pq"] for each in found["panoptic"]] == [1, 1, 1]


def test_the_two_truths_differ_where_the_lists_do(tmp_path):
    """nyu40 has no class for whiteboards, ScanNet200 has one."""
    table = TABLE + "49\tboard\tboard\t1\t30\twhiteboard\n"
    folder = write_scene(tmp_path / "scans/s", names=("chair", "board"), each=150)
    (tmp_path / "scans/scannetv2-labels.combined.tsv").write_text(table)
    truth = read_truth(folder)
    assert [np.unique(each.instance).tolist() for each in truth.protocols()] == [
        [0, 1],
        [0, 1, 2],
    ] + [[0, 1, 2]]
    only_chair = cloud_of(truth.points, np.where(truth.instance == 1, 1, 0))
    found = score(only_chair, {1: 1.0}, truth)
    assert [each["ap"] for each in found["scores"]] == [1, 0.5, 0.5]


def test_walls_and_floors_of_old_scans_are_void_and_chairs_are_not():
    """Id 2 is a chair among ScanNet's raw ids, and the floor in nyu40."""
    surface = cloud_of(
        np.zeros((3, 3), np.float32), np.array([1, 2, 3]), np.array([1, 2, 300], np.int32)
    )
    assert Truth.of_surface(surface, (1, 2, 22)).instance.tolist() == [0, 2, 3]
    surface.semantic[2] = 30
    assert Truth.of_surface(surface, (1, 2, 22)).instance.tolist() == [0, 0, 3]


def test_classes_are_scored_where_the_cloud_has_them(tmp_path):
    _, truth, plain = scan(tmp_path, labels=NYU40, table=True)
    semantic = np.where(truth.annotation.nyu40 == 39, 7, truth.annotation.nyu40)
    cloud = cloud_of(truth.points, plain.instance, semantic.astype(np.int32))
    found = score(cloud, {each: 1.0 for each in range(1, 6)}, truth, SCANNET)
    with_classes = found["scores"][-1]
    assert with_classes["protocol"] == "ScanNetV2: 18 instance classes"
    assert with_classes["classes"] == {
        "chair": {"ap": 1, "ap50": 1, "ap25": 1},
        "otherfurniture": {"ap": 0, "ap50": 0, "ap25": 0},
    }
    assert with_classes["ap"] == 0.5
    # Wall and chair are right; otherfurniture is predicted as a table.
    assert found["semantic"]["protocol"] == "ScanNetV2: 20 classes"
    assert found["semantic"]["miou"] == pytest.approx(2 / 4)
    assert found["panoptic"][-1]["protocol"].endswith("ScanNetV2: 18 things and 2 stuff")
    assert found["panoptic"][-1]["pq"] == pytest.approx(2 / 4)


def test_the_truths_views_use_the_protocol_of_its_surface(run, monkeypatch):
    """Walls, floor and ceiling are void in both."""
    folder, scene = run
    monkeypatch.setattr("lift3d.evaluation.truth.read_scene", lambda path: scene)
    found = evaluate(Run.open(folder), Path("synthetic"))
    each, over_all = found["panoptic"][-2:]
    assert each["protocol"].endswith("every true instance but walls, floor and ceiling")
    assert over_all["pq"] > 0.8
    truth = read_truth(Path("synthetic"))
    seen = np.unique([view.instances() for view in scene.views])
    things = set(seen.tolist()) & set(truth.instance.tolist()) - {0}
    assert 0 < over_all["matches"] + over_all["missed"] == len(things) < len(seen) - 1
    other = scene.with_views(scene.views[1:])
    monkeypatch.setattr("lift3d.evaluation.truth.read_scene", lambda path: other)
    found = evaluate(Run.open(folder), Path("synthetic"))
    assert "not those of the run" in found["notes"][-1]
    assert not any("views" in each["protocol"] for each in found["panoptic"])


def test_files_of_true_ids_give_scene_level_pq(run):
    folder, _ = run
    found = evaluate(Run.open(folder), folder / "cloud.ply", views=folder / "labels")
    each, over_all = found["panoptic"][-2:]
    assert each["pq"] == over_all["pq"] == 1
    assert "picture by picture, 4 views" in each["protocol"]
    assert "scene-level PQ over all 4 views" in over_all["protocol"]
    assert json.loads((folder / "evaluation.json").read_text()) == found
    with pytest.raises(InputError, match="no true ids of any of"):
        evaluate(Run.open(folder), folder / "cloud.ply", views=folder)


def test_ids_that_change_between_views_lower_the_scene_score(run, tmp_path):
    folder, scene = run
    for number, view in enumerate(scene.views):
        labels = read_label_map(folder / "labels" / f"{view.name}.png")
        write_label_map(tmp_path, view.name, np.where(labels > 0, labels + 50 * number, 0))
    each, over_all = evaluate(Run.open(folder), folder / "cloud.ply", views=tmp_path)["panoptic"][
        -2:
    ]
    assert each["pq"] == 1
    assert over_all["pq"] < 0.85


def test_a_labellers_classes_are_voted_on_the_run(run, tmp_path, monkeypatch):
    folder, scene = run
    monkeypatch.setattr(Run, "whole_scene", scene)
    for view in scene.views:
        labels = read_label_map(folder / "labels" / f"{view.name}.png")
        write_label_map(tmp_path, view.name, np.where(labels > 0, 1 + labels % 3, 0))
    cloud = read_cloud(folder / "cloud.ply")
    vertex = np.zeros(
        len(cloud), [(a, "f4") for a in "xyz"] + [("label", "i4"), ("semantic", "i4")]
    )
    for axis, name in enumerate("xyz"):
        vertex[name] = cloud.points.xyz[:, axis]
    vertex["label"] = cloud.instance
    vertex["semantic"] = np.where(cloud.instance > 0, 1 + cloud.instance % 3, 0)
    PlyData([PlyElement.describe(vertex, "vertex")]).write(tmp_path / "truth.ply")
    found = evaluate(Run.open(folder), tmp_path / "truth.ply", classes=tmp_path)
    assert found["semantic"]["miou"] > 0.9
    assert "own classes: 3 classes" in found["semantic"]["protocol"]


def test_a_labellers_classes_are_voted_with_the_tolerance_of_the_run(run, tmp_path, monkeypatch):
    folder, scene = run
    monkeypatch.setattr(Run, "whole_scene", scene)
    for view in scene.views:
        write_label_map(tmp_path, view.name, view.instances())
    asked = []

    def voted(points, scene, maps, tolerance=DepthTolerance()):
        asked.append(tolerance)
        return np.ones(len(points), np.int32), np.ones(len(points), np.float32)

    monkeypatch.setattr("lift3d.run.evaluating.vote_classes", voted)
    changed = tmp_path / "run"
    shutil.copytree(folder, changed)
    settings = json.loads((changed / "run.json").read_text())
    settings["settings"]["tolerance"] = {"absolute": 0.5, "relative": 0.25}
    (changed / "run.json").write_text(json.dumps(settings))
    evaluate(Run.open(changed), folder / "cloud.ply", classes=tmp_path)
    assert asked == [DepthTolerance(0.5, 0.25)]


def submission(folder, truth, scenes=("scene0000_00",), wrong=()):
    for scene in scenes:
        listed = [
            Prediction(truth == each, int(each) // 1000, 0.5 + int(each) % 1000 / 100)
            for each in np.unique(truth[truth >= 1000])
            if each not in wrong
        ]
        write_submission(folder, scene, listed, "scannetpp" if scene.endswith("1") else "scannet")


def test_a_submission_is_scored_against_files_of_ids(tmp_path, capsys):
    truth = np.repeat([0, 1001, 5001, 5002, 39001, 7], 120)
    for scene in ("a_0", "b_1", "unseen"):
        (tmp_path / "gt").mkdir(exist_ok=True)
        np.savetxt(tmp_path / f"gt/{scene}.txt", truth, fmt="%d")
    submission(tmp_path / "sub", truth, ("a_0", "b_1"))
    command = ["evaluate", str(tmp_path / "sub"), "--truth", str(tmp_path / "gt")]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "ScanNetV2: 18 instance classes" in said
    assert "class-agnostic (a) ScanNetV2" in said
    assert "2 scenes" in said
    submission(tmp_path / "less", truth, ("a_0",), wrong=(5002,))
    found = evaluate_submission(tmp_path / "less", tmp_path / "gt")
    # 1001 is a wall: void. Chairs: half; otherfurniture: all. Folded: two of three.
    assert found["scores"][0]["classes"]["chair"]["ap"] == 0.5
    assert found["ap"] == pytest.approx(0.75)
    assert found["scores"][1]["ap"] == pytest.approx(2 / 3)
    plus = evaluate_submission(tmp_path / "less", tmp_path / "gt", "scannetpp")
    assert plus["ap"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert "ScanNet++" in plus["protocol"]


def test_a_submission_is_scored_against_scans(tmp_path):
    folder, truth, _ = scan(tmp_path, labels=NYU40, table=True)
    for benchmark, name in ((SCANNET, "scannet"), (SCANNET200, "scannet200")):
        submission(tmp_path / name, truth.annotation.truth(benchmark))
        found = evaluate_submission(tmp_path / name, folder.parent, name)
        assert found["protocol"] == benchmark.semantic
        told = [each["protocol"] for each in found["scores"]]
        assert told[1:] == [SCANNET.class_agnostic, SCANNET200.class_agnostic]
        assert [each["ap"] for each in found["scores"]] == pytest.approx([1, 1, 1])
        assert any("v2, nyu40 ids" in note for note in found["notes"])
    assert evaluate_submission(tmp_path / "scannet", folder)["ap"] == 1  # the scan itself


def test_a_submission_without_a_truth_is_an_error_that_explains_it(tmp_path, capsys):
    submission(tmp_path / "sub", np.repeat([5001], 120))
    assert cli.main(["evaluate", str(tmp_path / "sub"), "--truth", str(tmp_path)]) == 2
    assert "has no truth of scene0000_00; expected" in capsys.readouterr().err
    folder = write_scene(tmp_path / "scene0000_00", NYU40, each=150)
    with pytest.raises(InputError, match="not known in the ids of scannet200"):
        evaluate_submission(tmp_path / "sub", folder, "scannet200")
    with pytest.raises(InputError, match="120 entries, the scene 751 vertices"):
        evaluate_submission(tmp_path / "sub", folder)


def test_scannetpp_scenes_can_be_truth(tmp_path):
    """Two overlapping objects, of which the smaller gets the shared vertices; a wall; a mask."""
    folder = tmp_path / "7b6477cb95/scans"
    folder.mkdir(parents=True)
    vertex = np.zeros(400, [(a, "f4") for a in "xyz"])
    vertex["x"] = np.arange(400) / 100
    PlyData([PlyElement.describe(vertex, "vertex")]).write(folder / "mesh_aligned_0.05.ply")
    segment = np.repeat([0, 1, 2, 3], 100).tolist()
    (folder / "segments.json").write_text(json.dumps({"segIndices": segment}))
    groups = [
        {"objectId": 9, "label": "pillow", "segments": [1]},
        {"objectId": 4, "label": "bed", "segments": [0, 1]},
        {"objectId": 5, "label": "wall", "segments": [2]},
    ]
    (folder / "segments_anno.json").write_text(json.dumps({"segGroups": groups}))
    truth = read_truth(folder.parent)
    assert np.unique(truth.instance, return_counts=True)[1].tolist() == [200, 100, 100]
    assert truth.instance[150] == 1
    assert "every annotated object but walls" in truth.protocol
    assert "100 vertices of several objects" in truth.notes[0]
    (folder / "mesh_aligned_0.05_mask.txt").write_text("399\n398\n")
    (tmp_path / "top100_instance.txt").write_text("bed\nlamp\n")
    truth = read_truth(folder.parent)
    assert len(truth.points) == 398
    assert truth.protocol == "class-agnostic ScanNet++: 2 instance classes folded into one"
    assert np.unique(truth.instance).tolist() == [0, 2]
    assert score(cloud_of(truth.points, truth.instance), {2: 1.0}, truth)["ap"] == 1
