"""COLMAP models become scenes, exact to a thousandth of a pixel, and photos become models."""

import pickle
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tiny_scan as tiny
from tiny_scan import tiny_scan

pycolmap = pytest.importorskip("pycolmap")

from lift3d.datasets import colmap_scene, read_scene  # noqa: E402
from lift3d.datasets.colmap_model import ColmapModel  # noqa: E402
from lift3d.datasets.colmap_scene import centred_camera  # noqa: E402
from lift3d.geometry import project, similarity, unproject  # noqa: E402
from lift3d.geometry.visibility import projected_depth  # noqa: E402
from lift3d.reconstruction.colmap import Colmap, ColmapConfig  # noqa: E402
from lift3d.reconstruction.colmap.mapping import Mapping  # noqa: E402
from lift3d.reconstruction.colmap.models import (  # noqa: E402
    Model,
    checked_model,
    prune,
    quality,
)
from lift3d.scene import Camera, Scene, View  # noqa: E402
from lift3d.scene.errors import FrameError, InputError, MissingExtra  # noqa: E402

MODELS = {
    "SIMPLE_PINHOLE": [75.0, 39.5, 29.5],
    "PINHOLE": [75.0, 74.0, 39.5, 29.5],
    "SIMPLE_RADIAL": [75.0, 39.5, 29.5, 0.05],
    "RADIAL": [75.0, 39.5, 29.5, 0.05, -0.02],
    "OPENCV": [75.0, 74.0, 39.5, 29.5, 0.05, -0.02, 0.003, -0.002],
    "FULL_OPENCV": [75.0, 74.0, 39.5, 29.5, 0.05, -0.02, 0.003, -0.002, 0.03, 0.0, 0.0, 0.0],
}
RNG = np.random.default_rng(3)
CLOUD = RNG.uniform([-1.2, -0.9, 2.5], [1.2, 0.9, 4.0], (60, 3))


def workspace(root, scan, model, binary=True, images="images", place="sparse/0"):
    (root / place).mkdir(parents=True, exist_ok=True)
    model.write_binary(str(root / place)) if binary else model.write_text(str(root / place))
    for name, image in zip(scan.names, scan.images, strict=True):
        tiny.save(root / images / f"{name}.png", image)
    return read_scene(root)


# The reader.


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("kind", MODELS)
def test_points_project_to_the_pixels_that_colmap_computes(tmp_path, kind, binary):
    scan = tiny_scan()
    made = tiny.colmap_model(scan, CLOUD, kind, MODELS[kind])
    scene = workspace(tmp_path, scan, made, binary)
    assert [view.name for view in scene.views] == scan.names
    for view, pose in zip(scene.views, scan.poses, strict=True):
        np.testing.assert_allclose(view.camera.pose, pose, atol=1e-9)
        image = made.find_image_with_name(f"{view.name}.png")
        observed = [p for p in image.points2D if p.has_point3D()]
        assert len(observed) > 20
        xyz = np.array([made.point3D(p.point3D_id).xyz for p in observed])
        xy, _ = project(view.camera, xyz)
        assert np.abs(xy - (np.array([p.xy for p in observed]) - 0.5)).max() < 1e-3


def test_points_come_with_colour_and_how_often_they_were_seen(tmp_path):
    scan = tiny_scan()
    scene = workspace(tmp_path, scan, tiny.colmap_model(scan, CLOUD))
    points = scene.load_points()
    np.testing.assert_allclose(points.xyz, CLOUD, atol=1e-6)
    assert (points.rgb == [10, 20, 30]).all()
    assert not points.normal.any()
    seen = np.zeros(len(CLOUD))
    for view in scene.views:
        xy = project(view.camera, CLOUD)[0] + 0.5
        seen += ((xy >= 0) & (xy < [80, 60])).all(1)
    np.testing.assert_array_equal(points.confidence, seen)


def test_projected_depth_is_the_smallest_z_at_the_nearest_pixel():
    camera = Camera(np.array([[10.0, 0, 4], [0, 10, 3], [0, 0, 1]]), 9, 7, np.eye(4))
    xyz = np.array([[0, 0, 5.0], [0.001, 0, 2.0], [0.1, 0, 1.0], [0, 0, -1], [9, 0, 1], [0, 1, 4]])
    depth = projected_depth(xyz, camera)
    expected = np.zeros((7, 9), np.float32)
    expected[3, 4], expected[3, 5], expected[6, 4] = 2, 1, 4  # y: 3 + 2.5 rounds up
    np.testing.assert_array_equal(depth, expected)


