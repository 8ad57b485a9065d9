"""Photos through a small random MASt3R to cameras, depth and matches, end to end."""

import functools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

NEEDS = "needs the extra: pip install 'lift3d[mast3r]'"
torch = pytest.importorskip("torch", reason=NEEDS)
pytest.importorskip("safetensors", reason=NEEDS)

from tiny_mast3r import STEP, write_checkpoint, write_folder, write_pictures  # noqa: E402

from lift3d.datasets import read_scene  # noqa: E402
from lift3d.reconstruction.mast3r import Mast3rConfig  # noqa: E402
from lift3d.reconstruction.pairs import PairsConfig  # noqa: E402
from lift3d.run.lift import lift  # noqa: E402
from lift3d.run.settings import KINDS, LiftConfig  # noqa: E402
from lift3d.scene import Scene  # noqa: E402
from lift3d.scene.errors import InputError  # noqa: E402
from lift3d.scene.workers.crew import Share  # noqa: E402
from lift3d.scene.workers.local import LocalCrew  # noqa: E402
from lift3d.scene.workers.views import Pool  # noqa: E402
from lift3d.segmentation.matching.mast3r import Mast3rMatcherConfig  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE = 224
COUNT = 3


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("mast3r")
    write_checkpoint(path / "tiny.pth")
    write_folder(path / "tiny")
    write_pictures(path / "photos", COUNT, SIDE, SIDE)
    return path


@pytest.fixture(scope="module")
def photos(place) -> Scene:
    return read_scene(place / "photos")


def config(place, **options) -> Mast3rConfig:
    given = {"size": 224, "stride": 16, "device": "cpu", "precision": "float32"}
    return Mast3rConfig(weights=str(place / "tiny"), **(given | options))


@pytest.fixture(scope="module")
def reconstructed(place, photos) -> Scene:
    return config(place).build().reconstruct(photos)


def test_every_picture_gets_a_camera_depth_and_confidence(reconstructed):
    assert len(reconstructed) == COUNT
    for view in reconstructed.views:
        assert view.depth().shape == (SIDE, SIDE)
        assert (view.depth() > 0).mean() > 0.9
        assert 0 < view.confidence().max() <= 1
        assert np.allclose(view.camera.pose, view.geometry_camera.pose)
    assert "3 of 3 pictures aligned" in reconstructed.notes[-1]
    assert not reconstructed.metric  # the file's name does not contain `metric`


def test_two_workers_give_the_same_cameras_and_depth(place, photos):
    backend = config(place, batch=2).build()
    alone = config(place, batch=2).build().reconstruct(photos)
    pool = Pool(LocalCrew(Share(1.0), 2), 2, print)
    try:
        backend.take(pool)
        spread = backend.reconstruct(photos)
    finally:
        pool.close()
    for ours, theirs in zip(spread.views, alone.views, strict=True):
        assert np.array_equal(ours.camera.pose, theirs.camera.pose)
        assert np.array_equal(ours.depth(), theirs.depth())


def test_known_intrinsics_reach_the_cameras_and_place_them(place, photos):
    """Depth is nearly the same everywhere, so `STEP` pixels are `STEP / focal` of it."""
    known = config(place, intrinsics="fixed").build().reconstruct(photos)
    for given, found in zip(photos.views, known.views, strict=True):
        assert np.allclose(found.camera.K, given.camera.K)
    at = np.array([view.camera.pose[:3, 3] for view in known.views])
    step = STEP / photos.views[0].camera.K[0, 0] * np.median(known.views[0].depth())
    assert np.allclose(np.diff(at, axis=0), [[step, step, 0], [step, -step, 0]], atol=0.2 * step)


def test_poses_that_do_not_exist_cannot_be_fixed(place, photos):
    with pytest.raises(InputError, match="gives none for photo0"):
        config(place, poses="fixed").build().reconstruct(photos)


