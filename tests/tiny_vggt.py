"""A small random VGGT checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

OPTIONS = {
    "img_size": 56, "embed_dim": 16, "depth": 4, "num_heads": 2, "dino_depth": 1, "dino_heads": 2,
    "camera_trunk_depth": 1, "camera_heads": 2, "intermediate_layer_idx": [0, 1, 2, 3],
    "dpt_out_channels": [4, 4, 8, 8], "dpt_features": 8, "track_features": 8, "corr_levels": 2,
    "corr_radius": 1, "tracker_hidden": 16, "tracker_depth": 1,
}  # fmt: skip


def write_checkpoint(folder: Path, seed: int = 0) -> Path:
    """Write `model.pt` and `config.json` as in a hub folder; returns the former."""
    import torch

    from lift3d.networks.vggt.network import VGGT
    from lift3d.networks.vggt.sizes import VggtConfig

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(OPTIONS))
    known = OPTIONS | {"base_img_size": OPTIONS["img_size"]}
    torch.manual_seed(seed)
    model = VGGT(VggtConfig.parsed(known, folder))
    state = model.state_dict()
    last = "camera_head.pose_branch.fc2.bias"
    # Near a camera that looks ahead with a field of view of 1 radian.
    state[last].copy_(torch.tensor([0.0, 0, 0, 0, 0, 0, 1, 1, 1]) / 4)
    state["camera_head.pose_branch.fc2.weight"].mul_(0.1)
    torch.save(state, folder / "model.pt")
    return folder / "model.pt"
