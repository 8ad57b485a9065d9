"""Load the published weights of VGGT; no code in the file is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lift3d.networks.checkpoint import fit, is_state, read_checkpoint
from lift3d.networks.known import VGGT as NAME
from lift3d.networks.vggt.network import VGGT
from lift3d.networks.vggt.sizes import VggtConfig
from lift3d.scene.errors import InputError
from lift3d.scene.guarded import file_size, reading
from lift3d.scene.guarded.json_file import load_json

ADVICE = f"Expected the weights of VGGT, such as {NAME} (.pt, .safetensors or hub folder)"
FILES = ("model.safetensors", "model.pt")
"""Names on the hub, in the order in which they are looked for."""


@dataclass(frozen=True)
class CheckpointInfo:
    """Path and sizes of a loaded checkpoint."""

    path: Path
    config: VggtConfig


def load(path: Path, config: VggtConfig | None = None) -> tuple[VGGT, CheckpointInfo]:
    """The network with the weights at `path`, float32, on the CPU.

    `path` is a `.pt` or `.safetensors` file with a bare state dict, or a folder with one as on the
    hub. The sizes are `config`, else those in a `config.json` beside the file, else VGGT-1B's.
    Raises InputError where it is neither, is cut short, or belongs to another network: every name
    and shape must be the network's, with none missing and none left over.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such checkpoint. {ADVICE}")
    file = path
    if path.is_dir():
        file = next((path / name for name in FILES if (path / name).exists()), path)
        if file is path:
            raise InputError(f"{path}: no {' or '.join(FILES)} inside. {ADVICE}")
    if config is None:
        config = sizes_beside(file)
    state = read_state(file)
    with torch.device("meta"):
        model = VGGT(config)
    model.load_state_dict(fit(state, model.state_dict(), file, ADVICE), assign=True)
    model.eval().requires_grad_(False)
    return model, CheckpointInfo(path, config)


def sizes_beside(file: Path) -> VggtConfig:
    """The sizes in `config.json` in the folder of the weights; VGGT-1B's without one."""
    place = file.parent / "config.json"
    if not place.exists():
        return VggtConfig()
    options: dict[str, Any] = load_json(place, advice=ADVICE, kind=dict)
    inner = options.get("vggt")
    if isinstance(inner, dict):
        options = inner
    if "img_size" in options:  # the name on the hub
        options = {"base_img_size": options["img_size"], **options}
    return VggtConfig.parsed(options, place)


def read_state(file: Path) -> Mapping[str, Tensor]:
    """Names to tensors of a checkpoint."""
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        again = "it may be cut short: compare its size with the source and download it again"
        file_size(file, advice=again)
        with reading(file, "a safetensors file", advice=again):
            return load_file(file)
    state = read_checkpoint(file, ADVICE)
    if not is_state(state):
        raise InputError(f"{file}: holds no plain table of weights. {ADVICE}")
    return state
