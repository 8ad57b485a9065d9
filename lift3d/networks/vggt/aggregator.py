"""Pictures to tokens: a DINOv2 patch embedder (Oquab et al., 2304.07193; registers: Darcet et
al., 2309.16588), then blocks within each frame and across all frames in turn (VGGT, section 3.2).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lift3d.networks.rope import Turn, grid
from lift3d.networks.vggt.blocks import Block, in_parts
from lift3d.networks.vggt.sizes import VggtConfig

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the colours in ImageNet, by which the input is normalised."""


@dataclass(frozen=True, eq=False)
class Aggregated:
    """Tokens of all frames after some rounds, and the sizes of the pictures."""

    layers: dict[int, Float[Tensor, "batch frames tokens channels"]]
    """By round: the frame block's output and the global block's, joined along channels."""
    height: int
    width: int
    rows: int
    """Of patches."""
    columns: int
    special: int
    """Tokens before the patches: the camera token and the registers."""

    @property
    def shape(self) -> tuple[int, int]:
        """Batch and frames."""
        batch, frames = next(iter(self.layers.values())).shape[:2]
        return batch, frames


class PatchProjection(nn.Module):
    """Pixels to one token for each patch."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(
        self, images: Float[Tensor, "frames 3 height width"]
    ) -> Float[Tensor, "frames channels rows columns"]:
        """The map of tokens."""
        return self.proj(images)


class PatchEmbedder(nn.Module):
    """DINOv2 with registers; only the tokens of patches are used."""

    def __init__(self, config: VggtConfig) -> None:
        super().__init__()
        width, side = config.embed_dim, config.base_img_size // config.patch_size
        self.side = side
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + side**2, width))
        self.register_tokens = nn.Parameter(torch.zeros(1, config.num_register_tokens, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # unused since its training
        self.patch_embed = PatchProjection(config.patch_size, width)
        self.blocks = nn.ModuleList(
            Block(width, config.dino_heads, epsilon=1e-6) for _ in range(config.dino_depth)
        )
        self.norm = nn.LayerNorm(width, 1e-6)

    def positions(self, rows: int, columns: int) -> Float[Tensor, "tokens width"]:
        """The table of positions for the class token and this many patches.

        Of another shape than the trained one, it is resized as a picture (bicubic, antialiased).
        """
        table = self.pos_embed[0].float()
        if rows == columns == self.side:
            return table
        picture = table[1:].mT.unflatten(1, (self.side, self.side))[None]
        resized = F.interpolate(
            picture, (rows, columns), mode="bicubic", antialias=True, align_corners=False
        )
        return torch.cat([table[:1], resized[0].flatten(1).mT])

    def forward(
        self, images: Float[Tensor, "frames 3 height width"]
    ) -> Float[Tensor, "frames patches channels"]:
        """The tokens of the patches, row by row; `images` are normalised."""
        picture = self.patch_embed(images)
        count, _, rows, columns = picture.shape
        x = torch.cat([self.cls_token.expand(count, -1, -1), picture.flatten(2).mT], 1)
        x = x + self.positions(rows, columns)
        registers = self.register_tokens.expand(count, -1, -1)
        x = torch.cat([x[:, :1], registers, x[:, 1:]], 1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, 1 + self.register_tokens.shape[1] :])


class Aggregator(nn.Module):
    """Rounds of a block within each frame and a block across all frames."""

    def __init__(self, config: VggtConfig) -> None:
        super().__init__()
        self.config = config
        width, heads = config.embed_dim, config.num_heads
        self.patch_embed = PatchEmbedder(config)
        # Of each the first is for frame 0, the second for all others.
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, width))
        self.register_token = nn.Parameter(torch.zeros(1, 2, config.num_register_tokens, width))
        self.frame_blocks, self.global_blocks = (
            nn.ModuleList(Block(width, heads, norms=True) for _ in range(config.depth))
            for _ in range(2)
        )

    def embed(
        self, images: Float[Tensor, "frames 3 height width"], chunk: int
    ) -> Float[Tensor, "frames patches channels"]:
        """The patch embedder's tokens of pictures with colours from 0 to 1."""
        mean, deviation = (
            torch.tensor(each, dtype=images.dtype, device=images.device)[:, None, None]
            for each in (MEAN, DEVIATION)
        )
        return in_parts(lambda part: self.patch_embed((part - mean) / deviation), images, chunk)

    def forward(
        self,
        images: Float[Tensor, "batch frames 3 height width"],
        kept: Collection[int],
        chunk: int,
    ) -> Aggregated:
        """Tokens after the rounds `kept`; what treats frames apart does `chunk` at a time."""
        batch, frames, _, height, width = images.shape
        patch = self.config.patch_size
        rows, columns = height // patch, width // patch
        patches = self.embed(images.flatten(0, 1), chunk).unflatten(0, (batch, frames))
        special = torch.cat([self.camera_token, self.register_token], 2)
        per_frame = torch.cat([special[:, :1], special[:, 1:].expand(-1, frames - 1, -1, -1)], 1)
        x = torch.cat([per_frame.expand(batch, -1, -1, -1), patches], 2)
        tokens = x.shape[2]
        turn = self._turn(rows, columns, x)
        turn_all = Turn(turn.cos.repeat(frames, 1), turn.sin.repeat(frames, 1))
        layers = {}
        for number, (inner, across) in enumerate(
            zip(self.frame_blocks, self.global_blocks, strict=True)
        ):
            within = in_parts(partial(inner, turn=turn), x.flatten(0, 1), chunk)
            x = within.unflatten(0, (batch, frames))
            found = across(x.flatten(1, 2), turn_all, chunk * tokens)
            found = found.unflatten(1, (frames, tokens))
            if number in kept:
                layers[number] = torch.cat([x, found], 3)
            x = found
            if number == max(kept):
                break
        return Aggregated(layers, height, width, rows, columns, self.config.special_tokens)

    def _turn(self, rows: int, columns: int, x: Tensor) -> Turn:
        """Patches are at (row + 1, column + 1); special tokens at (0, 0), which turns nothing."""
        at = grid(rows, columns, x.device) + 1
        at = torch.cat([at.new_zeros(self.config.special_tokens, 2), at])
        channels = self.config.embed_dim // self.config.num_heads
        return Turn.of(at, channels, float(self.config.rope_freq))