def test_ignored_parts_have_no_depth(place, photos, tmp_path):
    from PIL import Image

    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:, :50] = 255
    Image.fromarray(mask).save(tmp_path / "photo1.png")
    found = config(place, ignore=tmp_path).build().reconstruct(photos)
    assert not found.views[1].depth()[:, :49].any()
    assert found.views[0].depth()[:, :49].any()
    with pytest.raises(InputError, match="no such folder"):
        config(place, ignore=tmp_path / "no").build().reconstruct(photos)


def test_a_killed_run_continues_from_its_finished_pairs(place, photos, tmp_path, monkeypatch):
    from lift3d.networks.mast3r.network import Mast3r
    from lift3d.reconstruction.mast3r import backend

    decoded = []
    decode = Mast3r.decode

    def counting(self, first, second):
        decoded.append(len(first.tokens))
        return decode(self, first, second)

    monkeypatch.setattr(Mast3r, "decode", counting)
    monkeypatch.setattr(backend, "TOGETHER", 1)
    matched = []
    match_pair = backend.match_pair

    @functools.wraps(match_pair)  # the same code, as far as what is stored is concerned
    def dies(*given):
        if len(matched) == 2:
            raise KeyboardInterrupt
        matched.append(given)
        return match_pair(*given)

    monkeypatch.setattr(backend, "match_pair", dies)
    with pytest.raises(KeyboardInterrupt):
        config(place).build().reconstruct(photos, folder=tmp_path)
    assert sum(decoded) == 6  # three pairs in both directions; the third was not matched
    monkeypatch.setattr(backend, "match_pair", match_pair)
    decoded.clear()
    again = config(place).build().reconstruct(photos, folder=tmp_path)
    assert sum(decoded) == 2
    whole = config(place).build().reconstruct(photos)
    for one, two in zip(again.views, whole.views, strict=True):
        # Predictions that went through the folder were rounded to half precision in both.
        assert np.allclose(one.camera.pose, two.camera.pose, atol=1e-9)
    assert not (tmp_path / "predictions").exists()


def test_predictions_of_other_pictures_are_not_reused(place, photos, tmp_path):
    config(place, keep_predictions=True).build().reconstruct(photos, folder=tmp_path)
    fewer = photos.with_views(photos.views[:2])
    kept = config(place).build().reconstruct(fewer, folder=tmp_path)
    fresh = config(place).build().reconstruct(fewer)
    for one, two in zip(kept.views, fresh.views, strict=True):
        assert np.allclose(one.camera.pose, two.camera.pose, atol=1e-9)


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_the_tolerance_of_near_positions_scales_with_the_unit(photos, scale):
    """Cameras 2 units apart on a line: the middle one is in the middle, the others 2 away."""
    from lift3d.reconstruction.mast3r import backend

    views = []
    for index, view in enumerate(photos.views[:3]):
        pose = np.eye(4)
        pose[0, 3] = 2 * index * scale
        camera = replace(view.camera, world_from_camera=pose)
        views.append(replace(view, camera=camera))
    scene = replace(photos.with_views(views), metric=False)
    assert backend._near_position(scene) == pytest.approx(0.06 * scale)
    assert backend._near_position(replace(scene, metric=True)) == 0.05


def test_many_pictures_are_paired_by_their_features(place, photos):
    pairs = PairsConfig(graph="similar", similar=1)
    found = config(place, pairs=pairs).build().reconstruct(photos)
    assert len(found) == COUNT


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.pth", "no.pth"),
        ("tiny_mast3r.py", "checkpoint"),
        ("MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric", "non-commercial"),
    ],
)
def test_wrong_weights_are_an_error_with_the_next_step(name, message, monkeypatch, tmp_path):
    monkeypatch.setenv("LIFT3D_WEIGHTS", str(tmp_path))
    path = Path(__file__).with_name(name)
    weights = str(path) if "." in name else name
    with pytest.raises(InputError, match=message):
        Mast3rConfig(weights=weights).build()


def test_pictures_of_different_scenes_are_refused(place, tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for k in range(2):
        noise = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"noise{k}.png")
    with pytest.raises(InputError, match="do the pictures overlap"):
        config(place).build().reconstruct(read_scene(tmp_path))


