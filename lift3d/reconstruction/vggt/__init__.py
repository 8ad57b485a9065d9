"""Photos or a video to cameras and dense depth by VGGT; many pictures in overlapping windows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from lift3d.networks import Precision
from lift3d.networks.known import VGGT
from lift3d.scene.errors import InputError, MissingExtra
from lift3d.scene.fingerprint import NAMES_A_FILE
from lift3d.scene.protocols import ReconstructorConfig

if TYPE_CHECKING:
    from lift3d.reconstruction.vggt.backend import VggtReconstruction

STEP = 14
"""The network's patch in pixels; sides of its input are multiples of it."""


@dataclass(frozen=True)
class VggtReconstructionConfig(ReconstructorConfig):
    """Cameras and dense depth by VGGT in one pass. The weights VGGT-1B are for non-commercial use
    only; VGGT-1B-Commercial may be used commercially but not for what its policy excludes.
    """

    weights: str = field(default=VGGT, metadata=NAMES_A_FILE)
    """A checkpoint's name (see `lift3d weights`), or the path of a .pt or .safetensors file or hub
    folder. VGGT-1B is non-commercial; VGGT-1B-Commercial is under the VGGT License."""
    mode: Literal["crop", "pad"] = "crop"
    """crop: pictures become `size` wide, of tall ones the middle is kept; pad: the whole picture
    is kept, its longer side becomes `size`, and white fills up a square."""
    size: int = 518
    """Side of the network's input in pixels, a multiple of 14; the weights were trained for 518."""
    window: int = 24
    """Most pictures that the network sees at once; memory grows with it, time with its square."""
    overlap: int = 6
    """Pictures that neighbouring windows share; they bring the windows into one frame."""
    order: Literal["given", "similar"] = "given"
    """Which pictures share a window: those next to each other as given (a video, a walk), or
    similar ones (photos in no order)."""
    intrinsics: Literal["estimate", "fixed"] = "estimate"
    """How the pictures' own intrinsics (EXIF, calibration) are used: estimate ignores them, fixed
    keeps them, and scales depth as the focal length changes."""
    poses: Literal["estimate", "near", "fixed"] = "estimate"
    """How given poses are used: estimate ignores them but for the scale; near takes their frame
    and unit (`refine` keeps within about 2 degrees and 5 cm, not metric: 5 % of the cameras'
    spread); fixed keeps them."""
    scale: Literal["auto", "none"] = "auto"
    """auto: metres where the pictures came with depth or poses in metres; none: the network's."""
    refine: bool = False
    """Refine cameras and depth by bundle adjustment with points that the network tracks."""
    queries: int = 3
    """For `refine`: pictures of each window whose points are tracked."""
    points: int = 400
    """For `refine`: points tracked from each of them."""
    iterations: int = 40
    """For `refine`: maximum number of steps."""
    min_confidence: float = 1.5
    """Drop depth of lower confidence; the network's confidence starts at 1. Not tuned: no
    published weights were at hand."""
    device: str = "auto"
    """cpu, cuda, cuda:1; auto uses a GPU if there is one."""
    precision: Precision = "auto"
    """auto is bfloat16 if the hardware supports it, else float32."""
    chunk: int | None = None
    """Pictures at a time in what treats them apart; by default 8 on a GPU and 1 on a CPU."""
    memory: float = 2.0
    """GB of predictions kept in memory; the others are kept in the run folder."""

    def build(self) -> VggtReconstruction:
        """The reconstructor; MissingExtra without torch, InputError without the weights."""
        if self.size < STEP or self.size % STEP:
            raise InputError(f"size is {self.size}; expected a multiple of {STEP}, such as 518")
        if self.window < 2:
            raise InputError(f"window is {self.window}; expected 2 pictures or more")
        if not 1 <= self.overlap < self.window:
            raise InputError(
                f"overlap is {self.overlap}; expected at least 1 and less than the window, which "
                f"is {self.window}"
            )
        if self.refine and min(self.queries, self.points, self.iterations) < 1:
            raise InputError("queries, points and iterations must each be 1 or more")
        try:
            import torch  # noqa: F401
        except ImportError as error:
            raise MissingExtra(
                "reconstruction 'vggt' needs torch: pip install 'lift3d[vggt]'"
            ) from error
        from lift3d.reconstruction.vggt.backend import VggtReconstruction

        return VggtReconstruction(self)
