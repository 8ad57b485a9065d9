"""One contract for all readers: the tiny scan, written in their format, comes back."""

import pickle
from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
import tiny_scan as tiny
from tiny_captures import CAPTURES, NEEDS
from tiny_scan import COLOR_K, COLOR_SIZE, DEPTH_K, DEPTH_SIZE, tiny_scan

from lift3d.datasets import READERS, detect, read_scene
from lift3d.datasets.colmap_model import ColmapModel
from lift3d.datasets.seven_scenes import SevenScenes
from lift3d.geometry import project, unproject

TWO = {"color": (COLOR_K, COLOR_SIZE), "depth": (DEPTH_K, DEPTH_SIZE)}
RIG = np.array([[1.0, 0, 0, -0.025], [0, 1, 0, 0.01], [0, 0, 1, 0.005], [0, 0, 0, 1]])


@dataclass(frozen=True)
class Case:
    """A written scan, how it must be read, and what must come back."""

    path: object
    scan: tiny.TinyScan
    source: str
    reader: object = None
    step: float = 0.001
    lossy: bool = False


def sens(color, depth):
    def make(root):
        scan = tiny_scan(**TWO)
        tiny.write_sens(root / "scene0000_00.sens", scan, color, depth)
        return Case(root / "scene0000_00.sens", scan, "reader sens", lossy=color == "jpeg")

    return make


def sens_in_a_folder(root):
    return replace(sens("png", "zlib")(root), path=root)


def scannet(root):
    # Twelve frames, because names without leading zeros sort wrongly from the tenth on.
    scan = tiny_scan(**TWO, views=12)
    tiny.write_scannet(root, scan)
    return Case(root, scan, "reader scannet-folder", lossy=True)


def posed_images(root):
    scan = tiny_scan(names=[f"{i:05d}" for i in range(4)])
    tiny.write_posed_images(root, scan)
    return Case(root, scan, "reader scannet-folder", lossy=True)


def seven_scenes(root):
    scan = tiny_scan(names=[f"frame-{i:06d}" for i in range(4)])
    tiny.write_seven_scenes(root, scan)
    return Case(root, scan, "reader seven-scenes")


def seven_scenes_sequences(root):
    """Two sequences, two cameras: poses in the files are the depth camera's."""
    names = [f"seq-{s:02d}-frame-{i:06d}" for s in (1, 2) for i in range(2)]
    scan = tiny_scan(**TWO, names=names, extrinsic=RIG)
    of_depth = [pose @ np.linalg.inv(RIG) for pose in scan.poses]
    tiny.write_seven_scenes(root, scan, ("seq-01", "seq-02"), intrinsics=False, poses=of_depth)
    numbers = [(K[0, 0], K[1, 1], K[0, 2], K[1, 2]) for K in (COLOR_K, DEPTH_K)]
    reader = SevenScenes(*numbers, depth_from_color=tuple(RIG.ravel()))
    return Case(root, scan, "reader seven-scenes", reader)


def own_layout(root):
    scan = tiny_scan(names=[f"img_{i}" for i in range(4)])
    tiny.write_rgbd_json(root, scan)
    return Case(root, scan, "reader rgbd", step=0.0002)


def own_layout_two_cameras(root):
    scan = tiny_scan(**TWO, names=[f"img_{i}" for i in range(4)], extrinsic=RIG)
    K = [DEPTH_K[0, 0], DEPTH_K[1, 1], DEPTH_K[0, 2], DEPTH_K[1, 2]]
    tiny.write_rgbd_json(root, scan, depth_K=K, depth_from_color=RIG.ravel().tolist())
    return Case(root, scan, "reader rgbd", step=0.0002)


def hololens(root):
    scan = tiny_scan(names=["00051", "00055", "00060", "00063"])
    tiny.write_hololens(root, scan)
    return Case(root, scan, "recipe hololens-subset (rgbd folder)")


def apc(root):
    # The wall is 2.1 m away, past what the recipe takes; the box is not.
    scan = tiny_scan(names=[f"frame-{i:06d}" for i in range(4)], nearer=0.9)
    near = replace(scan, depths=[d * (tiny.stored(d, 10000) <= 20000) for d in scan.depths])
    tiny.write_apc(root, scan)
    return Case(root, near, "recipe apc-shelf (rgbd folder)", step=0.0001)


