"""What people bring: 16-bit and float colours, odd annotations, truth files of other programs.

The cases of shared/data/field_cases run where they are; beside each is a small one made here.
"""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from plyfile import PlyData, PlyElement
from scipy.spatial import cKDTree

from lift3d.datasets import read_scene
from lift3d.datasets.images import read_color, read_labels
from lift3d.datasets.scannet_surface import object_groups, vertex_instances
from lift3d.datasets.transforms_json import read_cloud
from lift3d.evaluation.metrics.annotation import label_convention, read_annotation
from lift3d.evaluation.metrics.classes import SCANNET
from lift3d.evaluation.truth import Truth, read_truth
from lift3d.reconstruction.fusion import given_points
from lift3d.run import api
from lift3d.run.evaluating import evaluate
from lift3d.scene import LabelledPoints, Points, Scene
from lift3d.scene.colours import eight_bit
from lift3d.scene.errors import FrameError, InputError
from lift3d.segmentation.folder import FolderConfig

UTM = np.array([512345.25, 5403210.5, 312.75])


@pytest.fixture
def case(shared_data):
    return lambda name: shared_data("field_cases") / name


@pytest.fixture(scope="module")
def lifted(tmp_path_factory):
    """A function that lifts a scan with masks; each once."""
    done = {}

    def lift(scan: Path, masks: Path, **settings):
        key = (scan, masks, *settings.items())
        if key not in done:
            out = tmp_path_factory.mktemp("run")
            folder = FolderConfig(masks)
            done[key] = api.lift(scan, out, segmentation=folder, **settings)
        return done[key]

    return lift


# colours


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (np.array([0, 128, 255], np.uint8), [0, 128, 255]),
        (np.array([0, 25700, 65535], np.uint16), [0, 100, 255]),
        (np.array([0, 100, 255], np.uint16), [0, 100, 255]),
        (np.array([0, 100, 255], np.int64), [0, 100, 255]),
        (np.array([0, 0.5, 1.0], np.float32), [0, 128, 255]),
        (np.array([-0.1, 0.5, 1.02]), [0, 128, 255]),
        (np.array([0, 99.6, 255.0]), [0, 100, 255]),
        (np.array([0, 25700.0, 65535.0], np.float32), [0, 100, 255]),
        (np.array([0, np.nan, 1.0]), [0, 0, 255]),
        (np.array([False, True]), [0, 255]),
        (np.zeros(0, np.float32), []),
    ],
)
def test_colours_of_any_type_become_8_bits(stored, expected):
    assert eight_bit(stored).tolist() == expected


COLOURS = np.array([[100, 0, 255], [20, 40, 60]], np.uint8)
STORED = {"u1": 1.0, "u2": 257.0, "f4": 1 / 255, "f8": 1 / 255, "f4 to 255": 1.0}


def coloured(path, kind, names=("red", "green", "blue")):
    vertex = np.zeros(2, [(a, "f4") for a in "xyz"] + [(name, kind[:2]) for name in names])
    vertex["x"] = [0, 1]
    for channel, name in enumerate(names):
        vertex[name] = COLOURS[:, channel] * STORED[kind]
    PlyData([PlyElement.describe(vertex, "vertex")]).write(str(path))
    return path


@pytest.mark.parametrize("kind", STORED)
def test_every_reader_of_ply_takes_every_type_of_colour(tmp_path, kind):
    path = coloured(tmp_path / "a.ply", kind)
    assert np.array_equal(given_points(path).rgb, COLOURS)
    assert np.array_equal(read_cloud(path, np.eye(4)).rgb, COLOURS)
    other = coloured(tmp_path / "b.ply", kind, ("diffuse_red", "diffuse_green", "diffuse_blue"))
    assert np.array_equal(read_cloud(other, np.eye(4)).rgb, COLOURS)


def test_splats_and_capital_names_have_colours_too(tmp_path):
    path = coloured(tmp_path / "a.ply", "u1", ("Red", "Green", "Blue"))
    assert np.array_equal(given_points(path).rgb, COLOURS)
    vertex = np.zeros(2, [(name, "f4") for name in ("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2")])
    for channel in range(3):
        vertex[f"f_dc_{channel}"] = (COLOURS[:, channel] / 255 - 0.5) / 0.28209479
    PlyData([PlyElement.describe(vertex, "vertex")]).write(str(tmp_path / "b.ply"))
    assert np.array_equal(given_points(tmp_path / "b.ply").rgb, COLOURS)


