"""Exports are opened by the programs they are for, and by lift3d's readers."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from plyfile import PlyData
from tiny_export import crooked, lifted_run

from lift3d.cli import main
from lift3d.datasets import read_scene
from lift3d.datasets.colmap_model import ColmapModel
from lift3d.evaluation.metrics.scannet import Prediction, average_precision, class_agnostic
from lift3d.export.glb import linear
from lift3d.export.ply import read_cloud, write_cloud
from lift3d.export.registry import FORMATS
from lift3d.export.splat import NAMES, sizes
from lift3d.geometry import project
from lift3d.geometry.visibility import projected_depth
from lift3d.run.exporting import export
from lift3d.run.run import Run
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.labelmaps import read_label_map

NO_TICK = lambda done, total: None  # noqa: E731


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of five views of 64x48 pixels."""
    return lifted_run(tmp_path_factory.mktemp("lifted"))


@pytest.fixture(scope="module")
def out(run, tmp_path_factory):
    """Every format that needs neither an extra nor corrections, at once."""
    folder = tmp_path_factory.mktemp("exported")
    names = [name for name in FORMATS if name not in ("rerun", "corrections")]
    written = export(Run.open(run), names, folder)
    # `ply` is in the folder itself; its object files are listed as one entry.
    assert {p.name for p in written} == {*names, "cloud.ply", "objects"} - {"ply"}
    return folder


@pytest.fixture(scope="module")
def cloud(run):
    return read_cloud(run / "cloud.ply")


@pytest.fixture(scope="module")
def views():
    """The views of the lifted room."""
    from lift3d.datasets.synthetic import SyntheticConfig

    return {v.name: v for v in SyntheticConfig(views=5, width=64, height=48).read().views}


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


# --- our own readers


@pytest.mark.parametrize("name", ["nerfstudio", "colmap"])
def test_a_round_trip_keeps_poses_and_every_pixel(out, views, name):
    scene = read_scene(out / name)
    assert [view.name for view in scene.views] == list(views)
    for view in scene.views:
        given = views[view.name]
        np.testing.assert_allclose(view.camera.pose, given.camera.pose, atol=1e-6)
        np.testing.assert_allclose(view.camera.K, given.camera.K, atol=1e-9)
        assert view.camera.distortion == ()
        np.testing.assert_array_equal(view.image(), given.image())
        step = 0.0005 if name == "nerfstudio" else 0  # 16-bit millimetres; float32
        np.testing.assert_allclose(view.depth(), given.depth(), atol=step + 1e-6)
    cloud = read_cloud(out / "cloud.ply")
    np.testing.assert_allclose(scene.load_points().xyz, cloud.points.xyz, atol=1e-6)
    np.testing.assert_array_equal(scene.load_points().rgb, cloud.points.rgb)


@pytest.mark.parametrize("name", ["nerfstudio", "colmap"])
def test_an_exported_folder_is_lifted_again(out, tmp_path, name, cloud):
    command = ["lift", str(out / name), "--out", str(tmp_path / "run"), "--voxel", "0.08"]
    masks = ["segmentation:folder", "--segmentation.path", str(out / name / "labels")]
    assert main([*command, *masks, "--segmentation.ids", "consistent"]) == 0
    again = read_cloud(tmp_path / "run/cloud.ply")
    assert len(again) == pytest.approx(len(cloud), rel=0.02)
    assert set(np.unique(again.instance)) == set(np.unique(cloud.instance))


@pytest.mark.parametrize("metric", [True, False])
@pytest.mark.parametrize("name", ["nerfstudio", "colmap", "gaussian-grouping"])
def test_the_unit_survives_the_round_trip(tmp_path, name, metric):
    content = crooked(centred=True)
    content = replace(content, views=replace(content.scene, metric=metric))
    FORMATS[name].write(content, tmp_path, NO_TICK)
    assert read_scene(tmp_path).metric is metric