def open3d(root):
    scan = tiny_scan(names=["00000", "00004", "00008", "00012"])
    tiny.write_open3d(root, scan)
    return Case(root, scan, "recipe open3d-trajectory (rgbd folder)", lossy=True)


def tum(root):
    K = np.array([[525.0, 0, 319.5], [0, 525.0, 239.5], [0, 0, 1]])
    names = [f"1305031102.{i:06d}" for i in (175304, 211214, 243211, 275326)]
    scan = tiny_scan((K, (640, 480)), (K, (640, 480)), names=names)
    tiny.write_tum(root, scan)
    return Case(root, scan, "recipe tum (rgbd folder)", step=0.0002)


def replica(root):
    K = np.array([[600.0, 0, 599.5], [0, 600.0, 339.5], [0, 0, 1]])
    names = [f"frame{i:06d}" for i in range(2)]
    scan = tiny_scan((K, (1200, 680)), (K, (1200, 680)), views=2, names=names)
    tiny.write_replica(root, scan)
    return Case(root, scan, "recipe replica (rgbd folder)", step=0.0002, lossy=True)


def nerfstudio(root):
    scan = tiny_scan(names=[f"frame_{i:05d}" for i in range(4)])
    tiny.write_transforms(root, scan)
    return Case(root, scan, "reader nerfstudio")


def nerfstudio_file(root):
    return replace(nerfstudio(root), path=root / "transforms.json")


def colmap(root):
    pytest.importorskip("pycolmap")
    scan = tiny_scan(names=[f"IMG_{i}" for i in range(4)])
    tiny.write_colmap(root, scan)
    return Case(root, scan, "reader colmap", ColmapModel(metric=True))


def capture(name):
    def make(root):
        if name in NEEDS:
            pytest.importorskip(NEEDS[name])
        write, source = CAPTURES[name]
        return Case(root, write(root), source, lossy=True)

    return make


CASES = {
    "sens-jpeg-zlib": sens("jpeg", "zlib"),
    "sens-png-raw": sens("png", "raw"),
    "sens-raw-raw": sens("raw", "raw"),
    "sens-in-a-folder": sens_in_a_folder,
    "scannet-folder": scannet,
    "posed-images": posed_images,
    "seven-scenes": seven_scenes,
    "seven-scenes-sequences": seven_scenes_sequences,
    "own-layout": own_layout,
    "own-layout-two-cameras": own_layout_two_cameras,
    "hololens": hololens,
    "apc": apc,
    "open3d": open3d,
    "tum": tum,
    "replica": replica,
    "nerfstudio": nerfstudio,
    "nerfstudio-file": nerfstudio_file,
    "colmap": colmap,
    **{name: capture(name) for name in CAPTURES},
}


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    return CASES[request.param](tmp_path_factory.mktemp(request.param))


def read(case):
    return read_scene(case.path, case.reader)


def test_the_reader_is_found_and_named(case, capsys):
    scene = read(case)
    assert scene.source == f"{case.source} at {case.path}"
    if case.reader is None:
        assert detect(case.path).matches(case.path) or (case.path / "rgbd.json").exists()
    else:
        assert type(detect(case.path)) is type(case.reader)
    assert capsys.readouterr() == ("", "")


def test_names_poses_and_intrinsics_come_back_in_capture_order(case):
    scene = read(case)
    assert [view.name for view in scene.views] == case.scan.names
    assert scene.skipped == ()
    assert scene.metric
    cameras = zip(scene.views, case.scan.poses, case.scan.depth_poses, strict=True)
    for view, pose, depth_pose in cameras:
        np.testing.assert_allclose(view.geometry_camera.pose, depth_pose, atol=1e-6)
        np.testing.assert_allclose(view.camera.pose, pose, atol=1e-6)
        np.testing.assert_allclose(view.camera.K, case.scan.K, atol=1e-5)
        np.testing.assert_allclose(view.geometry_camera.K, case.scan.depth_K, atol=1e-5)


