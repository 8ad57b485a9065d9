"""VGGT-Segmentor with random weights, as small as it can be, and its checkpoint."""

from dataclasses import asdict

import torch

from lift3d.networks.vggt.network import VGGT
from lift3d.networks.vggt.sizes import VggtConfig
from lift3d.networks.vggt_s import HeadConfig
from lift3d.networks.vggt_s.head import UnionHead
from lift3d.networks.vggt_s.network import Segmentor

VGGT_SIZES = VggtConfig(
    base_img_size=28, patch_size=14, embed_dim=16, depth=1, num_heads=2, dino_depth=1,
    dino_heads=2, camera_trunk_depth=1, camera_heads=2, intermediate_layer_idx=(0, 0, 0, 0),
    dpt_features=8, dpt_out_channels=(8, 8, 8, 8), track_features=16, corr_levels=2,
    corr_radius=1, tracker_hidden=16, tracker_depth=1, tracker_iterations=2,
)  # fmt: skip
HEAD_SIZES = HeadConfig(size=28, cells=7, width=16)


def tiny_network(seed=0):
    torch.manual_seed(seed)
    return Segmentor(VGGT(VGGT_SIZES), UnionHead(HEAD_SIZES)).eval().requires_grad_(False)


def save_tiny(path, network=None, **changes):
    network = network or tiny_network()
    content = {
        "model": network.head.state_dict(),
        "vggt": network.vggt.state_dict(),
        "config": {"head": asdict(HEAD_SIZES), "vggt": asdict(VGGT_SIZES)},
    }
    torch.save({k: v for k, v in (content | changes).items() if v is not None}, path)
    return path