@pytest.mark.parametrize("name", ["a.npy", "b.npy", "c.tif", "d.tif", "e.png", "f.tif"])
def test_pictures_of_16_bits_and_floats_are_scaled(tmp_path, name):
    rgb = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    rgb[0, 0] = 255
    scaled = {"a": rgb * np.uint16(257), "b": rgb / 255, "e": rgb * np.uint16(257)}
    scaled |= {"c": (rgb / 255).astype(np.float32), "d": rgb.astype(np.float32)}
    stored = scaled.get(name[0], rgb * np.uint16(257))
    if name.endswith(".npy"):
        np.save(tmp_path / name, stored)
    else:
        assert cv2.imwrite(str(tmp_path / name), stored[..., ::-1])
    np.testing.assert_array_equal(read_color(tmp_path / name), rgb)


def test_true_ids_of_a_scan_may_be_npy(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[-1, 0], [600, 1200]]))
    assert read_labels(tmp_path / "a.npy", 6).tolist() == [[0, 0], [100, 200]]
    np.save(tmp_path / "b.npy", np.zeros((2, 2)))
    with pytest.raises(FrameError, match=r"b\.npy is float64 \(2, 2\); expected whole ids"):
        read_labels(tmp_path / "b.npy")


def test_images_in_memory_may_be_floats():
    images = [np.full((3, 4, 3), 0.5)] * 2
    scene = Scene.from_arrays(images, np.eye(3), [np.eye(4)] * 2)
    assert (scene.views[0].image() == 128).all()


def test_case_16_bit_and_float_clouds_have_one_colour(case):
    sixteen = given_points(case("ply/uint16_colour.ply"))
    ours = read_scene(case("ns_nodepth_ply")).load_points()
    given = given_points(case("ns_nodepth_ply/sparse_pc.ply"))
    np.testing.assert_array_equal(ours.rgb, given.rgb)
    np.testing.assert_array_equal(sixteen.rgb, given.rgb)
    assert 100 < ours.rgb.mean() < 200


# georeferenced (more in test_georeferenced.py)


def test_case_utm_gives_what_the_same_scan_at_0_gives(case, lifted):
    masks = case("base/masks")
    base, far = lifted(case("base/scan"), masks), lifted(case("utm_rgbd"), masks)
    distance, nearest = cKDTree(base.cloud.points.xyz).query(far.cloud.points.world - UTM)
    assert distance.max() < 0.015  # a voxel
    assert np.median(distance) < 0.005
    assert len(far.objects) == len(base.objects)
    both = np.stack([base.cloud.instance[nearest], far.cloud.instance], 1)
    pairs, counts = np.unique(both, axis=0, return_counts=True)
    assert sum(max(counts[pairs[:, 0] == each]) for each in set(pairs[:, 0])) > 0.99 * len(both)
    places = [each.centre for each in far.objects]
    assert np.abs(np.array(places) - UTM).max() < 10
    assert evaluate(far, far.files.cloud)["ap"] == pytest.approx(1)
    ply = PlyData.read(str(far.files.cloud))["vertex"].data
    np.testing.assert_allclose(ply["y"], far.cloud.points.world[:, 1], rtol=0, atol=1e-6)


# ScanNet's annotation


def test_duplicate_groups_are_one_object_and_a_second_count_gets_new_ids(tmp_path):
    file, segments = tmp_path / "a.json", tmp_path / "b.json"
    listed = [(0, "wall", [1, 2]), (1, "chair", [3]), (7, "wall", [2, 1]), (1, "lamp", [4, 99])]
    content = [dict(zip(("objectId", "label", "segments"), each, strict=True)) for each in listed]
    file.write_text(json.dumps({"segGroups": content}))
    segments.write_text(json.dumps({"segIndices": [1, 2, 3, 4, 10**12]}))
    groups = object_groups(file)
    assert [(each.id, each.name) for each in groups] == [(1, "wall"), (2, "chair"), (9, "lamp")]
    ids = vertex_instances(segments, groups)
    assert ids.tolist() == [1, 1, 2, 9, 0]
    file.write_text(json.dumps({"segGroups": [{"objectId": 0}]}))
    with pytest.raises(InputError, match=r"a\.json is damaged .*segments"):
        object_groups(file)


