"""SAM and similar networks on small random weights: the contract, not the quality of masks."""

import functools
import os
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from segment_anything import SamAutomaticMaskGenerator, SamPredictor, sam_model_registry
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torchvision.ops import nms

from lift3d import cli
from lift3d.networks.sam.automatic import AutomaticConfig, cleaned, suppressed
from lift3d.networks.sam.embeddings import EmbeddingConfig
from lift3d.networks.sam.official import WIDTHS, _model, _renamed, load, sizes_of
from lift3d.scene import Camera, Prompt, Scene, View
from lift3d.scene.errors import FrameError, InputError, MissingExtra
from lift3d.scene.protocols import Segmenter
from lift3d.scene.workers.crew import Share
from lift3d.scene.workers.local import LocalCrew
from lift3d.scene.workers.views import Pool
from lift3d.segmentation import BACKENDS
from lift3d.segmentation.sam import SamConfig
from lift3d.segmentation.sam_transformers import SamTransformersConfig
from lift3d.segmentation.spread import spread
from lift3d.segmentation.tracking.byocl import ByoclConfig

WIDTH, HEIGHT = 160, 120
DECODER = {
    "hidden_size": 32,
    "mlp_dim": 64,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 32,
}
TOY = {
    "width": 32,
    "patch": 16,
    "side": 256,
    "depth": 3,
    "heads": 2,
    "ratio": 2.0,
    "global": (1,),
    "window": 5,
    "channels": 32,
    "mask_channels": 8,
    "decoder_depth": 2,
    "decoder_mlp": 64,
    "masks": 3,
    "head_depth": 3,
    "head_width": 32,
}
EVERYTHING = AutomaticConfig(points_per_side=4, min_score=-9.0, min_stability=0.0, max_overlap=1.0)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """One thread: small networks are slower with more on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def picture(seed=0, height=HEIGHT, width=WIDTH):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (height // 20, width // 20, 3))
    return np.kron(coarse, np.ones((20, 20, 1))).astype(np.uint8)


def view(image=None, name="0"):
    image = picture() if image is None else image
    height, width = image.shape[:2]
    camera = Camera(np.eye(3), width, height, np.eye(4))
    return View(name, camera, lambda: image)


def points(*xy, negative=()):
    both = np.array([*xy, *negative], float).reshape(-1, 2)
    return Prompt(both, np.arange(len(both)) < len(xy))


def liven(model):
    """Random weights whose masks have borders inside the image: channels cancel on average."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "hypernetworks_mlps" in name or "hq_mask_mlp" in name:
                weight.copy_(torch.randn(weight.shape, generator=generator))
                weight -= weight.mean(0)
            elif any(each in name for each in ("pos_embed", "point_embed", "mask_tokens")):
                weight.copy_(torch.randn(weight.shape, generator=generator))
            elif name.endswith(("prediction_head.layers.2.bias", "prediction_head.proj_out.bias")):
                weight += torch.tensor([0.3, 0.4, 0.5, 0.6])
    return model


