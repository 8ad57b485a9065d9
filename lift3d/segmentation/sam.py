"""Segment Anything (SAM) from its authors' weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from lift3d.networks.sam.official import SamNetwork
from lift3d.segmentation.prompted import PromptedConfig


@dataclass(frozen=True)
class SamConfig(PromptedConfig):
    """SAM (ViT-B, L or H): masks from points, boxes and masks. A GPU is recommended."""

    called: ClassVar[str] = "SAM"
    needs: ClassVar[tuple[str, ...]] = ("transformers",)

    checkpoint: Path
    """sam_vit_b, sam_vit_l or sam_vit_h after `lift3d weights` has fetched it, or the path of the
    authors' .pth file (weights: Apache-2.0). The model size is read from the file."""
    vit: Literal["auto", "b", "l", "h"] = "auto"
    """Expected model size; a checkpoint of another size is an error."""

    def network(self) -> SamNetwork:
        """Load the network from the checkpoint."""
        return SamNetwork(self.checkpoint, self.vit, self.device, self.precision)
