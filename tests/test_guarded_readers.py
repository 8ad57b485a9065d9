"""Damaged inputs through the readers: what is wrong with which file, before memory is taken."""

import json
import os
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import tiny_scan as tiny
from plyfile import PlyData, PlyElement
from test_scannet_surface import annotate
from tiny_scan import COLOR_K, COLOR_SIZE, tiny_scan

from lift3d.cli import main
from lift3d.datasets import read_scene
from lift3d.datasets.colmap_files import check_model
from lift3d.datasets.colmap_model import read_dense
from lift3d.datasets.images import DepthCode
from lift3d.datasets.patterns import collect
from lift3d.datasets.poses import fault
from lift3d.datasets.sens_file import load_depth
from lift3d.evaluation.metrics.annotation import read_table
from lift3d.evaluation.metrics.scannetpp import read_scannetpp
from lift3d.evaluation.metrics.submission import read_submission
from lift3d.evaluation.truth import read_truth
from lift3d.reconstruction.fusion import given_points
from lift3d.run.run import Run
from lift3d.scene import Camera, View
from lift3d.scene.contents import content
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.labelmaps import write_label_map
from lift3d.segmentation.folder import FolderConfig

SCENE = "scene0000_00"


@pytest.fixture
def scan(tmp_path):
    """An exported ScanNet folder with its annotation."""
    tiny.write_scannet(tmp_path / SCENE, tiny_scan())
    annotate(tmp_path / SCENE, SCENE)
    return tmp_path / SCENE


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("suffix", ["_vh_clean_2.ply", "_vh_clean_2.labels.ply"])
def test_a_cut_mesh_of_scannet_is_named(scan, suffix):
    path = scan / f"{SCENE}{suffix}"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=rf"{SCENE}{suffix} cannot be read as PLY"):
        read_scene(scan).load_surface()
    with pytest.raises(InputError, match="cannot be read as PLY"):
        read_truth(scan)


def test_segments_of_any_number_cost_no_memory(scan):
    path = scan / f"{SCENE}_vh_clean_2.0.010000.segs.json"
    path.write_text(json.dumps({"segIndices": [70, 70, 2**40, 12, -3]}))
    assert read_scene(scan).load_surface().instance.tolist() == [1, 1, 0, 5, 0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["segGroups"][0].update(objectId=2**31), "objectId 2147483648 is not a number"),
        (lambda c: c["segGroups"][0].update(objectId="1"), r"segGroups\[0\].objectId is '1'"),
        (lambda c: c["segGroups"][1].update(segments=3), r"segGroups\[1\].segments is 3"),
        (lambda c: c["segGroups"][1].pop("segments"), r"segGroups\[1\].segments is None"),
        (lambda c: c.pop("segGroups"), "segGroups is None; expected list"),
        (lambda c: c.update(segGroups=7), "segGroups is 7"),
    ],
)
def test_an_aggregation_with_a_wrong_field_says_which(scan, change, said):
    edit(scan / f"{SCENE}.aggregation.json", change)
    with pytest.raises(InputError, match=rf"{SCENE}\.aggregation\.json.*{said}"):
        read_scene(scan).load_surface()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"w": 0}, "w and h are 0"),
        ({"w": float("nan")}, "w is not finite"),
        ({"h": 10**400}, "h is not finite"),
        ({"fl_x": "75"}, "fl_x is '75'; expected a number"),
        ({"applied_scale": float("inf")}, "applied_scale is not finite"),
        ({"ply_file_path": 5}, "ply_file_path is 5; expected a path"),
        ({"depth_file_path": ["a"]}, "depth_file_path is .*; expected a path"),
        ({"transform_matrix": [[10**400] * 4] * 4}, "is not a matrix of numbers"),
    ],
)
def test_a_wrong_field_of_transforms_json_is_named(tmp_path, change, said):
    tiny.write_transforms(tmp_path, tiny_scan())
    key = next(iter(change))
    of_frame = key in ("depth_file_path", "transform_matrix")
    edit(
        tmp_path / "transforms.json",
        lambda content: (content["frames"][0] if of_frame else content).update(change),
    )
    with pytest.raises(InputError, match=rf"transforms\.json.*{said}"):
        read_scene(tmp_path)


@pytest.mark.parametrize(
    "given",
    ["[" * 9999, '{"depth_scale": 1e400}', '{"depth_scale": NaN}', '{"images": "a\\u0000*"}']
    + ['{"depth_max": 1%s}' % ("0" * 400), '{"K": [1, 2]}'],
)
def test_options_in_rgbd_json_are_finite_and_of_their_types(tmp_path, given):
    tiny.write_rgbd_json(tmp_path, tiny_scan(views=2))
    (tmp_path / "rgbd.json").write_text(given)
    with pytest.raises(InputError, match=r"rgbd\.json"):
        read_scene(tmp_path)