def authors_model(sizes):
    """As `segment_anything.build_sam` does, for any sizes."""
    channels, side, grid = sizes["channels"], sizes["side"], sizes["side"] // sizes["patch"]
    encoder = ImageEncoderViT(
        img_size=side,
        patch_size=sizes["patch"],
        embed_dim=sizes["width"],
        depth=sizes["depth"],
        num_heads=sizes["heads"],
        mlp_ratio=sizes["ratio"],
        out_chans=channels,
        norm_layer=functools.partial(torch.nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=sizes["window"],
        global_attn_indexes=sizes["global"],
    )
    decoder = MaskDecoder(
        transformer_dim=channels,
        transformer=TwoWayTransformer(sizes["decoder_depth"], channels, 8, sizes["decoder_mlp"]),
        num_multimask_outputs=sizes["masks"],
        iou_head_depth=sizes["head_depth"],
        iou_head_hidden_dim=sizes["head_width"],
    )
    prompts = PromptEncoder(channels, (grid, grid), (side, side), sizes["mask_channels"])
    return Sam(encoder, prompts, decoder).eval()


def authors_own(checkpoint):
    """The authors' code with those weights."""
    model = authors_model(TOY)
    model.load_state_dict(torch.load(checkpoint, weights_only=True))
    return model


@pytest.fixture(scope="module")
def sam_checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("sam") / "sam_vit_toy.pth"
    model = liven(authors_model(TOY))
    with torch.no_grad():
        # A channel that is the same everywhere takes so much off that boxes differ.
        even = model.mask_decoder.output_upscaling[3]
        even.weight[:, 0], even.bias[0] = 0, 1
        for mlp in model.mask_decoder.output_hypernetworks_mlps:
            mlp.layers[-1].weight[0], mlp.layers[-1].bias[0] = 0, -9
    torch.save(model.state_dict(), path)
    return path


def sam(checkpoint, **options):
    return SamConfig(checkpoint, **({"device": "cpu", "automatic": EVERYTHING} | options)).build()


def tiny_sam(hq=False):
    import transformers as t

    prefix = t.SamHQConfig if hq else t.SamConfig
    model = t.SamHQModel if hq else t.SamModel
    processor = t.SamImageProcessor(
        size={"longest_edge": 64},
        pad_size={"height": 64, "width": 64},
        mask_size={"longest_edge": 16},
        mask_pad_size={"height": 16, "width": 16},
    )
    vision = {
        "hidden_size": 32,
        "output_channels": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 16,
        "window_size": 2,
        "global_attn_indexes": [1],
        "num_pos_feats": 16,
        "mlp_dim": 64,
        "initializer_range": 0.02,
    }
    prompt = {"hidden_size": 32, "image_size": 64, "image_embedding_size": 4}
    decoder = DECODER | ({"vit_dim": 32} if hq else {})
    config = prefix(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder)
    return model(config), processor


def tiny_sam2():
    import transformers as t

    backbone = {
        "hidden_size": 8,
        "image_size": [64, 64],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [8, 4, 4, 2],
        "global_attention_blocks": [3],
        "model_type": "sam2_hiera_det_model",
    }
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": 32,
    }
    prompt = {"hidden_size": 32, "image_size": 64, "patch_size": 16}
    config = t.Sam2Config(
        vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=DECODER
    )
    processor = t.Sam2ImageProcessor(size={"height": 64, "width": 64})
    return t.Sam2Model(config), processor


def tiny_sam3():
    import transformers as t

    backbone = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
        "pretrain_image_size": 28,
        "window_size": 2,
        "global_attn_indexes": [1],
        "model_type": "sam3_vit_model",
    }
    vision = {
        "backbone_config": backbone,
        "fpn_hidden_size": 32,
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "model_type": "sam3_vision_model",
    }
    prompt = {"hidden_size": 32, "image_size": 56, "patch_size": 14}
    config = t.Sam3TrackerConfig(
        vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=DECODER
    )
    processor = t.Sam3ImageProcessor(size={"height": 56, "width": 56})
    return t.Sam3TrackerModel(config), processor


