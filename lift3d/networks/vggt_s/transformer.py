"""The two-way transformer with fusion of both pictures on a coarse grid (2604.13596)."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu, scaled_dot_product_attention

from lift3d.networks.vggt_s import HeadConfig
from lift3d.networks.vggt_s.prompts import Codes


class Attention(nn.Module):
    """Attention with separate projections of query, key and value."""

    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(width, inner)
        self.k_proj = nn.Linear(width, inner)
        self.v_proj = nn.Linear(width, inner)
        self.out_proj = nn.Linear(inner, width)

    def forward(
        self, q: Float[Tensor, "n a c"], k: Float[Tensor, "n b c"], v: Float[Tensor, "n b c"]
    ) -> Float[Tensor, "n a c"]:
        """One row per query."""
        split = [
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        ]
        found = scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        out: Tensor = self.out_proj(found)
        return out


class Mlp(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Float[Tensor, "*n before"]) -> Float[Tensor, "*n after"]:
        """New features of each row."""
        for layer in self.layers[:-1]:
            x = relu(layer(x))
        out: Tensor = self.layers[-1](x)
        return out


class Block(nn.Module):
    """Fusion of the pictures, then tokens and pictures attend to each other; post-norm."""

    def __init__(self, config: HeadConfig, first: bool) -> None:
        super().__init__()
        width, ratio, heads = config.width, config.ratio, config.heads
        coarse = width * ratio
        self.first = first
        self.downsampling = nn.Conv2d(width, coarse, ratio, ratio)
        self.self_attn_img = Attention(coarse, 2 * width, heads)
        self.norm0 = nn.LayerNorm(coarse)
        self.img_mlp = Mlp(coarse, 4 * coarse, coarse)
        self.norm_ffn = nn.LayerNorm(coarse)
        self.upsampling = nn.ConvTranspose2d(coarse, width, ratio, ratio)
        self.norm_nf = nn.LayerNorm(width)
        self.self_attn_token = Attention(width, width, heads)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn_token_to_image = Attention(width, width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.token_mlp = Mlp(width, 4 * width, width)
        self.norm3 = nn.LayerNorm(width)
        self.cross_attn_image_to_token = Attention(width, width, heads)
        self.norm4 = nn.LayerNorm(width)

    def forward(
        self,
        q: Float[Tensor, "n tokens c"],
        t0: Float[Tensor, "n tokens c"],
        k: Float[Tensor, "n pixels c"],
        codes: Codes,
    ) -> tuple[Float[Tensor, "n tokens c"], Float[Tensor, "n pixels c"]]:
        """New tokens `q` and new tokens `k` of the pictures; `t0` are the first tokens."""
        k = self._fused(k, codes.coarse)
        if self.first:
            q = self.self_attn_token(q, q, q)
        else:
            q = q + self.self_attn_token(q + t0, q + t0, q)
        q = self.norm1(q)
        q = self.norm2(q + self.cross_attn_token_to_image(q + t0, k + codes.fine, k))
        q = self.norm3(q + self.token_mlp(q))
        k = self.norm4(k + self.cross_attn_image_to_token(k + codes.fine, q + t0, q))
        return q, k

    def _fused(
        self, k: Float[Tensor, "n pixels c"], code: Float[Tensor, "cells both_cells coarse"]
    ) -> Float[Tensor, "n pixels c"]:
        """Both pictures attend to each other on the coarse grid.

        Convolutions whose kernel is their stride treat the pictures, which lie side by side, as
        if they were apart.
        """
        grid = code.shape[0] * self.downsampling.stride[0]
        x = self.downsampling(k.transpose(1, 2).unflatten(2, (grid, 2 * grid)))
        x = x.flatten(2).transpose(1, 2)
        at = x + code.flatten(0, 1)
        x = self.norm0(x + self.self_attn_img(at, at, x))
        x = self.norm_ffn(x + self.img_mlp(x))
        x = self.upsampling(x.transpose(1, 2).unflatten(2, code.shape[:2]))
        out: Tensor = self.norm_nf(k + x.flatten(2).transpose(1, 2))
        return out


class TwoWayTransformer(nn.Module):
    """Blocks, then a last attention of the tokens to the pictures."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(config, i == 0) for i in range(config.blocks))
        self.final_attn_token_to_image = Attention(config.width, config.width, config.heads)
        self.norm_final_attn = nn.LayerNorm(config.width)

    def forward(
        self, tokens: Float[Tensor, "n tokens c"], k: Float[Tensor, "n pixels c"], codes: Codes
    ) -> tuple[Float[Tensor, "n tokens c"], Float[Tensor, "n pixels c"]]:
        """The tokens and the pictures' tokens after all blocks."""
        q = tokens
        for block in self.layers:
            q, k = block(q, tokens, k, codes)
        q = q + self.final_attn_token_to_image(q + tokens, k + codes.fine, k)
        return self.norm_final_attn(q), k


def side_by_side(
    source: Float[Tensor, "n c side side"], target: Float[Tensor, "n c side side"]
) -> Float[Tensor, "n pixels c"]:
    """Maps of two pictures as one list of tokens, row by row over both."""
    return torch.cat([source, target], 3).flatten(2).transpose(1, 2)
