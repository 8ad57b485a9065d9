"""ScanNet's labelled mesh: ids from segments, in file order, for .sens and folders."""

import json

import numpy as np
import pytest
import tiny_scan as tiny
from plyfile import PlyData, PlyElement
from tiny_scan import tiny_scan

from lift3d.datasets import read_scene
from lift3d.datasets.scannet_surface import annotation_files, vertex_normals
from lift3d.scene.errors import InputError

XYZ = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 5], [9, 9, 9]], np.float32)


def annotate(folder, scene, segments=(70, 70, 3, 12, 3)):
    """Five vertices: a triangle in the plane z = 0, and two in no face."""
    mesh, segs, aggregation, labels = annotation_files(folder, scene)
    vertex = np.zeros(5, [(a, "f4") for a in "xyz"] + [(c, "u1") for c in ("red", "green", "blue")])
    for axis, name in enumerate("xyz"):
        vertex[name] = XYZ[:, axis]
    vertex["red"] = np.arange(5) * 10
    face = np.array([([0, 1, 2],)], [("vertex_indices", "i4", (3,))])
    PlyData([PlyElement.describe(vertex, "vertex"), PlyElement.describe(face, "face")]).write(mesh)
    segs.write_text(json.dumps({"segIndices": list(segments)}))
    groups = [
        {"objectId": 0, "label": "chair", "segments": [70]},
        {"objectId": 4, "label": "table", "segments": [12, 999]},
    ]
    aggregation.write_text(json.dumps({"segGroups": groups}))
    classes = np.array([(5,), (5,), (0,), (7,), (0,)], [("label", "u2")])
    PlyData([PlyElement.describe(classes, "vertex")]).write(labels)


def test_vertices_get_the_object_of_their_segment_in_file_order(tmp_path):
    tiny.write_sens(tmp_path / "scene0000_00.sens", tiny_scan())
    annotate(tmp_path, "scene0000_00")
    surface = read_scene(tmp_path).load_surface()
    assert surface.instance.tolist() == [1, 1, 0, 5, 0]
    assert surface.semantic.tolist() == [5, 5, 0, 7, 0]
    assert surface.score.tolist() == [1, 1, 0, 1, 0]
    np.testing.assert_array_equal(surface.points.xyz, XYZ)
    assert surface.points.rgb[:, 0].tolist() == [0, 10, 20, 30, 40]


def test_an_exported_folder_has_a_surface_too(tmp_path):
    root = tmp_path / "scene0011_00"
    tiny.write_scannet(root, tiny_scan())
    assert read_scene(root).load_surface is None
    annotate(root, "scene0011_00")
    assert len(read_scene(root).load_surface()) == 5


def test_normals_come_from_the_faces_and_are_zero_without_any():
    normals = vertex_normals(XYZ, np.array([[0, 1, 2]]))
    assert normals.tolist() == [[0, 0, 1]] * 3 + [[0, 0, 0]] * 2


def test_segments_of_another_mesh_are_an_error(tmp_path):
    tiny.write_sens(tmp_path / "a.sens", tiny_scan())
    annotate(tmp_path, "a", segments=(70, 70, 3))
    with pytest.raises(InputError, match=r"has 3 entries but .* has 5 vertices"):
        read_scene(tmp_path).load_surface()


def test_the_scans_text_file_has_the_intrinsics_where_no_matrix_does(tmp_path):
    root = tmp_path / "scene0707_00"
    scan = tiny_scan()
    tiny.write_scannet(root, scan)
    for file in (root / "intrinsic").iterdir():
        file.unlink()
    K = scan.K
    facts = ["sceneType = Apartment", "axisAlignment = 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1"]
    for camera in ("color", "depth"):
        facts += [f"fx_{camera} = {K[0, 0]}", f"fy_{camera} = {K[1, 1]}"]
        facts += [f"mx_{camera} = {K[0, 2]}", f"my_{camera} = {K[1, 2]}"]
    (root / "scene0707_00.txt").write_text("\n".join(facts))
    view = read_scene(root).views[0]
    np.testing.assert_allclose(view.camera.K, K)
    assert view.depth_camera is None