def test_zlib_depth_is_unpacked_only_to_the_size_of_a_depth_map(tmp_path):
    path = tmp_path / "a.sens"
    packed = zlib.compress(bytes(60 << 20), 1)
    path.write_bytes(packed)
    tracemalloc.start()
    with pytest.raises(FrameError, match="longer than a depth map"):
        load_depth(path, 0, 0, len(packed), "zlib", (80, 60), DepthCode())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 << 20


def test_a_link_to_itself_is_a_file_that_is_not_there(tmp_path):
    (tmp_path / "given").mkdir()
    (tmp_path / "given/loop.txt").symlink_to("loop.txt")
    (tmp_path / "given/s.txt").write_text("loop.txt 3 0.5\n")
    assert len(content(tmp_path / "given")) == 1
    with pytest.raises(InputError, match=r"loop\.txt cannot be read"):
        read_submission(tmp_path / "given", "s", 3)


@pytest.fixture
def colmap(tmp_path):
    """The binary model of a COLMAP workspace."""
    tiny.write_colmap(tmp_path, tiny_scan())
    return tmp_path / "sparse"


def test_a_whole_colmap_model_passes_the_check(colmap):
    check_model(colmap)


@pytest.mark.parametrize("name", ["cameras", "images", "points3D", "rigs", "frames"])
@pytest.mark.parametrize("damage", ["cut", "count", "four bytes"])
def test_counts_in_colmap_files_are_checked_before_pycolmap_believes_them(colmap, name, damage):
    path = colmap / f"{name}.bin"
    data = path.read_bytes()
    many = struct.pack("<Q", 10**12) + data[8:]
    path.write_bytes({"cut": data[:-3], "count": many, "four bytes": data[:4]}[damage])
    with pytest.raises(InputError, match=rf"{name}\.bin cannot be read as a file of a COLMAP"):
        check_model(colmap)


@pytest.mark.parametrize(("at", "value"), [(24, float("nan")), (24, 1e200), (60, float("inf"))])
def test_a_colmap_model_with_an_impossible_pose_is_refused(colmap, at, value):
    """LAPACK may never return from a matrix that is not finite."""
    path = colmap / "frames.bin"
    data = bytearray(path.read_bytes())
    data[8 + at : 16 + at] = struct.pack("<d", value)
    path.write_bytes(data)
    with pytest.raises(InputError, match="copy cameras, images and points3D"):
        read_scene(colmap.parent)


def test_a_colmap_camera_without_pixels_is_refused(colmap):
    path = colmap / "cameras.bin"
    data = bytearray(path.read_bytes())
    data[16:24] = bytes(8)
    path.write_bytes(data)
    with pytest.raises(InputError, match="a camera is 0x60"):
        read_scene(colmap.parent)


def test_a_pose_whose_squares_overflow_is_no_rotation():
    pose = np.eye(4)
    pose[:2, :2] = [[1e200, 1e200], [-1e200, 1e200]]
    assert fault(pose) is not None


@pytest.mark.parametrize("header", [b"0&0&1&", b"9999999999&9999999999&1&", b"2&2&", b"2&x&1&"])
def test_dense_depth_of_another_size_is_refused(tmp_path, header):
    path = tmp_path / "a.bin"
    path.write_bytes(header + bytes(16))
    with pytest.raises(FrameError, match=r"a\.bin"):
        read_dense(path)


def segmented(folder, name="a"):
    view = View(name, Camera(COLOR_K, *COLOR_SIZE), lambda: None)
    return FolderConfig(folder).build().segment(view)


def test_a_stack_of_no_masks_is_a_view_without_masks(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((0, 60, 80), bool))
    found = segmented(tmp_path)
    assert found.stack.shape == (0, 60, 80)


@pytest.mark.parametrize("shape", [(3, 0, 80), (3, 0, 0), (10**7, 1, 1)])
def test_a_stack_that_fits_no_image_is_refused(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape, bool))
    with pytest.raises(FrameError, match=r"a\.npy"):
        segmented(tmp_path)


def test_a_mesh_whose_faces_are_no_indices_is_refused(tmp_path):
    vertex = np.zeros(3, [(axis, "f4") for axis in "xyz"])
    for kind, said in (("f4", "not a list of whole numbers"), ("i4", "refers to vertex 7")):
        face = np.array([([0, 1, 7],)], [("vertex_indices", kind, (3,))])
        elements = [PlyElement.describe(vertex, "vertex"), PlyElement.describe(face, "face")]
        PlyData(elements).write(str(tmp_path / "a.ply"))
        with pytest.raises(InputError, match=said):
            given_points(tmp_path / "a.ply")


