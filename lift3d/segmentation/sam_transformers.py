"""The SAM family of the `transformers` library: SAM, SAM 2, HQ-SAM, SAM 3's tracker, ..."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from lift3d.networks.sam.transformers import TransformersNetwork
from lift3d.scene.fingerprint import NAMES_A_FILE
from lift3d.segmentation.prompted import PromptedConfig


@dataclass(frozen=True)
class SamTransformersConfig(PromptedConfig):
    """Any model of transformers with SAM's prompt interface: SAM 2, HQ-SAM, SAM 3, ..."""

    called: ClassVar[str] = "sam-hf"
    needs: ClassVar[tuple[str, ...]] = ("torchvision", "transformers")  # its image processors

    checkpoint: str = field(metadata=NAMES_A_FILE)
    """A folder with config.json, preprocessor_config.json and model.safetensors, or a name on the
    Hugging Face hub, such as facebook/sam2.1-hiera-small (SAM and SAM 2: Apache-2.0; SAM 3 has
    its own licence, which must be accepted on the hub)."""
    local_files_only: bool = False
    """Do not download; the model must be in the hub's cache."""

    def network(self) -> TransformersNetwork:
        """Load the network from the checkpoint."""
        return TransformersNetwork(
            self.checkpoint, self.local_files_only, self.device, self.precision
        )