def test_image_and_depth_come_back_within_what_the_format_can_hold(case):
    for i, view in enumerate(read(case).views):
        image, depth = view.image(), view.depth()
        assert image.dtype == np.uint8
        difference = np.abs(image.astype(int) - case.scan.images[i])
        # JPEG halves the resolution of colour: edges differ, areas do not.
        assert np.median(difference) <= (3 if case.lossy else 0)
        expected = case.scan.depths[i]
        same = np.abs(depth - expected) <= 0.5 * case.step + 1e-6
        assert depth.dtype == np.float32
        assert (~same).sum() <= 1  # the 65535 of the 7-Scenes writer
        assert (depth > 0).mean() > 0.02


def test_depth_of_a_view_agrees_with_that_of_the_next(case):
    views = read(case).views
    compared = 0
    for a, b in pairwise(views):
        xyz = unproject(a.geometry_camera, a.depth()).reshape(-1, 3)
        xy, z = project(b.geometry_camera, xyz[np.isfinite(xyz[:, 0])])
        column, row = np.round(xy).astype(int).T
        width, height = b.geometry_camera.width, b.geometry_camera.height
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        there = b.depth()[row[inside], column[inside]]
        difference = np.abs(there - z[inside])[there > 0]
        compared += len(difference)
        assert np.median(difference) < 0.006
        assert (difference < 0.02).mean() > 0.8
    assert compared > 500


def test_a_depth_pixel_projects_to_its_pixel_in_the_colour_image(case):
    """The colour of each 3D point from the depth camera is the one the formula paints there."""
    view = read(case).views[0]
    xyz = unproject(view.geometry_camera, view.depth()).reshape(-1, 3)
    xyz = xyz[np.isfinite(xyz[:, 0])]
    xy, _ = project(view.camera, xyz)
    column, row = np.round(xy).astype(int).T
    inside = (column >= 0) & (column < view.camera.width) & (row >= 0) & (row < view.camera.height)
    painted = 127 + 100 * np.sin(3 * xyz[inside] + [0, 1, 2])
    seen = view.image()[row[inside], column[inside]].astype(float)
    assert inside.sum() > 40
    assert np.median(np.abs(seen - painted)) < 5


def test_views_can_be_sent_to_another_process(case):
    view = read(case).views[-1]
    copy = pickle.loads(pickle.dumps(view))
    np.testing.assert_array_equal(copy.image(), view.image())
    np.testing.assert_array_equal(copy.depth(), view.depth())


def test_nothing_is_decoded_before_a_view_is_loaded(case, monkeypatch):
    decoded = []
    plain = cv2.imdecode

    def counting(*arguments):
        decoded.append(1)
        return plain(*arguments)

    monkeypatch.setattr(cv2, "imdecode", counting)
    monkeypatch.setattr("lift3d.datasets.sens_file._payload", _count(decoded))
    scene = read(case)
    assert decoded == []
    scene.views[0].image()
    scene.views[0].depth()
    assert decoded


def _count(calls):
    from lift3d.datasets.sens_file import _payload

    def payload(*arguments):
        calls.append(1)
        return _payload(*arguments)

    return payload


def test_true_instances_come_back_where_the_format_has_them(tmp_path):
    for name, make in (("own", own_layout), ("apc", apc)):
        root = tmp_path / name
        root.mkdir()
        case = make(root)
        for view, expected in zip(read(case).views, case.scan.instances, strict=True):
            np.testing.assert_array_equal(view.instances(), expected)
            assert set(np.unique(expected)) == {1, 2}


def test_a_scan_without_true_instances_is_read_with_a_note(tmp_path):
    case = apc(tmp_path)
    for file in (tmp_path / "segm").iterdir():
        file.unlink()
    scene = read(case)
    assert scene.views[0].instances() is None
    assert scene.notes == ("no segm/frame-*.segm.png found: going without",)


def test_confidence_is_scaled_to_one(tmp_path):
    confidence = read(own_layout(tmp_path)).views[0].confidence()
    assert confidence is not None
    assert np.unique(confidence).tolist() == [0.5]


def test_every_registered_reader_describes_its_format():
    for reader in READERS.values():
        assert reader().expects
