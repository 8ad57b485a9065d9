"""Image encoders: SAM 2.1's, frozen; and a small one of our own, which is trained along."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lift3d.networks.mvsam.network import Features


class Sam2Encoder(nn.Module):
    """The encoder of a `transformers.Sam2Model`, frozen; the square image is normalised by its
    processor.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder: Any = model.vision_encoder.requires_grad_(False).eval()
        self.no_memory: Tensor
        self.register_buffer("no_memory", model.no_memory_embedding.detach().clone())
        self.side: int = model.prompt_encoder.input_image_size

    def train(self, mode: bool = True) -> Sam2Encoder:
        """Stays in evaluation mode."""
        return self

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "views 3 side side"]) -> Features:
        """Features of strides 16, 8 and 4."""
        fourfold, twice, image = self.encoder(images, return_dict=True).fpn_hidden_states[:3]
        return Features(image + self.no_memory.reshape(1, -1, 1, 1), twice, fourfold)


class SmallEncoder(nn.Module):
    """Convolutions of strides 2, 4 and 8, for experiments where SAM's weights are missing.

    It knows no positions: convolutions wrap around, so that the image's border, which zeros would
    mark, does not tell a token where it is.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.side = 128
        half = width // 2

        def block(inside: int, outside: int, stride: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(inside, outside, 3, stride, 1, padding_mode="circular"),
                nn.GroupNorm(8, outside),
                nn.GELU(),
            )

        self.first = nn.Sequential(block(3, half, 2), block(half, half, 1))
        self.second = nn.Sequential(block(half, width, 2), block(width, width, 1))
        self.third = nn.Sequential(
            block(width, width, 2), block(width, width, 1), block(width, width, 1)
        )
        self.widen = nn.Conv2d(half, width, 1)

    def forward(self, images: Float[Tensor, "views 3 side side"]) -> Features:
        """Features of strides 8, 4 and 2."""
        first = self.first(images)
        second = self.second(first)
        return Features(self.third(second), second, self.widen(first))
