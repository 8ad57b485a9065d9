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
from contextlib import AbstractContextManager, nullcontext

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
        config = self.config
        patch, (height, width) = config.patch_size, images.shape[-2:]
        if height % patch or width % patch:
            raise ValueError(f"pictures are {width}x{height}, expected multiples of {patch}")
        kept = {*config.intermediate_layer_idx, config.last} if layers is None else set(layers)
        with self.mixed(images.device):
            return self.aggregator(images, kept, self.chunk)

    def camera(self, tokens: Aggregated) -> list[Float[Tensor, "batch frames 9"]]:
        """The pose encoding after each iteration, the last one the best; always float32.

        Translation (3), quaternion (x, y, z, w), vertical and horizontal field of view (radians);
        `camera.matrices` gives camera_from_world and K.
        """
        token = tokens.layers[self.config.last][:, :, 0].float()
        with _exact(token):
            return self.camera_head(token)

    def depth(
        self, tokens: Aggregated
    ) -> tuple[
        Float[Tensor, "batch frames height width 1"], Float[Tensor, "batch frames height width"]
    ]:
        """Depth along z in the unit of the cameras, and its confidence (1 and above); float32."""
        with _exact(self.depth_head.norm.weight):
            return self.depth_head(tokens, self.chunk)

    def points(
        self, tokens: Aggregated
    ) -> tuple[
        Float[Tensor, "batch frames height width 3"], Float[Tensor, "batch frames height width"]
    ]:
        """Points in the camera frame of frame 0, and confidence (1 and above); float32."""
        with _exact(self.point_head.norm.weight):
            return self.point_head(tokens, self.chunk)

    def track_features(
        self, tokens: Aggregated
    ) -> Float[Tensor, "batch frames channels half_height half_width"]:
        """The track head's feature maps, 128 channels at half the resolution.

        They are what the DPT of the track head gives, before the tracker normalises them
        (`fmap_norm`): the features that VGGT-Segmentor reads. With 518x518 pixels 259x259. In
        `precision`: cast with `.float()` for other networks.
        """
        with self.mixed(self.track_head.tracker.fmap_norm.weight.device):
            return self.track_head.feature_extractor(tokens, self.chunk)

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
        with self.mixed(features.device):
            return self.track_head.tracker(features, queries, iterations)

    def compute_in(self, precision: torch.dtype) -> VGGT:
        """Compute the aggregator and the track head in `precision`, as the authors do (bfloat16).

        Norms and sums stay in float32; camera, depth and point head always are.
        """
        self.precision = precision
        if precision != torch.float32:  # half the memory, and the same values as autocast's
            for module in self.aggregator.modules():
                if isinstance(module, nn.Linear):
                    module.to(precision)
        return self

    def mixed(self, device: torch.device) -> AbstractContextManager[object]:
        """A context that multiplies in `precision`."""
        if self.precision == torch.float32:
            return nullcontext()
        return torch.autocast(device.type, self.precision)


def _exact(like: Tensor) -> AbstractContextManager[object]:
    """A context that computes in float32 also within the caller's autocast."""
    return torch.autocast(like.device.type, enabled=False)
