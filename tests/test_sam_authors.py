"""SAM and similar networks against the code of their authors and of transformers."""

import numpy as np
import pytest
import torch
from segment_anything import SamAutomaticMaskGenerator, SamPredictor, sam_model_registry
from tiny_sam import FAMILY, PROMPTS, authors_own, family, nearly_equal, picture, sam, view
from torchvision.ops import nms

from lift3d.networks.sam.automatic import AutomaticConfig, cleaned, suppressed
from lift3d.networks.sam.official import WIDTHS, _model, _renamed, sizes_of

pytestmark = pytest.mark.usefixtures("one_thread")


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
def test_prompts_are_prepared_as_by_the_familys_own_processor(sam_folders, name):
    from transformers import AutoModelForMaskGeneration, Sam2Processor, SamProcessor

    segmenter = family(sam_folders[name])
    model = AutoModelForMaskGeneration.from_pretrained(sam_folders[name])
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
