"""The network agrees with the official one's numbers, and loads only what belongs to it."""

import gzip
import json

import numpy as np
import pytest
from conftest import SHARED

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

from lift3d.networks.vggt.camera import matrices, unproject  # noqa: E402
from lift3d.networks.vggt.checkpoint import load  # noqa: E402
from lift3d.networks.vggt.inference import PredictorConfig, spread  # noqa: E402
from lift3d.networks.vggt.network import VGGT  # noqa: E402
from lift3d.networks.vggt.preprocess import prepare  # noqa: E402
from lift3d.networks.vggt.sizes import VggtConfig  # noqa: E402
from lift3d.scene.errors import InputError  # noqa: E402

GOLDEN = SHARED / "facts" / "vggt_golden"
golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"needs the golden numbers in {GOLDEN}")
TRACKED = [1e-5, 1e-4, 1e-3, 1e-2]
"""Pixels that tracks may differ by: rounding grows about tenfold in each iteration."""


@pytest.fixture(autouse=True)
def one_thread():
    """One thread: networks this small are slower with more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def small():
    return load(GOLDEN / "vggt_small.safetensors")[0]


def pictures(stored, name="images"):
    return torch.from_numpy(stored[name]).permute(0, 1, 4, 2, 3).float() / 255


def agree(ours, theirs, allowed=1e-4):
    ours = np.asarray(ours)
    assert ours.shape == theirs.shape
    assert (np.abs(ours - theirs) / (1 + np.abs(theirs))).max() <= allowed


def check_all(model, stored, queries):
    images = pictures(stored)
    wanted = {name.removeprefix("vggt.") for name in stored if name.startswith("vggt.")}
    checked = set()

    def compare(name, ours, allowed=1e-4):
        agree(ours, stored[f"vggt.{name}"], allowed)
        checked.add(name)

    with torch.inference_mode():
        compare("dino_patch_tokens", model.aggregator.embed(images.flatten(0, 1), 8))
        tokens = model.aggregate(images, range(model.config.depth))
        for number, layer in tokens.layers.items():
            compare(f"aggregated_{number}", layer)
        tokens = model.aggregate(images)
        poses = model.camera(tokens)
        compare("pose_enc_list", torch.stack(poses))
        pose, K = matrices(poses[-1], tokens.height, tokens.width)
        compare("extrinsics", pose)
        compare("intrinsics", K)
        depth, confidence = model.depth(tokens)
        compare("depth", depth)
        compare("depth_conf", confidence)
        points, confidence = model.points(tokens)
        compare("world_points", points)
        compare("world_points_conf", confidence)
        if "unprojected" in wanted:
            compare("unprojected", unproject(depth[..., 0], pose, K))
        features = model.track_features(tokens)
        compare("track_features", features)
        tracks = model.track(features, queries)
        for number, allowed in enumerate(TRACKED):
            worst = np.abs(tracks.xy[number].numpy() - stored["vggt.track_list"][number]).max()
            assert worst <= allowed, number
        checked.add("track_list")
        compare("track_vis", tracks.visibility)
        compare("track_conf", tracks.confidence)
    assert checked == wanted - {"pose_enc_list_low_fov"}


@golden
def test_square_pairs_agree_with_the_official_numbers(small):
    stored = np.load(GOLDEN / "square_pairs.npz")
    check_all(small, stored, torch.from_numpy(stored["src_points"]))


@golden
def test_oblong_frames_agree_with_the_official_numbers(small):
    stored = np.load(GOLDEN / "vggt_rect.npz")
    check_all(small, stored, torch.from_numpy(stored["query_points"]))


@golden
def test_a_single_frame_agrees_with_the_official_numbers(small):
    stored = np.load(GOLDEN / "vggt_rect.npz")
    with torch.inference_mode():
        tokens = small.aggregate(pictures(stored, "one.images"))
        agree(tokens.layers[small.config.last], stored["one.aggregated_3"])
        agree(torch.stack(small.camera(tokens)), stored["one.pose_enc_list"])
        agree(small.depth(tokens)[0], stored["one.depth"])


@golden
def test_fields_of_view_below_zero_are_fed_back_but_not_returned():
    model, _ = load(GOLDEN / "vggt_small.safetensors")
    stored = np.load(GOLDEN / "square_pairs.npz")
    low = json.loads((GOLDEN / "config.json").read_text())["low_fov_bias"]
    with torch.inference_mode():
        model.camera_head.pose_branch.fc2.bias[7:] = low
        found = torch.stack(model.camera(model.aggregate(pictures(stored))))
    agree(found, stored["vggt.pose_enc_list_low_fov"])
    assert not found[..., 7:].all()


@golden
def test_the_published_keys_and_shapes_are_exactly_the_networks():
    shapes = json.loads(gzip.decompress((GOLDEN / "shapes_full.json.gz").read_bytes()))
    with torch.device("meta"):
        state = VGGT().state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == shapes["vggt_1b"]


TINY = VggtConfig(
    base_img_size=28, embed_dim=16, depth=4, num_heads=2, dino_depth=1, dino_heads=2,
    camera_trunk_depth=1, camera_heads=2, intermediate_layer_idx=(0, 1, 2, 3),
    dpt_out_channels=(4, 4, 8, 8), dpt_features=8, track_features=8, corr_levels=2, corr_radius=1,
    tracker_hidden=16, tracker_depth=1,
)  # fmt: skip


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return VGGT(TINY).eval().requires_grad_(False)


@pytest.fixture
def folder(tmp_path, tiny):
    """A hub folder with the tiny network."""
    options = {name: getattr(TINY, name) for name in TINY.__dataclass_fields__}
    options["img_size"] = options.pop("base_img_size")
    (tmp_path / "config.json").write_text(json.dumps(options))
    safetensors.save_file(tiny.state_dict(), tmp_path / "model.safetensors")
    torch.save(tiny.state_dict(), tmp_path / "other.pt")
    return tmp_path


@pytest.mark.parametrize("name", ["", "model.safetensors", "other.pt"])
def test_files_of_both_kinds_and_hub_folders_load(folder, tiny, name):
    model, info = load(folder / name)
    assert info.config == TINY
    for key, value in tiny.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("camera_head.token_norm.bias"), "is missing, of"),
        (lambda state: state.update(more=torch.zeros(1)), "more is unknown"),
        (
            lambda state: state.update({"camera_head.token_norm.bias": torch.zeros(3)}),
            "token_norm.bias is 3, expected 32",
        ),
        (lambda state: state.update(model="words"), "no plain table of weights"),
    ],
)
def test_weights_of_another_network_are_refused(folder, tiny, change, message):
    state = tiny.state_dict()
    change(state)
    torch.save(state, folder / "wrong.pt")
    with pytest.raises(InputError, match=message):
        load(folder / "wrong.pt")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"num_heads": 3}, "16 channels and 3 heads"),
        ({"depth": -1}, "depth is -1, expected a whole number from 1"),
        ({"intermediate_layer_idx": [0, 1, 2, 9]}, "there are 4 rounds"),
        ({"dpt_out_channels": [4, 4, 8]}, "expected 4 whole numbers"),
        ({"dpt_out_channels": [4, 6, 8, 8]}, "expected multiples of 4"),
    ],
)
def test_sizes_that_no_network_has_are_refused(folder, option, message):
    options = json.loads((folder / "config.json").read_text()) | option
    (folder / "config.json").write_text(json.dumps(options))
    with pytest.raises(InputError, match=message):
        load(folder)


def test_a_small_checkpoint_without_its_sizes_is_not_vggt_1b(folder):
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"is missing, of 1797 weights"):
        load(folder)


def test_frames_at_a_time_change_no_value(tiny):
    images, queries = torch.rand(2, 3, 3, 28, 42), torch.rand(2, 300, 2) * 28
    found = []
    with torch.inference_mode():
        for tiny.chunk in (8, 1):
            tokens = tiny.aggregate(images)
            tracks = tiny.track(tiny.track_features(tokens), queries)
            found.append(
                [tiny.camera(tokens)[-1], *tiny.depth(tokens), *tiny.points(tokens), tracks.xy[0]]
            )
    for one, two in zip(*found, strict=True):
        assert torch.allclose(one, two, atol=1e-5)


def test_only_the_asked_heads_are_computed(tiny, monkeypatch):
    computed = []
    for name in ("camera_head", "depth_head", "point_head", "track_head"):
        head = getattr(tiny, name)
        for part in head.modules():
            part.register_forward_hook(lambda *_, name=name: computed.append(name))
    with torch.inference_mode():
        tiny.depth(tiny.aggregate(torch.rand(1, 2, 3, 28, 28)))
    assert set(computed) == {"depth_head"}


def test_half_precision_is_near_and_leaves_the_other_heads_exact(tiny):
    images = torch.rand(1, 2, 3, 28, 28)
    with torch.inference_mode():
        exact = tiny.depth(tiny.aggregate(images))[0]
        tiny.compute_in(torch.bfloat16)
        tokens = tiny.aggregate(images)
        near = tiny.depth(tokens)[0]
        assert tiny.track_features(tokens).dtype == torch.bfloat16
    assert near.dtype == torch.float32
    assert 0 < (near / exact - 1).abs().max() < 0.2


def test_a_picture_is_the_same_scene_whatever_is_in_the_other_scenes_of_the_batch(tiny):
    images = torch.rand(2, 2, 3, 28, 28)
    with torch.inference_mode():
        both = tiny.camera(tiny.aggregate(images))[-1]
        alone = tiny.camera(tiny.aggregate(images[1:]))[-1]
    assert torch.allclose(both[1:], alone, atol=1e-5)


def test_a_field_of_view_of_zero_still_makes_a_camera(tiny):
    tiny.camera_head.pose_branch.fc2.bias[7:] = -9.0
    images = [prepare(np.full((20, 30, 3), 90 * k, np.uint8), size=42) for k in range(2)]
    found = PredictorConfig("cpu", "float32").build(tiny).window(images)
    assert np.isfinite(found.K).all()
    assert np.allclose(found.K[:, 0, 0], 21 / np.tan(0.01))
    assert np.allclose(found.K[:, :2, 2], [20.5, 13.5])  # the middle, centres at whole numbers


def test_points_of_any_picture_of_a_window_can_be_tracked(tiny):
    """The tracks of a picture are those of the tracker with that picture first."""
    rng = np.random.default_rng(0)
    images = [prepare(rng.integers(0, 255, (28, 42, 3), np.uint8), size=42) for _ in range(3)]
    predictor = PredictorConfig("cpu", "float32").build(tiny)
    (tracks,) = predictor.window(images, [1], 12).tracks
    assert tracks.query == 1
    assert np.allclose(tracks.xy[1], spread(images[1], 12))
    with torch.inference_mode():
        pixels = torch.from_numpy(np.stack([image.pixels for image in images])[None])
        features = tiny.track_features(tiny.aggregate(pixels))[:, [1, 0, 2]]
        found = tiny.track(features, torch.from_numpy(spread(images[1], 12)[None]))
    assert np.allclose(tracks.xy[[1, 0, 2]], found.xy[-1][0], atol=1e-4)
    assert np.allclose(tracks.visibility[[1, 0, 2]], found.visibility[0], atol=1e-5)