def test_photos_are_lifted_to_a_labelled_cloud_and_found_finished(place, tmp_path):
    settings = LiftConfig(
        input=place / "photos",
        out=tmp_path / "out",
        reconstruction=config(place),
        segmentation=KINDS["segmentation"]["regions"](),
    )
    lift(settings)
    cloud = (tmp_path / "out" / "cloud.ply").read_bytes()
    assert (tmp_path / "out" / "report.html").is_file()
    cameras = json.loads((tmp_path / "out" / "scene.json").read_text())["views"]
    assert [view["depth"] for view in cameras] == [f"depth/photo{k}.npz" for k in range(COUNT)]
    assert all(view["camera"]["world_from_camera"] for view in cameras)
    second = lift(settings)
    assert all(record.reused for record in second.records.values())
    assert (tmp_path / "out" / "cloud.ply").read_bytes() == cloud


def test_matches_follow_the_picture_in_its_own_pixels(place, photos):
    """Pictures have the network's size here, so one is halved to test the scaling back."""
    matcher = Mast3rMatcherConfig(
        str(place / "tiny.pth"), size=224, stride=16, device="cpu", precision="float32"
    ).build()
    found = matcher.match(photos.views[0], photos.views[1])
    shift = found.xy_in_a - found.xy_in_b
    assert len(found) > 50
    assert (np.abs(shift - [STEP, STEP]).max(1) < 1).mean() > 0.9
    assert found.xy_in_a.min() >= 3
    assert found.xy_in_a.max() <= SIDE - 4


def test_windows_of_large_pictures_are_matched_at_full_size(place, tmp_path):
    """Pictures of twice the network's size, shifted by `STEP` of their pixels."""
    large = read_scene(write_pictures(tmp_path, 2, 2 * SIDE, 2 * SIDE))
    options = {"size": 224, "stride": 16, "device": "cpu", "precision": "float32"}
    matcher = Mast3rMatcherConfig(str(place / "tiny.pth"), fine=True, **options).build()
    found = matcher.match(*large.views)
    shift = found.xy_in_a - found.xy_in_b
    assert np.array_equal(found.xy_in_a, np.rint(found.xy_in_a))  # no pixel was resampled
    assert (np.abs(shift - [STEP, STEP]).max(1) < 1).mean() > 0.8
    both = np.c_[found.xy_in_a, found.xy_in_b]
    assert len(np.unique(both, axis=0)) == len(both)
    coarse = Mast3rMatcherConfig(str(place / "tiny.pth"), **options).build().match(*large.views)
    assert found.xy_in_a.max() > SIDE
    assert len(found) > len(coarse)


def test_each_picture_is_encoded_once(place, photos, monkeypatch):
    from lift3d.networks.mast3r.network import Mast3r

    encoded = []
    encode = Mast3r.encode

    def counting(self, images):
        encoded.append(len(images))
        return encode(self, images)

    monkeypatch.setattr(Mast3r, "encode", counting)
    matcher = Mast3rMatcherConfig(str(place / "tiny.pth"), size=224, stride=32).build()
    matcher.match(photos.views[0], photos.views[1])
    matcher.match(photos.views[1], photos.views[2])
    assert sum(encoded) == 3


def test_the_points_tracker_runs_on_its_matches(place, photos):
    """As in the paper: correspondences of neighbouring pictures prompt the segmenter."""
    tracking = KINDS["tracking"]["mastsam"]()
    segmenter = KINDS["segmentation"]["regions"](level_alone=0.45, smallest_alone=0.001).build()
    matcher = Mast3rMatcherConfig(str(place / "tiny.pth"), size=224, stride=8).build()
    maps = list(tracking.build(segmenter, matcher).track(photos))
    assert len(maps) == COUNT
    first, last = (set(np.unique(each).tolist()) - {0} for each in (maps[0], maps[-1]))
    assert first & last


def test_the_command_line_offers_it_without_loading_torch():
    code = (
        "import sys\nfrom lift3d.run.settings import KINDS\n"
        "assert 'mast3r' in KINDS['reconstruction'] and 'mast3r' in KINDS['matching']\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_size_and_stride_are_checked(place):
    with pytest.raises(InputError, match="stride is 0"):
        replace(config(place), stride=0).build()
