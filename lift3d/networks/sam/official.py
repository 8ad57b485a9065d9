"""Segment Anything (SAM) from the weights that its authors publish."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image as Pillow

from lift3d.networks import Precision
from lift3d.networks.checkpoint import fit, is_state, read_checkpoint
from lift3d.networks.known import KNOWN
from lift3d.networks.sam.embeddings import Embedding
from lift3d.networks.sam.transformers import predict
from lift3d.networks.weights import find
from lift3d.scene import Image
from lift3d.scene.errors import InputError

WIDTHS = {"b": 768, "l": 1024, "h": 1280}
"""Channels of the published image encoders."""
ADVICE = "Expected SAM's weights as its authors publish them, such as sam_vit_b_01ec64.pth"
OTHERS = {
    r"sam_mask_decoder\.|memory_attention\.": "SAM 2's; sam-hf reads it as a transformers folder",
    r"mask_decoder\.(hf_token|hf_mlp)": "HQ-SAM's; sam-hf reads it as a transformers folder",
    r"image_encoder\.layers\.": "MobileSAM's, whose encoder is another",
    r"vision_encoder\.": "transformers' form of SAM; give its folder to sam-hf",
}
"""Weights of similar networks, by a name that only they have."""
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Mean and standard deviation of ImageNet's colours, 0 to 255, used to normalise images."""
RENAMED = {
    r"^image_encoder\.": "vision_encoder.",
    r"\.patch_embed\.proj\.": ".patch_embed.projection.",
    r"\.blocks\.": ".layers.",
    r"\.norm": ".layer_norm",
    r"\.neck\.0\.": ".neck.conv1.",
    r"\.neck\.1\.": ".neck.layer_norm1.",
    r"\.neck\.2\.": ".neck.conv2.",
    r"\.neck\.3\.": ".neck.layer_norm2.",
    r"\.mask_downscaling\.0\.": ".mask_embed.conv1.",
    r"\.mask_downscaling\.1\.": ".mask_embed.layer_norm1.",
    r"\.mask_downscaling\.3\.": ".mask_embed.conv2.",
    r"\.mask_downscaling\.4\.": ".mask_embed.layer_norm2.",
    r"\.mask_downscaling\.6\.": ".mask_embed.conv3.",
    r"\.point_embeddings\.": ".point_embed.",
    r"\.pe_layer\.positional_encoding_gaussian_matrix": ".shared_embedding.positional_embedding",
    r"\.output_upscaling\.0\.": ".upscale_conv1.",
    r"\.output_upscaling\.1\.": ".upscale_layer_norm.",
    r"\.output_upscaling\.3\.": ".upscale_conv2.",
}
"""The authors' names of weights (patterns) -> names in transformers."""
FEED_FORWARD = r"(iou_prediction_head|output_hypernetworks_mlps\.\d+)\.layers\.(\d+)\."
"""MLPs whose first and last layers have other names in transformers."""


class SamNetwork:
    """SAM's encoder and decoder as a `promptable.Network`."""

    def __init__(
        self,
        checkpoint: Path,
        vit: str = "auto",
        device: str = "auto",
        precision: Precision = "auto",
    ) -> None:
        from lift3d.networks.device import choose_device

        self.device = choose_device(device)
        named = str(checkpoint) in KNOWN
        path = find(checkpoint) if named else checkpoint
        self.model = load(path, vit).to(self.device)
        self.side: int = self.model.prompt_encoder.input_image_size
        self.mask_side: int = 4 * self.model.prompt_encoder.image_embedding_size[0]
        self._precision = precision

    def identity(self) -> str:
        """A text with the hash of the weights, the precision and the device type."""
        from lift3d.networks.sam.promptable import weights_identity

        return f"sam {weights_identity(self.model)} {self._precision} {self.device.type}"

    def encode(self, image: Image) -> Embedding:
        """The image's embedding; the image is resized by its longer side and padded to a square."""
        import torch

        from lift3d.networks.device import encoder_precision

        pixels = self._resized(image)
        rows, columns = pixels.shape[:2]
        colour = torch.from_numpy(pixels).to(self.device).permute(2, 0, 1).float()
        mean, std = (torch.tensor(each, device=self.device).view(3, 1, 1) for each in (MEAN, STD))
        square = torch.zeros(1, 3, self.side, self.side, device=self.device)
        square[0, :, :rows, :columns] = (colour - mean) / std
        with torch.inference_mode(), encoder_precision(self._precision, self.device):
            tensors = {"image": self.model.get_image_embeddings(square)}
        return Embedding(tensors, image.shape[0], image.shape[1], self.side, (rows, columns))

    def _resized(self, image: Image) -> UInt8[np.ndarray, "rows columns 3"]:
        """The image resized with Pillow's bilinear filter, as in training."""
        height, width = image.shape[:2]
        scale = self.side / max(height, width)
        size = int(width * scale + 0.5), int(height * scale + 0.5)
        return np.array(Pillow.fromarray(image).resize(size, Pillow.Resampling.BILINEAR))

    def decode(self, embedding: Embedding, prompts: Any, several: bool) -> tuple[Any, Any]:
        """Three masks per prompt, or the one for unambiguous prompts."""
        return predict(self.model, embedding, prompts, several)


