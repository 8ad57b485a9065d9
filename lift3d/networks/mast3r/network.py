"""The MASt3R network (Leroy et al., 2406.09756): one encoder, two decoders with cross-attention.

Each picture is encoded once; a pair is decoded from two encodings; the head of each view predicts
points or descriptors. Module names follow the keys of the published weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lift3d.networks.mast3r.heads import Decoded, Head, Linear, Mlp
from lift3d.networks.mast3r.sizes import NetworkConfig
from lift3d.networks.rope import Turn, grid

EPSILON = 1e-6


@dataclass(frozen=True, eq=False)
class Encoded:
    """Tokens of some pictures of one size."""

    tokens: Float[Tensor, "batch tokens width"]
    rows: int
    columns: int

    def turn(self, channels: int) -> Turn:
        """The position embedding of these tokens for attention heads of `channels` channels."""
        return Turn.of(grid(self.rows, self.columns, self.tokens.device), channels)


class Attention(nn.Module):
    """Self-attention; queries, keys and values in one matrix."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(
        self, x: Float[Tensor, "batch tokens width"], turn: Turn
    ) -> Float[Tensor, "batch tokens width"]:
        """Each token attends to all tokens of its picture."""
        q, k, v = (_split(part, self.heads) for part in self.qkv(x).chunk(3, dim=2))
        return self.proj(_join(F.scaled_dot_product_attention(turn(q), turn(k), v)))


class CrossAttention(nn.Module):
    """Attention from one picture's tokens to another's."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projq = Linear(width, width)
        self.projk = Linear(width, width)
        self.projv = Linear(width, width)
        self.proj = Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        memory: Float[Tensor, "batch others width"],
        turn: Turn,
        memory_turn: Turn,
    ) -> Float[Tensor, "batch tokens width"]:
        """Each token attends to all tokens of `memory`; positions are in their own pictures."""
        memory = memory.to(self.projk.weight.dtype)  # once for keys and values
        q = turn(_split(self.projq(x), self.heads))
        k = memory_turn(_split(self.projk(memory), self.heads))
        v = _split(self.projv(memory), self.heads)
        return self.proj(_join(F.scaled_dot_product_attention(q, k, v)))


class EncoderBlock(nn.Module):
    """Self-attention and MLP, each with normalised input and a skip connection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, EPSILON)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, EPSILON)
        self.mlp = Mlp(width, 4 * width, width)

    def forward(
        self, x: Float[Tensor, "batch tokens width"], turn: Turn
    ) -> Float[Tensor, "batch tokens width"]:
        """One layer."""
        x = x + self.attn(self.norm1(x), turn)
        return x + self.mlp(self.norm2(x))


class DecoderBlock(nn.Module):
    """Self-attention, cross-attention to the other picture, and MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, EPSILON)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, EPSILON)
        self.norm_y = nn.LayerNorm(width, EPSILON)
        self.cross_attn = CrossAttention(width, heads)
        self.norm3 = nn.LayerNorm(width, EPSILON)
        self.mlp = Mlp(width, 4 * width, width)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        other: Float[Tensor, "batch others width"],
        turn: Turn,
        other_turn: Turn,
    ) -> Float[Tensor, "batch tokens width"]:
        """One layer; `other` is the other picture's tokens before this layer."""
        x = x + self.attn(self.norm1(x), turn)
        x = x + self.cross_attn(self.norm2(x), self.norm_y(other), turn, other_turn)
        return x + self.mlp(self.norm3(x))


class PatchEmbed(nn.Module):
    """Pixels to tokens."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch channels rows columns"]:
        """One token for each patch."""
        return self.proj(images)


class Mast3r(nn.Module):
    """The complete network. Run it under `torch.inference_mode()`."""

    def __init__(self, config: NetworkConfig = NetworkConfig()) -> None:  # noqa: B008 - frozen
        super().__init__()
        self.config = config
        width, heads = config.decoder_width, config.decoder_heads
        self.patch_embed = PatchEmbed(config.patch, config.encoder_width)
        self.enc_blocks = nn.ModuleList(
            EncoderBlock(config.encoder_width, config.encoder_heads)
            for _ in range(config.encoder_depth)
        )
        self.enc_norm = nn.LayerNorm(config.encoder_width, EPSILON)
        self.decoder_embed = Linear(config.encoder_width, width)
        self.dec_blocks, self.dec_blocks2 = (
            nn.ModuleList(DecoderBlock(width, heads) for _ in range(config.decoder_depth))
            for _ in range(2)
        )
        self.dec_norm = nn.LayerNorm(width, EPSILON)
        self.downstream_head1 = Head(config)
        self.downstream_head2 = Head(config)

    def encode(self, images: Float[Tensor, "batch 3 height width"]) -> Encoded:
        """Tokens of pictures of one size; sides are multiples of the patch, values -1 to 1."""
        picture = self.patch_embed(images)
        rows, columns = picture.shape[2:]
        x = picture.flatten(2).mT
        turn = Encoded(x, rows, columns).turn(
            self.config.encoder_width // self.config.encoder_heads
        )
        for block in self.enc_blocks:
            x = block(x, turn)
        return Encoded(self.enc_norm(x), rows, columns)

    def decode(self, first: Encoded, second: Encoded) -> tuple[Decoded, Decoded]:
        """The tokens of pairs after every layer, of view 1 and of view 2."""
        channels = self.config.decoder_width // self.config.decoder_heads
        turn_1, turn_2 = first.turn(channels), second.turn(channels)
        x_1, x_2 = (
            self.decoder_embed(first.tokens).float(),
            self.decoder_embed(second.tokens).float(),
        )
        layers_1, layers_2 = [first.tokens], [second.tokens]
        for block_1, block_2 in zip(self.dec_blocks, self.dec_blocks2, strict=True):
            x_1, x_2 = block_1(x_1, x_2, turn_1, turn_2), block_2(x_2, x_1, turn_2, turn_1)
            layers_1.append(x_1)
            layers_2.append(x_2)
        layers_1[-1], layers_2[-1] = self.dec_norm(x_1), self.dec_norm(x_2)
        return (
            Decoded(layers_1, first.rows, first.columns),
            Decoded(layers_2, second.rows, second.columns),
        )

    def head(self, view: int) -> Head:
        """The head for view 1 or view 2 of a pair."""
        return {1: self.downstream_head1, 2: self.downstream_head2}[view]

    def compute_in(self, precision: torch.dtype) -> Mast3r:
        """Store and multiply the transformer's matrices in `precision`.

        Sums, norms and convolutions stay in float32: points are an exponential of the DPT's
        output, so half precision there costs much accuracy and saves little.
        """
        for module in self.modules():
            if isinstance(module, Linear):
                module.to(precision)
        return self


def _split(
    x: Float[Tensor, "batch tokens width"], heads: int
) -> Float[Tensor, "batch heads tokens channels"]:
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def _join(
    x: Float[Tensor, "batch heads tokens channels"],
) -> Float[Tensor, "batch tokens width"]:
    return x.transpose(1, 2).flatten(2)
