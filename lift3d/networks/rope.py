"""Rotary position embedding over rows and columns (Su et al., 2104.09864, in two dimensions)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

BASE = 100.0
"""Base of the frequencies in the published models: RoPE100."""


@dataclass(frozen=True, eq=False)
class Turn:
    """The rotation of each token's channels, the same for all heads and images of one size."""

    cos: Float[Tensor, "tokens channels"]
    sin: Float[Tensor, "tokens channels"]

    @staticmethod
    def of(positions: Int[Tensor, "tokens 2"], channels: int, base: float = BASE) -> Turn:
        """The first half of a head's channels is rotated by the row, the second by the column.

        Within a half of D channels, channels k and k + D/2 form a plane that is rotated by
        base^(-2k/D) radians per row or column.
        """
        half = channels // 2
        exponent = torch.arange(0, half, 2, device=positions.device) / half
        angle = positions[:, :, None].float() * base**-exponent
        angle = torch.cat([angle, angle], dim=2).flatten(1)
        return Turn(angle.cos(), angle.sin())

    def __call__(
        self, x: Float[Tensor, "batch heads tokens channels"]
    ) -> Float[Tensor, "batch heads tokens channels"]:
        """The rotated queries or keys."""
        turned = x * self.cos
        before, after = x.unflatten(3, (2, 2, -1)), turned.unflatten(3, (2, 2, -1))
        sin = self.sin.unflatten(1, (2, 2, -1))[:, :, 0]
        after[..., 0, :].addcmul_(before[..., 1, :], sin, value=-1)
        after[..., 1, :].addcmul_(before[..., 0, :], sin)
        return turned.to(x.dtype)


def grid(rows: int, columns: int, device: torch.device) -> Int[Tensor, "tokens 2"]:
    """The (row, column) of each token, row by row."""
    return torch.cartesian_prod(
        torch.arange(rows, device=device), torch.arange(columns, device=device)
    )
