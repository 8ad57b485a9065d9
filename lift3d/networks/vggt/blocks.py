"""Transformer blocks of the patch embedder, the aggregator and the camera head."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lift3d.networks.rope import Turn


class Mlp(nn.Module):
    """Two linear layers with the exact GELU between them."""

    def __init__(self, width_in: int, hidden: int, width_out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width_in, hidden)
        self.fc2 = nn.Linear(hidden, width_out)

    def forward(self, x: Float[Tensor, "*tokens channels"]) -> Float[Tensor, "*tokens channels_"]:
        """Applied to each token."""
        return self.fc2(F.gelu(self.fc1(x)))


class Attention(nn.Module):
    """Self-attention; queries, keys and values in one matrix."""

    def __init__(self, width: int, heads: int, norms: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.q_norm, self.k_norm = (
            nn.LayerNorm(width // heads) if norms else nn.Identity() for _ in range(2)
        )

    def forward(
        self, x: Float[Tensor, "batch tokens width"], turn: Turn | None
    ) -> Float[Tensor, "batch tokens width"]:
        """Each token attends to all tokens of its sequence; norms come before the rotation."""
        qkv = self.qkv(x).unflatten(2, (3, self.heads, -1))
        q, k, v = (part.transpose(1, 2) for part in qkv.unbind(2))
        q, k = self.q_norm(q), self.k_norm(k)
        if turn is not None:
            q, k = turn(q), turn(k)
        # Norms and rotation are in float32 also where the products are not.
        found = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v)
        return self.proj(found.transpose(1, 2).flatten(2))


class Scale(nn.Module):
    """A factor for each channel (layer scale, Touvron et al., 2103.17239)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "*tokens width"]) -> Float[Tensor, "*tokens width"]:
        """The scaled channels."""
        return x * self.gamma


class Block(nn.Module):
    """Self-attention and MLP, each with normalised input and a skip connection."""

    def __init__(self, width: int, heads: int, norms: bool = False, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, epsilon)
        self.attn = Attention(width, heads, norms)
        self.ls1 = Scale(width)
        self.norm2 = nn.LayerNorm(width, epsilon)
        self.mlp = Mlp(width, 4 * width, width)
        self.ls2 = Scale(width)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        turn: Turn | None = None,
        most: int | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """One layer; the MLP, which needs four times the memory, on `most` tokens at a time."""
        x = x + self.ls1(self.attn(self.norm1(x), turn))
        return in_parts(lambda part: part + self.ls2(self.mlp(self.norm2(part))), x, most, 1)


def in_parts(
    function: Callable[[Tensor], Tensor], x: Tensor, most: int | None, dim: int = 0
) -> Tensor:
    """`function` of runs of at most `most` entries of `x` along `dim`, joined again.

    For functions that treat entries apart: it bounds memory and changes no value.
    """
    if most is None or x.shape[dim] <= most:
        return function(x)
    return torch.cat([function(part) for part in x.split(most, dim)], dim)
