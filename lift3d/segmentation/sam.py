"""Segment Anything (SAM) through its authors' package, from the weights as they publish them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from lift3d.networks.sam.official import SamNetwork
from lift3d.segmentation.prompted import PromptedConfig


@dataclass(frozen=True)
class SamConfig(PromptedConfig):
    """SAM (ViT-B, L or H): masks from points, boxes and masks. Better with a GPU."""

    called: ClassVar[str] = "SAM"
    needs: ClassVar[tuple[str, ...]] = ("transformers",)

    checkpoint: Path
    """sam_vit_b, sam_vit_l or sam_vit_h once `lift3d weights` has fetched it, or the path of the
    authors' .pth file (weights: Apache-2.0). Which of the models it is shows in it."""
    vit: Literal["auto", "b", "l", "h"] = "auto"
    """Refuse a checkpoint of another size than this."""

    def network(self) -> SamNetwork:
        """From the checkpoint."""
        return SamNetwork(self.checkpoint, self.vit, self.device, self.precision)