def test_a_model_moved_since_the_export_is_not_metric(tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    FORMATS["colmap"].write(crooked(), tmp_path, NO_TICK)
    model = pycolmap.Reconstruction(str(tmp_path / "sparse/0"))
    model.transform(pycolmap.Sim3d(2.0, pycolmap.Rotation3d(), np.zeros(3)))
    model.write(str(tmp_path / "sparse/0"))
    assert not read_scene(tmp_path).metric
    (tmp_path / "sparse/0/lift3d.json").write_text('{"metric": true}')  # set by the user
    assert read_scene(tmp_path).metric
    (tmp_path / "sparse/0/lift3d.json").write_text("[]")
    with pytest.raises(InputError, match=r"lift3d\.json .*holds a list"):
        read_scene(tmp_path)
    (tmp_path / "sparse/0/lift3d.json").unlink()
    assert not read_scene(tmp_path).metric
    assert read_scene(tmp_path, ColmapModel(metric=True)).metric


@pytest.mark.parametrize("name", ["nerfstudio", "colmap"])
def test_the_visibility_of_points_survives_the_round_trip(tmp_path, name):
    """With sparse depth, an occluded point is not visible."""
    content = crooked()
    views = []
    for view in content.scene.views:
        depth = projected_depth(content.cloud.points.xyz[::3].astype(np.float64), view.camera)
        depth[:18] = 0  # occluded by a surface without points
        views.append(replace(view, load_depth=partial(np.copy, depth), sparse=True))
    content = replace(content, views=content.scene.with_views(views))
    FORMATS[name].write(content, tmp_path, NO_TICK)
    back = read_scene(tmp_path).views
    assert not (tmp_path / "depth").exists(), "no trainer should take it for dense depth"
    for view, given in zip(back, views, strict=True):
        assert view.sparse
        depth, before = view.depth(), given.depth()
        assert (depth > 0).sum() > 10
        np.testing.assert_array_equal(depth > 0, before > 0)
        # Two points in one pixel may be swapped: COLMAP lists both.
        np.testing.assert_allclose(depth, before, atol=0.05 if name == "colmap" else 0)
    if name == "nerfstudio":
        (tmp_path / "sparse_depth/img_01.npz").write_bytes(b"PK")
        with pytest.raises(FrameError, match=r"img_01\.npz cannot be read"):
            back[1].depth()


@pytest.mark.parametrize("lens", [(0.1, -0.05, 0.004, -0.003), (0.1, -0.05, 0.004, -0.003, 0.02)])
def test_a_lens_survives_the_round_trip(tmp_path, lens):
    content = crooked(distortion=lens)
    for name in ("nerfstudio", "colmap"):
        FORMATS[name].write(content, tmp_path / name, NO_TICK)
        back = {view.name: view for view in read_scene(tmp_path / name).views}
        for view in content.scene.views:
            read = back[view.name.replace(".", "_")]
            assert read.camera.distortion[: len(lens)] == pytest.approx(lens, abs=1e-12)
            np.testing.assert_allclose(read.camera.pose, view.camera.pose, atol=1e-6)
            np.testing.assert_array_equal(read.image(), view.image())


def test_a_jpeg_is_copied_and_not_encoded_again(tmp_path):
    source = tmp_path / "source"
    FORMATS["nerfstudio"].write(crooked(), source, NO_TICK)
    file = source / "transforms.json"
    for path in (source / "images").iterdir():
        Image.open(path).save(path.with_suffix(".jpg"))
    file.write_text(file.read_text().replace('.png",\n   "label', '.jpg",\n   "label'))
    scene = read_scene(source)
    unlabelled = {view.name: np.zeros((36, 48), np.int32) for view in scene.views}
    content = replace(crooked(), views=scene, label_maps=unlabelled)
    FORMATS["colmap"].write(content, tmp_path / "out", NO_TICK)
    written = sorted((tmp_path / "out/images").iterdir())
    assert [path.name for path in written] == ["img_00.jpg", "img_01.jpg", "img_02.jpg"]
    for path in written:
        assert path.read_bytes() == (source / "images" / path.name).read_bytes()


# --- COLMAP and what reads its models


@pytest.mark.parametrize("text", [False, True])
def test_pycolmap_reads_cameras_points_and_tracks(tmp_path, text):
    pycolmap = pytest.importorskip("pycolmap")
    content = crooked(text=text)
    FORMATS["colmap"].write(content, tmp_path, NO_TICK)
    suffixes = {path.suffix for path in (tmp_path / "sparse/0").iterdir()}
    assert suffixes - {".json"} == {".txt" if text else ".bin"}, "readers prefer one or the other"
    model = pycolmap.Reconstruction(str(tmp_path / "sparse/0"))
    assert model.num_reg_images() == 3
    assert len(model.points3D) == len(content.cloud)
    for view in content.scene.views:
        image = model.find_image_with_name(view.name.replace(".", "_") + ".png")
        assert model.camera(image.camera_id).model_name == "PINHOLE"
        given = view.camera.camera_from_world
        np.testing.assert_allclose(image.cam_from_world().matrix(), given[:3], atol=1e-9)
        assert len(image.points2D) > 20
        for seen in image.points2D:
            xyz = model.point3D(seen.point3D_id).xyz
            np.testing.assert_allclose(image.project_point(xyz), seen.xy, atol=1e-3)
    for number, point in model.points3D.items():
        np.testing.assert_allclose(point.xyz, content.cloud.points.xyz[number - 1], atol=1e-7)
        np.testing.assert_array_equal(point.color, content.cloud.points.rgb[number - 1])
        for element in point.track.elements:
            listed = model.image(element.image_id).points2D[element.point2D_idx]
            assert listed.point3D_id == number
    labels = np.load(tmp_path / "labels.npy")
    np.testing.assert_array_equal(labels, content.cloud.instance)


def test_a_text_model_has_two_lines_per_image_even_if_one_is_empty(tmp_path):
    content = crooked(text=True)
    nothing = content.cloud.points.take(np.zeros(0, int))
    empty = replace(
        content.cloud, points=nothing, instance=np.zeros(0, np.int32), score=np.zeros(0, np.float32)
    )
    FORMATS["colmap"].write(replace(content, cloud=empty), tmp_path, NO_TICK)
    lines = (tmp_path / "sparse/0/images.txt").read_text().split("\n")
    rows = [line for line in lines if not line.startswith("#")]
    assert [bool(row) for row in rows] == [True, False] * 3 + [False]


def test_dense_depth_has_the_path_and_format_of_colmap(out):
    scene = ColmapModel().read(out / "colmap")
    assert not any(view.sparse for view in scene.views)
    sparse = ColmapModel(dense=False).read(out / "colmap")
    assert all(view.sparse for view in sparse.views)
    assert all((view.depth() > 0).sum() > 50 for view in sparse.views)


@pytest.mark.parametrize("name", ["nerfstudio", "colmap"])
def test_kept_objects_are_white_in_the_masks_that_training_reads(tmp_path, name):
    content = crooked(keep=(7,))
    FORMATS[name].write(content, tmp_path, NO_TICK)
    suffix = "" if name == "nerfstudio" else ".png"
    for view in content.scene.views:
        stem = view.name.replace(".", "_")
        mask = pixels(tmp_path / "masks" / f"{stem}{suffix}.png")
        assert mask.ndim == 2
        np.testing.assert_array_equal(mask, (content.label_maps[view.name] == 7) * 255)
    if name == "nerfstudio":
        frames = json.loads((tmp_path / "transforms.json").read_text())["frames"]
        assert all((tmp_path / frame["mask_path"]).is_file() for frame in frames)


# --- 3DGS and the two that train on masks


def test_the_splat_has_the_properties_of_3dgs_and_its_values(out, cloud):
    ply = PlyData.read(str(out / "splat/point_cloud.ply"))
    assert (ply.byte_order, ply.text) == ("<", False)
    properties = [(one.name, one.val_dtype) for one in ply["vertex"].properties]
    rest = [f"f_rest_{i}" for i in range(45)]
    expected = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *rest]
    expected += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    assert properties == [(name, "f4") for name in expected]
    vertex = ply["vertex"]
    rgb = np.stack([vertex[f"f_dc_{i}"] for i in range(3)], 1) * 0.28209479177387814 + 0.5
    np.testing.assert_allclose(rgb * 255, cloud.points.rgb, atol=1e-3)
    np.testing.assert_allclose(1 / (1 + np.exp(-vertex["opacity"])), 0.1, rtol=1e-5)
    np.testing.assert_array_equal(vertex["rot_0"], 1)
    for name in (*rest, "rot_1", "rot_2", "rot_3"):
        assert not vertex[name].any()
    xyz = cloud.points.xyz.astype(np.float64)
    some = np.arange(0, len(xyz), 97)
    distance = np.sort(np.linalg.norm(xyz[some, None] - xyz[None], axis=2), axis=1)[:, 1:4]
    three = np.sqrt(np.maximum((distance**2).mean(1), 1e-7))
    np.testing.assert_allclose(np.exp(vertex["scale_1"][some]), three, rtol=1e-4)
    np.testing.assert_array_equal(np.load(out / "splat/labels.npy"), cloud.instance)


