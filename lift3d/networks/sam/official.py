"""Segment Anything (SAM) through its authors' package, from the weights as they publish them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lift3d.networks import Precision
from lift3d.networks.checkpoint import fit, read_checkpoint
from lift3d.networks.sam.embeddings import Embedding
from lift3d.networks.weights import KNOWN, find
from lift3d.scene import Image
from lift3d.scene.errors import InputError

WIDTHS = {"b": 768, "l": 1024, "h": 1280}
"""Of the published image encoders."""
ADVICE = "Expected SAM's weights as its authors publish them, such as sam_vit_b_01ec64.pth"
OTHERS = {
    r"sam_mask_decoder\.|memory_attention\.": "SAM 2's; sam-hf reads it as a transformers folder",
    r"mask_decoder\.(hf_token|hf_mlp)": "HQ-SAM's; sam-hf reads it as a transformers folder",
    r"image_encoder\.layers\.": "MobileSAM's, whose encoder is another",
    r"vision_encoder\.": "transformers' form of SAM; give its folder to sam-hf",
}
"""Weights that are taken for SAM's, by a name that only they have."""


class SamNetwork:
    """SAM's encoder and decoder, as `promptable.Network` wants them."""

    def __init__(
        self,
        checkpoint: Path,
        vit: str = "auto",
        device: str = "auto",
        precision: Precision = "auto",
    ) -> None:
        from segment_anything.utils.transforms import ResizeLongestSide

        from lift3d.networks.device import choose_device

        self.device = choose_device(device)
        named = str(checkpoint) in KNOWN
        path = find(checkpoint) if named else checkpoint
        self.model = load(path, vit).to(self.device)
        self.mask_side: int = self.model.prompt_encoder.mask_input_size[0]
        self._precision = precision
        self._resize = ResizeLongestSide(self.model.image_encoder.img_size)

    def identity(self) -> str:
        """The weights, and the precision they are used in."""
        from lift3d.networks.sam.promptable import weights_identity

        return f"sam {weights_identity(self.model)} {self._precision} {self.device.type}"

    def encode(self, image: Image) -> Embedding:
        """Resized to the network's longer side, padded at the right and below."""
        import torch

        from lift3d.networks.device import encoder_precision

        pixels = torch.from_numpy(self._resize.apply_image(image)).to(self.device)
        with torch.inference_mode():
            square = self.model.preprocess(pixels.permute(2, 0, 1)[None])
            with encoder_precision(self._precision, self.device):
                tensors = {"image": self.model.image_encoder(square)}
        height, width = image.shape[:2]
        padded = (pixels.shape[0], pixels.shape[1])
        return Embedding(tensors, height, width, self._resize.target_length, padded)

    def decode(self, embedding: Embedding, asked: Any, several: bool) -> tuple[Any, Any]:
        """Three masks to each prompt, or the one meant for prompts without ambiguity."""
        encoder = self.model.prompt_encoder
        points = (asked.points, asked.labels) if asked.points.shape[1] else None
        sparse, dense = encoder(points=points, boxes=asked.boxes, masks=asked.masks)
        return self.model.mask_decoder(
            image_embeddings=embedding.tensors["image"].float(),
            image_pe=encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=several,
        )


def load(path: Path, vit: str = "auto") -> Any:
    """`segment_anything`'s model with the weights at `path`, in float32 on the CPU.

    Its sizes are read off the weights, so that a smaller one loads as well. Raises InputError
    where the file is no checkpoint, is cut short, or belongs to another model.
    """
    import torch

    state = _read(Path(path))
    try:
        sizes = sizes_of(state)
        with torch.device("meta"):  # no time lost on weights that are replaced
            model = _model(sizes)
    except (KeyError, IndexError, ZeroDivisionError, RuntimeError, AssertionError) as error:
        raise _foreign(path, state, error) from error
    if vit != "auto" and sizes["width"] != WIDTHS[vit]:
        name = {width: name for name, width in WIDTHS.items()}.get(sizes["width"], "?")
        raise InputError(
            f"{path}: the encoder is {sizes['width']} wide (vit {name}), vit {vit} is "
            f"{WIDTHS[vit]}; leave vit out, or give the checkpoint of that size"
        )
    model.load_state_dict(fit(state, model.state_dict(), path, _guess(state)), assign=True)
    # Not among the weights, so still without values.
    model.pixel_mean = torch.tensor([123.675, 116.28, 103.53]).view(-1, 1, 1)
    model.pixel_std = torch.tensor([58.395, 57.12, 57.375]).view(-1, 1, 1)
    return model.eval().requires_grad_(False)


