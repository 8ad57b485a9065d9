"""Settings of SAM, and what they change."""

import sys
from pathlib import Path

import pytest
from tiny_sam import PROMPTS, nearly_equal, sam, view

from lift3d import cli
from lift3d.networks.sam.automatic import AutomaticConfig
from lift3d.networks.sam.embeddings import EmbeddingConfig
from lift3d.scene.errors import InputError, MissingExtra
from lift3d.segmentation import BACKENDS
from lift3d.segmentation.sam import SamConfig
from lift3d.segmentation.sam_transformers import SamTransformersConfig

pytestmark = pytest.mark.usefixtures("one_thread")


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