def test_a_stray_id_does_not_make_labels_raw():
    instance = np.repeat(np.arange(1, 6), 4).astype(np.int32)
    names = {1: "chair", 2: "chair", 3: "floor", 4: "rack", 5: "wall"}
    label = np.repeat([5, 5, 2, 50, 1], 4).astype(np.int32)
    assert label_convention(label, instance, names)[0] == "nyu40"
    raw = np.repeat([2, 2, 3, 50, 1], 4).astype(np.int32)
    assert label_convention(raw, instance, names)[0] == "raw"
    few = np.where(np.arange(100) < 3, 50, 5).astype(np.int32)  # no names: by the share of labels
    assert label_convention(few, np.ones(100, np.int32), {})[0] == "nyu40"
    assert label_convention(few * 10, np.ones(100, np.int32), {})[0] == "raw"
    xyz = np.zeros((20, 3), np.float32)
    points = Points(xyz, xyz.astype(np.uint8), xyz, np.ones(20, np.float32))
    for labels, floor in ((label, 3), (raw, 3)):
        surface = LabelledPoints(points, instance, np.ones(20, np.float32), labels, names=names)
        truth = Truth.of_surface(surface, (1, 2, 22))
        assert set(np.unique(truth.instance)) == {0, 1, 2, 3, 4, 5} - {floor, 5}


def test_case_scannet_with_a_stray_id_scores_by_the_v2_protocol(case, lifted):
    folder = case("scannet_dup/scene0217_00")
    found = read_annotation(folder, folder.name)
    assert found.nyu40 is not None
    assert "v2, nyu40 ids (22 of 22 objects" in found.notes[0]
    truth = read_truth(folder)
    floor = found.nyu40 == 2
    assert floor.sum() == 153
    assert not truth.instance[floor].any()
    assert len(np.unique(truth.instance[truth.instance > 0])) == 22
    assert truth.protocols()[0].protocol == SCANNET.class_agnostic
    run = lifted(folder, case("base/masks_short"), tracking="given")
    scores = [each["ap"] for each in evaluate(run, folder)["scores"]]
    assert [*scores, run.consistency["truth"]["ap"]] == pytest.approx([1, 1, 1])


# masks (more in test_mask_files.py)


@pytest.mark.parametrize("name", ["masks_npy_ids", "masks_sa1b_json"])
def test_case_masks_of_other_tools_are_those_of_the_base(case, name):
    scene = read_scene(case("base/scan"))
    ours = FolderConfig(case(name) / "masks").build()
    base = FolderConfig(case("base/masks")).build()
    ours.check(scene)
    for view in scene.views:
        stack = {each.tobytes() for each in ours.segment(view).stack}
        assert stack == {each.tobytes() for each in base.segment(view).stack}


# truth


SQUARE = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 1, 0], [1, 1, 0], [2, 1, 0]], np.float32)


def truth_ply(path, vertices=(), faces=()):
    """Six vertices in two squares; properties as (name, type, values)."""
    vertex = np.zeros(6, [(a, "f4") for a in "xyz"] + [each[:2] for each in vertices])
    for axis, name in enumerate("xyz"):
        vertex[name] = SQUARE[:, axis]
    for name, _, values in vertices:
        vertex[name] = values
    quads = [[0, 1, 4, 3], [1, 2, 5, 4], [1, 2, 5, 4]]
    face = np.zeros(3, [("vertex_indices", "i4", (4,)), *(each[:2] for each in faces)])
    face["vertex_indices"] = quads
    for name, _, values in faces:
        face[name] = values
    elements = [PlyElement.describe(vertex, "vertex"), PlyElement.describe(face, "face")]
    PlyData(elements).write(str(path))
    return path