def load(path: Path, vit: str = "auto") -> Any:
    """The SAM of `transformers` with the weights at `path`, in float32 on the CPU.

    Its sizes are taken from the weights, so that smaller models load too. Raises InputError
    where the file is not a checkpoint, is truncated, or belongs to another model.
    """
    import torch

    state = _read(Path(path))
    try:
        sizes = sizes_of(state)
        with torch.device("meta"):  # no initialisation of weights that are replaced
            model = _model(sizes)
    except Exception as error:  # shapes of another network can fail in many ways
        raise _foreign(path, state, error) from error
    if vit != "auto" and sizes["width"] != WIDTHS[vit]:
        name = {width: name for name, width in WIDTHS.items()}.get(sizes["width"], "?")
        raise InputError(
            f"{path}: the encoder is {sizes['width']} wide (vit {name}), vit {vit} is "
            f"{WIDTHS[vit]}; leave vit out, or give the checkpoint of that size"
        )
    weights = fit(_renamed(state, sizes), model.state_dict(), path, _guess(state))
    model.load_state_dict(weights, assign=True)
    return model.eval().requires_grad_(False)


def _renamed(state: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    """The weights under their names in `transformers`."""

    def feed_forward(match: re.Match[str]) -> str:
        layer, depth = int(match[2]), sizes["head_depth"] if "iou" in match[1] else 3
        ends = {0: "proj_in", depth - 1: "proj_out"}
        return f"{match[1]}.{ends.get(layer, f'layers.{layer - 1}')}."

    named = {}
    for name, weight in state.items():
        for pattern, new in RENAMED.items():
            name = re.sub(pattern, new, name)
        named[re.sub(FEED_FORWARD, feed_forward, name)] = weight
    # One table of random frequencies, which transformers stores under two names.
    table = "prompt_encoder.shared_embedding.positional_embedding"
    if table in named:
        named["shared_image_embedding.positional_embedding"] = named[table]
    return named


def sizes_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the constructors, from the shapes of the weights.

    A block whose table of relative positions covers the complete grid has global attention.
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
    """The network with these sizes."""
    from transformers import SamConfig as Sizes
    from transformers import SamModel

    shared = {"image_size": sizes["side"], "patch_size": sizes["patch"]}
    vision = {
        "hidden_size": sizes["width"],
        "output_channels": sizes["channels"],
        "num_hidden_layers": sizes["depth"],
        "num_attention_heads": sizes["heads"],
        "mlp_dim": round(sizes["ratio"] * sizes["width"]),
        "window_size": sizes["window"],
        "global_attn_indexes": list(sizes["global"]),
        "num_pos_feats": sizes["channels"] // 2,
    }
    prompts = {"hidden_size": sizes["channels"], "mask_input_channels": sizes["mask_channels"]}
    decoder = {
        "hidden_size": sizes["channels"],
        "mlp_dim": sizes["decoder_mlp"],
        "num_hidden_layers": sizes["decoder_depth"],
        "num_attention_heads": 8,  # not visible in the weights; the same in all published models
        "num_multimask_outputs": sizes["masks"],
        "iou_head_depth": sizes["head_depth"],
        "iou_head_hidden_dim": sizes["head_width"],
        "layer_norm_eps": 1e-5,  # the authors' value; the default of transformers is 1e-6
    }
    return SamModel(
        Sizes(
            vision_config=vision | shared,
            prompt_encoder_config=prompts | shared,
            mask_decoder_config=decoder,
        )
    )


def _read(path: Path) -> Mapping[str, Any]:
    """The tensors of a checkpoint. No code in the file is run."""
    if not path.is_file():
        what = "a folder; give its path to sam-hf" if path.is_dir() else "no such checkpoint"
        raise InputError(f"{path}: {what}. {ADVICE}")
    state = read_checkpoint(path, ADVICE)
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]  # as stored by training scripts and SAM 2
    if not is_state(state):
        raise InputError(f"{path}: holds more or other content than weights. {ADVICE}")
    return state


def _foreign(path: Path, state: Mapping[str, Any], error: Exception) -> InputError:
    """The error for weights from which the sizes of a SAM cannot be read."""
    what = f"{error.args[0]} is missing" if isinstance(error, KeyError) else "impossible sizes"
    return InputError(f"{path}: {what}. {_guess(state)}")


def _guess(state: Mapping[str, Any]) -> str:
    """Advice for the error message, with the model that the weights may belong to."""
    for pattern, origin in OTHERS.items():
        if any(re.match(pattern, key) for key in state):
            return f"These weights look like {origin}. {ADVICE}"
    return ADVICE
