"""ScanNet's truth: classes by the table; both label conventions are detected and reported."""

import json

import numpy as np
import pytest
from plyfile import PlyData, PlyElement

from lift3d.datasets.scannet_surface import annotation_files
from lift3d.evaluation.metrics.annotation import label_convention, read_annotation
from lift3d.evaluation.metrics.classes import SCANNET, SCANNET200
from lift3d.scene.errors import InputError

TABLE = """id\traw_category\tcategory\tcount\tnyu40id\tnyu40class
1\twall\twall\t9\t1\twall
2\tchair\tchair\t9\t5\tchair
10\toffice chair\toffice chair\t9\t5\tchair
54\ttrash "can\ttrash can\t9\t39\totherfurniture
77\tthing\tthing\t1\t\t
"""
NAMES = ("wall", "chair", "office chair", 'trash "can', "cup of tea")
NYU40, RAW = (1, 5, 5, 39, 40), (1, 2, 10, 54, 300)


def write_scene(folder, labels=None, table=False, names=NAMES, each=2):
    """One segment per object, `each` vertices, then one vertex of no object."""
    folder.mkdir(parents=True, exist_ok=True)
    mesh, segs, aggregation, labelled = annotation_files(folder, folder.name)
    segment = [*np.repeat(np.arange(len(names)), each).tolist(), 99]
    vertex = np.zeros(len(segment), [(a, "f4") for a in "xyz"] + [(c, "u1") for c in RGB])
    vertex["x"] = np.arange(len(segment)) / 100
    face = np.array([([0, 1, 2],)], [("vertex_indices", "i4", (3,))])
    PlyData([PlyElement.describe(vertex, "vertex"), PlyElement.describe(face, "face")]).write(mesh)
    segs.write_text(json.dumps({"segIndices": segment}))
    groups = [{"objectId": i, "label": n, "segments": [i]} for i, n in enumerate(names)]
    aggregation.write_text(json.dumps({"segGroups": groups}))
    if labels is not None:
        values = np.zeros(len(segment), [("label", "u2")])
        values["label"] = [*np.repeat(labels, each).tolist(), 0]
        PlyData([PlyElement.describe(values, "vertex")]).write(labelled)
    if table:
        (folder.parent / "scannetv2-labels.combined.tsv").write_text(TABLE)
    return folder


RGB = ("red", "green", "blue")


def test_the_table_gives_both_lists_of_classes(tmp_path):
    scene = write_scene(tmp_path / "scans/scene0000_00", NYU40, table=True)
    got = read_annotation(scene, scene.name)
    assert got.truth(SCANNET).tolist() == [
        *(1001, 1001, 5002, 5002, 5003, 5003, 39004, 39004),
        *(5, 5, 0),  # an object without a class: below 1000, so void
    ]
    assert got.truth(SCANNET200)[:8].tolist() == [
        1001,
        1001,
        2002,
        2002,
        10003,
        10003,
        54004,
        54004,
    ]
    assert any("v2, nyu40 ids" in note for note in got.notes)
    assert any("no class for cup of tea" in note for note in got.notes)


@pytest.mark.parametrize(
    ("labels", "convention", "why"),
    [
        (NYU40, "nyu40", "1 of 1 objects have the nyu40 id"),
        ((1, 2, 10, 13, 40), "raw", "2 of 2 objects have the raw id"),
        (RAW, "raw", "2 of 2 objects have the raw id"),
        ((1, 5, 5, 50, 40), "nyu40", "1 of 1 objects have the nyu40 id of their name; 20.0% of"),
    ],
)
def test_conventions_are_detected_without_a_table(tmp_path, labels, convention, why):
    scene = write_scene(tmp_path / "scene0000_00", labels)
    got = read_annotation(scene, scene.name)
    assert why in got.notes[0]
    known, unknown = (SCANNET, SCANNET200) if convention == "nyu40" else (SCANNET200, SCANNET)
    assert got.classes(known).tolist() == [*np.repeat(labels, 2).tolist(), 0]
    assert got.classes(unknown) is None
    with pytest.raises(InputError, match=r"put scannetv2-labels.combined.tsv beside the scan"):
        got.truth(unknown)


def test_an_assumed_convention_is_reported():
    label, instance = np.array([1, 1], np.int32), np.array([1, 1], np.int32)
    convention, why = label_convention(label, instance, {1: "wall"})  # 1 in both lists
    assert convention == "nyu40"
    assert "assumed" in why


def test_a_scan_without_classes_has_objects(tmp_path):
    scene = write_scene(tmp_path / "scene0000_00")
    got = read_annotation(scene, scene.name)
    assert got.instance.tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 0]
    assert "objects have no classes" in got.notes[0]


def test_an_invalid_table_is_an_error_that_names_the_columns(tmp_path):
    scene = write_scene(tmp_path / "scene0000_00", NYU40)
    wrong = tmp_path / "t.tsv"
    wrong.write_text("a\tb\n1\t2\n")
    with pytest.raises(InputError, match="columns id, nyu40id, raw_category"):
        read_annotation(scene, scene.name, wrong)