def test_each_view_has_the_depth_of_its_points(tmp_path):
    scan = tiny_scan()
    scene = workspace(tmp_path, scan, tiny.colmap_model(scan, CLOUD))
    for view in scene.views:
        view = pickle.loads(pickle.dumps(view))
        assert view.sparse
        assert view.depth_camera is None
        depth = view.depth()
        assert 20 < np.count_nonzero(depth) <= len(CLOUD)
        at = unproject(view.camera, depth)[depth > 0]
        # Half a pixel of 75 at up to 4 m is 4 cm across in the picture.
        nearest = np.linalg.norm(at[:, None] - CLOUD, axis=2).min(1)
        assert nearest.max() < 0.04


@pytest.mark.parametrize(
    ("place", "images", "inside"),
    [(".", "images", "."), ("sparse", "images", "sparse"), ("sparse/0", "images", "sparse/0")],
)
def test_the_model_and_its_images_are_found_from_either_folder(tmp_path, place, images, inside):
    scan = tiny_scan()
    workspace(tmp_path, scan, tiny.colmap_model(scan, CLOUD), images=images, place=place)
    for path in {tmp_path, tmp_path / inside}:
        scene = read_scene(path)
        assert scene.source == f"reader colmap at {path}"
        np.testing.assert_array_equal(scene.views[0].image(), scan.images[0])
        assert not scene.metric


def test_an_option_names_the_folder_of_the_images(tmp_path):
    scan = tiny_scan()
    with pytest.raises(InputError, match=r"--reader\.images DIR"):
        workspace(tmp_path, scan, tiny.colmap_model(scan, CLOUD), images="pictures/left")
    scene = ColmapModel(images=tmp_path / "pictures/left").read(tmp_path)
    assert len(scene) == 4


def test_images_in_subfolders_get_unique_names(tmp_path):
    scan = tiny_scan(names=["left/0", "left/1", "right/0", "right/1"])
    scene = workspace(tmp_path, scan, tiny.colmap_model(scan, CLOUD))
    assert [view.name for view in scene.views] == ["0", "1", "right-0", "right-1"]
    np.testing.assert_array_equal(scene.views[2].image(), scan.images[2])
    assert scene.views[2].depth().any()


def test_scaled_down_images_get_the_camera_of_their_size(tmp_path):
    scan = tiny_scan()
    made = tiny.colmap_model(scan, CLOUD)
    half = replace(scan, images=[image[::2, ::2].copy() for image in scan.images])
    scene = workspace(tmp_path, half, made)
    view = scene.views[0]
    assert view.image().shape == (30, 40, 3)
    assert view.camera.K[0, 0] == 37.5
    assert view.depth().shape == (30, 40)
    assert "rescaled" in scene.notes[0]


def test_an_image_that_is_not_registered_or_missing_is_left_out(tmp_path):
    scan = tiny_scan()
    made = tiny.colmap_model(scan, CLOUD)
    made.deregister_frame(made.find_image_with_name("3.png").frame_id)
    workspace(tmp_path, scan, made)
    (tmp_path / "images/1.png").unlink()
    scene = read_scene(tmp_path)
    assert [view.name for view in scene.views] == ["0", "2"]
    reasons = {frame.name: frame.reason for frame in scene.skipped}
    assert "is missing" in reasons["1"]
    assert reasons["3.png"] == "not registered in the COLMAP model"


def test_a_model_with_few_of_many_photos_registered_is_read(tmp_path):
    scan = tiny_scan()
    workspace(tmp_path, scan, tiny.colmap_model(scan, CLOUD))
    for i in range(9):
        tiny.save(tmp_path / f"images/more_{i}.png", scan.images[0])
    scene = read_scene(tmp_path)
    assert scene.skipped == ()
    assert scene.notes == ("9 images are not registered in the COLMAP model",)