def test_numbers_of_a_label_table_fit_into_32_bits(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("id\traw_category\tnyu40id\n1\twall\t99999999999\n\xb2\tchair\t5\n")
    table = read_table(path)
    assert table.nyu40 == {"chair": 5}
    assert table.raw == {"wall": 1}


def test_a_superscript_in_a_file_name_is_no_number(tmp_path):
    (tmp_path / "a²_1.png").touch()
    assert list(collect(tmp_path, "a*_*.png")) == ["²/1"]


def test_masked_vertices_that_scannetpp_does_not_have_are_named(tmp_path):
    vertex = np.zeros(3, [(axis, "f4") for axis in "xyz"])
    elements = [PlyElement.describe(vertex, "vertex")]
    PlyData(elements).write(str(tmp_path / "mesh_aligned_0.05.ply"))
    (tmp_path / "segments.json").write_text('{"segIndices": [1, 1, 2]}')
    (tmp_path / "segments_anno.json").write_text(
        '{"segGroups": [{"objectId": 1, "label": "chair", "segments": [1]}]}'
    )
    assert read_scannetpp(tmp_path).instance.tolist() == [1, 1, 0]
    (tmp_path / "mesh_aligned_0.05_mask.txt").write_text("1\n7\n")
    with pytest.raises(InputError, match=r"mask\.txt names vertices"):
        read_scannetpp(tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run."""
    root = tmp_path_factory.mktemp("guarded")
    given = tiny_scan()
    tiny.write_scannet(root / "scan", given)
    for name, labels in zip(given.names, given.instances, strict=True):
        write_label_map(root / "masks", name, labels)
    words = ["lift", str(root / "scan"), "--out", str(root / "run"), "--voxel", "0.08"]
    assert main([*words, "segmentation:folder", "--segmentation.path", str(root / "masks")]) == 0
    return root / "run"


def opened(run):
    found = Run.open(run)
    return found.consistency, found.palette, found.cameras


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("run.json", lambda c: c.pop("stages"), "stages is None"),
        ("run.json", lambda c: c["stages"].pop(1), "fuse is None"),
        ("run.json", lambda c: c.update(views="4"), "views is '4'"),
        ("run.json", lambda c: c["settings"].pop("tolerance"), "settings.tolerance is None"),
        ("consistency.json", lambda c: c.pop("printed"), "printed is None"),
        ("consistency.json", lambda c: c["views"].pop(), "does not fit the views"),
        (
            "consistency.json",
            lambda c: c["printed"].update(epsilon=None),
            "printed.epsilon is None",
        ),
        (
            "instances.json",
            lambda c: c["instances"][0].update(points=None),
            r"\[0\].points is None",
        ),
        ("instances.json", lambda c: c["instances"][0].update(colour="red"), "non-hexadecimal"),
        ("scene.json", lambda c: c["views"][0]["camera"].update(width=0), "a picture of 0x60"),
        ("scene.json", lambda c: c["views"][0]["camera"].update(K=[[1.0]]), "cannot reshape"),
        ("scene.json", lambda c: c["views"][0].pop("name"), r"views\[0\].name is None"),
    ],
)
def test_a_damaged_file_of_a_run_says_which_part_and_what_to_do(run, file, change, said, capsys):
    whole = (run / file).read_text()
    try:
        edit(run / file, change)
        with pytest.raises(InputError, match=rf"{file}.*{said}.*lift again"):
            opened(run)
        if file in ("run.json", "consistency.json"):
            assert main(["info", str(run)]) == 2
            assert "lift again" in capsys.readouterr().err
    finally:
        (run / file).write_text(whole)


def test_a_folder_of_a_model_never_runs_its_code(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from lift3d.networks.checkpoint import read_checkpoint
    from lift3d.networks.sam.official import load as load_weights
    from lift3d.networks.sam.transformers import load

    (tmp_path / "config.json").write_text(
        '{"model_type": "evil", "auto_map": {"AutoConfig": "evil.EvilConfig"}}'
    )
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    monkeypatch.setattr("builtins.input", lambda *words: "y")
    with pytest.raises(InputError, match="cannot be read as a model of transformers"):
        load(str(tmp_path), local_files_only=True)
    assert not (tmp_path / "canary").exists()
    for config in ("null", "[" * 9999, '{"model_type": ["sam"]}', '{"model_type": "sam"}'):
        (tmp_path / "config.json").write_text(config)
        (tmp_path / "model.safetensors").write_bytes(b"\7" * 30)
        with pytest.raises(InputError):
            load(str(tmp_path), local_files_only=True)
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(InputError, match=r"pipe\.safetensors is not a file"):
        load(str(tmp_path), local_files_only=True)
    with pytest.raises(InputError, match=r"pipe\.safetensors is not a file"):
        read_checkpoint(tmp_path / "pipe.safetensors", "")
    torch.save({3: torch.zeros(2)}, tmp_path / "numbers.pth")
    with pytest.raises(InputError, match="other content than weights"):
        load_weights(tmp_path / "numbers.pth")


def test_a_vertex_farther_than_any_scan_is_refused(tmp_path):
    """Its square leaves float32, in every later step."""
    vertex = np.zeros(3, [(name, "f8") for name in "xyz"])
    vertex["y"][1] = 1e30
    PlyData([PlyElement.describe(vertex, "vertex")]).write(str(tmp_path / "far.ply"))
    with pytest.raises(InputError, match=r"far\.ply: vertex 1 is at .*farther than any scan"):
        given_points(tmp_path / "far.ply")
