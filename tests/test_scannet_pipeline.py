"""The ScanNet recipe on two tiny scenes: submission and AP equal what the modules say of them."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from plyfile import PlyData, PlyElement
from tiny_scan import BOX_HIGH, BOX_LOW, WALL_Z, tiny_scan, write_scannet

from lift3d.datasets.scannet_surface import annotation_files
from lift3d.evaluation.submitted import evaluate_submission

ROOT = Path(__file__).resolve().parents[1]


def scene(root, nearer):
    """The wall (class 1) and the box before it (a chair, 5), on a mesh of their points."""
    scan = tiny_scan(nearer=nearer)
    write_scannet(root, scan)
    x, y = np.meshgrid(np.linspace(-0.9, 0.9, 60), np.linspace(-0.7, 0.7, 50))
    wall = np.stack([x, y, np.full_like(x, WALL_Z)], -1).reshape(-1, 3)
    x, y = np.meshgrid(
        np.linspace(BOX_LOW[0], BOX_HIGH[0], 30), np.linspace(BOX_LOW[1], BOX_HIGH[1], 30)
    )
    box = np.stack([x, y, np.full_like(x, BOX_LOW[2])], -1).reshape(-1, 3)
    xyz = np.concatenate([wall, box]).astype(np.float32)
    object_of = np.repeat([0, 1], [len(wall), len(box)])
    mesh, segs, aggregation, labels = annotation_files(root, root.name)
    vertex = np.zeros(len(xyz), [(a, "f4") for a in "xyz"] + [(c, "u1") for c in RGB])
    for axis, name in enumerate("xyz"):
        vertex[name] = xyz[:, axis]
    PlyData([PlyElement.describe(vertex, "vertex")]).write(mesh)
    segs.write_text(json.dumps({"segIndices": object_of.tolist()}))
    groups = [
        {"objectId": 0, "label": "wall", "segments": [0]},
        {"objectId": 1, "label": "chair", "segments": [1]},
    ]
    aggregation.write_text(json.dumps({"segGroups": groups}))
    label = np.zeros(len(xyz), [("label", "u2")])
    label["label"] = np.where(object_of == 1, 5, 1)
    PlyData([PlyElement.describe(label, "vertex")]).write(labels)
    for name, ids in zip(scan.names, scan.instances, strict=True):
        for folder, values in (("masks", ids), ("classes", np.where(ids == 2, 5, 1))):
            path = root.parent.parent / folder / root.name / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), values.astype(np.uint16))


RGB = ("red", "green", "blue")
TSV = "id\traw_category\tnyu40id\n1\twall\t1\n2\tchair\t5\n"


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scannet")
    for number, name in enumerate(("scene0000_00", "scene0001_00")):
        scene(folder / "scans" / name, 0.1 * number)
    (folder / "scans/scannetv2-labels.combined.tsv").write_text(TSV)
    return folder


def run(scans, out, *more):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "pipelines"))
        sys.modules.pop("scannet", None)
        import scannet

        paths = [str(path) for path in sorted((scans / "scans").glob("scene*"))]
        return scannet.main([*paths, "--out", str(out), *more])


@pytest.fixture(scope="module")
def done(scans, tmp_path_factory):
    out = tmp_path_factory.mktemp("benchmark") / "out"
    masks = ["segmentation:folder", "--segmentation.path", str(scans / "masks/{scan}")]
    assert run(scans, out, "--classes", str(scans / "classes/{scan}"), *masks) == 0
    return out


def test_true_masks_and_classes_score_one_by_every_protocol(done):
    scores = json.loads((done / "benchmark.json").read_text())["scores"]
    assert len(scores) == 3
    for each in scores:
        assert (each["ap"], each["ap50"], each["ap25"]) == (1, 1, 1), each["protocol"]
    assert any("(a) ScanNetV2" in each["protocol"] for each in scores)
    assert any("(b) ScanNet200" in each["protocol"] for each in scores)


def test_the_submission_scores_what_the_recipe_says(done, scans):
    found = evaluate_submission(done / "submission", scans / "scans")
    assert found["scenes"] == 2
    (own,) = [
        each
        for each in json.loads((done / "benchmark.json").read_text())["scores"]
        if each["protocol"] == found["protocol"]
    ]
    assert (found["ap"], found["ap50"]) == (own["ap"], own["ap50"])


def test_a_scan_that_fails_counts_as_nothing_found(done, scans, capsys):
    """Of two true chairs one is found: recall, and with it AP, is a half."""
    pose = sorted((scans / "scans/scene0001_00/pose").iterdir())
    kept = [path.read_text() for path in pose]
    try:
        for path in pose:
            path.write_text("nan")
        masks = ["segmentation:folder", "--segmentation.path", str(scans / "masks/{scan}")]
        assert run(scans, done, "--classes", str(scans / "classes/{scan}"), *masks) == 2
    finally:
        for path, content in zip(pose, kept, strict=True):
            path.write_text(content)
    assert "1 done, 1 quarantined" in capsys.readouterr().out
    for each in json.loads((done / "benchmark.json").read_text())["scores"]:
        assert each["ap"] == pytest.approx(0.5, abs=0.01), each["protocol"]
    assert (done / "submission/scene0001_00.txt").read_text() == ""


def test_an_unknown_benchmark_is_told(scans, tmp_path, capsys):
    assert run(scans, tmp_path / "out", "--benchmark", "kitti") == 2
    assert "expected scannet or scannet200" in capsys.readouterr().err