def sizes_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """What the constructors must be told, from the shapes of the weights.

    A block whose table of relative positions spans the whole grid attends globally.
    """
    projection = state["image_encoder.patch_embed.proj.weight"].shape
    grid = state["image_encoder.pos_embed"].shape[1]
    depth = _count(state, r"image_encoder\.blocks\.(\d+)\.")
    spans = [state[f"image_encoder.blocks.{i}.attn.rel_pos_h"].shape for i in range(depth)]
    windows = [(span + 1) // 2 for span, _ in spans]
    first = "mask_decoder.transformer.layers.0.mlp.lin1.weight"
    head = "mask_decoder.iou_prediction_head.layers"
    return {
        "width": projection[0],
        "patch": projection[2],
        "side": grid * projection[2],
        "depth": depth,
        "heads": projection[0] // spans[0][1],
        "ratio": state["image_encoder.blocks.0.mlp.lin1.weight"].shape[0] / projection[0],
        "global": tuple(i for i, window in enumerate(windows) if window == grid),
        "window": min(windows),
        "channels": state["image_encoder.neck.0.weight"].shape[0],
        "mask_channels": state["prompt_encoder.mask_downscaling.3.weight"].shape[0],
        "decoder_depth": _count(state, r"mask_decoder\.transformer\.layers\.(\d+)\."),
        "decoder_mlp": state[first].shape[0],
        "masks": state["mask_decoder.mask_tokens.weight"].shape[0] - 1,
        "head_depth": _count(state, rf"{re.escape(head)}\.(\d+)\."),
        "head_width": state[f"{head}.0.weight"].shape[0],
    }


def _count(state: Mapping[str, Any], pattern: str) -> int:
    found = (re.match(pattern, key) for key in state)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def _model(sizes: Mapping[str, Any]) -> Any:
    """As `segment_anything.build_sam` does, for any sizes."""
    import functools

    import torch
    from segment_anything.modeling import (
        ImageEncoderViT,
        MaskDecoder,
        PromptEncoder,
        Sam,
        TwoWayTransformer,
    )

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
    transformer = TwoWayTransformer(
        depth=sizes["decoder_depth"],
        embedding_dim=channels,
        num_heads=8,  # shows in no weight; all published models have as many
        mlp_dim=sizes["decoder_mlp"],
    )
    decoder = MaskDecoder(
        transformer_dim=channels,
        transformer=transformer,
        num_multimask_outputs=sizes["masks"],
        iou_head_depth=sizes["head_depth"],
        iou_head_hidden_dim=sizes["head_width"],
    )
    prompts = PromptEncoder(channels, (grid, grid), (side, side), sizes["mask_channels"])
    return Sam(encoder, prompts, decoder)


def _read(path: Path) -> Mapping[str, Any]:
    """The tensors of a checkpoint. Nothing that is in the file is run."""
    import torch

    if not path.is_file():
        what = "a folder; give its path to sam-hf" if path.is_dir() else "no such checkpoint"
        raise InputError(f"{path}: {what}. {ADVICE}")
    state = read_checkpoint(path, ADVICE)
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]  # as training scripts and SAM 2 keep it
    if not isinstance(state, dict) or not all(torch.is_tensor(each) for each in state.values()):
        raise InputError(f"{path}: holds more or other things than weights. {ADVICE}")
    return state


def _foreign(path: Path, state: Mapping[str, Any], error: Exception) -> InputError:
    """For weights that do not even tell the sizes of a SAM."""
    what = f"{error.args[0]} is missing" if isinstance(error, KeyError) else "impossible sizes"
    return InputError(f"{path}: {what}. {_guess(state)}")


def _guess(state: Mapping[str, Any]) -> str:
    """Whose weights these may be."""
    for pattern, whose in OTHERS.items():
        if any(re.match(pattern, key) for key in state):
            return f"These weights look like {whose}. {ADVICE}"
    return ADVICE
