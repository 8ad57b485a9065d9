"""The union head of VGGT-Segmentor against golden numbers of the official code."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
from lift3d.networks.vggt_s import HeadConfig  # noqa: E402
from lift3d.networks.vggt_s.head import UnionHead  # noqa: E402
from lift3d.networks.vggt_s.transformer import side_by_side  # noqa: E402

GOLDEN = Path(os.environ.get("LIFT3D_SHARED", "/work/shared")) / "facts/vggt_golden"
pytestmark = pytest.mark.skipif(
    not (GOLDEN / "config.json").exists(), reason=f"no golden numbers in {GOLDEN}"
)
RELATIVE = 1e-4
"""Largest difference by the largest value of an array."""


def config():
    return json.loads((GOLDEN / "config.json").read_text())


def small_config():
    head = config()["head"]
    return HeadConfig(
        head["img_size"], head["sa_tokens"], head["dim"], head["blocks"], head["num_heads"],
        head["mask_in_chans"], head["points"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def head():
    from safetensors.torch import load_file

    network = UnionHead(small_config())
    network.load_state_dict(load_file(GOLDEN / "head_small.safetensors"))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def pairs():
    with np.load(GOLDEN / "square_pairs.npz") as stored:
        return {name: stored[name] for name in stored.files}


def close(ours, theirs):
    ours = ours.detach().numpy() if isinstance(ours, torch.Tensor) else ours
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= RELATIVE * max(1, np.abs(theirs).max())


def inputs(pairs):
    tensors = (
        torch.from_numpy(pairs[name]).float()
        for name in ("vggt.track_features", "src_mask", "src_points", "tar_points")
    )
    return tuple(tensors)


def test_every_pass_agrees_with_the_official_head(head, pairs):
    passes = config()["head"]["passes"]
    for number, answer in enumerate(head(*inputs(pairs), passes)):
        close(answer.low_res, pairs[f"head.pass{number}.low_res_logits"])
        close(answer.logits, pairs[f"head.pass{number}.mask_logits"])
        close(answer.point_features, pairs[f"head.pass{number}.src_point_feats_after"])


def test_codes_and_tokens_agree_with_the_official_head(head, pairs):
    features, masks, source_xy, target_xy = inputs(pairs)
    encoder, side = head.prompt_encoder, head.config.grid
    codes = encoder.codes()
    close(codes.fine.unflatten(0, (side, 2 * side)).permute(2, 0, 1)[None], pairs["head.ca_pe"])
    close(codes.coarse.permute(2, 0, 1)[None], pairs["head.sa_pe"])
    close(encoder.source_mask(masks), pairs["head.src_dense_pass0"])
    points = encoder.point_features(features[:, 0], source_xy)
    close(points, pairs["src_point_feats"])
    tokens = encoder.tokens(source_xy, target_xy, points + encoder.src_point_pe.weight)
    close(tokens, pairs["head.sparse_embeddings_pass0"])


def test_every_block_agrees_with_the_official_head(head, pairs):
    features, masks, source_xy, target_xy = inputs(pairs)
    encoder, decoder = head.prompt_encoder, head.mask_decoder
    codes = encoder.codes()
    points = encoder.point_features(features[:, 0], source_xy) + encoder.src_point_pe.weight
    points = encoder.tokens(source_xy, target_xy, points)
    q = t0 = torch.cat([decoder.mask_tokens.weight.expand(len(points), 1, -1), points], 1)
    k = side_by_side(features[:, 0] + encoder.source_mask(masks), features[:, 1])
    for number, block in enumerate(decoder.transformer.layers):
        q, k = block(q, t0, k, codes)
        close(q, pairs[f"head.block{number}.queries_pass0"])
        if number == 0:
            close(k[:1], pairs["head.block0.keys_pass0"])


def test_the_source_vector_adds_up_over_the_passes(head, pairs):
    features, masks, source_xy, target_xy = inputs(pairs)
    passes = config()["head"]["passes"]
    final = head(features, masks, source_xy, target_xy, passes)[-1].logits.numpy()
    wrong = pairs["head.without_accumulation.final_mask_logits"]
    assert np.abs(final - wrong).max() > 100 * RELATIVE


def test_objects_of_one_pair_do_not_change_each_other(head, pairs):
    features, masks, source_xy, target_xy = (each[:1] for each in inputs(pairs))
    other = torch.flip(masks, [1])
    both = head(
        features, torch.cat([masks, other]), source_xy.repeat(2, 1, 1), target_xy.repeat(2, 1, 1)
    )
    alone = head(features, other, source_xy, target_xy)
    close(both[-1].logits[1:], alone[-1].logits.numpy())


def rule(stream, count):
    """The numbers from -1 to 1 of the facts' rule (splitmix64)."""
    with np.errstate(over="ignore"):
        z = np.uint64(stream << 40) + np.arange(count, dtype=np.uint64)
        z = z + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (2 * ((z >> np.uint64(40)) / 2**24) - 1).astype(np.float32)


