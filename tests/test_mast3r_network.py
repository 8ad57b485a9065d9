"""The network agrees with the official one's numbers, and loads only what belongs to it."""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

from lift3d.networks.mast3r.checkpoint import fitted, is_metric, load, parse_call  # noqa: E402
from lift3d.networks.mast3r.heads import Fusion  # noqa: E402
from lift3d.networks.mast3r.network import Mast3r  # noqa: E402
from lift3d.networks.mast3r.sizes import NetworkConfig  # noqa: E402
from lift3d.networks.rope import Turn, grid  # noqa: E402
from lift3d.scene.errors import InputError  # noqa: E402

NANO = SHARED / "facts" / "mast3r_golden" / "nano"
KEYS = SHARED / "facts" / "mast3r_state_dict.tsv"
golden = pytest.mark.skipif(not NANO.is_dir(), reason=f"needs the golden numbers in {NANO}")
tabled = pytest.mark.skipif(not KEYS.is_file(), reason=f"needs the table of keys {KEYS}")

TINY = NetworkConfig(16, 1, 2, 8, 4, 1, (4, 4, 4, 4), 8, 4, 3)
CALL = (
    "Network(enc_embed_dim=16, enc_depth=1, enc_num_heads=2, dec_embed_dim=8, dec_depth=4, "
    "dec_num_heads=1, img_size=(512, 512), head_type='catmlp+dpt', output_mode='pts3d+desc3', "
    "depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, float('inf')), two_confs=True)"
)