@pytest.mark.parametrize(
    ("kind", "lens"),
    [
        ("OPENCV_FISHEYE", [0.05, 0.0, 0.0, 0.0]),
        ("FULL_OPENCV", [0.05, -0.02, 0.0, 0.0, 0.0, 0.01, 0.0, 0.0]),
    ],
)
def test_an_unknown_lens_is_refused_and_the_advice_works(tmp_path, kind, lens):
    scan, old, new = tiny_scan(), tmp_path / "old", tmp_path / "new"
    made = tiny.colmap_model(scan, CLOUD, kind, [75.0, 74.0, 39.5, 29.5, *lens])
    with pytest.raises(InputError, match=rf"of FULL_OPENCV|camera model {kind}") as refused:
        workspace(old, scan, made)
    said = re.search(r"pycolmap\.undistort_images\(.*\)", str(refused.value))[0]
    exec(said.replace("'NEW'", repr(str(new))).replace("'IMAGES'", repr(str(old / "images"))))
    scene = read_scene(new)
    assert [view.name for view in scene.views] == scan.names
    for view, pose in zip(scene.views, scan.poses, strict=True):
        np.testing.assert_allclose(view.camera.pose, pose, atol=1e-9)
        assert view.camera.distortion == ()
        assert view.image().shape == (view.camera.height, view.camera.width, 3)


def test_an_incomplete_model_is_refused_and_named(tmp_path):
    scan = tiny_scan()
    workspace(tmp_path, scan, tiny.colmap_model(scan, CLOUD))
    file = tmp_path / "sparse/0/images.bin"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(InputError, match=r"cannot be read as a.* COLMAP model"):
        read_scene(tmp_path)


def test_a_truncated_dense_depth_map_is_refused_when_it_is_loaded(tmp_path):
    scan = tiny_scan()
    tiny.write_colmap(tmp_path, scan)
    view = read_scene(tmp_path).views[0]
    assert not view.sparse
    file = tmp_path / f"stereo/depth_maps/{view.name}.png.geometric.bin"
    file.write_bytes(file.read_bytes()[:-400])
    with pytest.raises(FrameError, match="its header says 80x60"):
        view.depth()


def test_without_pycolmap_the_extra_is_named(tmp_path, monkeypatch):
    scan = tiny_scan()
    workspace(tmp_path, scan, tiny.colmap_model(scan, CLOUD))
    monkeypatch.setitem(__import__("sys").modules, "pycolmap", None)
    colmap_scene._open.cache_clear()
    with pytest.raises(MissingExtra, match=r"lift3d\[colmap\]"):
        read_scene(tmp_path)
    with pytest.raises(MissingExtra, match=r"lift3d\[colmap\]"):
        ColmapConfig().build()


# The reconstruction.

K = np.array([[260.0, 0, 159.5], [0, 260.0, 119.5], [0, 0, 1]])
SIZE = (320, 240)


def _texture():
    rng = np.random.default_rng(5)
    layers = [
        cv2.resize(rng.uniform(0, 1, (side, side)), (1024, 1024), interpolation=cv2.INTER_CUBIC)
        for side in (32, 64, 128, 256, 512)
    ]
    mixed = sum(layers) / len(layers)
    return np.clip(255 * (2.5 * (mixed - 0.5) + 0.5), 0, 255).astype(np.uint8)


TEXTURE = _texture()


