"""Photos through VGGT to cameras and depth: windows, known quantities, and end to end.

Random weights know no geometry. So what is measured is done with a stand-in for the network that
sees a synthetic room as a perfect network would: each window in a frame and unit of its own.
"""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra: pip install 'lift3d[vggt]'")


from tiny_mast3r import write_pictures  # noqa: E402
from tiny_vggt import write_checkpoint  # noqa: E402

from lift3d.datasets import read_scene  # noqa: E402
from lift3d.datasets.synthetic import SyntheticConfig  # noqa: E402
from lift3d.geometry import project, unproject  # noqa: E402
from lift3d.networks.vggt.inference import Predictor, Tracked, WindowPrediction  # noqa: E402
from lift3d.reconstruction.vggt import VggtReconstructionConfig  # noqa: E402
from lift3d.reconstruction.vggt import windows as joining  # noqa: E402
from lift3d.run.lift import lift  # noqa: E402
from lift3d.run.settings import KINDS, LiftConfig  # noqa: E402
from lift3d.scene.errors import InputError  # noqa: E402

COUNT, WIDTH, HEIGHT = 7, 112, 84
WINDOWS = {"window": 4, "overlap": 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("vggt")
    write_checkpoint(path / "tiny")
    write_pictures(path / "photos", 3, 112, 84)
    return path


@pytest.fixture(scope="module")
def room():
    scene = SyntheticConfig(views=90, width=WIDTH, height=HEIGHT, noise=False).read()
    return scene.with_views(scene.views[:COUNT])


def config(place, **options) -> VggtReconstructionConfig:
    given = {"size": 112, "device": "cpu", "precision": "float32", "min_confidence": 1.0}
    return VggtReconstructionConfig(weights=str(place / "tiny"), **(given | options))


def seeing(scene, focal=1.0, wrong=(), shift=0.0):
    """A stand-in for `Predictor.window` that knows the scene.

    Each window has the frame of its first picture and a unit of its own. `focal`: factor on the
    focal length, with depth in proportion. `wrong`: places in the first window whose camera is
    elsewhere. `shift`: standard deviation of an error of positions, in metres.
    """
    index = {view.image().tobytes(): k for k, view in enumerate(scene.views)}
    calls = []

    def window(self, images, queries=(), points=0):
        members = [scene.views[index[image.rgb.tobytes()]] for image in images]
        calls.append([view.name for view in members])
        rng = np.random.default_rng(len(calls))
        unit = float(rng.uniform(0.3, 3))
        base = np.linalg.inv(members[0].camera.pose)
        poses = np.stack([base @ view.camera.pose for view in members])
        poses[:, :3, 3] += rng.normal(0, shift, (len(poses), 3)) if shift else 0
        poses[:, :3, 3] *= unit
        for k in wrong if len(calls) == 1 else ():
            poses[k, :3, 3] += unit
        K = np.stack([view.camera.K for view in members])
        K[:, [0, 1], [0, 1]] *= focal
        depth = np.stack([view.depth() for view in members]) * np.float32(unit * focal)
        confidence = np.full(depth.shape, 3.0, np.float32)
        tracks = tuple(true_tracks(members, query) for query in queries)
        return WindowPrediction(poses, K, depth, confidence, tracks)

    window.calls = calls
    return window


def true_tracks(members, query):
    """Every 7th pixel of a picture where it is in the others."""
    grid = np.stack(np.meshgrid(np.arange(3, WIDTH, 7), np.arange(3, HEIGHT, 7)), -1).reshape(-1, 2)
    xyz = unproject(members[query].camera, members[query].depth())[grid[:, 1], grid[:, 0]]
    xy, seen = [], []
    for view in members:
        at, z = project(view.camera, xyz)
        inside = (z > 0) & ((at >= 0) & (at <= [WIDTH - 1, HEIGHT - 1])).all(1)
        column, row = np.rint(np.where(inside[:, None], at, 0)).astype(int).T
        seen.append(inside & (np.abs(view.depth()[row, column] - z) < 0.02 * z))
        xy.append(np.where(inside[:, None], at, 0))
    seen = np.array(seen, np.float32)
    return Tracked(query, np.array(xy, np.float32), seen, seen)


def placed(scene, monkeypatch, place, see=None, **options):
    see = see or seeing(scene)
    monkeypatch.setattr(Predictor, "window", see)
    return config(place, **(WINDOWS | options)).build().reconstruct(scene)


def errors(found, scene):
    """Of each camera the distance from the true one in the frame of the first, in metres."""
    ours, theirs = (
        np.stack([np.linalg.inv(each.views[0].camera.pose) @ v.camera.pose for v in each.views])
        for each in (found, scene)
    )
    return np.linalg.norm(ours[:, :3, 3] - theirs[:, :3, 3], axis=1)


def test_windows_cover_all_pictures_and_neighbours_share_some():
    for count, size, overlap in [(2, 4, 2), (9, 4, 1), (24, 10, 3), (11, 10, 9)]:
        found = joining.windows_of(count, size, overlap)
        assert sorted({k for window in found for k in window}) == list(range(count))
        for one, two in itertools.pairwise(found):
            assert len(set(one) & set(two)) >= overlap
        assert max(map(len, found)) <= size


def test_pictures_in_no_order_are_put_next_to_similar_ones():
    angle = np.linspace(0, 2, 8)
    rng = np.random.default_rng(0)
    mixed = rng.permutation(8)
    features = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)[mixed]
    assert np.abs(np.diff(mixed[joining.chained(features)])).max() == 1


