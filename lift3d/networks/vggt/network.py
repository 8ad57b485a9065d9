"""The VGGT network (Wang et al., 2503.11651): cameras, depth, points and tracks in one pass.

    with torch.inference_mode():
        tokens = model.aggregate(images)            # once for all heads
        poses = model.camera(tokens)[-1]
        depth, confidence = model.depth(tokens)

Module names follow the keys of the published weights. B is the batch, S the frames of a scene;
pixels are (x, y) in the network's input.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lift3d.networks.vggt.aggregator import Aggregated, Aggregator
from lift3d.networks.vggt.camera import CameraHead
from lift3d.networks.vggt.dpt import DepthHead, PointHead
from lift3d.networks.vggt.sizes import VggtConfig
from lift3d.networks.vggt.track import TrackHead, Tracks


class VGGT(nn.Module):
    """The complete network. Run it under `torch.inference_mode()`.

    The sums over pictures are in the aggregator; only the heads that are called are computed.
    """

    def __init__(self, config: VggtConfig = VggtConfig()) -> None:  # noqa: B008 - frozen
        super().__init__()
        self.config = config
        self.chunk = 8
        """Frames at a time where they do not depend on each other; changes memory, not values."""
        self.precision = torch.float32
        """Of the aggregator and the track head; see `compute_in`."""
        self.aggregator = Aggregator(config)
        self.camera_head = CameraHead(config)
        self.point_head = PointHead(config)
        self.depth_head = DepthHead(config)
        self.track_head = TrackHead(config)

    def aggregate(
        self,
        images: Float[Tensor, "batch frames 3 height width"],
        layers: Iterable[int] | None = None,
    ) -> Aggregated:
        """The tokens of all frames after the rounds that the heads use.

        `images` are RGB from 0 to 1; sides are multiples of the patch (14). Frame 0 is the one
        whose camera is the world. `layers` are the rounds to keep; by default those of the heads.
        """

    def camera(self, tokens: Aggregated) -> list[Float[Tensor, "batch frames 9"]]:
        """The pose encoding after each iteration, the last one the best; always float32.

        Translation (3), quaternion (x, y, z, w), vertical and horizontal field of view (radians);
        `camera.matrices` gives camera_from_world and K.
        """

    def depth(
        self, tokens: Aggregated
    ) -> tuple[
        Float[Tensor, "batch frames height width 1"], Float[Tensor, "batch frames height width"]
    ]:
        """Depth along z in the unit of the cameras, and its confidence (1 and above); float32."""

    def points(
        self, tokens: Aggregated
    ) -> tuple[
        Float[Tensor, "batch frames height width 3"], Float[Tensor, "batch frames height width"]
    ]:
        """Points in the camera frame of frame 0, and confidence (1 and above); float32."""

    def track_features(
        self, tokens: Aggregated
    ) -> Float[Tensor, "batch frames channels half_height half_width"]:
        """The track head's feature maps, 128 channels at half the resolution.

        They are what the DPT of the track head gives, before the tracker normalises them
        (`fmap_norm`): the features that VGGT-Segmentor reads. With 518x518 pixels 259x259. In
        `precision`: cast with `.float()` for other networks.
        """

    def track(
        self,
        features: Float[Tensor, "batch frames channels half_height half_width"],
        queries: Float[Tensor, "batch points 2"],
        iterations: int | None = None,
    ) -> Tracks:
        """Follow points of frame 0 through all frames.

        `features` is from `track_features`; `queries` are (x, y) in pixels of the network's input.
        `Tracks.xy` is a list with (batch, frames, points, 2) in the same pixels after each
        iteration, `visibility` and `confidence` are (batch, frames, points) from 0 to 1.
        """

    def compute_in(self, precision: torch.dtype) -> VGGT:
        """Compute the aggregator and the track head in `precision`, as the authors do (bfloat16).

        Norms and sums stay in float32; camera, depth and point head always are.
        """