def room_corner(pose, K=K, size=SIZE):
    """Two textured walls that meet in a right angle, ray-cast."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    ray = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones(x.shape)], -1)
    ray = ray @ pose[:3, :3].T
    nearest, image = np.full(x.shape, np.inf), np.zeros(x.shape, np.uint8)
    for number, (along, normal) in enumerate(
        (([0.6, 0, 0.8], [0.8, 0, -0.6]), ([-0.6, 0, 0.8], [-0.8, 0, -0.6]))
    ):
        along, normal = np.array(along), np.array(normal)
        # Both walls pass through (0, 0, 4); each is visible on its side of that point.
        t = ((np.array([0, 0, 4.0]) - pose[:3, 3]) @ normal) / (ray @ normal)
        place = pose[:3, 3] + ray * t[..., None]
        across = -(place - [0, 0, 4.0]) @ along
        hit = (t > 0) & (across > 0) & (t < nearest)
        u = (across * 200 + 500 * number) % 1023
        v = (place[..., 1] * 200 + 512) % 1023
        seen = cv2.remap(TEXTURE, u.astype(np.float32), v.astype(np.float32), cv2.INTER_LINEAR)
        image[hit], nearest[hit] = seen[hit], t[hit]
    return np.repeat(image[..., None], 3, axis=2)


def poses(count):
    for i in range(count):
        pose = np.eye(4)
        angle = 0.12 * (i - count / 2)
        pose[:3, :3] = cv2.Rodrigues(np.array([0.01 * i, angle, 0.0]))[0]
        pose[:3, 3] = [-4 * np.sin(angle), 0.1 * np.cos(2 * i), 4 - 4 * np.cos(angle)]
        yield pose


class Picture:
    """A loader that can be pickled: not a lambda."""

    def __init__(self, pixels):
        self.pixels = pixels

    def __call__(self):
        return self.pixels


def photos(count=6, camera=None, extra=()):
    pixels = [room_corner(pose) for pose in poses(count)] + list(extra)
    camera = camera or Camera(K, *SIZE)
    views = [View(f"photo {i}", camera, Picture(image)) for i, image in enumerate(pixels)]
    return Scene("corner", tuple(views), False, "test")


@pytest.fixture(scope="module")
def corner(tmp_path_factory):
    """Reconstructed once: input scene, output scene, folder, ticks."""
    folder = tmp_path_factory.mktemp("corner")
    ticks = []
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3)).astype(np.uint8)
    given = photos(extra=[noise])
    made = Colmap().reconstruct(given, lambda *tick: ticks.append(tick), folder)
    return given, made, folder, ticks


def errors(made, truth):
    """Errors of camera positions, as a share of the path's extent, and of rotations in degrees."""
    found = np.array([view.camera.pose[:3, 3] for view in made.views])
    wanted = np.array([pose[:3, 3] for pose in truth])
    scale, rigid = similarity(found, wanted)
    moved = scale * found @ rigid[:3, :3].T + rigid[:3, 3]
    off = np.linalg.norm(moved - wanted, axis=1) / np.linalg.norm(np.ptp(wanted, axis=0))
    turns = [
        np.linalg.norm(cv2.Rodrigues((rigid[:3, :3] @ v.camera.pose[:3, :3]).T @ pose[:3, :3])[0])
        for v, pose in zip(made.views, truth, strict=True)
    ]
    return off, np.degrees(turns)


def test_photos_of_a_corner_get_their_cameras_back(corner):
    _, made, _, _ = corner
    assert [view.name for view in made.views] == [f"photo {i}" for i in range(6)]
    off, turned = errors(made, list(poses(6)))
    assert off.max() < 0.01
    assert turned.max() < 0.5
    assert not made.metric
    assert made.notes == ("COLMAP placed 6 of 7 photos; the scale is arbitrary",)


def test_a_known_focal_length_stays_near_what_it_was(corner):
    _, made, _, _ = corner
    assert made.views[0].camera.K[0, 0] == pytest.approx(260, rel=0.02)
    np.testing.assert_allclose(made.views[0].camera.K[:2, 2], [159.5, 119.5])


def test_a_photo_of_something_else_is_left_out(corner):
    _, made, _, _ = corner
    assert [frame.name for frame in made.skipped] == ["photo 6"]
    assert "COLMAP" in made.skipped[0].reason


def test_the_points_are_on_the_two_walls_and_agree_with_the_views_depth(corner):
    _, made, _, _ = corner
    points = made.load_points()
    assert len(points) > 100
    assert points.confidence.min() >= 2
    for view in made.views:
        view = pickle.loads(pickle.dumps(view))
        assert view.sparse
        depth = view.depth()
        assert np.count_nonzero(depth) > 30
        xy, z = project(view.camera, points.xyz)
        column, row = np.floor(xy + 0.5).astype(int).T
        inside = (column >= 0) & (column < SIZE[0]) & (row >= 0) & (row < SIZE[1]) & (z > 0)
        there = depth[row[inside], column[inside]]
        agree = np.abs(there - z[inside]) < 1e-4 * z[inside]
        assert agree.sum() >= 0.95 * np.count_nonzero(depth)