@pytest.fixture(autouse=True)
def one_thread():
    """One thread: networks this small are slower with more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return Mast3r(TINY).eval().requires_grad_(False)


@pytest.fixture
def folder(tmp_path, tiny):
    """A hub folder with the tiny network, without the repeated keys."""
    path = tmp_path / "models" / "tiny_metric"
    path.mkdir(parents=True)
    options = {
        "model_kwargs": {word: value for word, value in parse_call(CALL, path).items()},
        "dpt_override": {"layer_dims": [4, 4, 4, 4], "feature_dim": 8, "last_dim": 4},
    }
    (path / "config.json").write_text(json.dumps(options))
    safetensors.save_file(tiny.state_dict(), path / "model.safetensors")
    return path


def image(rng, height, width):
    return torch.from_numpy(rng.uniform(-1, 1, (1, 3, height, width)).astype(np.float32))


# --- golden numbers


def distance(ours, theirs):
    return float((np.abs(ours - theirs) / (1 + np.abs(theirs))).max())


def nano_input(inputs, name):
    rgb = inputs[name].astype(np.float32)
    return torch.from_numpy((rgb / 255 - 0.5) / 0.5).permute(2, 0, 1)[None]


@pytest.fixture(scope="module")
def nano():
    return load(NANO)[0], np.load(NANO / "inputs.npz")


@golden
@pytest.mark.parametrize("pair", ["landscape", "landscape_swapped", "sq224", "mixed"])
def test_outputs_agree_with_the_official_ones(nano, pair):
    model, inputs = nano
    stem = pair.removesuffix("_swapped")
    first, second = (nano_input(inputs, f"{stem}.img{i}_u8") for i in (1, 2))
    if stem != pair:
        first, second = second, first
    outputs = np.load(NANO / "outputs.npz")
    with torch.inference_mode():
        views = model.decode(model.encode(first), model.encode(second))
        for view, decoded in enumerate(views, 1):
            head = model.head(view)
            points = dict(zip(("pts3d", "conf"), head.points(decoded), strict=True))
            desc = dict(zip(("desc", "desc_conf"), head.descriptors(decoded), strict=True))
            for name, tensor in (points | desc).items():
                ours, key = tensor[0].numpy(), f"{pair}.view{view}.{name}"
                top, left = ours.shape[0] // 2 - 11, ours.shape[1] // 2 - 11
                crop = ours[top : top + 32, left : left + 32]
                allowed = 1e-4 if name == "pts3d" else 1e-5
                assert distance(ours[::9, ::9], outputs[key]) <= allowed, key
                assert distance(crop, outputs[f"{key}.crop"]) <= allowed, key


@golden
def test_tokens_agree_with_the_official_ones(nano):
    model, inputs = nano
    theirs = np.load(NANO / "intermediates.npz")
    with torch.inference_mode():
        encoded = [model.encode(nano_input(inputs, f"landscape.img{i}_u8")) for i in (1, 2)]
        decoded = model.decode(*encoded)
        dpt = model.head(1).dpt(decoded[0])[0]
    ours = {f"enc{view}": tokens.tokens[0, ::5] for view, tokens in enumerate(encoded, 1)}
    for view, tokens in enumerate(decoded, 1):
        for layer in (1, 5, 7, 10):
            ours[f"dec{view}_{layer}"] = tokens.layers[layer][0, ::5]
    ours["dpt1_raw"] = dpt[:, ::9, ::9]
    assert ours.keys() | {"pos1"} == set(theirs.files)
    for name, tensor in ours.items():
        assert distance(tensor.numpy(), theirs[name]) <= 1e-4, name
    rows, columns = encoded[0].rows, encoded[0].columns
    assert (grid(rows, columns, torch.device("cpu")).numpy() == theirs["pos1"]).all()


@tabled
def test_the_full_size_model_takes_every_published_weight():
    rows = [line.split("\t") for line in KEYS.read_text().splitlines()[1:]]
    # Tensors without memory: one number, repeated.
    state = {
        key: torch.zeros(1).expand(tuple(map(int, shape.split("x")))) for key, shape, _ in rows
    }
    with torch.device("meta"):
        model = Mast3r()
    found = fitted(state, model, KEYS)
    assert {k: v.shape for k, v in found.items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }
    assert len(state) == 1017
    assert state.keys() - found.keys() == {"mask_token"} | {
        f"downstream_head{view}.dpt.scratch.layer_rn.{i}.weight"
        for view in (1, 2)
        for i in range(4)
    }


# --- what holds without golden numbers


def test_positions_matter_only_by_their_difference():
    rng = np.random.default_rng(0)
    q, k = torch.from_numpy(rng.normal(size=(2, 1, 1, 1, 16)).astype(np.float32))

    def score(at, other):
        turns = [Turn.of(torch.tensor([place]), 16) for place in (at, other)]
        return float((turns[0](q) * turns[1](k)).sum())

    assert score((3, 5), (4, 1)) == pytest.approx(score((0, 6), (1, 2)), abs=1e-5)
    assert score((3, 5), (4, 1)) != pytest.approx(score((4, 1), (3, 5)), abs=1e-3)
    assert score((2, 2), (2, 2)) == pytest.approx(float((q * k).sum()), abs=1e-5)


def test_a_channel_is_rotated_with_the_one_a_quarter_away():
    x = torch.zeros(1, 1, 1, 8)
    x[..., 0] = 1  # row half: channels 0 to 3, planes (0, 2) and (1, 3)
    turned = Turn.of(torch.tensor([[2, 7]]), 8)(x)[0, 0, 0]
    assert turned.tolist() == pytest.approx([math.cos(2), 0, math.sin(2), 0, 0, 0, 0, 0], abs=1e-6)


def test_convolving_before_the_interpolation_changes_nothing(tiny):
    fusion: Fusion = tiny.downstream_head1.dpt.scratch.refinenet2
    x = torch.randn(1, 8, 5, 6)
    plain = torch.nn.functional.interpolate(
        fusion.resConfUnit2(x), scale_factor=2, mode="bilinear", align_corners=True
    )
    torch.testing.assert_close(fusion(x), fusion.out_conv(plain), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "shapes", [((48, 80), (80, 48)), ((32, 64), (48, 48)), ((16, 16), (112, 16))]
)
def test_every_pixel_of_any_shape_gets_an_output(tiny, shapes):
    rng = np.random.default_rng(0)
    views = tiny.decode(*(tiny.encode(image(rng, *shape)) for shape in shapes))
    for view, (decoded, shape) in enumerate(zip(views, shapes, strict=True), 1):
        points, conf = tiny.head(view).points(decoded)
        desc, desc_conf = tiny.head(view).descriptors(decoded)
        assert points.shape[1:] == (*shape, 3)
        assert desc.shape[1:] == (*shape, 3)
        assert conf.min() > 1
        assert desc_conf.min() > 0
        torch.testing.assert_close(desc.norm(dim=3), torch.ones_like(conf))


def test_a_batch_is_the_same_as_one_by_one(tiny):
    rng = np.random.default_rng(0)
    images = [image(rng, 32, 48) for _ in range(3)]
    together = tiny.encode(torch.cat(images)).tokens
    apart = torch.cat([tiny.encode(one).tokens for one in images])
    torch.testing.assert_close(together, apart)


def test_each_view_depends_on_the_other(tiny):
    rng = np.random.default_rng(0)
    first, second, other = (tiny.encode(image(rng, 32, 48)) for _ in range(3))
    with_second, with_other = tiny.decode(first, second)[0], tiny.decode(first, other)[0]
    assert torch.equal(with_second.layers[0], with_other.layers[0])
    assert not torch.equal(with_second.layers[1], with_other.layers[1])


def test_half_precision_is_near(tiny):
    rng = np.random.default_rng(0)
    images = [image(rng, 32, 48) for _ in range(2)]

    def points():
        return tiny.head(2).points(tiny.decode(*map(tiny.encode, images))[1])[0]

    exact = points()
    tiny.compute_in(torch.bfloat16)
    assert points().dtype == torch.float32
    assert 0 < (points() - exact).abs().mean() < 0.03 * exact.abs().mean()


# --- checkpoints


def test_a_hub_folder_gives_the_saved_weights(folder, tiny):
    model, info = load(folder)
    assert info.metric
    assert info.config == TINY
    for key, saved in tiny.state_dict().items():
        assert torch.equal(model.state_dict()[key], saved)
    assert load(folder / "model.safetensors")[1].config == TINY


def test_repeated_keys_and_the_mask_token_are_taken_and_dropped(folder, tiny):
    state = dict(tiny.state_dict())
    for view in (1, 2):
        for i in range(4):
            scratch = f"downstream_head{view}.dpt.scratch"
            kept = state[f"{scratch}.layer{i + 1}_rn.weight"]
            state[f"{scratch}.layer_rn.{i}.weight"] = kept.clone()
            if i == 2:  # a file that deduplicated may have kept the other name
                del state[f"{scratch}.layer{i + 1}_rn.weight"]
    state["mask_token"] = torch.zeros(1, 1, 8)
    safetensors.save_file(state, folder / "model.safetensors")
    model, _ = load(folder)
    assert model.state_dict().keys() == tiny.state_dict().keys()

    state["downstream_head1.dpt.scratch.layer_rn.0.weight"] += 1
    safetensors.save_file(state, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"layer_rn\.0\.weight differs from .*layer1_rn"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("enc_norm.bias"), r"enc_norm\.bias is missing"),
        (lambda s: s.update({"enc_norm.gain": torch.ones(1)}), r"enc_norm\.gain is unknown"),
        (lambda s: s.update({"enc_norm.bias": torch.ones(3)}), r"enc_norm\.bias is 3, expected 16"),
        (lambda s: s.update({"mask_token": torch.ones(1, 1, 5)}), "mask_token is 1x1x5"),
        (
            lambda s: [s.pop(key) for key in list(s) if "head_local_features" in key],
            "no descriptor head.*DUSt3R.*Expected the weights of MASt3R",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(folder, tiny, change, message):
    state = dict(tiny.state_dict())
    change(state)
    safetensors.save_file(state, folder / "model.safetensors")
    with pytest.raises(InputError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("output_mode", "pts3d", "without descriptors"),
        ("head_type", "linear", "head_type is 'linear'"),
        ("pos_embed", "cosine", "pos_embed is 'cosine'"),
        ("conf_mode", ["exp", 0, "inf"], "conf_mode"),
        ("enc_depth", "two", "encoder_depth is 'two'"),
        ("enc_num_heads", 3, "16 channels and 3 heads"),
        ("enc_depth", 2, r"enc_blocks\.1.* is missing"),
    ],
)
def test_a_configuration_of_another_network_is_refused(folder, option, value, message):
    options = json.loads((folder / "config.json").read_text())
    options["model_kwargs"][option] = value
    (folder / "config.json").write_text(json.dumps(options))
    with pytest.raises(InputError, match=message):
        load(folder)


def test_damaged_folders_say_what_is_wrong(folder, tmp_path):
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cut short"):
        load(folder)
    weights.unlink()
    with pytest.raises(InputError, match=r"no config\.json with model\.safetensors"):
        load(folder)
    weights.write_bytes(whole)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        load(folder)
    with pytest.raises(InputError, match="no such checkpoint"):
        load(tmp_path / "nowhere.pth")


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def full_size_dpt(tiny):
    """A `.pth` does not store the DPT's sizes, so its DPT has the published size."""
    torch.manual_seed(0)
    config = NetworkConfig(16, 1, 2, 8, 4, 1, descriptor_width=3)
    return Mast3r(config).state_dict()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pth_is_read_and_its_call_never_run(tmp_path, tiny, legacy):
    path = tmp_path / "tiny.pth"
    state = full_size_dpt(tiny)
    content = {"model": state, "args": argparse.Namespace(model=CALL, epochs=3), "epoch": 1}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    model, info = load(path)
    assert not info.metric
    assert (info.config.encoder_width, info.config.decoder_depth) == (16, 4)
    assert torch.equal(model.enc_norm.weight, state["enc_norm.weight"])


