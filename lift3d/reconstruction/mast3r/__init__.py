"""Photos to cameras and dense depth by MASt3R and its global alignment, both ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lift3d.networks import Precision
from lift3d.networks.weights import MAST3R
from lift3d.reconstruction.alignment.inputs import AlignmentConfig
from lift3d.reconstruction.pairs import PairsConfig
from lift3d.scene.errors import InputError, MissingExtra
from lift3d.scene.fingerprint import NAMES_A_FILE
from lift3d.scene.protocols import ReconstructorConfig, Seeded

if TYPE_CHECKING:
    from lift3d.reconstruction.mast3r.backend import Mast3rReconstruction


@dataclass(frozen=True)
class Mast3rConfig(Seeded, ReconstructorConfig):
    """Cameras and dense depth by MASt3R. Its weights are for non-commercial use only."""

    weights: str = field(default=MAST3R, metadata=NAMES_A_FILE)
    """A checkpoint's name (see `lift3d weights`), or the path of a .pth file or hub folder. The
    authors' are under CC BY-NC-SA 4.0: non-commercial."""
    size: Literal[512, 224] = 512
    """Longer side of the pictures as the network sees them; what the weights were trained for."""
    pairs: PairsConfig = field(default_factory=PairsConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    intrinsics: Literal["estimate", "near", "fixed"] = "estimate"
    """What the pictures' own intrinsics (EXIF, calibration) are worth: nothing, within 3 %, or
    held fixed."""
    poses: Literal["estimate", "near", "fixed"] = "estimate"
    """The same of poses that came with the pictures: nothing, within 2 degrees and 5 cm
    (without metres 3 % of how far the cameras are apart), fixed."""
    depth: Literal["estimate", "fixed"] = "estimate"
    """Keep the depth that came with the pictures, and fill in where it is missing."""
    ignore: Path | None = None
    """A folder of masks named like the pictures; what is not 0 in them (people, moving things,
    sky) takes no part."""
    stride: int = 8
    """Matches are sought from every n-th pixel."""
    min_confidence: float = 1.5
    """Depth of less confidence is dropped; the network's starts at 1."""
    device: str = "auto"
    """cpu, cuda, cuda:1; auto takes a GPU where there is one."""
    precision: Precision = "auto"
    """auto is bfloat16 where the hardware computes it, else float32."""
    batch: int | None = None
    """Pairs at a time; by default 8 on a GPU and 1 on a CPU."""
    memory: float = 2.0
    """GB of predictions kept in memory; the others wait in the run folder."""
    keep_predictions: bool = False
    """Leave the pair predictions in the run folder (1.6 MB a pair and direction), to align again
    with other settings without the network."""
    seed: int | None = None
    """Of the samples that relative poses are found with; by default the run's."""

    def build(self) -> Mast3rReconstruction:
        """The reconstructor; MissingExtra without torch, InputError without the weights."""
        if self.stride < 1:
            raise InputError(f"stride is {self.stride}; expected 1 or more")
        try:
            import torch  # noqa: F401
        except ImportError as error:
            raise MissingExtra(
                "reconstruction 'mast3r' needs torch: pip install 'lift3d[mast3r]'"
            ) from error
        from lift3d.reconstruction.mast3r.backend import Mast3rReconstruction

        return Mast3rReconstruction(self)