def test_ticks_only_grow_and_reach_the_end(corner):
    *_, ticks = corner
    done = [tick[0] for tick in ticks]
    assert done == sorted(done)
    assert ticks[-1][0] == ticks[-1][1]
    assert len(set(done)) > 8


def test_a_finished_model_is_reused(corner, monkeypatch):
    given, made, folder, _ = corner
    monkeypatch.setattr(pycolmap, "extract_features", None)
    monkeypatch.setattr(pycolmap, "match_image_pairs", None)
    again = Colmap().reconstruct(given, None, folder)
    for a, b in zip(made.views, again.views, strict=True):
        np.testing.assert_array_equal(a.camera.pose, b.camera.pose)
        np.testing.assert_array_equal(a.depth(), b.depth())
    assert again.skipped == made.skipped
    assert again.notes == made.notes


def test_the_folder_is_a_colmap_workspace(corner):
    *_, folder, _ = corner
    scene = read_scene(folder)
    assert scene.source == f"reader colmap at {folder}"
    assert len(scene) == 6
    assert sorted(p.name for p in folder.iterdir()) == [
        "colmap.json",
        "features.db",
        "images",
        "sparse",
    ]


def counted(folder):
    with pycolmap.Database.open(str(folder / "features.db")) as database:
        return {
            "keypoints": database.num_keypoints(),
            "cameras": database.num_cameras(),
            "images": database.num_images(),
        }


def test_a_stopped_run_resumes_from_its_features(corner, tmp_path, monkeypatch):
    given = photos(4)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pycolmap, "match_image_pairs", stop)
        with pytest.raises(KeyboardInterrupt):
            Colmap().reconstruct(given, None, tmp_path)
    before = counted(tmp_path)
    assert before["keypoints"] > 400
    assert before["cameras"] == 1
    assert len(Colmap().reconstruct(given, None, tmp_path)) == 4
    assert counted(tmp_path) == before


def test_one_thread_and_one_seed_give_the_same_bytes(tmp_path):
    given = photos(3)
    first, second = (Colmap().reconstruct(given, None, tmp_path / n) for n in "ab")
    for a, b in zip(first.views, second.views, strict=True):
        np.testing.assert_array_equal(a.camera.pose, b.camera.pose)
        np.testing.assert_array_equal(a.camera.K, b.camera.K)
    np.testing.assert_array_equal(first.load_points().xyz, second.load_points().xyz)


def test_other_settings_or_pictures_start_again(tmp_path):
    few = ColmapConfig(max_features=200)
    Colmap(few).reconstruct(photos(3), None, tmp_path)
    first = counted(tmp_path)
    Colmap().reconstruct(photos(3), None, tmp_path)
    assert counted(tmp_path)["keypoints"] > first["keypoints"]
    Colmap().reconstruct(photos(4), None, tmp_path)
    assert counted(tmp_path)["images"] == 4


def test_other_pictures_of_the_same_names_and_sizes_start_again(tmp_path):
    for colour in (0, 90):
        pixels = np.full((240, 320, 3), colour, np.uint8)
        views = [View(str(i), Camera(K, *SIZE), Picture(pixels)) for i in range(2)]
        given = Scene("flat", tuple(views), False, "test")
        with pytest.raises(InputError, match="no two photos overlap enough"):
            Colmap().reconstruct(given, None, tmp_path)
        kept = cv2.imread(str(tmp_path / "images/0.jpg"))
        assert abs(int(kept[0, 0, 0]) - colour) < 3


def test_the_incremental_mapper_places_the_photos_too(tmp_path):
    made = Colmap(ColmapConfig(mapper="incremental")).reconstruct(photos(4))
    off, turned = errors(made, list(poses(4)))
    assert off.max() < 0.02
    assert turned.max() < 1.0


def test_photos_without_overlap_are_refused(tmp_path):
    rng = np.random.default_rng(1)
    noise = [rng.integers(0, 255, (240, 320, 3)).astype(np.uint8) for _ in range(3)]
    scene = photos(0, extra=noise)
    with pytest.raises(InputError, match="no two photos overlap enough"):
        Colmap().reconstruct(scene)


def test_blank_photos_are_refused(tmp_path):
    scene = photos(0, extra=[np.full((240, 320, 3), 90, np.uint8)] * 3)
    with pytest.raises(InputError, match="no two photos overlap enough"):
        Colmap().reconstruct(scene)


