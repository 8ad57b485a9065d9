"""Classes by name: tiny random CLIP and SigLIP, and the code around them."""

import numpy as np
import pytest

from lift3d.networks.clip import TextConfig, classify, painted
from lift3d.scene import Masks
from lift3d.scene.errors import InputError

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 12}
TEXT |= {"intermediate_size": 16, "max_position_embeddings": 10}
PICTURE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32}
PICTURE |= {"intermediate_size": 16, "patch_size": 16}
WORDS = ["<pad>", "<unk>", "a", "photo", "of", "chair", "table", ".", "in", "room", "<eos>"]


@pytest.fixture(scope="module", params=["clip", "siglip"])
def scorer(request, tmp_path_factory):
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    ends = {"eos_token_id": 10, "bos_token_id": 2, "pad_token_id": 0}
    if request.param == "clip":
        config = transformers.CLIPConfig(
            text_config=TEXT | ends, vision_config=PICTURE, projection_dim=8
        )
        model, images = transformers.CLIPModel(config), transformers.CLIPImageProcessor
        options = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    else:
        config = transformers.SiglipConfig(text_config=TEXT | ends, vision_config=PICTURE)
        model, images = transformers.SiglipModel(config), transformers.SiglipImageProcessor
        options = {"size": {"height": 32, "width": 32}}
    model.save_pretrained(folder)
    images(**options).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 10)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    ).save_pretrained(folder)
    return TextConfig(str(folder), batch=3, device="cpu", local_files_only=True).build()


def test_names_and_pictures_are_unit_vectors_of_one_space(scorer):
    names = scorer.names(["chair", "table"])
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (n, 40, 3), dtype=np.uint8) for n in (30, 50, 44, 60)]
    found = scorer.images(images)
    assert names.shape[1] == found.shape[1]
    for rows, count in ((names, 2), (found, 4)):
        assert len(rows) == count
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert not np.allclose(names[0], names[1])
    # Results depend neither on batches nor on the other names.
    np.testing.assert_allclose(scorer.images(images[3:]), found[3:], atol=1e-5)
    np.testing.assert_allclose(scorer.names(["table"]), names[1:], atol=1e-5)
    with pytest.raises(InputError, match="no names"):
        scorer.names([])


def test_a_mask_is_scored_by_the_picture_around_it(scorer):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)
    stack = np.zeros((2, 60, 80), bool)
    stack[0, 10:30, 20:60] = True
    found = scorer.masks(image, Masks(stack, np.ones(2, np.float32)))
    np.testing.assert_allclose(found[:1], scorer.images([image[8:32, 16:64]]), atol=1e-5)
    np.testing.assert_allclose(found[1:], scorer.images([image]), atol=1e-5)  # an empty mask
    none = scorer.masks(image, Masks(stack[:0], np.ones(0, np.float32)))
    assert none.shape == (0, found.shape[1])


def test_a_model_that_is_not_a_clip_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read as a model"):
        TextConfig(str(tmp_path), local_files_only=True).build()


def test_the_nearest_name_is_chosen_and_zero_features_have_no_class():
    names = np.eye(3, dtype=np.float32)
    features = np.array([[0, 2, 0], [0, 0, 0], [3, 0, 4], [1, 1, 0]], np.float32)
    label, cosine = classify(features, names, [5, 7, 9])
    assert label.tolist() == [7, 0, 9, 5]
    np.testing.assert_allclose(cosine, [1, 0, 0.8, 0.5**0.5], atol=1e-6)
    assert classify(features, names, [5, 7, 9], 0.9)[0].tolist() == [7, 0, 0, 0]
    with pytest.raises(InputError, match="2 ids for 3 names"):
        classify(features, names, [1, 2])


def test_classes_of_masks_become_a_class_map():
    stack = np.zeros((2, 2, 3), bool)
    stack[0], stack[1, 0, 0] = True, True
    masks = Masks(stack, np.ones(2, np.float32))
    assert painted(masks, np.array([5, 7], np.int32)).tolist() == [[7, 5, 5], [5, 5, 5]]
    assert painted(masks, np.array([5, 0], np.int32)).tolist() == [[0, 5, 5], [5, 5, 5]]
