"""Files and folders that are no valid weights of SAM."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_sam import PROMPTS, family, view

from lift3d.networks.sam.official import load
from lift3d.scene.errors import FrameError, InputError
from lift3d.segmentation.sam import SamConfig

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_a_folder_without_a_model_of_the_family_is_refused(sam_folders, tmp_path):
    from transformers import ViTConfig

    with pytest.raises(InputError, match="cannot be read as a model of transformers"):
        family(tmp_path / "none")
    with pytest.raises(InputError, match="cannot be read as a model of transformers"):
        family(tmp_path)
    ViTConfig(hidden_size=32).save_pretrained(tmp_path / "vit")
    with pytest.raises(InputError, match=r"a 'vit' model.*sam2"):
        family(tmp_path / "vit")
    bare = tmp_path / "bare"
    shutil.copytree(sam_folders["sam2"], bare)
    (bare / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be read as a model"):
        family(bare)


def test_weights_that_are_missing_in_a_folder_are_named(sam_folders, tmp_path):
    shutil.copytree(sam_folders["sam2"], tmp_path / "less")
    weights = tmp_path / "less" / "model.safetensors"
    state = load_file(weights)
    gone = "mask_decoder.iou_token.weight"
    save_file({key: each for key, each in state.items() if key != gone}, weights, {"format": "pt"})
    with pytest.raises(InputError, match=f"{gone} is missing"):
        family(tmp_path / "less")


def test_unused_weights_are_logged(sam_folders, tmp_path, caplog):
    shutil.copytree(sam_folders["sam-hf"], tmp_path / "more")
    weights = tmp_path / "more" / "model.safetensors"
    save_file(load_file(weights) | {"extra": torch.zeros(1)}, weights, {"format": "pt"})
    family(tmp_path / "more")
    assert "1 weights are not used, such as extra" in caplog.text


def test_a_folder_of_a_video_model_gives_its_image_model(sam_folders, tmp_path):
    """As SAM 2 is published on the hub."""
    import transformers as t

    image = family(sam_folders["sam2"]).network.model
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
    expected = family(sam_folders["sam2"]).prompt(view(), PROMPTS)
    np.testing.assert_array_equal(answers.stack, expected.stack)


def test_a_known_name_is_found_where_weights_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("LIFT3D_WEIGHTS", str(tmp_path))
    with pytest.raises(InputError, match="lift3d weights sam_vit_b"):
        SamConfig(Path("sam_vit_b")).build()