def rule_weight(key, shape, values):
    values = values.reshape(shape)
    if "gaussian" in key:
        return values * 1.5
    if len(shape) == 1:
        return 1 + 0.2 * values if key.endswith("weight") else 0.2 * values
    if "_pe.weight" in key or "mask_tokens" in key:
        return values
    if "upsampling" in key or "output_upscaling" in key:
        return values * np.float32(np.sqrt(3 / shape[0]))
    return values * np.float32(np.sqrt(3 / np.prod(shape[1:])))


@pytest.mark.slow
def test_the_published_size_agrees_with_the_official_head():
    stream = json.loads((GOLDEN / "head_full_rule.json").read_text())["stream"]
    with torch.device("meta"):
        network = UnionHead()
    shapes = {key: tuple(each.shape) for key, each in network.state_dict().items()}
    state = {
        key: torch.from_numpy(
            rule_weight(key, shapes[key], rule(stream + 1 + place, int(np.prod(shapes[key]))))
        )
        for place, key in enumerate(sorted(shapes))
    }
    network.load_state_dict(state, assign=True)
    network.requires_grad_(False)
    features = torch.from_numpy(rule(stream, 2 * 128 * 259 * 259).reshape(1, 2, 128, 259, 259))
    y, x = np.mgrid[:518, :518]
    mask = torch.from_numpy(((y - 230) / 90) ** 2 + ((x - 300) / 140) ** 2 < 1)[None].float()
    source = [[300, 230], [200, 230], [400, 230], [300, 160], [300, 300]]
    target = [[250.25, 260.5], [150.75, 255], [351, 262], [255, 190.125], [248, 333]]
    answers = network(features, mask, torch.tensor([source]).float(), torch.tensor([target]))
    with np.load(GOLDEN / "head_full_rule.npz") as stored:
        close(
            network.prompt_encoder.point_features(features[:, 0], torch.tensor([source]).float()),
            stored["src_point_feats"],
        )
        for number, answer in enumerate(answers):
            close(answer.logits[0, 0, ::14, ::14], stored[f"pass{number}.mask_logits_stride14"])
            close(answer.low_res[0, 0, ::37, ::37], stored[f"pass{number}.low_res_logits_stride37"])


def test_the_published_keys_are_the_heads_keys():
    wanted = json.loads(gzip.decompress((GOLDEN / "shapes_full.json.gz").read_bytes()))
    with torch.device("meta"):
        network = UnionHead()
    ours = {key: list(each.shape) for key, each in network.state_dict().items()}
    assert ours == wanted["vggt_s_head"]


def test_pictures_to_masks_agree_with_the_official_networks(head, pairs):
    from lift3d.networks.vggt.checkpoint import load
    from lift3d.networks.vggt.sizes import VggtConfig
    from lift3d.networks.vggt_s.network import Segmentor

    sizes = VggtConfig.parsed(config()["vggt"], GOLDEN)
    network = Segmentor(load(GOLDEN / "vggt_small.safetensors", sizes)[0], head)
    images = torch.from_numpy(pairs["images"]).permute(0, 1, 4, 2, 3).float() / 255
    with torch.inference_mode():
        features = network.features(images)
        close(features, pairs["vggt.track_features"])
        _, masks, source_xy, target_xy = inputs(pairs)
        passes = config()["head"]["passes"]
        answer = network.head(features, masks, source_xy, target_xy, passes)[-1]
    close(answer.logits, pairs[f"head.pass{passes - 1}.mask_logits"])