def test_object_ids_of_faces_come_to_their_vertices_by_majority(tmp_path):
    path = truth_ply(tmp_path / "a.ply", faces=[("object_id", "i4", [7, 8, 9])])
    truth = read_truth(path)
    assert truth.instance.tolist() == [7, 7, 8, 7, 7, 8]  # of two, the smaller
    assert truth.notes == ("a.ply: object_id of the faces, given to their vertices by majority",)
    many = truth_ply(tmp_path / "b.ply", faces=[("object_id", "i4", [7, 9, 9])])
    assert read_truth(many).instance.tolist() == [7, 9, 9, 7, 9, 9]


@pytest.mark.parametrize(
    ("name", "kind", "note"),
    [
        ("instance", "u2", ()),
        ("Instance_ID", "i4", ()),
        ("objectId", "u4", ()),
        ("scalar_Label", "f4", ()),
        ("scalar_instance_id", "f8", ()),
        ("scalar_Scalar_field", "f4", ("a.ply: scalar_Scalar_field taken as the objects",)),
    ],
)
def test_properties_of_other_programs_are_found(tmp_path, name, kind, note):
    values = [1, 1, 2, 2, 0, 5]
    path = truth_ply(tmp_path / "a.ply", [(name, kind, values), ("semantic", "u1", [4] * 6)])
    truth = read_truth(path)
    assert truth.instance.tolist() == values
    assert truth.notes == note
    assert truth.semantic.tolist() == [4] * 6


def test_label_is_the_class_where_objects_have_a_property_of_their_own(tmp_path):
    both = [("label", "i4", [5, 5, 5, 7, 7, 7]), ("instance_id", "i4", [1, 1, 2, 3, 3, 3])]
    truth = read_truth(truth_ply(tmp_path / "a.ply", both))
    assert truth.instance.tolist() == [1, 1, 2, 3, 3, 3]
    assert truth.semantic.tolist() == [5, 5, 5, 7, 7, 7]
    assert read_truth(truth_ply(tmp_path / "b.ply", both[:1])).semantic is None


def test_missing_values_of_cloudcompare_and_large_ids_are_no_surprise(tmp_path):
    path = truth_ply(tmp_path / "a.ply", [("scalar_label", "f4", [1, np.nan, 2, -1, 0, 5])])
    assert read_truth(path).instance.tolist() == [1, 0, 2, 0, 0, 5]
    path = truth_ply(tmp_path / "b.ply", [("instance", "u4", [2**32 - 2, 0, 2**32 - 2, 3, 3, 0])])
    assert read_truth(path).instance.tolist() == [2, 0, 2, 1, 1, 0]


def test_a_cloud_without_ids_is_refused_with_what_it_has(tmp_path):
    path = truth_ply(tmp_path / "a.ply", [("scalar_a", "f4", 1), ("scalar_b", "f4", 1)])
    with pytest.raises(InputError, match=r"vertices have x, y, z, scalar_a, scalar_b; expected"):
        read_truth(path)


@pytest.mark.parametrize("suffix", [".txt", ".npy"])
def test_objects_may_be_listed_by_name(tmp_path, suffix):
    names = ["office chair 1", "table", "unlabelled", "table", "", "office chair 1"]
    path = tmp_path / f"truth{suffix}"
    if suffix == ".npy":
        np.save(path, np.array(names))
    else:
        path.write_text("\n".join(names) + "\n")
    points = given_points(truth_ply(tmp_path / "a.ply"))
    cloud = LabelledPoints(points, np.ones(6, np.int32), np.ones(6, np.float32))
    truth = read_truth(path, cloud)
    assert truth.instance.tolist() == [1, 2, 0, 2, 0, 1]
    assert "2 names, each taken as one object (office chair 1, table)" in truth.notes[0]
    (tmp_path / "mixed.txt").write_text("1\nchair\n3\n4\n5\n6\n")
    with pytest.raises(InputError, match=r"mixed\.txt: expected numbers, found 'chair'"):
        read_truth(tmp_path / "mixed.txt", cloud)


def test_a_truth_of_another_reader_names_its_source(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({}))
    with pytest.raises(InputError, match=r"truth is a \.ply, \.txt, \.npy"):
        read_truth(tmp_path / "a.json")