def test_the_same_photo_again_is_refused_with_its_reason():
    scene = photos(0, extra=[room_corner(next(poses(6)))] * 4)
    with pytest.raises(InputError, match=r"no parallax.*step to the side"):
        Colmap().reconstruct(scene)


def test_a_camera_that_only_turned_is_refused_with_its_reason():
    turned = []
    for i in range(4):
        pose = np.eye(4)
        pose[:3, :3] = cv2.Rodrigues(np.array([0.02 * i, 0.06 * i, 0.01 * i]))[0]
        turned.append(room_corner(pose))
    with pytest.raises(InputError, match="no parallax"):
        Colmap().reconstruct(photos(0, extra=turned))


def test_of_two_photos_a_third_is_asked_for():
    with pytest.raises(InputError, match=r"only two of 2 photos match.*take a third"):
        Colmap().reconstruct(photos(2))


def test_what_moved_does_not_move_the_cameras():
    pixels = [room_corner(pose) for pose in poses(6)]
    for i, image in enumerate(pixels):
        image[80:160, 60 + 25 * i : 140 + 25 * i] = TEXTURE[:80, :80, None]
    made = Colmap().reconstruct(photos(0, extra=pixels))
    assert len(made) >= 5
    names = [int(view.name.split()[-1]) for view in made.views]
    off, _ = errors(made, [list(poses(6))[i] for i in names])
    assert off.max() < 0.08


def test_a_wrong_focal_length_is_found_out():
    wrong = K * np.array([[1.6], [1.6], [1]])
    made = Colmap().reconstruct(photos(camera=Camera(wrong, *SIZE)))
    assert len(made) >= 5
    assert made.views[0].camera.K[0, 0] == pytest.approx(260, rel=0.15)  # not 416


def test_guessed_lenses_become_the_mean_of_what_the_parts_found(tmp_path):
    guessed = centred_camera(*SIZE)
    made = Colmap(ColmapConfig(mapper="incremental")).reconstruct(
        photos(5, camera=guessed), None, tmp_path
    )
    assert guessed.K[0, 0] == pytest.approx(384)
    with pycolmap.Database.open(str(tmp_path / "features.db")) as database:
        camera = database.read_all_cameras()[0]
    assert camera.has_prior_focal_length
    assert camera.params[0] == pytest.approx(260, rel=0.05)
    assert len(made) == 5


def test_a_guessed_focal_length_is_not_a_prior():
    assert colmap_scene.focal_is_guessed(centred_camera(4000, 3000))
    assert not colmap_scene.focal_is_guessed(centred_camera(4000, 3000, 4000.0))


def test_nothing_is_printed(corner, capfd):
    Colmap().reconstruct(photos(3))
    assert capfd.readouterr() == ("", "")


def test_parts_that_share_few_points_are_separated():
    """Two pairs of views, 20 points seen by each, 14 by all: the points of one pair go."""
    scan = tiny_scan()
    seen = [{0, 1}] * 22 + [{2, 3}] * 20 + [{1, 2}] * 14
    cloud = RNG.uniform([-0.5, -0.4, 3.0], [0.5, 0.4, 4.0], (len(seen), 3))
    model = tiny.colmap_model(scan, cloud, only=seen)
    assert prune(model) == ["2.png", "3.png"]
    assert model.num_reg_images() == 2
    assert model.num_points3D() == 22


# Real photos.


def test_the_tower_is_reconstructed_from_the_photos_that_show_it(shared_data, tmp_path):
    """COLMAP's global mapper calls all 7 registered, two of them without a single point."""
    scene = read_scene(shared_data("mv_nle_tower"))
    small = ColmapConfig(threads=-1, max_size=700, max_features=4096)
    made = Colmap(small).reconstruct(scene, None, tmp_path)
    assert len(made) + len(made.skipped) == 7
    assert len(made) >= 3
    for view in made.views:
        assert np.count_nonzero(view.depth()) >= 15
        assert 0.6 < view.camera.K[0, 0] / 1334 < 1.2  # a phone's lens