FAMILY = {
    "sam-hf": tiny_sam,
    "sam2": tiny_sam2,
    "sam-hq": functools.partial(tiny_sam, hq=True),
    "sam3": tiny_sam3,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder as on the hub for each model of the family."""
    made = {}
    for name, build in FAMILY.items():
        torch.manual_seed(0)
        model, processor = build()
        made[name] = tmp_path_factory.mktemp(name)
        liven(model).save_pretrained(made[name])
        processor.save_pretrained(made[name])
    return made


def family(folder, **options):
    given = {"device": "cpu", "automatic": EVERYTHING, "local_files_only": True} | options
    return SamTransformersConfig(str(folder), **given).build()


@pytest.fixture(scope="module", params=["sam", *FAMILY])
def segmenter(request, sam_checkpoint, folders):
    if request.param == "sam":
        return sam(sam_checkpoint)
    return family(folders[request.param])


PROMPTS = [
    points((30, 20)),
    points((100, 60), (110, 70), negative=[(20, 20)]),
    points((140, 100)),
    points((60, 60), (110, 70), negative=[(20, 110)]),
    Prompt(np.zeros((0, 2)), np.zeros(0, bool), box=np.array([20.0, 30, 90, 100])),
    Prompt(np.array([[50.0, 50]]), np.array([True]), box=np.array([20.0, 30, 90, 100])),
    Prompt(np.array([[50.0, 50]]), np.array([True]), mask=picture(3)[..., 0] > 128),
    Prompt(np.zeros((0, 2)), np.zeros(0, bool), mask=picture(4)[..., 0] > 128),
    Prompt(
        np.array([[50.0, 50]]),
        np.array([True]),
        mask=picture(5)[..., 0] > 128,
        box=np.array([20.0, 30, 90, 100]),
    ),
]


def nearly_equal(a, b):
    """Up to the pixels that rounding puts on the other side of the border."""
    return a.shape == b.shape and (a != b).mean() < 1e-3


# The contract of all networks


def test_it_is_a_segmenter(segmenter):
    assert isinstance(segmenter, Segmenter)


def test_automatic_masks_have_the_views_size_and_scores_from_0_to_1(segmenter):
    masks = segmenter.segment(view())
    assert len(masks) > 1
    assert masks.stack.shape[1:] == (HEIGHT, WIDTH)
    assert (masks.scores >= 0).all()
    assert (masks.scores <= 1).all()
    assert masks.stack.any((1, 2)).all()


def test_mask_i_is_of_prompt_i_whatever_the_other_prompts(segmenter):
    seen = view()
    together = segmenter.prompt(seen, PROMPTS)
    assert together.stack.shape == (len(PROMPTS), HEIGHT, WIDTH)
    for index, prompt in enumerate(PROMPTS):
        alone = segmenter.prompt(seen, [prompt])
        assert nearly_equal(alone.stack[0], together.stack[index]), index
        np.testing.assert_allclose(alone.scores[0], together.scores[index], atol=1e-4)
    backwards = segmenter.prompt(seen, PROMPTS[::-1])
    assert nearly_equal(backwards.stack[::-1], together.stack)
    assert len(np.unique(together.stack.reshape(len(PROMPTS), -1), axis=0)) > 3


def test_alternatives_are_three_and_grow_and_the_best_is_the_mask_of_the_prompt(segmenter):
    seen, prompt = view(), points((30, 20))
    several = segmenter.alternatives(seen, prompt)
    assert len(several) == 3
    assert (np.diff(several.stack.sum((1, 2))) >= 0).all()
    one = segmenter.prompt(seen, [prompt])
    assert one.scores[0] == pytest.approx(several.scores.max(), abs=1e-4)


def test_a_prompt_without_an_object_gets_an_empty_mask_and_no_alternatives(segmenter):
    nothing = points(negative=[(5, 5)])
    answers = segmenter.prompt(view(), [nothing, points((30, 20))])
    assert not answers.stack[0].any()
    assert answers.scores[0] == 0
    assert len(segmenter.alternatives(view(), nothing)) == 0
    assert segmenter.prompt(view(), []).stack.shape == (0, HEIGHT, WIDTH)


def test_a_dense_prompt_counts(segmenter):
    seen, xy = view(), np.array([[50.0, 50]])
    left = np.zeros((HEIGHT, WIDTH), bool)
    left[:, :60] = True
    asked = [Prompt(xy, np.array([True]), mask=mask) for mask in (left, ~left)]
    # Logits, since the masks of random weights may hardly move.
    network = segmenter.network
    embedding = segmenter._embedding(seen)
    logits = [
        network.decode(embedding, segmenter._prompt_batch(embedding, [p]), False) for p in asked
    ]
    assert (logits[0][0] - logits[1][0]).abs().max() > 1e-3


def test_an_empty_dense_prompt_is_none(segmenter):
    empty = Prompt(PROMPTS[0].xy, PROMPTS[0].positive, mask=np.zeros((HEIGHT, WIDTH), bool))
    answers = segmenter.prompt(view(), [PROMPTS[0], empty])
    assert nearly_equal(answers.stack[0], answers.stack[1])


def test_an_image_is_encoded_once_for_all_prompts(segmenter, monkeypatch):
    calls = []
    encode = segmenter.network.encode
    monkeypatch.setattr(segmenter.network, "encode", lambda image: calls.append(1) or encode(image))
    seen = view(picture(7))
    segmenter.segment(seen)
    segmenter.prompt(seen, PROMPTS)
    segmenter.alternatives(seen, PROMPTS[0])
    segmenter.prompt(view(picture(7), "again"), PROMPTS[:1])
    assert len(calls) == 1


def test_an_embedding_of_another_process_gives_the_same_masks(segmenter, monkeypatch):
    image = picture(5)
    wanted = segmenter.prompt(view(image), [points((40, 40))])
    sent = pickle.loads(pickle.dumps(segmenter.prepared(view(image))))
    monkeypatch.setattr(segmenter.network, "encode", None)  # not encoded again
    here = view(image)
    segmenter.use_prepared(here, sent)
    assert np.array_equal(segmenter.prompt(here, [points((40, 40))]).stack, wanted.stack)


def test_workers_give_the_same_masks_and_answers(sam_checkpoint):
    settings = SamConfig(checkpoint=sam_checkpoint, device="cpu", automatic=EVERYTHING)
    own, camera = settings.build(), Camera(np.eye(3), WIDTH, HEIGHT, np.eye(4))
    views = [View(str(n), camera, functools.partial(picture, n)) for n in range(3)]
    pool = Pool(LocalCrew(Share(1.0), 2), 2, print)
    try:
        asks = frozenset(("masks", "prompts"))
        spread_out = spread(pool, settings.build, settings.build(), views, lambda number: asks)
        for each in views:
            ours, alone = spread_out.segment(each), own.segment(each)
            assert np.array_equal(ours.stack, alone.stack)
            assert np.array_equal(ours.scores, alone.scores)
            ours = spread_out.prompt(each, [points((40, 40))])
            assert np.array_equal(ours.stack, own.prompt(each, [points((40, 40))]).stack)
    finally:
        pool.close()


def test_features_are_the_cached_embedding_without_its_padding(segmenter, monkeypatch):
    one = view(picture(11))
    whole = segmenter.network.encode(one.image())
    name = "image" if "image" in whole.tensors else "image2"
    map_ = whole.tensors[name][0].float().numpy()
    calls = []
    encode = segmenter.network.encode
    monkeypatch.setattr(segmenter.network, "encode", lambda i: calls.append(0) or encode(i))
    grid = segmenter.features(one)
    rows = map_.shape[1] if whole.padded is None else map_.shape[1] * 3 // 4  # 160x120
    assert grid.shape == (rows, map_.shape[2], map_.shape[0])
    assert grid.dtype == np.float32
    np.testing.assert_array_equal(grid, map_[:, :rows].transpose(1, 2, 0))
    grid[:] = 0  # the caller's to change
    np.testing.assert_array_equal(segmenter.features(one), map_[:, :rows].transpose(1, 2, 0))
    segmenter.prompt(one, [points((40, 40))])
    assert len(calls) == 1


def test_byocl_clusters_the_cached_embedding(sam_checkpoint, monkeypatch):
    segmenter = sam(sam_checkpoint)
    one = view()
    segmenter.segment(one)
    monkeypatch.setattr(segmenter.network, "encode", lambda image: pytest.fail("encoded again"))
    (labels,) = ByoclConfig(labels=4).build(segmenter).track(Scene("s", (one,), True, "a test"))
    assert labels.shape == (HEIGHT, WIDTH)
    assert 1 < len(np.unique(labels)) <= 4


def test_prompts_of_one_kind_share_a_call(segmenter, monkeypatch):
    sizes = []
    decode = segmenter.network.decode
    monkeypatch.setattr(
        segmenter.network,
        "decode",
        lambda e, asked, several: sizes.append(len(asked.points)) or decode(e, asked, several),
    )
    many = [points((x, y)) for x in range(5, 155, 30) for y in range(5, 115, 50)]
    segmenter.prompt(view(), many)
    assert sizes == [len(many)]
    sizes.clear()
    segmenter.segment(view())
    assert sizes == [16]


def test_a_wide_and_a_tall_picture_both_work(segmenter):
    for height, width in ((40, 160), (160, 40), (100, 100)):
        seen = view(picture(0, height, width))
        assert segmenter.prompt(seen, [points((10, 10))]).stack.shape == (1, height, width)


# SAM against its authors' own code


def test_masks_of_prompts_are_those_of_the_authors_predictor(sam_checkpoint):
    segmenter = sam(sam_checkpoint)
    predictor = SamPredictor(authors_own(sam_checkpoint))
    predictor.set_image(picture())
    for prompt in PROMPTS[:6]:
        expected, scores, _ = predictor.predict(
            point_coords=prompt.xy if len(prompt.xy) else None,
            point_labels=prompt.positive.astype(int) if len(prompt.xy) else None,
            box=prompt.box,
            multimask_output=True,
        )
        order = np.argsort(expected.sum((1, 2)), kind="stable")
        answers = segmenter.alternatives(view(), prompt)
        assert nearly_equal(answers.stack, expected[order])
        np.testing.assert_allclose(answers.scores, scores[order].clip(0, 1), atol=1e-5)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        (
            {"min_stability": 0.15, "min_score": 0.35},
            {"stability_score_thresh": 0.15, "pred_iou_thresh": 0.35},
        ),
        (
            {"crop_layers": 1, "crop_points_divisor": 2},
            {"crop_n_layers": 1, "crop_n_points_downscale_factor": 2},
        ),
        ({"smallest": 200 / 160 / 120}, {"min_mask_region_area": 200}),
    ],
)
def test_automatic_masks_are_those_of_the_authors_generator(sam_checkpoint, ours, theirs):
    given = {"points_per_side": 4, "min_score": -9.0, "min_stability": 0.0, "max_overlap": 0.8}
    segmenter = sam(sam_checkpoint, automatic=AutomaticConfig(**(given | ours)))
    official = {"points_per_side": 4, "pred_iou_thresh": -9.0, "stability_score_thresh": 0.0}
    official |= {"box_nms_thresh": 0.8, "crop_nms_thresh": 0.8}
    generator = SamAutomaticMaskGenerator(authors_own(sam_checkpoint), **(official | theirs))
    expected = [each["segmentation"] for each in generator.generate(picture())]
    expected = np.array([mask for mask in expected if mask.any()])
    masks = segmenter.segment(view())
    assert len(masks) == len(expected) > 1
    # In the same order, too, but for ties.
    for mask in masks.stack:
        assert min((mask != other).mean() for other in expected) < 1e-3


def test_the_published_sizes_are_read_off_their_shapes():
    for name, depth, heads in (("b", 12, 12), ("l", 24, 16), ("h", 32, 16)):
        with torch.device("meta"):
            official = sam_model_registry[f"vit_{name}"]()
            sizes = sizes_of(official.state_dict())
        assert (sizes["width"], sizes["depth"], sizes["heads"]) == (WIDTHS[name], depth, heads)
        with torch.device("meta"):
            ours = _model(sizes)
        named = _renamed(official.state_dict(), sizes)
        assert {k: v.shape for k, v in ours.state_dict().items()} == {
            k: v.shape for k, v in named.items()
        }
        blocks = ours.vision_encoder.layers, official.image_encoder.blocks
        windows = [[block.window_size for block in each] for each in blocks]
        assert windows[0] == windows[1]


@pytest.mark.parametrize("shape", [(120, 160), (160, 120), (97, 211)])
def test_an_embedding_is_that_of_the_authors_code(sam_checkpoint, shape):
    predictor = SamPredictor(authors_own(sam_checkpoint))
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    predictor.set_image(image)
    found = sam(sam_checkpoint).network.encode(image)
    torch.testing.assert_close(found.tensors["image"], predictor.features, atol=1e-5, rtol=1e-5)


# The family against transformers' own code


@pytest.mark.parametrize("name", FAMILY)
def test_prompts_are_prepared_as_by_the_familys_own_processor(folders, name):
    from transformers import AutoModelForMaskGeneration, Sam2Processor, SamProcessor

    segmenter = family(folders[name])
    model = AutoModelForMaskGeneration.from_pretrained(folders[name])
    images = segmenter.network.processor
    padded = "pad_size" in images.to_dict() and name in ("sam-hf", "sam-hq")
    processor = (SamProcessor if padded else Sam2Processor)(images)
    prompt = PROMPTS[1]
    inputs = processor(
        images=picture(),
        input_points=[[prompt.xy.tolist()]],
        input_labels=[[prompt.positive.astype(int).tolist()]],
        return_tensors="pt",
    )
    sizes = [inputs.pop("original_sizes")]
    if padded:
        sizes.append(inputs.pop("reshaped_input_sizes"))
    inputs["input_points"] = inputs["input_points"].float()
    with torch.no_grad():
        answer = model(**inputs, multimask_output=True)
    (expected,) = images.post_process_masks(answer.pred_masks, *sizes)
    expected = expected[0].numpy()
    order = np.argsort(expected.sum((1, 2)), kind="stable")
    answers = segmenter.alternatives(view(), prompt)
    assert nearly_equal(answers.stack, expected[order])
    scores = answer.iou_scores[0, 0].numpy()[order]
    np.testing.assert_allclose(answers.scores, scores.clip(0, 1), atol=1e-4)


# Embeddings on disk


def counted(segmenter, calls):
    encode = segmenter.network.encode
    segmenter.network.encode = lambda image: calls.append(1) or encode(image)
    return segmenter


@pytest.mark.parametrize("name", ["sam", *FAMILY])
def test_an_embedding_from_disk_gives_the_same_masks(name, sam_checkpoint, folders, tmp_path):
    kept = EmbeddingConfig(folder=tmp_path / "kept")
    made = functools.partial(sam, sam_checkpoint) if name == "sam" else None
    made = made or functools.partial(family, folders[name])
    first, calls = made(embeddings=kept), []
    masks = first.segment(view())
    again = counted(made(embeddings=kept), calls)
    reread = again.segment(view())
    np.testing.assert_array_equal(masks.stack, reread.stack)
    np.testing.assert_array_equal(masks.scores, reread.scores)
    assert not calls
    again.prompt(view(picture(1)), PROMPTS[:1])
    assert len(calls) == 1


def test_the_folder_keeps_its_budget_by_removing_the_least_recently_used(sam_checkpoint, tmp_path):
    size = 32 * 16 * 16 * 4 + 500
    (tmp_path / "weights.pth").write_bytes(b"0" * 10 * size)
    kept = EmbeddingConfig(memory=1, folder=tmp_path, gigabytes=3 * size / 1e9)
    calls = []
    segmenter = counted(sam(sam_checkpoint, embeddings=kept), calls)

    def look(seed):
        before = set(tmp_path.glob("*.embedding"))
        segmenter.prompt(view(picture(seed)), PROMPTS[:1])
        for path in set(tmp_path.glob("*.embedding")) - before:
            os.utime(path, (seed, seed))  # old times, ascending
        return len(calls)

    assert [look(seed) for seed in (1, 2, 3)] == [1, 2, 3]
    assert look(1) == 3  # used again, so removed last
    assert look(4) == 4
    held = list(tmp_path.glob("*.embedding"))
    assert len(held) == 3
    assert sum(path.stat().st_size for path in held) <= 3 * size
    assert look(1) == 4
    assert look(2) == 5
    assert (tmp_path / "weights.pth").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_damaged_file_is_computed_again(sam_checkpoint, tmp_path):
    kept = EmbeddingConfig(folder=tmp_path)
    masks = sam(sam_checkpoint, embeddings=kept).segment(view())
    (path,) = tmp_path.glob("*.embedding")
    for content in (path.read_bytes()[:-10], b"", b"no embedding"):
        path.write_bytes(content)
        again = sam(sam_checkpoint, embeddings=kept).segment(view())
        np.testing.assert_array_equal(masks.stack, again.stack)


def test_other_weights_do_not_share_embeddings(sam_checkpoint, tmp_path):
    kept = EmbeddingConfig(folder=tmp_path)
    sam(sam_checkpoint, embeddings=kept).prompt(view(), PROMPTS[:1])
    state = torch.load(sam_checkpoint, weights_only=True)
    state["image_encoder.pos_embed"][0, 0, 0, 0] += 1
    torch.save(state, tmp_path / "other.pth")
    sam(tmp_path / "other.pth", embeddings=kept).prompt(view(), PROMPTS[:1])
    assert len(list(tmp_path.glob("*.embedding"))) == 2


def test_a_folder_that_is_a_file_is_refused(sam_checkpoint, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        sam(sam_checkpoint, embeddings=EmbeddingConfig(folder=tmp_path / "file"))


# Files that are not valid checkpoints


def without(key):
    return lambda state: {name: each for name, each in state.items() if name != key}


@pytest.fixture
def changed(sam_checkpoint, tmp_path):
    """The checkpoint after a change to its weights."""

    def change(edit):
        state = torch.load(sam_checkpoint, weights_only=True)
        path = tmp_path / "changed.pth"
        torch.save(edit(state) or state, path)
        return path

    return change


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (without("mask_decoder.iou_token.weight"), "iou_token.weight is missing"),
        (without("image_encoder.pos_embed"), "image_encoder.pos_embed is missing"),
        (lambda s: s.update({"extra.weight": torch.zeros(1)}), "extra.weight is unknown"),
        (lambda s: s.update({"mask_decoder.hf_token.weight": torch.zeros(1)}), "HQ-SAM"),
        (lambda s: {"model": {"sam_mask_decoder.x": torch.zeros(1)}}, "SAM 2's"),
        (lambda s: {"vision_encoder.x": torch.zeros(1)}, "give its folder to sam-hf"),
        (lambda s: {"image_encoder.layers.0.x": torch.zeros(1)}, "MobileSAM"),
        (lambda s: {"weights": 3}, "other content than weights"),
        (lambda s: [1, 2], "other content than weights"),
        (
            lambda s: s.update({"mask_decoder.iou_token.weight": torch.zeros(1, 7)}),
            r"iou_token.weight is 1x7, expected 1x32",
        ),
        (lambda s: s.update({"image_encoder.pos_embed": torch.zeros(())}), "impossible sizes"),
    ],
)
def test_a_checkpoint_of_another_kind_is_refused_by_name(changed, edit, said):
    with pytest.raises(InputError, match=said):
        load(changed(edit))


def test_a_file_that_is_not_a_checkpoint_is_refused(sam_checkpoint, tmp_path):
    with pytest.raises(InputError, match="no such checkpoint"):
        load(tmp_path / "none.pth")
    with pytest.raises(InputError, match="give its path to sam-hf"):
        load(tmp_path)
    cut = tmp_path / "cut.pth"
    cut.write_bytes(sam_checkpoint.read_bytes()[:5000])
    with pytest.raises(InputError, match="cut short"):
        load(cut)
    evil = tmp_path / "evil.pth"
    evil.write_bytes(pickle.dumps(FrameError))
    with pytest.raises(InputError, match=r"lift3d\.errors\.FrameError|not a PyTorch checkpoint"):
        load(evil)


def test_a_checkpoint_of_another_size_than_the_setting_is_refused(sam_checkpoint):
    with pytest.raises(InputError, match="32 wide"):
        load(sam_checkpoint, "b")


def test_a_folder_without_a_model_of_the_family_is_refused(folders, tmp_path):
    from transformers import ViTConfig

    with pytest.raises(InputError, match="cannot be read as a model of transformers"):
        family(tmp_path / "none")
    with pytest.raises(InputError, match="cannot be read as a model of transformers"):
        family(tmp_path)
    ViTConfig(hidden_size=32).save_pretrained(tmp_path / "vit")
    with pytest.raises(InputError, match=r"a 'vit' model.*sam2"):
        family(tmp_path / "vit")
    bare = tmp_path / "bare"
    shutil.copytree(folders["sam2"], bare)
    (bare / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be read as a model"):
        family(bare)


def test_weights_that_are_missing_in_a_folder_are_named(folders, tmp_path):
    shutil.copytree(folders["sam2"], tmp_path / "less")
    weights = tmp_path / "less" / "model.safetensors"
    state = load_file(weights)
    gone = "mask_decoder.iou_token.weight"
    save_file({key: each for key, each in state.items() if key != gone}, weights, {"format": "pt"})
    with pytest.raises(InputError, match=f"{gone} is missing"):
        family(tmp_path / "less")


def test_unused_weights_are_logged(folders, tmp_path, caplog):
    shutil.copytree(folders["sam-hf"], tmp_path / "more")
    weights = tmp_path / "more" / "model.safetensors"
    save_file(load_file(weights) | {"extra": torch.zeros(1)}, weights, {"format": "pt"})
    family(tmp_path / "more")
    assert "1 weights are not used, such as extra" in caplog.text


def test_a_folder_of_a_video_model_gives_its_image_model(folders, tmp_path):
    """As SAM 2 is published on the hub."""
    import transformers as t

    image = family(folders["sam2"]).network.model
    parts = ("vision_config", "prompt_encoder_config", "mask_decoder_config")
    config = t.Sam2VideoConfig(
        **{part: getattr(image.config, part).to_dict() for part in parts},
        image_size=64,
        memory_attention_hidden_size=32,
        memory_attention_feed_forward_hidden_size=32,
        memory_attention_num_layers=1,
        memory_attention_rope_feat_sizes=[4, 4],
        memory_encoder_hidden_size=32,
        memory_encoder_output_channels=8,
        mask_downsampler_embed_dim=32,
        memory_fuser_embed_dim=32,
        memory_fuser_intermediate_dim=32,
    )
    model = t.Sam2VideoModel(config)
    model.load_state_dict(image.state_dict(), strict=False)
    model.save_pretrained(tmp_path)
    # The processor, too, in its newer place.
    processor = t.Sam2Processor(t.Sam2ImageProcessor(size={"height": 64, "width": 64}))
    processor.save_pretrained(tmp_path)
    answers = family(tmp_path).prompt(view(), PROMPTS)
    expected = family(folders["sam2"]).prompt(view(), PROMPTS)
    np.testing.assert_array_equal(answers.stack, expected.stack)


# Settings


@pytest.mark.parametrize(
    ("config", "absent"),
    [
        (SamConfig(Path("x.pth")), "transformers"),
        (SamConfig(Path("x.pth")), "torch"),
        (SamTransformersConfig("x"), "transformers"),
        (SamTransformersConfig("x"), "torchvision"),
    ],
)
def test_without_the_libraries_the_extra_is_named(config, absent, monkeypatch):
    monkeypatch.setitem(sys.modules, absent, None)
    monkeypatch.delitem(sys.modules, "lift3d.networks.sam.promptable", raising=False)
    with pytest.raises(MissingExtra, match=rf"{absent}.*lift3d\[sam\]"):
        config.build()


def test_they_are_chosen_on_the_command_line():
    config = cli._parse(
        ["lift", "in", "--out", "o", "segmentation:sam", "--segmentation.checkpoint", "b.pth"]
        + ["--segmentation.automatic.points-per-side", "8"]
        + ["--segmentation.embeddings.folder", "kept"]
    )
    assert config.segmentation.checkpoint == Path("b.pth")
    assert config.segmentation.automatic.points_per_side == 8
    assert config.segmentation.embeddings.folder == Path("kept")
    config = cli._parse(
        ["lift", "in", "--out", "o", "segmentation:sam-hf"]
        + ["--segmentation.checkpoint", "facebook/sam2.1-hiera-small"]
    )
    assert config.segmentation.checkpoint == "facebook/sam2.1-hiera-small"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch": 0}, "1 or more"),
        ({"device": "cuda:99"}, "cannot be used"),
        ({"device": "gpu"}, "cannot be used"),
        ({"automatic": AutomaticConfig(points_per_side=0)}, "points_per_side >= 1"),
        ({"embeddings": EmbeddingConfig(memory=0)}, "memory >= 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(sam_checkpoint, options, said):
    with pytest.raises(InputError, match=said):
        sam(sam_checkpoint, **options)


def test_half_precision_changes_little(sam_checkpoint):
    full = sam(sam_checkpoint).prompt(view(), PROMPTS)
    half = sam(sam_checkpoint, precision="bfloat16").prompt(view(), PROMPTS)
    assert (full.stack != half.stack).mean() < 0.05


def test_a_batch_of_one_gives_the_same(sam_checkpoint):
    masks = sam(sam_checkpoint, batch=1).segment(view())
    assert nearly_equal(masks.stack, sam(sam_checkpoint).segment(view()).stack)


def test_both_are_registered_and_wait_for_a_checkpoint():
    assert BACKENDS["sam"] is SamConfig
    assert BACKENDS["sam-hf"] is SamTransformersConfig
    with pytest.raises(TypeError, match="checkpoint"):
        SamConfig()


# Suppression and cleaning


def test_suppression_keeps_what_torchvision_keeps():
    rng = np.random.default_rng(0)
    low = rng.integers(0, 50, (200, 2))
    boxes = np.concatenate([low, low + rng.integers(0, 40, (200, 2))], 1)
    scores = rng.random(200)
    expected = nms(torch.from_numpy(boxes).float(), torch.from_numpy(scores).float(), 0.4)
    np.testing.assert_array_equal(suppressed(boxes, scores, 0.4), expected.numpy())


def test_small_holes_are_filled_and_small_islands_go_but_never_the_last():
    mask = np.zeros((40, 40), bool)
    mask[5:25, 5:25] = True
    whole = mask.copy()
    mask[10:12, 10:12] = False
    mask[30:33, 30:33] = True
    np.testing.assert_array_equal(cleaned(mask, 20.0), whole)
    island = np.zeros((40, 40), bool)
    island[3:5, 3:5] = True
    np.testing.assert_array_equal(cleaned(island, 20.0), island)


def test_a_known_name_is_found_where_weights_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("LIFT3D_WEIGHTS", str(tmp_path))
    with pytest.raises(InputError, match="lift3d weights sam_vit_b"):
        SamConfig(Path("sam_vit_b")).build()