def test_labels_are_written_to_the_splat_on_request(tmp_path):
    content = crooked(label_property=True)
    FORMATS["splat"].write(content, tmp_path, NO_TICK)
    vertex = PlyData.read(str(tmp_path / "point_cloud.ply"))["vertex"]
    assert [one.name for one in vertex.properties] == [*NAMES, "label"]
    np.testing.assert_array_equal(vertex["label"], content.cloud.instance)


def test_coincident_points_have_a_size_above_zero():
    assert np.isfinite(np.log(sizes(np.zeros((5, 3), np.float32)))).all()
    assert sizes(np.array([[0, 0, 0], [2, 0, 0]], np.float32)).tolist() == [2, 2]


@pytest.mark.parametrize("name", ["gaussian-grouping", "objectgs"])
def test_object_masks_have_the_paths_that_readers_expect(out, run, name):
    """`object_mask/` + the picture's name up to its first dot + `.png`."""
    images = sorted((out / name / "images").iterdir())
    assert len(images) == 5
    for image in images:
        labels = read_label_map(run / "labels" / f"{image.stem}.png")
        with Image.open(out / name / "object_mask" / (image.name.split(".")[0] + ".png")) as mask:
            assert mask.mode == "L"
            assert mask.size == pixels(image).shape[1::-1]
            np.testing.assert_array_equal(np.asarray(mask), labels)


