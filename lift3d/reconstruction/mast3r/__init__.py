"""Photos to cameras and dense depth by MASt3R and global alignment, both written here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lift3d.networks import Precision
from lift3d.networks.known import MAST3R
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
    authors' weights are under CC BY-NC-SA 4.0: non-commercial."""
    size: Literal[512, 224] = 512
    """Longer side of the network's input in pixels; the size the weights were trained for."""
    pairs: PairsConfig = field(default_factory=PairsConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    intrinsics: Literal["estimate", "near", "fixed"] = "estimate"
    """How the pictures' own intrinsics (EXIF, calibration) are used: estimate ignores them, near
    keeps the focal length within about 3 %, fixed keeps them."""
    poses: Literal["estimate", "near", "fixed"] = "estimate"
    """How given poses are used: estimate ignores them, near keeps them within about 2 degrees and
    5 cm (not metric: 3 % of the camera distances), fixed keeps them."""
    depth: Literal["estimate", "fixed"] = "estimate"
    """fixed keeps the depth that came with the pictures, and estimates it only where missing."""
    ignore: Path | None = None
    """Folder of masks named like the pictures; pixels that are not 0 (people, moving objects,
    sky) are ignored."""
    stride: int = 8
    """Search matches from every n-th pixel."""
    min_confidence: float = 1.5
    """Drop depth of lower confidence; the network's confidence starts at 1."""
    device: str = "auto"
    """cpu, cuda, cuda:1; auto uses a GPU if there is one."""
    precision: Precision = "auto"
    """auto is bfloat16 if the hardware supports it, else float32."""
    batch: int | None = None
    """Pairs per batch; by default 8 on a GPU and 1 on a CPU."""
    memory: float = 2.0
    """GB of predictions kept in memory; the others are kept in the run folder."""
    keep_predictions: bool = False
    """Keep the pair predictions in the run folder (1.6 MB per pair and direction), to align again
    with other settings without the network."""
    seed: int | None = None
    """Seed of RANSAC for relative poses; by default the run's."""

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
