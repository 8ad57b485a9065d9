"""Weights of MV-SAM: one safetensors file, strictly read; SAM 2.1's decoder to start from, or a
start without it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lift3d.networks.checkpoint import fit
from lift3d.networks.mvsam.encoders import Sam2Encoder, SmallEncoder
from lift3d.networks.mvsam.network import MvSam
from lift3d.networks.mvsam.sizes import MvSamConfig
from lift3d.scene.errors import InputError
from lift3d.scene.guarded import file_size, reading
from lift3d.scene.storage import atomic
from lift3d.scene.typed import checked

ADVICE = "Expected a file that pipelines/train_mvsam.py has written"
FORMAT = "lift3d mvsam 1"
SMALL = "small"
"""Name of our own encoder; SAM 2.1's has the name or the folder of its checkpoint."""


def save(path: Path, network: MvSam, encoder: Sam2Encoder | SmallEncoder, name: str) -> None:
    """Write what was trained; of a frozen encoder only its `name`."""
    from safetensors.torch import save_file

    state = {f"network.{key}": each for key, each in network.state_dict().items()}
    if isinstance(encoder, SmallEncoder):
        state |= {f"encoder.{key}": each for key, each in encoder.state_dict().items()}
    told = {"format": FORMAT, "config": json.dumps(asdict(network.config)), "encoder": name}
    with atomic(path) as part:
        save_file(
            {key: each.detach().cpu().contiguous() for key, each in state.items()}, part, told
        )


def load(path: Path, sam: Any = None) -> tuple[MvSam, Sam2Encoder | SmallEncoder]:
    """The network and its encoder, in evaluation mode.

    `sam` is a `transformers.Sam2Model`, for weights trained on one; by default it is opened by the
    name in the file. InputError for missing, unknown or misshapen weights.
    """
    from safetensors import safe_open

    file_size(path, advice=ADVICE)
    with reading(path, "weights of MV-SAM", advice=ADVICE), safe_open(str(path), "pt") as file:
        told = file.metadata() or {}
        if told.get("format") != FORMAT:
            raise InputError(f"{path}: not weights of MV-SAM. {ADVICE}")
        config: MvSamConfig = checked(MvSamConfig, json.loads(told["config"]), str(path))
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    network, name = MvSam(config), told["encoder"]
    encoder = encoder_of(name, config.width, sam)
    wanted = {f"network.{key}": each for key, each in network.state_dict().items()}
    if isinstance(encoder, SmallEncoder):
        wanted |= {f"encoder.{key}": each for key, each in encoder.state_dict().items()}
    fitted = fit(state, wanted, path, ADVICE)
    network.load_state_dict(_part(fitted, "network."))
    if isinstance(encoder, SmallEncoder):
        encoder.load_state_dict(_part(fitted, "encoder."))
    return network.eval(), encoder.eval()


def encoder_of(name: str, width: int, sam: Any = None) -> Sam2Encoder | SmallEncoder:
    """The encoder of that name: `small`, or a checkpoint of SAM 2.1 in transformers' form."""
    if name == SMALL:
        return SmallEncoder(width)
    if sam is None:
        from lift3d.networks.sam.transformers import load as load_sam

        sam, _ = load_sam(name, local_files_only=False)
    if not hasattr(sam, "no_memory_embedding"):
        raise InputError(f"{name} is not SAM 2.1; expected such as facebook/sam2.1-hiera-large")
    return Sam2Encoder(sam)


def start_from(network: MvSam, sam: Any) -> None:
    """Copy SAM 2.1's decoder and prompt vectors, all of them; the codes and the confidence vectors
    are new. InputError where sizes differ.
    """
    prompt = sam.prompt_encoder
    state = {f"decoder.{key}": each for key, each in sam.mask_decoder.state_dict().items()}
    state |= {f"mask.{key}": each for key, each in prompt.mask_embed.state_dict().items()}
    state |= {
        "kinds.weight": prompt.point_embed.weight,
        "nothing.weight": prompt.not_a_point_embed.weight,
        "no_mask.weight": prompt.no_mask_embed.weight,
    }
    own = {key: each for key, each in network.state_dict().items() if key in state or _of_sam(key)}
    network.load_state_dict(fit(state, own, Path("SAM 2.1"), ADVICE), strict=False)


@torch.no_grad()
def start_comparing(network: MvSam, gain: float = 1.5) -> None:
    """A start without SAM's weights, in which attention compares codes from the first step.

    Queries and keys of every attention between tokens and image start alike: `gain` times the sines
    and cosines of half of the frequencies. So a logit has a kernel of the distance of two places in
    it (Rahimi and Recht 2007). Self-attention starts as the identity: SAM's first one has no
    residual connection, and with random weights all tokens come out of it nearly alike.
    """
    width = network.config.width
    identity = torch.eye(width)
    sines = torch.arange(width // 4)
    # Both parts of a frequency are neighbours, so they belong to one head.
    channels = torch.stack([sines, sines + width // 2], 1).flatten()
    transformer: Any = network.decoder.transformer
    across = [transformer.final_attn_token_to_image]
    for layer in transformer.layers:
        across += [layer.cross_attn_token_to_image, layer.cross_attn_image_to_token]
        own = layer.self_attn
        for each in (own.q_proj, own.k_proj, own.v_proj, own.o_proj):
            each.weight.copy_(identity)
            each.bias.zero_()
    for attention in across:
        for each in (attention.q_proj, attention.k_proj):
            each.weight.copy_(gain * identity[channels])
            each.bias.zero_()


def _of_sam(key: str) -> bool:
    return key.partition(".")[0] in ("decoder", "mask", "kinds", "nothing", "no_mask")


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): each for key, each in state.items() if key.startswith(prefix)}


def counted(network: torch.nn.Module) -> int:
    """Number of trained parameters."""
    return sum(each.numel() for each in network.parameters() if each.requires_grad)
