"""Cameras from the camera tokens of all frames, refined in a few iterations (VGGT, section 3.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lift3d.networks.vggt.blocks import Block, Mlp
from lift3d.networks.vggt.sizes import VggtConfig

ENCODED = 9
"""Translation 3, quaternion 4, fields of view 2."""


class CameraHead(nn.Module):
    """Pose encodings; each iteration reads the last one and corrects it."""

    def __init__(self, config: VggtConfig) -> None:
        super().__init__()
        width = 2 * config.embed_dim
        self.iterations = config.camera_iterations
        self.trunk = nn.ModuleList(
            Block(width, config.camera_heads) for _ in range(config.camera_trunk_depth)
        )
        self.token_norm = nn.LayerNorm(width)
        self.trunk_norm = nn.LayerNorm(width)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, ENCODED))
        self.embed_pose = nn.Linear(ENCODED, width)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 3 * width))
        self.pose_branch = Mlp(width, width // 2, ENCODED)

    def forward(
        self, tokens: Float[Tensor, "batch frames width"]
    ) -> list[Float[Tensor, "batch frames 9"]]:
        """The encoding after each iteration; `tokens` are the camera tokens of the last round."""
        tokens = self.token_norm(tokens)
        plain = F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)
        raw: Tensor | None = None
        found = []
        for _ in range(self.iterations):
            before = self.empty_pose_tokens.expand(*tokens.shape[:2], -1) if raw is None else raw
            shift, scale, gate = self.poseLN_modulation(self.embed_pose(before)).chunk(3, -1)
            x = gate * (plain * (1 + scale) + shift) + tokens
            for block in self.trunk:
                x = block(x)
            change = self.pose_branch(self.trunk_norm(x))
            raw = change if raw is None else raw + change
            # The next iteration reads the raw encoding, whose fields of view may be below 0.
            found.append(torch.cat([raw[..., :7], F.relu(raw[..., 7:])], -1))
        return found


def matrices(
    encoded: Float[Tensor, "*frames 9"], height: int, width: int
) -> tuple[Float[Tensor, "*frames 3 4"], Float[Tensor, "*frames 3 3"]]:
    """camera_from_world (OpenCV axes) and K of pose encodings, for pictures of this size.

    The quaternion (x, y, z, w) need not have unit length. In K the image begins at 0: its centre
    is (width / 2, height / 2).
    """
    x, y, z, w = encoded[..., 3:7].unbind(-1)
    two = 2 / (encoded[..., 3:7] ** 2).sum(-1)
    rotation = torch.stack(
        [
            *(1 - two * (y * y + z * z), two * (x * y - z * w), two * (x * z + y * w)),
            *(two * (x * y + z * w), 1 - two * (x * x + z * z), two * (y * z - x * w)),
            *(two * (x * z - y * w), two * (y * z + x * w), 1 - two * (x * x + y * y)),
        ],
        -1,
    ).unflatten(-1, (3, 3))
    pose = torch.cat([rotation, encoded[..., :3, None]], -1)
    down, across = (encoded[..., 7:] / 2).tan().unbind(-1)
    focal_x, focal_y = width / 2 / across, height / 2 / down
    none, one = torch.zeros_like(down), torch.ones_like(down)
    K = torch.stack(
        [
            *(focal_x, none, one * (width / 2)),
            *(none, focal_y, one * (height / 2)),
            *(none, none, one),
        ],
        -1,
    ).unflatten(-1, (3, 3))
    return pose, K


def unproject(
    depth: Float[Tensor, "*frames height width"],
    camera_from_world: Float[Tensor, "*frames 3 4"],
    K: Float[Tensor, "*frames 3 3"],
) -> Float[Tensor, "*frames height width 3"]:
    """World points of all pixels; pixel (0, 0) is taken at (0, 0), as the network was trained."""
    height, width = depth.shape[-2:]
    v, u = torch.meshgrid(
        torch.arange(height, device=depth.device, dtype=depth.dtype),
        torch.arange(width, device=depth.device, dtype=depth.dtype),
        indexing="ij",
    )
    focal, centre = K.diagonal(dim1=-2, dim2=-1)[..., :2], K[..., :2, 2]
    fx, fy, cx, cy = (each[..., None, None] for pair in (focal, centre) for each in pair.unbind(-1))
    points = torch.stack([(u - cx) * depth / fx, (v - cy) * depth / fy, depth], -1)
    rotation, translation = camera_from_world[..., :3], camera_from_world[..., 3]
    return (points - translation[..., None, None, :]) @ rotation[..., None, :, :]