def test_objectgs_starts_from_the_labelled_cloud(out, cloud):
    ply = PlyData.read(str(out / "objectgs/sparse/0/points3D_corr.ply"))
    vertex = ply["vertex"]
    names = ["x", "y", "z", "nx", "ny", "nz", "red", "green", "blue", "label"]
    assert [one.name for one in vertex.properties] == names
    assert vertex["label"].dtype == np.uint8
    np.testing.assert_array_equal(vertex["label"], cloud.instance)


def test_large_ids_are_renumbered_if_they_are_few(tmp_path):
    content = crooked(objects=(300, 70_000), centred=True)
    notes = FORMATS["gaussian-grouping"].write(content, tmp_path, NO_TICK)
    assert any("renumbered" in note for note in notes)
    assert json.loads((tmp_path / "ids.json").read_text()) == {"1": 300, "2": 70_000}
    labels = content.label_maps["img.00"]
    mask = pixels(tmp_path / "object_mask/img_00.png")
    np.testing.assert_array_equal(mask == 1, labels == 300)
    np.testing.assert_array_equal(mask == 2, labels == 70_000)


# --- clouds


def test_open3d_reads_the_cloud_that_nerfstudio_will_read(out, cloud):
    try:
        import open3d as o3d
    except (ImportError, OSError) as error:
        pytest.skip(f"needs Open3D and its system libraries ({error})")
    read = o3d.io.read_point_cloud(str(out / "nerfstudio/cloud.ply"))
    np.testing.assert_array_equal(np.asarray(read.points, np.float32), cloud.points.xyz)
    np.testing.assert_array_equal(np.rint(np.asarray(read.colors) * 255), cloud.points.rgb)


def test_meshlab_keeps_colours_and_labels(tmp_path, cloud):
    """Labels as `quality`, the only property with labels that MeshLab keeps."""
    from plyfile import PlyData

    write_cloud(tmp_path / "cloud.ply", cloud)
    vertex = PlyData.read(str(tmp_path / "cloud.ply"))["vertex"]
    np.testing.assert_array_equal(vertex["quality"], cloud.instance)
    meshlab = pytest.importorskip(
        "pymeshlab", reason="MeshLab's own reader, 280 MB: pip install pymeshlab"
    )
    meshes = meshlab.MeshSet()
    meshes.load_new_mesh(str(tmp_path / "cloud.ply"))
    mesh = meshes.current_mesh()
    np.testing.assert_array_equal(mesh.vertex_scalar_array(), cloud.instance)
    np.testing.assert_allclose(mesh.vertex_matrix(), cloud.points.xyz, atol=1e-6)
    np.testing.assert_allclose(255 * mesh.vertex_color_matrix()[:, :3], cloud.points.rgb, atol=0.01)


