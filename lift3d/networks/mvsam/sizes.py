"""Sizes and options of MV-SAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lift3d.scene.errors import InputError


@dataclass(frozen=True)
class MvSamConfig:
    """MV-SAM on SAM 2.1; the defaults have its sizes: about 4.1 million trained parameters.

    Fields marked *uncertain* are not settled by what is published; the first reading is ours.
    """

    width: int = 256
    """Of tokens. Uncertain: notes on the paper say codes of 128 numbers; its count of parameters
    fits 256."""
    heads: int = 8
    layers: int = 2
    mlp: int = 2048
    mask_channels: int = 16
    """Of the convolutions of a mask prompt."""
    code: Literal["3d", "2d", "none"] = "3d"
    """What a token's positional code is of: its 3D point, or, to compare, its pixel or nothing."""
    learned_code: bool = False
    """Whether the frequencies B are trained. Uncertain; SAM's are random and fixed."""
    scale: float = 1.0
    """Standard deviation of the frequencies, as SAM's."""
    code_in_attention: bool = True
    """Whether the code is added to the keys of every attention layer, as in SAM, or only once to
    the image features. Uncertain."""
    confidence_vectors: bool = True
    """Whether two learned vectors say which points are of low confidence."""
    low_share: float = 0.15
    """Share of the points, over all views, that are of low confidence."""
    statistics: Literal["all", "confident"] = "all"
    """Points of which mean and standard deviation are taken. Uncertain."""
    cell: Literal["mean", "centre"] = "mean"
    """Point of a token: the mean of its pixels' points, or that of its central pixel. Uncertain."""
    high_resolution: bool = True
    """Whether features of strides 4 and 8 reach the mask head, as in SAM 2. Uncertain."""
    several_masks: bool = False
    """Whether the best of three masks is taken. Uncertain; one mask fits many prompts."""
    box: Literal["corners", "inside"] = "corners"
    """A box as two tokens with the points of its corner pixels, whose depth is arbitrary, or as
    positive points of five pixels inside. Uncertain."""
    mask_prompt: Literal["dense", "points"] = "dense"
    """A mask as SAM's convolved map in its own view, or as ten points inside. Uncertain."""

    def check(self) -> None:
        """InputError where sizes make no sense."""
        if self.width % 16 or self.width % self.heads or (self.width // 2) % self.heads:
            raise InputError(
                f"width is {self.width}, heads is {self.heads}; width has to be a multiple of 16 "
                "and of twice the heads"
            )
        if not 0 <= self.low_share < 1:
            raise InputError(f"low_share is {self.low_share}; expected 0 up to 1")
