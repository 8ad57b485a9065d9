"""Encode positions, points and masks (2604.13596, prompt encoder)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, grid_sample, interpolate

from lift3d.networks.vggt_s import HeadConfig

INSIDE = 30.0
"""Logit of a pixel of the source mask; minus it outside."""


class Fourier(nn.Module):
    """Random Fourier features of positions; the frequencies are part of the weights."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, channels // 2))

    def forward(self, xy: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n channels"]:
        """The code of positions from 0 to 1."""
        angle = 2 * math.pi * ((2 * xy - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([angle.sin(), angle.cos()], -1)

    def grid(self, side: int) -> Float[Tensor, "side side channels"]:
        """The code of the centres of a square of cells."""
        at = (torch.arange(side, device=self.positional_encoding_gaussian_matrix.device) + 0.5) / (
            side
        )
        y, x = torch.meshgrid(at, at, indexing="ij")
        return self(torch.stack([x, y], -1))


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The same shape."""
        x = x - x.mean(1, keepdim=True)
        x = x / (x.pow(2).mean(1, keepdim=True) + 1e-6).sqrt()
        return x * self.weight[:, None, None] + self.bias[:, None, None]


class Codes(NamedTuple):
    """Position codes of both pictures, side by side: source left, target right."""

    fine: Float[Tensor, "tokens width"]
    """Of the pixels of the feature maps, row by row over both pictures."""
    coarse: Float[Tensor, "cells both_cells coarse_width"]


class PromptEncoder(nn.Module):
    """Codes of positions, points and masks."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        width, coarse = config.width, config.width * config.ratio
        self.ca_pe_layer = Fourier(width)
        self.sa_pe_layer = Fourier(coarse)
        self.ca_src_img_pe = nn.Embedding(1, width)
        self.ca_tar_img_pe = nn.Embedding(1, width)
        self.sa_src_img_pe = nn.Embedding(1, coarse)
        self.sa_tar_img_pe = nn.Embedding(1, coarse)
        self.src_point_pe = nn.Embedding(1, width)
        self.tar_point_pe = nn.Embedding(1, width)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, config.mask_channels, 2, 2),
            ChannelNorm(config.mask_channels),
            nn.GELU(),
            nn.Conv2d(config.mask_channels, width, 1),
        )

    def codes(self) -> Codes:
        """Of all pixels of the maps and all cells; the same for all inputs."""
        fine, coarse = (
            torch.cat([layer.grid(side) + own.weight[0] for own in owners], 1)
            for layer, side, owners in (
                (self.ca_pe_layer, self.config.grid, (self.ca_src_img_pe, self.ca_tar_img_pe)),
                (self.sa_pe_layer, self.config.cells, (self.sa_src_img_pe, self.sa_tar_img_pe)),
            )
        )
        return Codes(fine.flatten(0, 1), coarse)

    def point_features(
        self, source_map: Float[Tensor, "n c h w"], xy: Float[Tensor, "n points 2"]
    ) -> Float[Tensor, "n points c"]:
        """The source picture's features at points, before any vector is added."""
        return sampled(source_map, xy, self.config.size)

    def tokens(
        self,
        source_xy: Float[Tensor, "n points 2"],
        target_xy: Float[Tensor, "n points 2"],
        features: Float[Tensor, "n points width"],
    ) -> Float[Tensor, "n tokens width"]:
        """Tokens of the points: source, target, features of the source points.

        `features` must hold the source vector once per pass so far, this one included: the
        authors' code adds it to its argument in place, and their weights were trained so.
        """
        source, target = (
            self.ca_pe_layer((xy + 0.5) / self.config.size) + own.weight
            for xy, own in ((source_xy, self.src_point_pe), (target_xy, self.tar_point_pe))
        )
        return torch.cat([source, target, features], 1)

    def source_mask(
        self, masks: Float[Tensor, "n size size"]
    ) -> Float[Tensor, "n width grid grid"]:
        """The code of masks, above 0.5 inside."""
        logits = torch.where(masks > 0.5, INSIDE, -INSIDE)
        code: Tensor = self.mask_downscaling(logits[:, None])
        return code

    def target_mask(
        self, low_res: Float[Tensor, "n 1 large large"]
    ) -> Float[Tensor, "n width grid grid"]:
        """The code of the logits of the pass before."""
        side = [self.config.size] * 2
        small = interpolate(low_res, side, mode="bilinear", antialias=True, align_corners=False)
        code: Tensor = self.mask_downscaling(small)
        return code


def sampled(
    maps: Float[Tensor, "n c h w"], xy: Float[Tensor, "n points 2"], size: int
) -> Float[Tensor, "n points c"]:
    """Bilinear samples of maps at pixels of pictures of `size`; outside, the nearest border."""
    at = (2 * xy / (size - 1) - 1).clamp(-1, 1)
    found = grid_sample(maps, at[:, None], align_corners=True, padding_mode="border")
    return found[:, :, 0].transpose(1, 2)


class Upscaling(nn.Sequential):
    """The target's tokens to pixels: four times the side, an eighth of the channels."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.ConvTranspose2d(width, width // 4, 2, 2),
            ChannelNorm(width // 4),
            nn.GELU(),
            nn.ConvTranspose2d(width // 4, width // 8, 2, 2),
        )

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d large_h large_w"]:
        """Features of pixels, after the last GELU."""
        return gelu(super().forward(x))