def test_a_room_is_reconstructed_within_centimetres(shared_data, tmp_path):
    """Eight frames of a HoloLens, their depth, poses and focal length hidden."""
    scan = read_scene(shared_data("hololens_dvmvs_000")).views[:8]
    hidden = [
        View(v.name, centred_camera(v.camera.width, v.camera.height), v.load_image) for v in scan
    ]
    scene = Scene("room", tuple(hidden), False, "test")
    made = Colmap(ColmapConfig(threads=-1)).reconstruct(scene, None, tmp_path)
    truth = {view.name: view.camera.pose for view in scan}
    assert len(made) >= 5
    off, _ = errors(made, [truth[view.name] for view in made.views])
    assert np.median(off) < 0.02
    assert made.views[0].camera.K[0, 0] == pytest.approx(495.6, rel=0.05)


def test_a_model_that_contradicts_many_pairs_is_doubted_and_worth_less():
    class Placed:
        def num_reg_images(self):
            return 10

    good, bad = (Model(Placed(), [], pairs=20, contradicted=each) for each in (3, 8))
    assert good.doubt is None
    assert "contradict the matches of 8 of 20 pairs" in bad.doubt
    assert good.worth > bad.worth
    near, far = (replace(good, misfit=each) for each in (0.001, 0.002))
    assert bad.quality < far.quality < near.quality
    assert quality([]) < bad.quality


def test_of_two_mappers_the_model_that_matches_contradict_less_is_kept(tmp_path, monkeypatch):
    """Either mapper is made to answer with one view moved aside."""
    colmap = Colmap(ColmapConfig(seed=0))
    colmap.reconstruct(photos(5), None, tmp_path)
    for spoilt in ("_incremental", "_global"):
        mapping = Mapping(tmp_path / "features.db", tmp_path / "images", colmap.config, False)
        honest = getattr(Mapping, spoilt)

        def bent(self, *given, honest=honest, **named):
            with pycolmap.Database.open(str(self.database)) as database:
                return [aside(model, database) for model in honest(self, *given, **named)]

        with monkeypatch.context() as patch:
            patch.setattr(Mapping, spoilt, bent)
            patch.setattr(Mapping, "_refined", lambda self, model: model)
            (best,) = mapping.models(5)
        assert best.contradicted == 0
        assert len(best) == 5


def aside(model, database):
    """The model with its last view turned by ten degrees."""
    moved = pycolmap.Reconstruction(model.reconstruction)
    image = moved.image(max(moved.reg_image_ids()))
    pose = image.cam_from_world()
    turn = pycolmap.Rotation3d(cv2.Rodrigues(np.array([0, 0.17, 0]))[0])
    image.frame.rig_from_world = pycolmap.Rigid3d(turn, np.zeros(3)) * pose
    return checked_model(moved, database)


def test_weak_pairs_are_matched_again_where_the_model_predicts_it(tmp_path, monkeypatch):
    """Pairs of two halves lose most of their matches, and get them back from the model."""
    import pycolmap

    monkeypatch.setattr("lift3d.reconstruction.colmap.mapping.SURE", 6)
    colmap = Colmap(ColmapConfig(seed=0, mapper="incremental"))
    colmap.reconstruct(photos(6), None, tmp_path)
    mapping = Mapping(tmp_path / "features.db", tmp_path / "images", colmap.config, False)

    def counts(database):
        numbers = sorted(image.image_id for image in database.read_all_images())
        across = [(i, j) for i in numbers[:3] for j in numbers[3:]]
        return {
            pair: len(database.read_two_view_geometry(*pair).inlier_matches)
            for pair in across
            if database.exists_two_view_geometry(*pair)
        }

    with pycolmap.Database.open(str(mapping.database)) as database:
        before = counts(database)
        for pair in before:
            geometry = database.read_two_view_geometry(*pair)
            geometry.inlier_matches = geometry.inlier_matches[:30]
            database.delete_two_view_geometry(*pair)
            database.write_two_view_geometry(*pair, geometry)
    shares: list[float] = []
    best, *_ = mapping.models(
        7, shares.append
    )  # as if a seventh were missing: nothing is mended otherwise
    assert len(best) == 6
    assert len(shares) > 1
    assert shares == sorted(shares)
    assert shares[-1] <= 1
    with pycolmap.Database.open(str(mapping.database)) as database:
        after = counts(database)
    assert sum(after.values()) > 0.7 * sum(before.values())
