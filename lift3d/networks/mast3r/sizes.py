"""Sizes of the network."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the network; the defaults are the published ViT-Large model's."""

    encoder_width: int = 1024
    encoder_depth: int = 24
    encoder_heads: int = 16
    decoder_width: int = 768
    decoder_depth: int = 12
    decoder_heads: int = 12
    dpt_widths: tuple[int, int, int, int] = (96, 192, 384, 768)
    """Channels of the four input maps of the DPT, finest first."""
    dpt_features: int = 256
    dpt_last: int = 128
    descriptor_width: int = 24
    patch: int = 16

    @property
    def hooks(self) -> tuple[int, int, int, int]:
        """The decoder layers that the DPT uses; 0 is the encoder."""
        depth = self.decoder_depth
        return 0, depth * 2 // 4, depth * 3 // 4, depth
