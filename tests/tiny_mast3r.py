"""A small random MASt3R checkpoint that tells pictures apart, and pictures that fit it.

Random weights know no geometry. Made so that what a token says comes nearly all from its own
patch, pictures that are the same one moved by whole patches get descriptors that move along, and
depth that is a fixed function of what is seen: enough to match and align by.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

CALL = (
    "AsymmetricMASt3R(pos_embed='RoPE100', patch_embed_cls='PatchEmbedDust3R', "
    "img_size=(512, 512), head_type='catmlp+dpt', output_mode='pts3d+desc24', "
    "depth_mode=('exp', -inf, inf), conf_mode=('exp', 1, inf), enc_embed_dim=32, enc_depth=1, "
    "enc_num_heads=2, dec_embed_dim=24, dec_depth=4, dec_num_heads=2, two_confs=True, "
    "desc_conf_mode=('exp', 0, inf))"
)
STEP = 32
"""Pixels between one picture and the next: whole patches."""


def write_checkpoint(path: Path, seed: int = 0) -> Path:
    """A `.pth` as published, of a small network."""
    import torch

    from lift3d.networks.mast3r.network import Mast3r
    from lift3d.networks.mast3r.sizes import NetworkConfig

    config = NetworkConfig(32, 1, 2, 24, 4, 2)
    torch.manual_seed(seed)
    model = Mast3r(config)
    state = model.state_dict()
    for name, value in state.items():
        if "norm" in name:
            continue
        if name.endswith("bias"):
            value.zero_()
        elif "attn" in name or "dec_blocks" in name:
            value.mul_(0.02)  # little influence of other patches and of the other picture
        elif "patch_embed" in name or "head_local_features" in name:
            value.normal_(std=2.0 / np.sqrt(value[0].numel()))
    for name, value in state.items():
        if name.startswith("downstream_head2"):  # both heads must give equal descriptors
            value.copy_(state[name.replace("head2", "head1")])
    for head in (1, 2):
        state[f"downstream_head{head}.dpt.head.4.weight"].mul_(0.3)
        # Points straight ahead, at about e - 1.
        state[f"downstream_head{head}.dpt.head.4.bias"][2] = 1.0
    args = argparse.Namespace(model=CALL)
    torch.save({"args": args, "model": state}, path)
    return path


def write_pictures(folder: Path, count: int = 4, width: int = 512, height: int = 384) -> Path:
    """One textured picture, seen through a window that moves by `STEP` pixels right and down."""
    import cv2
    from PIL import Image

    rng = np.random.default_rng(0)
    high, wide = height + count * STEP, width + count * STEP
    coarse = rng.integers(0, 256, (high // 8, wide // 8, 3), dtype=np.uint8)
    whole = cv2.resize(coarse, (wide, high), interpolation=cv2.INTER_CUBIC)
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        left, top = k * STEP, (k % 2) * STEP
        Image.fromarray(whole[top : top + height, left : left + width]).save(
            folder / f"photo{k}.png"
        )
    return folder
