"""A small random MASt3R checkpoint that distinguishes pictures, and pictures for it.

Random weights know no geometry. The weights are scaled so that a token depends almost only on its
own patch. Pictures shifted by whole patches then have descriptors with the same shift, and depth is
a fixed function of the picture: enough for matching and alignment.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from lift3d.networks.mast3r.sizes import NetworkConfig

CALL = (
    "AsymmetricMASt3R(pos_embed='RoPE100', patch_embed_cls='PatchEmbedDust3R', "
    "img_size=(512, 512), head_type='catmlp+dpt', output_mode='pts3d+desc24', "
    "depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), enc_embed_dim=32, enc_depth=1, "
    "enc_num_heads=2, dec_embed_dim=24, dec_depth=4, dec_num_heads=2, two_confs=True, "
    "desc_conf_mode=('exp', 0, inf))"
)
STEP = 32
"""Shift between consecutive pictures in pixels: a multiple of the patch size."""
DPT = {"layer_dims": [8, 8, 16, 16], "feature_dim": 32, "last_dim": 16}
"""Sizes of a small DPT; with them too all pictures that overlap are aligned."""


def write_checkpoint(path: Path, seed: int = 0) -> Path:
    """Write a `.pth` in the published format, of a small network.

    Such a file does not store the sizes of the DPT, so that this one has the published size. It is
    most of the time of a reconstruction: `write_folder` is for those.
    """
    import torch

    from lift3d.networks.mast3r.sizes import NetworkConfig

    state = _state(NetworkConfig(32, 1, 2, 24, 4, 2), seed)
    args = argparse.Namespace(model=CALL)
    torch.save({"args": args, "model": state}, path)
    return path


def write_folder(path: Path, seed: int = 0) -> Path:
    """Write a folder as on the hub, of the same network with a small DPT."""
    from safetensors.torch import save_file

    from lift3d.networks.mast3r.checkpoint import parse_call
    from lift3d.networks.mast3r.sizes import NetworkConfig

    path.mkdir()
    options = parse_call(CALL, path) | {"dpt_override": DPT}
    (path / "config.json").write_text(json.dumps(options))
    config = NetworkConfig(32, 1, 2, 24, 4, 2, (8, 8, 16, 16), 32, 16)
    save_file(_state(config, seed), path / "model.safetensors")
    return path


def _state(config: NetworkConfig, seed: int) -> dict[str, Tensor]:
    """Weights that distinguish pictures."""
    import torch

    from lift3d.networks.mast3r.network import Mast3r

    torch.manual_seed(seed)
    model = Mast3r(config)
    state = model.state_dict()
    for name, value in state.items():
        if "norm" in name:
            continue
        if name.endswith("bias"):
            value.zero_()
        elif "attn" in name or "dec_blocks" in name:
            value.mul_(0.02)  # other patches and the other picture have little influence
        elif "patch_embed" in name or "head_local_features" in name:
            value.normal_(std=2.0 / np.sqrt(value[0].numel()))
    for name, value in state.items():
        if name.startswith("downstream_head2"):  # both heads must give the same descriptors
            value.copy_(state[name.replace("head2", "head1")])
    for head in (1, 2):
        state[f"downstream_head{head}.dpt.head.4.weight"].mul_(0.3)
        # Points straight ahead, at about e - 1.
        state[f"downstream_head{head}.dpt.head.4.bias"][2] = 1.0
    return state


def write_pictures(folder: Path, count: int = 4, width: int = 512, height: int = 384) -> Path:
    """Write crops of one textured picture, shifted by `STEP` pixels right and down."""
    import cv2
    from PIL import Image

    rng = np.random.default_rng(0)
    high, wide = height + count * STEP, width + count * STEP
    coarse = rng.integers(0, 256, (high // 8, wide // 8, 3), dtype=np.uint8)
    texture = cv2.resize(coarse, (wide, high), interpolation=cv2.INTER_CUBIC)
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        left, top = k * STEP, (k % 2) * STEP
        Image.fromarray(texture[top : top + height, left : left + width]).save(
            folder / f"photo{k}.png"
        )
    return folder
