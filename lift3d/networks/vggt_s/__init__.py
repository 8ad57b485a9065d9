"""VGGT-Segmentor (2604.13596): carries a mask from one picture to another picture of the place.

Written from published facts; the head loads the authors' weights key for key.
"""

from __future__ import annotations

from dataclasses import dataclass

from lift3d.scene.errors import InputError


@dataclass(frozen=True)
class HeadConfig:
    """Sizes of the union segmentation head; the defaults are the published ones."""

    size: int = 518
    """Side of both pictures in pixels. Feature maps have half of it."""
    cells: int = 37
    """Side of the grid on which both pictures attend to each other (the code: sa_tokens)."""
    width: int = 128
    """Channels of the track head's feature maps, and of all tokens."""
    blocks: int = 2
    heads: int = 8
    mask_channels: int = 16
    points: int = 5
    """Points per picture; any number can be given."""

    @property
    def grid(self) -> int:
        """Side of the feature maps."""
        return self.size // 2

    @property
    def ratio(self) -> int:
        """Pixels of a feature map per cell of the coarse grid, along one side."""
        return self.grid // self.cells

    def check(self, where: object) -> None:
        """InputError, naming `where`, where the sizes do not fit together."""
        if self.cells < 1 or self.ratio < 1 or self.ratio * self.cells != self.grid:
            raise InputError(
                f"{where}: pictures of {self.size} pixels have maps of {self.grid}, which "
                f"{self.cells} cells do not divide; with 7 pixels a cell, 420 pixels go with 30 "
                "cells, 518 with 37, 700 with 50"
            )
        if self.width % max(8, self.heads):
            raise InputError(
                f"{where}: the head has {self.width} channels and {self.heads} heads; expected a "
                f"multiple of {max(8, self.heads)} channels"
            )
