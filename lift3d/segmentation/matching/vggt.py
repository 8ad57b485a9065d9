"""Correspondences by VGGT's point tracker, from images only."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float32, Float64

from lift3d.networks import Precision
from lift3d.networks.known import VGGT
from lift3d.networks.weights import find
from lift3d.scene import Matches, View
from lift3d.scene.errors import InputError, MissingExtra
from lift3d.scene.fingerprint import NAMES_A_FILE
from lift3d.scene.protocols import MatcherConfig

if TYPE_CHECKING:
    from lift3d.networks.vggt.preprocess import Prepared

RECENT = 4
"""Number of cached pictures; a tracker uses each at least twice."""


@dataclass(frozen=True)
class VggtMatcherConfig(MatcherConfig):
    """Points of one picture tracked to the other by VGGT, also across wide baselines. The weights
    VGGT-1B are for non-commercial use only.
    """

    weights: str = field(default=VGGT, metadata=NAMES_A_FILE)
    """A checkpoint's name (see `lift3d weights`), or the path of a .pt or .safetensors file or hub
    folder. VGGT-1B is non-commercial; VGGT-1B-Commercial is under the VGGT License."""
    mode: Literal["crop", "pad"] = "crop"
    """crop: pictures become `size` wide, of tall ones the middle is kept; pad: the whole picture
    is kept, its longer side becomes `size`, and white fills up a square."""
    size: int = 518
    """Side of the network's input in pixels, a multiple of 14; the weights were trained for 518."""
    stride: int = 14
    """Track a point from every n-th pixel of the resized picture."""
    visibility: float = 0.5
    """Drop points that are visible in the other picture with a lower probability."""
    back: float = 3.0
    """Drop points that, tracked back, end farther from their start, in pixels of the resized
    picture; 0 does not track back, which takes half the time."""
    device: str = "auto"
    """cpu, cuda, cuda:1; auto uses a GPU if there is one."""
    precision: Precision = "auto"
    """auto is bfloat16 if the hardware supports it, else float32."""

    def build(self) -> VggtMatcher:
        """The matcher; MissingExtra without torch, InputError without the weights."""
        if self.stride < 1:
            raise InputError(f"matching stride is {self.stride}; it must be 1 or more")
        if self.size < 14 or self.size % 14:
            raise InputError(f"size is {self.size}; expected a multiple of 14, such as 518")
        try:
            import torch  # noqa: F401
        except ImportError as error:
            raise MissingExtra("matching 'vggt' needs torch: pip install 'lift3d[vggt]'") from error
        return VggtMatcher(self)


class VggtMatcher:
    """Both pictures go through the network together, once in each direction."""

    def __init__(self, config: VggtMatcherConfig) -> None:
        from lift3d.networks.vggt.checkpoint import load
        from lift3d.networks.vggt.inference import PredictorConfig

        self.config = config
        model, _ = load(find(config.weights))
        self._predictor = PredictorConfig(config.device, config.precision).build(model)
        self._recent: OrderedDict[int, tuple[View, Prepared]] = OrderedDict()

    def match(self, a: View, b: View) -> Matches:
        """Pixels of `a` and `b` that show the same point, in full-size pixel coordinates.

        Confidence is the tracker's visibility times its confidence.
        """
        from lift3d.networks.vggt.inference import spread
        from lift3d.networks.vggt.preprocess import together

        first, second = together([self._prepared(a), self._prepared(b)])
        rows, columns = first.inside.any(1).sum(), first.inside.any(0).sum()
        start = spread(first, max(round(rows * columns / self.config.stride**2), 1))
        there = self._predictor.tracked(first, second, start)
        xy = there.xy[1]
        column, row = np.rint(np.nan_to_num(xy, nan=-1.0)).astype(np.int64).T
        kept = (column >= 0) & (column < second.width) & (row >= 0) & (row < second.height)
        kept[kept] = second.inside[row[kept], column[kept]]
        kept &= there.visibility[1] >= self.config.visibility
        start, xy = start[kept], xy[kept]
        confidence = (there.visibility[1] * there.confidence[1])[kept]
        if self.config.back > 0 and len(start):
            returned = self._predictor.tracked(second, first, xy).xy[1]
            near = np.linalg.norm(returned - start, axis=1) <= self.config.back
            start, xy, confidence = start[near], xy[near], confidence[near]
        return Matches(
            _moved(first.original_from_network, start),
            _moved(second.original_from_network, xy),
            confidence,
        )

    def _prepared(self, view: View) -> Prepared:
        from lift3d.networks.vggt.preprocess import prepare

        known = self._recent.get(id(view))
        if known is None:  # keeps the view alive, so that its id stays unique
            known = (view, prepare(view.image(), self.config.mode, self.config.size))
        self._recent[id(view)] = known
        self._recent.move_to_end(id(view))
        while len(self._recent) > RECENT:
            self._recent.popitem(last=False)
        return known[1]


def _moved(
    original_from_network: Float64[np.ndarray, "3 3"], xy: Float32[np.ndarray, "matches 2"]
) -> Float32[np.ndarray, "matches 2"]:
    scale = np.array([original_from_network[0, 0], original_from_network[1, 1]])
    return (xy * scale + original_from_network[:2, 2]).astype(np.float32)