def test_trimesh_reads_the_glb_object_by_object(out, cloud):
    trimesh = pytest.importorskip("trimesh")
    scene = trimesh.load(out / "glb/cloud.glb")
    ids = np.unique(cloud.instance).tolist()
    assert set(scene.geometry) == {f"object_{i:04d}" if i else "unlabelled" for i in ids}
    for each in ids:
        called = f"object_{each:04d}" if each else "unlabelled"
        mine, geometry = cloud.instance == each, scene.geometry[called]
        np.testing.assert_array_equal(geometry.vertices, cloud.points.xyz[mine])
        light = np.rint(linear(cloud.points.rgb[mine]) * 255)
        assert np.abs(geometry.colors - light).max() <= 1
        turned = scene.graph.get(called)[0]
        np.testing.assert_array_equal(turned[:3, :3] @ [1, 2, 3], [1, 3, -2])


def test_the_glb_follows_the_gltf_specification(out, cloud):
    """Chunks, alignment, lengths and bounds, which lenient readers do not check."""
    import struct

    data = (out / "glb/cloud.glb").read_bytes()
    magic, version, size = struct.unpack_from("<4sII", data)
    assert (magic, version, size) == (b"glTF", 2, len(data))
    length, kind = struct.unpack_from("<I4s", data, 12)
    assert kind == b"JSON"
    assert length % 4 == 0
    content = json.loads(data[20 : 20 + length])
    binary = data[20 + length + 8 :]
    assert content["buffers"][0]["byteLength"] == len(binary)
    width = {"SCALAR": 4, "VEC3": 12, "VEC4": 16}
    for accessor in content["accessors"]:
        view = content["bufferViews"][accessor["bufferView"]]
        assert view["byteOffset"] % 4 == 0
        assert view["byteLength"] == accessor["count"] * width[accessor["type"]]
        assert view["byteOffset"] + view["byteLength"] <= len(binary)
    labelled = 0
    for node in content["nodes"][:-1]:
        attributes = content["meshes"][node["mesh"]]["primitives"][0]["attributes"]
        accessor = content["accessors"][attributes["_LABEL"]]
        start = content["bufferViews"][accessor["bufferView"]]["byteOffset"]
        values = np.frombuffer(binary, "<f4", accessor["count"], start)
        assert (values == node["extras"]["label"]).all()
        labelled += len(values)
    assert labelled == len(cloud)


def test_pointcept_finds_the_arrays_it_needs(out, cloud):
    """Files, types and shapes as its DefaultDataset reads them."""
    (scene,) = (out / "pointcept").glob("train/*")
    data = {path.stem: np.load(path) for path in scene.glob("*.npy")}
    assert set(data) == {"coord", "color", "normal", "segment", "instance"}
    assert data["coord"].dtype == data["normal"].dtype == np.float32
    assert data["coord"].shape == data["color"].shape == data["normal"].shape == (len(cloud), 3)
    assert data["color"].dtype == np.uint8
    assert data["color"].max() > 1, "0 to 255: NormalizeColor divides by 127.5"
    assert data["segment"].shape == data["instance"].shape == (len(cloud),)
    np.testing.assert_array_equal(data["instance"] == -1, cloud.instance == 0)
    known = cloud.instance > 0
    np.testing.assert_array_equal(data["instance"][known], cloud.instance[known])
    assert (data["segment"] == -1).all()


# --- predictions


def read_scannet(folder):
    """As the benchmark's script does: `FILE label confidence`, one number per vertex."""
    (listing,) = folder.glob("*.txt")
    for line in listing.read_text().splitlines():
        path, label, confidence = line.split(" ")
        assert not Path(path).is_absolute()
        mask = np.array([int(row) for row in (folder / path).read_text().splitlines()])
        assert set(mask.tolist()) <= {0, 1}
        yield Prediction(mask != 0, int(label), float(confidence))


def read_scannetpp(folder):
    """Starts are from 1, as in the toolkit's decoder."""
    (listing,) = folder.glob("*.txt")
    for line in listing.read_text().splitlines():
        path, label, confidence = line.split(" ")
        code = json.loads((folder / path).read_text())
        numbers = np.array(code["counts"].split(), int)
        mask = np.zeros(code["length"], bool)
        for start, length in zip(numbers[::2] - 1, numbers[1::2], strict=True):
            mask[start : start + length] = True
        yield Prediction(mask, int(label), float(confidence))