def test_files_that_are_not_checkpoints_are_refused(tmp_path, tiny):
    path, flag = tmp_path / "bad.pth", tmp_path / "ran"
    names = argparse.Namespace(model=CALL)
    for content, message in (
        ({"model": {}, "args": Evil(flag)}, "is refused"),
        ({"weights": {}}, "holds no 'model'"),
        (torch.zeros(3), "holds no 'model'"),
        ({"model": tiny.state_dict()}, r"holds no 'args\.model'"),
        ({"model": {}, "args": names}, "is missing"),
        ({"model": {}, "args": argparse.Namespace(model="open('x')(a=1")}, "constructor call"),
        ({"model": {}, "args": argparse.Namespace(model="N(a=open('x'))")}, "plain values"),
    ):
        torch.save(content, path)
        with pytest.raises(InputError, match=message):
            load(path)
    assert not flag.exists()
    torch.save({"model": tiny.state_dict(), "args": names}, path)
    whole = path.read_bytes()
    for damaged in (b"", b"<html>not found</html>", whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="download it again"):
            load(path)


def test_the_scale_is_known_from_the_name():
    hub = "models--naver--MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric/snapshots/3f"
    assert is_metric(Path(hub))
    assert is_metric(Path("a/MASt3R_metric.pth"))
    assert not is_metric(Path("a/MASt3R_nonmetric.pth"))
    assert not is_metric(Path("metric/dust3r.pth"))