def test_windows_in_units_of_their_own_become_one_scene_in_metres(room, place, monkeypatch):
    found = placed(room, monkeypatch, place)
    assert len(found) == COUNT
    assert found.metric
    assert any("by the depth of" in note for note in found.notes)
    assert errors(found, room).max() < 2e-3
    for view, true in zip(found.views, room.views, strict=True):
        both = (view.depth() > 0) & (true.depth() > 0)
        assert np.median(np.abs(view.depth() / true.depth() - 1)[both]) < 2e-3
        assert np.allclose(view.camera.K, true.camera.K, atol=1e-6)
        assert view.confidence().max() <= 1


def test_a_wrong_camera_in_a_window_moves_no_other(room, place, monkeypatch):
    """The last picture of the first window is wrong there; three others are shared too."""
    see = seeing(room, wrong=(3,))
    found = placed(room, monkeypatch, place, see, window=5, overlap=4)
    off = errors(found, room)
    assert sorted(off > 0.05) == [False] * (COUNT - 1) + [True]
    assert np.sort(off)[-2] < 5e-3


def test_without_anything_in_metres_the_scale_is_arbitrary(room, place, monkeypatch):
    bare = room.with_views(
        [
            replace(v, load_depth=None, camera=replace(v.camera, world_from_camera=None))
            for v in room.views
        ]
    )
    monkeypatch.setattr(Predictor, "window", seeing(room))
    found = config(place, **WINDOWS).build().reconstruct(bare)
    assert not found.metric
    assert "the scale is arbitrary" in found.notes
    ratio = np.median(found.views[3].depth() / room.views[3].depth())
    assert errors(_resized(found, 1 / ratio), room).max() < 2e-3


def _resized(scene, factor):
    views = []
    for view in scene.views:
        pose = view.camera.pose.copy()
        pose[:3, 3] *= factor
        views.append(replace(view, camera=view.camera.at(pose)))
    return scene.with_views(views)


def test_given_positions_alone_give_metres(room, place, monkeypatch):
    poses_only = room.with_views([replace(view, load_depth=None) for view in room.views])
    monkeypatch.setattr(Predictor, "window", seeing(room))
    found = config(place, **WINDOWS).build().reconstruct(poses_only)
    assert found.metric
    assert any("places of 7 given cameras" in note for note in found.notes)
    assert errors(found, room).max() < 2e-3


@pytest.mark.parametrize("how", ["near", "fixed"])
def test_given_poses_are_the_frame_and_the_unit(room, place, monkeypatch, how):
    found = placed(room, monkeypatch, place, seeing(room, shift=0.01), poses=how)
    for view, true in zip(found.views, room.views, strict=True):
        off = np.abs(view.camera.pose - true.camera.pose).max()
        assert off < 1e-9 if how == "fixed" else 1e-4 < off < 0.1
        both = (view.depth() > 0) & (true.depth() > 0)
        assert np.median(np.abs(view.depth() / true.depth() - 1)[both]) < 0.1