@pytest.mark.parametrize(
    ("name", "read"), [("scannet", read_scannet), ("scannetpp", read_scannetpp)]
)
def test_predictions_score_as_the_cloud_does(out, run, cloud, name, read):
    listed = json.loads((run / "instances.json").read_text())["instances"]
    found = list(read(out / name))
    assert [each.confidence for each in found] == [each["confidence"] for each in listed]
    for each, entry in zip(found, listed, strict=True):
        np.testing.assert_array_equal(each.mask, cloud.instance == entry["id"])
    shifted = np.roll(cloud.instance, 40)
    truth = np.where(shifted > 0, 1000 + shifted, 0)
    scores = average_precision([(truth, found)], [1], "test")
    confidence = {entry["id"]: entry["confidence"] for entry in listed}
    assert scores.ap == class_agnostic(shifted, cloud.instance, confidence).ap
    assert scores.ap25 > 0


def test_predictions_are_for_the_scored_vertices(run, cloud, tmp_path, capsys):
    order = np.random.default_rng(0).permutation(len(cloud))[:500]
    mesh = replace(
        cloud,
        points=cloud.points.take(order),
        instance=np.zeros(500, np.int32),
        score=cloud.score[order],
    )
    write_cloud(tmp_path / "mesh.ply", mesh)
    command = ["export", str(run), "--to", "scannet", "--out", str(tmp_path / "out")]
    assert main([*command, "--vertices", str(tmp_path / "mesh.ply")]) == 0
    for each in read_scannet(tmp_path / "out/scannet"):
        assert len(each.mask) == 500
        (label,) = np.unique(cloud.instance[order][each.mask])
        assert label > 0


# --- arrays and recordings


def test_npz_views_hold_the_shared_dictionary(out, views, run):
    for name, view in views.items():
        with np.load(out / "npz/views" / f"{name}.npz") as stored:
            np.testing.assert_array_equal(stored["img"], view.image())
            np.testing.assert_array_equal(stored["depth_z"], view.depth())
            np.testing.assert_array_equal(stored["mask"], view.depth() > 0)
            labels = read_label_map(run / "labels" / f"{name}.png")
            np.testing.assert_array_equal(stored["labels"], labels)
            assert stored["metric_scaling_factor"] == 1
            assert stored["conf"].shape == stored["mask"].shape
            y, x = np.argwhere(stored["mask"])[100]
            xy, z = project(view.camera, stored["pts3d"][y, x][None])
            np.testing.assert_allclose(xy[0], [x, y], atol=1e-3)
            np.testing.assert_allclose(z[0], stored["depth_z"][y, x], rtol=1e-5)
            assert np.isnan(stored["pts3d"][~stored["mask"]]).all()


def test_the_rerun_sdk_reads_the_recording(run, cloud, views, tmp_path):
    chunk = pytest.importorskip("rerun.chunk")
    import cv2

    export(Run.open(run), ["rerun"], tmp_path)
    got = {}
    for each in chunk.RrdReader(tmp_path / "rerun/run.rrd").stream().to_chunks():
        batch = each.to_record_batch()
        for name in set(batch.schema.names) - {"log_time"}:
            rows = batch.column(name).to_pylist()
            got.setdefault((each.entity_path, name), []).extend(rows)
    xyz = np.array(got["/world/cloud", "Points3D:positions"][0], np.float32)
    np.testing.assert_array_equal(xyz, cloud.points.xyz)
    ids = np.array(got["/world/labels", "Points3D:class_ids"][0])
    np.testing.assert_array_equal(ids, cloud.instance)
    blobs = got["/world/camera/image", "EncodedImage:blob"]
    pictures = [np.array(blob[0], np.uint8) for blob in blobs if blob]
    assert len(pictures) == len(views)
    for data, view in zip(pictures, views.values(), strict=True):
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
        np.testing.assert_array_equal(image, view.image())
    labels = got["/world/camera/image/labels", "SegmentationImage:buffer"]
    first = np.array(labels[0][0], np.uint8).view(np.uint16).reshape(48, 64)
    np.testing.assert_array_equal(first, read_label_map(run / "labels/0000.png"))
