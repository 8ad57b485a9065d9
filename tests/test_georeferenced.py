"""Scenes far from 0: a local origin inside, world coordinates in what is written."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tiny_captures
import tiny_scan as tiny
from page_client import served
from plyfile import PlyData, PlyElement
from tiny_export import crooked
from tiny_scan import tiny_scan

from lift3d.cli import main
from lift3d.datasets import read_scene
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.evaluation.metrics.scannetpp import read_scannetpp
from lift3d.evaluation.truth import read_truth
from lift3d.export.content import Content
from lift3d.export.ply import read_cloud, write_cloud
from lift3d.export.registry import FORMATS
from lift3d.reconstruction.fusion import given_points
from lift3d.run import api
from lift3d.run.exporting import _origin_note
from lift3d.run.lift import lift
from lift3d.run.scene_file import read_scene as reread
from lift3d.run.scene_file import write_scene
from lift3d.run.settings import LiftConfig
from lift3d.scene import NO_OFFSET, Camera, LabelledPoints, Points, Scene, View
from lift3d.scene.errors import InputError
from lift3d.scene.local_origin import chosen_offset, local, localised
from lift3d.segmentation.simulated import SimulatedConfig

UTM = np.array([512345.25, 5403210.5, 312.75])
ORIGIN = (512345.0, 5403211.0, 313.0)


def views_at(*places):
    def view(number, place):
        pose = np.eye(4)
        pose[:3, 3] = place
        return View(str(number), Camera(np.eye(3), 4, 4, pose), partial(np.zeros, (4, 4, 3)))

    return [view(number, place) for number, place in enumerate(places)]


def georeferenced(folder, **more):
    """The tiny scan at UTM coordinates."""
    scan = tiny_scan()
    for pose in scan.poses:
        pose[:3, 3] += UTM
    tiny.write_rgbd_json(folder, scan, **more)
    return scan


@pytest.mark.parametrize(
    ("places", "metric", "offset"),
    [
        ([(0, 0, 0), (3, 0, 1)], True, NO_OFFSET),
        ([(900, 20, 3), (903, 20, 3)], True, NO_OFFSET),  # 1 mm is 16 steps of float32
        ([UTM, UTM + 3], True, (512347.0, 5403212.0, 314.0)),
        ([UTM, UTM + 3, UTM + 4, (0, 0, 0)], True, (512347.0, 5403212.0, 314.0)),  # one lost pose
        ([(1e6, 0, 0), (0, 0, 0), (1, 0, 0)], True, NO_OFFSET),
        ([(5, 5, 5), (5.1, 5, 5)], False, NO_OFFSET),
        ([(6378.0, 1, 1), (6378.004, 1, 1)], False, (6378.002, 1.0, 1.0)),  # kilometres
        ([UTM, UTM], False, (512345.0, 5403210.0, 313.0)),
        ([], True, NO_OFFSET),
    ],
)
def test_the_local_origin_is_a_round_place_near_the_cameras(places, metric, offset):
    assert chosen_offset(views_at(*places), metric) == pytest.approx(offset, abs=1e-9)


def test_every_reader_subtracts_the_origin_in_double_precision(tmp_path):
    scan = georeferenced(tmp_path)
    scene = read_scene(tmp_path)
    assert np.abs(np.array(scene.offset) - UTM).max() < 1
    assert any("local origin" in note for note in scene.notes)
    for view, pose in zip(scene.views, scan.poses, strict=True):
        world = view.camera.pose[:3, 3] + scene.offset
        np.testing.assert_allclose(world, pose[:3, 3], rtol=0, atol=1e-2)  # read from 9 digits
    assert localised(scene) is scene


@pytest.mark.parametrize("name", tiny_captures.CAPTURES)
def test_captures_too(tmp_path, monkeypatch, name):
    pytest.importorskip(tiny_captures.NEEDS.get(name, "numpy"))

    def far(**options):
        scan = tiny_scan(**options)
        for pose in scan.poses:
            pose[:3, 3] += UTM
        return scan

    monkeypatch.setattr(tiny_captures, "tiny_scan", far)
    scan = tiny_captures.CAPTURES[name][0](tmp_path)
    scene = read_scene(tmp_path)
    assert np.abs(np.array(scene.offset) - UTM).max() < 1
    for view, pose in zip(scene.views, scan.poses, strict=True):
        world = view.camera.pose[:3, 3] + scene.offset
        np.testing.assert_allclose(world, pose[:3, 3], rtol=0, atol=1e-2)


def test_places_of_edits_are_in_the_world_for_people_and_local_inside(tmp_path, capsys):
    scene = SyntheticConfig(views=4, width=64, height=48).read()
    scene = replace(scene, offset=ORIGIN, load_surface=None)
    config = LiftConfig(
        Path("synthetic"), tmp_path / "run", voxel=0.08, segmentation=SimulatedConfig()
    )
    run = lift(config, scene)
    listed = {each.id: each for each in run.objects}
    for each in run.edits.objects:
        own = listed[each.id]
        for place in ("centre", "low", "high"):
            assert getattr(each, place) == pytest.approx(getattr(own, place), abs=1e-3)
    largest = max(run.edits.objects, key=lambda each: each.points).id
    local = run.points.xyz[run.edits.points_of(largest)].astype(float)
    local = local[[local[:, 0].argmin(), local[:, 0].argmax()]]
    plane = [1.0, 0.0, 0.0, -float(local[:, 0].mean())]  # of the page
    parts, halves = (
        run.edits.parts(largest, local + ORIGIN),
        run.edits.cut_parts(largest, [1, 0, 0, plane[3] - ORIGIN[0]]),
    )
    with served(run.folder) as client:
        for each in client.get("/api/state")["objects"]:
            assert np.all(np.abs(each["low"]) < 20)  # what the page draws with
        for body, made in (
            ({"do": "split", "clicks": local.tolist()}, parts),
            ({"do": "cut", "plane": plane}, halves),
        ):
            status, told = client.post("/api/preview", id=largest, **body)
            assert status == 200, told
            counts = np.bincount(made.part).tolist()
            assert [each["count"] for each in told["parts"]] == counts

    def split(places):
        words = [word for each in places for word in ("--at", ",".join(map(str, each)))]
        return main(["edit", str(run.folder), "split", str(largest), *words])

    assert split(local.tolist()) == 2
    assert "from the object, which lies between 51234" in capsys.readouterr().err
    assert split((local + ORIGIN).tolist()) == 0
    (line,) = (run.folder / "edits.jsonl").read_text().splitlines()
    assert json.loads(line)["offset"] == list(ORIGIN)
    np.testing.assert_allclose(json.loads(line)["clicks"], local, rtol=0, atol=1e-6)


def test_images_in_memory_too():
    scan = tiny_scan()
    poses = [pose.copy() for pose in scan.poses]
    for pose in poses:
        pose[:3, 3] += UTM
    scene = Scene.from_arrays(scan.images, scan.K, poses, scan.depths)
    near = Scene.from_arrays(scan.images, scan.K, scan.poses, scan.depths)
    assert scene.offset != NO_OFFSET == near.offset
    far, here = api.fuse(scene), api.fuse(near)
    np.testing.assert_allclose(far.world.mean(0) - UTM, here.xyz.mean(0), atol=1e-3)


def test_a_scene_of_a_plug_in_is_moved_with_its_cloud_and_surface():
    xyz = np.array([[1, 2, 3]], np.float32)
    nothing = np.zeros((1, 3), np.float32)
    far = Points(xyz, nothing.astype(np.uint8), nothing, np.ones(1, np.float32), tuple(UTM))
    surface = LabelledPoints(far, np.ones(1, np.int32), np.ones(1, np.float32))
    scene = Scene(
        "a", tuple(views_at(UTM, UTM)), True, "test", load_points=lambda: far,
        load_surface=lambda: surface,
    )  # fmt: skip
    moved = localised(scene)
    for points in (moved.load_points(), moved.load_surface().points):
        assert points.offset == moved.offset == (512345.0, 5403210.0, 313.0)
        np.testing.assert_allclose(points.world - UTM, xyz, atol=1e-6)


def test_a_run_keeps_the_offset_and_reads_it_again(tmp_path):
    scene = localised(Scene("a", tuple(views_at(UTM, UTM + 2)), True, "test"))
    write_scene(tmp_path, scene, scene, lambda done, total: None)
    assert json.loads((tmp_path / "scene.json").read_text())["offset"] == list(scene.offset)
    again = reread(tmp_path, Scene("a", tuple(views_at(UTM, UTM + 2)), True, "test"))
    assert again.offset == scene.offset
    np.testing.assert_array_equal(again.views[1].camera.pose, scene.views[1].camera.pose)


def labelled(count=600):
    random = np.random.default_rng(0)
    xyz = random.uniform(-2, 2, (count, 3)).astype(np.float32)
    nothing = np.zeros((count, 3), np.float32)
    rgb = random.integers(0, 256, (count, 3), np.uint8)
    points = Points(xyz, rgb, nothing, np.ones(count, np.float32), ORIGIN)
    return LabelledPoints(points, np.arange(count, dtype=np.int32) % 3, np.ones(count, np.float32))


def test_the_cloud_is_written_in_world_coordinates_and_read_back_exactly(tmp_path):
    cloud = labelled()
    write_cloud(tmp_path / "a.ply", cloud)
    vertex = PlyData.read(tmp_path / "a.ply")["vertex"].data
    assert vertex["x"].dtype == np.float64
    np.testing.assert_allclose(vertex["y"], cloud.points.world[:, 1], rtol=0, atol=1e-8)
    for again in (read_cloud(tmp_path / "a.ply"), read_cloud(tmp_path / "a.ply", ORIGIN)):
        assert again.points.offset == ORIGIN
        np.testing.assert_allclose(again.points.xyz, cloud.points.xyz, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(cloud.points.take(np.array([3])).world, cloud.points.world[[3]])


def test_given_points_and_truth_are_in_world_coordinates(tmp_path):
    cloud = labelled()
    write_cloud(tmp_path / "a.ply", cloud)
    given = given_points(tmp_path / "a.ply", ORIGIN)
    np.testing.assert_allclose(given.xyz, cloud.points.xyz, rtol=0, atol=1e-9)
    truth = read_truth(tmp_path / "a.ply", cloud)
    np.testing.assert_array_equal(truth.points, given.xyz)
    assert api.evaluate(cloud, tmp_path / "a.ply")["ap"] == 1


def test_world_coordinates_in_float32_are_refused(tmp_path):
    vertex = np.zeros(9, [(axis, "f4") for axis in "xyz"] + [("label", "i4")])
    for axis, name in enumerate("xyz"):
        vertex[name] = UTM[axis] + np.linspace(0, 4, 9)
    PlyData([PlyElement.describe(vertex, "vertex")]).write(tmp_path / "a.ply")
    with pytest.raises(InputError, match=r"up to 5403214 as float32, in steps of 0.5.*double"):
        read_truth(tmp_path / "a.ply", labelled())


def test_scannetpp_truth_is_relative_to_the_offset(tmp_path):
    vertex = np.zeros(2, [(axis, "f8") for axis in "xyz"])
    vertex["x"] = UTM[0] + np.array([0.125, 0.25])
    PlyData([PlyElement.describe(vertex, "vertex")]).write(tmp_path / "mesh_aligned_0.05.ply")
    (tmp_path / "segments.json").write_text('{"segIndices": [0, 1]}')
    (tmp_path / "segments_anno.json").write_text('{"segGroups": []}')
    found = read_scannetpp(tmp_path, (float(UTM[0]), 0.0, 0.0))
    assert found.points[:, 0].tolist() == [0.125, 0.25]


def far_content() -> Content:
    content = crooked(centred=True)
    points = Points(**{**vars(content.cloud.points), "offset": ORIGIN})
    cloud = LabelledPoints(points, content.cloud.instance, content.cloud.score)
    return Content(**{**vars(content), "cloud": cloud})


@pytest.mark.parametrize("name", ["nerfstudio", "colmap", "gaussian-grouping", "objectgs"])
def test_formats_that_are_read_again_give_the_world_back(tmp_path, name):
    if name != "nerfstudio":
        pytest.importorskip("pycolmap")
    content, form = far_content(), FORMATS[name]
    form.write(content, tmp_path, lambda done, total: None)
    _origin_note(tmp_path, form, content.offset)
    scene = read_scene(tmp_path)
    assert np.abs(np.array(scene.offset) - ORIGIN).max() < 10
    for view, own in zip(scene.views, content.scene.views, strict=True):
        world = view.camera.pose[:3, 3] + scene.offset
        np.testing.assert_allclose(world, own.camera.pose[:3, 3] + ORIGIN, rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        np.sort(scene.load_points().world[:, 0]),
        np.sort(content.cloud.points.world[:, 0]),
        rtol=0,
        atol=1e-6,
    )
    assert (tmp_path / "offset.json").is_file() == (name != "colmap")


@pytest.mark.parametrize("name", ["splat", "pointcept", "npz", "glb"])
def test_formats_of_float32_have_the_offset_beside_them(tmp_path, name):
    content, form = far_content(), FORMATS[name]
    form.write(content, tmp_path, lambda done, total: None)
    (note,) = _origin_note(tmp_path, form, content.offset)
    assert "relative to the local origin 512345, 5403211, 313, see offset.json" in note
    assert json.loads((tmp_path / "offset.json").read_text())["offset"] == list(ORIGIN)


def test_a_format_without_coordinates_states_no_origin(tmp_path):
    assert _origin_note(tmp_path, FORMATS["scannet"], ORIGIN) == []
    assert not list(Path(tmp_path).iterdir())


def test_coordinates_are_subtracted_before_they_become_float32():
    assert local(UTM[None] + 0.125, tuple(UTM)).tolist() == [[0.125, 0.125, 0.125]]
