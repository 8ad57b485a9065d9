"""MV-SAM: what its parts promise, on tiny sizes and random weights."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_export import lifted_run
from tiny_sam import tiny_sam2

from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.geometry import unproject
from lift3d.networks.mvsam.encoders import Sam2Encoder, SmallEncoder
from lift3d.networks.mvsam.network import NOTHING, Masks, MvSam, PointCode, PromptTokens
from lift3d.networks.mvsam.pointmaps import PointMaps, Tokens, normalised, per_cell
from lift3d.networks.mvsam.predicting import Predictor
from lift3d.networks.mvsam.predicting import _points as pointmaps_of
from lift3d.networks.mvsam.sizes import MvSamConfig
from lift3d.networks.mvsam.training import (
    LossConfig,
    PromptConfig,
    draw,
    mask_loss,
    perturbed,
    prompt_tokens,
    stacked,
    training_prompts,
)
from lift3d.networks.mvsam.weights import counted, load, save, start_comparing, start_from
from lift3d.run.prompting import prompt_of
from lift3d.scene import Prompt
from lift3d.scene.errors import InputError

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

import mvsam as ablation

TINY = MvSamConfig(32, 2, 2, 64)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return MvSam(TINY).eval()


def features_of(views, seed=0):
    torch.manual_seed(seed)
    return SmallEncoder(32).eval()(torch.randn(views, 3, 32, 32))


def tokens_of(views, seed=1):
    torch.manual_seed(seed)
    return Tokens(torch.randn(views, 4, 4, 3), torch.zeros(views, 4, 4, dtype=torch.bool))


def prompts_of(objects=1, count=3, seed=2):
    torch.manual_seed(seed)
    low = torch.zeros(objects, count, dtype=torch.bool)
    return PromptTokens(torch.randn(objects, count, 3), low, torch.ones(objects, count).long())


def test_the_full_size_has_about_the_published_number_of_parameters():
    assert counted(MvSam(MvSamConfig())) == pytest.approx(4.1e6, rel=0.05)


@torch.no_grad()
def test_views_do_not_see_each_other_and_their_order_does_not_matter(network):
    features, tokens, prompts = features_of(3), tokens_of(3), prompts_of(2)
    together = network(features, tokens, prompts).logits
    assert together.shape == (3, 2, 16, 16)
    order = [2, 0, 1]
    turned = network(
        type(features)(*(each[order] for each in features)),
        Tokens(*(each[order] for each in tokens)),
        prompts,
    ).logits
    torch.testing.assert_close(turned, together[order])
    one = network(
        type(features)(*(each[1:2] for each in features)),
        Tokens(*(each[1:2] for each in tokens)),
        prompts,
    ).logits
    torch.testing.assert_close(one, together[1:2], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_own_prompts_for_each_view_are_the_same_as_one_view_at_a_time(network):
    features, tokens = features_of(2), tokens_of(2)
    own = [prompts_of(2, seed=5), prompts_of(2, seed=6)]
    together = network(features, tokens, stacked(own)).logits
    for view, prompts in enumerate(own):
        alone = network(
            type(features)(*(each[view : view + 1] for each in features)),
            Tokens(*(each[view : view + 1] for each in tokens)),
            prompts,
        ).logits
        torch.testing.assert_close(alone[0], together[view], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_each_option_changes_the_answer(network):
    features, tokens, prompts = features_of(1), tokens_of(1), prompts_of()
    tokens.low[0, 0] = True
    torch.nn.init.normal_(network.confidence.weight)
    known = network(features, tokens, prompts).logits
    for change in (
        {"code": "2d"},
        {"code": "none"},
        {"code_in_attention": False},
        {"confidence_vectors": False},
        {"high_resolution": False},
        {"several_masks": True},
    ):
        network.config = replace(TINY, **change)
        assert not torch.allclose(network(features, tokens, prompts).logits, known), change


def test_confidence_counts_in_image_and_prompt_tokens_and_is_learnt_from_both(network):
    tokens, prompts = tokens_of(1), prompts_of()
    with torch.no_grad():
        features = features_of(1)
    for of_tokens in (True, False):
        low = (tokens if of_tokens else prompts).low
        low[0, :1] = True
        network.zero_grad()
        network(features, tokens, prompts).logits.square().sum().backward()
        assert (network.confidence.weight.grad.abs().sum(1) > 0).all()  # from zeros
        low[:] = False
    with torch.no_grad():
        torch.nn.init.normal_(network.confidence.weight)
        sure = network(features, tokens, prompts).logits
        for low in (tokens.low, prompts.low):
            low[0, :1] = True
            assert not torch.allclose(network(features, tokens, prompts).logits, sure)
            low[:] = False


@torch.no_grad()
def test_a_mask_prompt_counts_in_its_own_view_only(network):
    features, tokens, prompts = features_of(2), tokens_of(2), prompts_of()
    without = network(features, tokens, prompts).logits
    there = torch.tensor([[True], [False]])
    found = network(features, tokens, prompts, torch.randn(2, 1, 16, 16), there).logits
    assert not torch.allclose(found[0], without[0])
    torch.testing.assert_close(found[1], without[1])


def test_the_code_of_a_point_is_the_sine_and_cosine_of_random_frequencies():
    code = PointCode(8, 1.0, learned=False)
    point = torch.tensor([0.3, -0.2, 0.9])
    phase = 2 * np.pi * (code.frequencies.T @ point)
    torch.testing.assert_close(code(point), torch.cat([phase.sin(), phase.cos()]))
    assert (code(torch.full((3,), torch.nan)) == 0).all()
    assert not list(code.parameters())
    assert len(list(PointCode(8, 1.0, learned=True).parameters())) == 1


def test_points_are_z_scored_over_all_views_and_the_least_sure_are_low():
    xyz = torch.randn(2, 5, 10, 3) * torch.tensor([1.0, 2.0, 3.0]) + 4
    xyz[0, 0, 0] = torch.nan
    sure = torch.arange(100.0).reshape(2, 5, 10)
    found = normalised(PointMaps(xyz, sure), 0.15)
    known = torch.isfinite(found.xyz).all(-1)
    torch.testing.assert_close(found.xyz[known].mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.xyz[known].std(0, unbiased=False), torch.ones(3))
    assert found.low.sum() == 16  # 15 of the 99 known ones, and the unknown one
    assert found.low[0, 0, 0]
    assert found.low.flatten()[:16].all()
    only = normalised(PointMaps(xyz, sure), 0.15, "confident")
    torch.testing.assert_close(only.xyz[~only.low].mean(0), torch.zeros(3), atol=1e-5, rtol=0)


def test_points_of_one_confidence_are_not_low_together():
    maps = PointMaps(torch.randn(1, 5, 4, 3), torch.ones(1, 5, 4))
    assert not normalised(maps, 0.15).low.any()
    maps.confidence[0, 0, :2] = 0.5
    assert normalised(maps, 0.15).low.sum() == 2
    maps.confidence[0, :2] = 0.5  # two fifths: more than the share, and all are alike
    assert normalised(maps, 0.15).low.sum() == 8


def test_a_cell_has_the_mean_of_its_known_points():
    xyz = torch.zeros(1, 4, 4, 3)
    xyz[0, 0, 0] = 3.0
    xyz[0, 0, 1] = torch.nan
    xyz[0, 2:, 2:] = torch.nan
    low = torch.zeros(1, 4, 4, dtype=torch.bool)
    low[0, :2, 2:] = True
    found = per_cell(Tokens(xyz, low), 2, 2)
    torch.testing.assert_close(found.xyz[0, 0, 0], torch.ones(3))
    assert torch.isnan(found.xyz[0, 1, 1]).all()
    assert found.low[0].tolist() == [[False, True], [False, True]]
    centre = per_cell(Tokens(xyz, low), 2, 2, "centre")
    assert (centre.xyz[0, 0, 0] == 0).all()


def test_a_prompt_takes_the_point_of_its_own_pixel():
    pixels = Tokens(torch.randn(2, 4, 6, 3), torch.rand(2, 4, 6) > 0.5)
    mask = np.zeros((4, 6), bool)
    mask[2, 3] = True
    drawn = draw(mask, 2, 1, np.random.default_rng(0))
    found = prompt_tokens(pixels, [(1, drawn)], "3d", least=5)
    torch.testing.assert_close(found.xyz[0, 0], pixels.xyz[1, 2, 3])
    assert found.low[0, 0] == pixels.low[1, 2, 3]
    assert found.kind[0].tolist() == [1, 1, 0, NOTHING, NOTHING]
    flat = prompt_tokens(pixels, [(1, drawn)], "2d")
    torch.testing.assert_close(flat.xyz[0, 0], torch.tensor([3.5 / 3 - 1, 2.5 / 2 - 1, 0.0]))


def test_at_most_a_tenth_of_the_training_prompts_are_negative():
    mask = np.zeros((20, 20), bool)
    mask[5:9, 5:9] = True
    rng = np.random.default_rng(0)
    negatives = [(training_prompts(mask, PromptConfig(), rng).kind == 0).sum() for _ in range(50)]
    assert set(negatives) == {0, 1}
    assert perturbed(mask, 16, rng).shape == (16, 16)


def test_the_loss_is_that_of_the_paper():
    truth = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    truth[..., :2] = True
    logits = torch.randn(1, 1, 4, 4)
    found = Masks(logits, torch.zeros(1, 1), torch.zeros(1, 1))
    p, t = logits.sigmoid(), truth.float()
    hit = torch.where(truth, p, 1 - p)
    focal = (torch.where(truth, 0.9, 0.1) * (1 - hit) ** 1.5 * -hit.log()).mean()
    dice = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
    torch.testing.assert_close(mask_loss(found, truth, LossConfig()), focal + 0.05 * dice)


@torch.no_grad()
def test_weights_come_back_and_wrong_ones_are_refused(tmp_path, network):
    from safetensors.torch import load_file, save_file

    encoder = SmallEncoder(32).eval()
    save(tmp_path / "a.safetensors", network, encoder, "small")
    again, its_encoder = load(tmp_path / "a.safetensors")
    pictures, tokens, prompts = torch.randn(1, 3, 32, 32), tokens_of(1), prompts_of()
    torch.testing.assert_close(
        again(its_encoder(pictures), tokens, prompts).logits,
        network(encoder(pictures), tokens, prompts).logits,
    )
    state = load_file(tmp_path / "a.safetensors")
    told = {"format": "lift3d mvsam 1", "encoder": "small"}
    told["config"] = json.dumps(vars(TINY))
    save_file(
        {k: v for k, v in state.items() if "iou_token" not in k}, tmp_path / "b.safetensors", told
    )
    with pytest.raises(InputError, match=r"iou_token.*missing"):
        load(tmp_path / "b.safetensors")
    save_file(state | {"more": torch.zeros(1)}, tmp_path / "c.safetensors", told)
    with pytest.raises(InputError, match="more is unknown"):
        load(tmp_path / "c.safetensors")
    save_file(state, tmp_path / "d.safetensors")
    with pytest.raises(InputError, match="not weights of MV-SAM"):
        load(tmp_path / "d.safetensors")


@torch.no_grad()
def test_sam_2_s_encoder_and_decoder_are_the_start():
    pytest.importorskip("transformers")
    sam, _ = tiny_sam2()
    network = MvSam(MvSamConfig(32, 2, 2, 64))
    start_from(network, sam)
    own = network.decoder.state_dict()
    for key, each in sam.mask_decoder.state_dict().items():
        torch.testing.assert_close(own[key], each)
    encoder = Sam2Encoder(sam).train()
    assert not encoder.encoder.training
    assert not any(each.requires_grad for each in encoder.parameters())
    features = encoder(torch.randn(2, 3, 64, 64))
    tokens, prompts = tokens_of(2), prompts_of(3)
    assert network(features, tokens, prompts).logits.shape == (2, 3, 16, 16)
    with pytest.raises(InputError, match="expected"):
        start_from(MvSam(MvSamConfig(64, 2, 2, 64)), sam)


def test_a_scene_is_answered_view_by_view_with_all_kinds_of_prompts(tmp_path, network):
    scene = SyntheticConfig(views=3, width=64, height=48).read()
    names = [view.name for view in scene.views]
    mask = np.zeros((48, 64), bool)
    mask[10:30, 20:40] = True
    objects = [
        {names[0]: prompt_of([(30, 20)], [(2, 2)]), names[2]: prompt_of([(8, 9)])},
        {names[1]: prompt_of([], [], (5, 5, 30, 40))},
        {names[1]: Prompt(np.zeros((0, 2)), np.zeros(0, bool), mask)},
    ]
    encoder = SmallEncoder(32)
    for change in ({}, {"box": "inside", "mask_prompt": "points"}):
        network.config = replace(TINY, **change)
        found = list(Predictor(network, encoder, "cpu", batch=2).answer(scene.views, objects))
        assert [each.name for each in found] == names
        assert all(each.masks.shape == (3, 48, 64) for each in found)
        assert all((each.masks.sum(0) <= 1).all() for each in found)
    alone = list(Predictor(network, encoder, "cpu", batch=1).answer(scene.views, objects))
    assert all((a.masks == b.masks).all() for a, b in zip(alone, found, strict=True))
    bare = [replace(view, load_depth=None) for view in scene.views]
    with pytest.raises(InputError, match="has no depth"):
        next(Predictor(network, encoder, "cpu").answer(bare, objects))


def test_a_tiny_training_goes_on_where_it_stopped(tmp_path, capsys):
    import train_mvsam

    run = lifted_run(tmp_path / "room", views=2, width=32, height=24)
    words = ["--runs", str(run), "--width", "32", "--heads", "2", "--batch", "1", "--objects", "1"]
    words += ["--every", "1", "--validation", "0"]
    train_mvsam.main([*words, "--out", str(tmp_path / "a"), "--steps", "2"])
    train_mvsam.main([*words, "--out", str(tmp_path / "b"), "--steps", "1"])
    train_mvsam.main([*words, "--out", str(tmp_path / "b"), "--steps", "2"])
    one, _ = load(tmp_path / "a" / "mvsam.safetensors")
    other, _ = load(tmp_path / "b" / "mvsam.safetensors")
    for key, each in one.state_dict().items():
        torch.testing.assert_close(each, other.state_dict()[key])
    with pytest.raises(SystemExit, match="other settings"):
        train_mvsam.main([*words, "--out", str(tmp_path / "b"), "--steps", "3", "--seed", "5"])


@torch.no_grad()
def test_without_sam_s_weights_attention_starts_as_a_kernel_of_distance(network):
    start_comparing(network)
    layer = network.decoder.transformer.layers[0]
    attention = layer.cross_attn_image_to_token

    def logit(a, b):
        return attention.q_proj(network.code(a)) @ attention.k_proj(network.code(b))

    a, b = torch.tensor([0.3, -0.2, 0.9]), torch.tensor([0.5, 0.1, 0.8])
    move = torch.tensor([2.0, -1.0, 0.7])
    torch.testing.assert_close(logit(a, b), logit(a + move, b + move), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logit(a, a), torch.tensor(1.5**2 * 32 / 4))
    assert logit(a, b) < logit(a, a + 0.1 * (b - a)) < logit(a, a)
    # Every token that attends to itself alone comes out of self-attention as it was.
    token = torch.randn(5, 32)
    own = layer.self_attn
    torch.testing.assert_close(own.o_proj(own.v_proj(token)), token)


def test_a_prompt_in_a_scene_has_the_code_of_its_pixel_s_point(network):
    scene = SyntheticConfig(views=3, width=256, height=256).read()
    places = [unproject(view.camera, view.depth()) for view in scene.views]
    known = np.concatenate([each[np.isfinite(each).all(-1)] for each in places])
    column, row = 41, 200
    expected = (places[1][row, column] - known.mean(0)) / known.std(0)
    predictor = Predictor(network, SmallEncoder(32), "cpu")
    xyz, sure = pointmaps_of(scene.views)
    pixels = normalised(PointMaps(xyz, sure), 0.15)
    objects = [{scene.views[1].name: prompt_of([(column, row)])}]
    prompt = predictor._tokens(scene.views, objects, pixels)
    torch.testing.assert_close(
        prompt.xyz[0, 0], torch.from_numpy(expected).float(), rtol=1e-3, atol=1e-3
    )
    # With one pixel a cell the token there has the same code, so nothing lies between the two.
    cell = per_cell(pixels, 256, 256).xyz[1, row, column]
    torch.testing.assert_close(network.code(cell), network.code(prompt.xyz[0, 0]))


@pytest.mark.parametrize("errors", ["moved", "elsewhere"])
def test_wrong_points_of_the_ablation_have_the_least_confidence(errors):
    rng = np.random.default_rng(0)
    xyz = rng.normal(size=(2, 16, 16, 3)).astype(np.float32)
    found, sure = ablation.with_errors(xyz, 0.3, np.random.default_rng(1), errors)
    wrong = sure < 0.45  # of the others at least 0.5
    assert 0.3 <= wrong.mean() < 0.6
    assert (found[~wrong] == xyz[~wrong]).all()
    places = {tuple(each) for each in xyz.reshape(-1, 3)}
    assert all(tuple(each) in places for each in found[wrong]) == (errors == "elsewhere")
    if errors == "elsewhere":  # together: fewer places than pixels
        assert len(np.unique(found[wrong], axis=0)) < wrong.sum() / 4