def test_given_focal_lengths_are_kept_and_depth_follows(room, place, monkeypatch):
    see = seeing(room, focal=1.2)
    found = placed(room, monkeypatch, place, see, intrinsics="fixed", scale="none")
    true = room.views[0]
    assert np.allclose(found.views[0].camera.K, true.camera.K)
    ratio = found.views[0].depth() / true.depth()
    step = np.linalg.norm(found.views[1].camera.pose[:3, 3] - found.views[0].camera.pose[:3, 3])
    there = np.linalg.norm(room.views[1].camera.pose[:3, 3] - true.camera.pose[:3, 3])
    assert np.median(ratio) == pytest.approx(step / there, rel=0.02)


def test_bundle_adjustment_brings_cameras_closer(room, place, monkeypatch):
    rough = placed(room, monkeypatch, place, seeing(room, shift=0.02), window=7)
    fine = placed(room, monkeypatch, place, seeing(room, shift=0.02), window=7, refine=True)
    assert any("refined: matches fall" in note for note in fine.notes)
    assert np.median(errors(fine, room)) < 0.5 * np.median(errors(rough, room))


def test_a_killed_run_continues_from_its_finished_windows(room, place, monkeypatch, tmp_path):
    see = seeing(room)

    def dies(self, *given):
        if len(see.calls) == 1:
            raise KeyboardInterrupt
        return see(self, *given)

    monkeypatch.setattr(Predictor, "window", dies)
    with pytest.raises(KeyboardInterrupt):
        config(place, **WINDOWS).build().reconstruct(room, folder=tmp_path)
    monkeypatch.setattr(Predictor, "window", see)
    found = config(place, **WINDOWS).build().reconstruct(room, folder=tmp_path)
    assert [names[0] for names in see.calls] == ["0000", "0002", "0003"]
    assert errors(found, room).max() < 5e-3
    assert not (tmp_path / "predictions").exists()


def test_a_single_picture_is_refused(room, place):
    with pytest.raises(InputError, match="1 of 1 pictures can be read; reconstruction needs at l"):
        config(place).build().reconstruct(room.with_views(room.views[:1]))


def test_memory_that_runs_out_is_an_error_with_the_next_step(room, place, monkeypatch):
    chunks = []

    def full(self, images, layers=None):
        chunks.append(self.chunk)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("lift3d.networks.vggt.network.VGGT.aggregate", full)
    with pytest.raises(InputError, match=r"VGGT saw 7 pictures at once.*smaller window"):
        config(place, chunk=4).build().reconstruct(room)
    assert chunks == [4, 2, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 100}, "multiple of 14"),
        ({"window": 1}, "2 pictures or more"),
        ({"overlap": 24}, "less than the window"),
        ({"refine": True, "points": 0}, "1 or more"),
        ({"chunk": 0}, "chunk is 0"),
        ({"weights": "VGGT-1B"}, "licence: .*non-commercial"),
        ({"weights": "VGGT-1b"}, "did you mean 'VGGT-1B'"),
        ({"weights": __file__}, "Expected the weights of VGGT"),
    ],
)
def test_wrong_settings_and_weights_are_errors(place, options, message, monkeypatch, tmp_path):
    monkeypatch.setenv("LIFT3D_WEIGHTS", str(tmp_path))
    with pytest.raises(InputError, match=message):
        replace(config(place), **options).build()


def test_poses_that_do_not_exist_cannot_be_fixed(place):
    with pytest.raises(InputError, match="gives none for photo0"):
        config(place, poses="fixed").build().reconstruct(read_scene(place / "photos"))


def test_photos_are_lifted_to_a_labelled_cloud_and_found_finished(place, tmp_path):
    settings = LiftConfig(
        input=place / "photos",
        out=tmp_path / "out",
        reconstruction=config(place, mode="pad", size=56, window=2, overlap=1, order="similar"),
        segmentation=KINDS["segmentation"]["regions"](),
    )
    lift(settings)
    cloud = (tmp_path / "out" / "cloud.ply").read_bytes()
    assert (tmp_path / "out" / "report.html").is_file()
    cameras = json.loads((tmp_path / "out" / "scene.json").read_text())["views"]
    assert [view["depth"] for view in cameras] == [f"depth/photo{k}.npz" for k in range(3)]
    assert all(view["camera"]["world_from_camera"] for view in cameras)
    second = lift(settings)
    assert all(record.reused for record in second.records.values())
    assert (tmp_path / "out" / "cloud.ply").read_bytes() == cloud
