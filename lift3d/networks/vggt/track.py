"""Points of frame 0 followed through all frames (VGGT, section 3.3, after CoTracker, Karaev et
al., 2307.07635): positions and features of all tracks are corrected together in a few iterations.

Names follow the keys of the published weights. Positions are (x, y); within the tracker in pixels
of the feature maps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lift3d.networks.vggt.blocks import Mlp
from lift3d.networks.vggt.dpt import FeatureExtractor
from lift3d.networks.vggt.sizes import VggtConfig

LARGEST_MOVE = 518
"""Movements are divided by it."""
FASTEST = 1000.0
"""End of the linear frequencies by which movements are encoded, in radians per pixel."""
POINTS = 256
"""Points whose correlations are computed at a time; bounds memory."""


@dataclass(frozen=True, eq=False)
class Tracks:
    """Tracks through all frames, in pixels of the network's input."""

    xy: list[Float[Tensor, "batch frames points 2"]]
    """After each iteration."""
    visibility: Float[Tensor, "batch frames points"]
    """0 to 1."""
    confidence: Float[Tensor, "batch frames points"]
    """0 to 1."""


class MultiHead(nn.Module):
    """Attention with the parameters of `torch.nn.MultiheadAttention`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width).normal_(std=width**-0.5))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        context: Float[Tensor, "batch others width"],
    ) -> Float[Tensor, "batch tokens width"]:
        """Each token of `x` attends to all of `context`."""
        width = x.shape[2]
        weights, biases = self.in_proj_weight.split(width), self.in_proj_bias.split(width)
        q, k, v = (
            F.linear(each, weight, bias).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for each, weight, bias in zip((x, context, context), weights, biases, strict=True)
        )
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class SelfBlock(nn.Module):
    """Self-attention and MLP. The skip connection starts after the first norm, not before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = MultiHead(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, 4 * width, width)

    def forward(
        self, x: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch tokens width"]:
        """One layer."""
        x = self.norm1(x)
        x = x + self.attn(x, x)
        return x + self.mlp(self.norm2(x))


class CrossBlock(nn.Module):
    """As `SelfBlock`, but attends to other tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.norm_context = nn.LayerNorm(width)
        self.cross_attn = MultiHead(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, 4 * width, width)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        context: Float[Tensor, "batch others width"],
    ) -> Float[Tensor, "batch tokens width"]:
        """One layer."""
        x = self.norm1(x)
        x = x + self.cross_attn(x, self.norm_context(context))
        return x + self.mlp(self.norm2(x))


class UpdateFormer(nn.Module):
    """Attention over the frames of each track, then over tracks by way of virtual ones."""

    def __init__(self, config: VggtConfig) -> None:
        super().__init__()
        width, heads, depth = (
            config.tracker_hidden, config.tracker_attention_heads, config.tracker_depth
        )  # fmt: skip
        token, change = token_width(config), config.track_features + 2
        self.input_norm = nn.LayerNorm(token)
        self.input_transform = nn.Linear(token, width)
        self.output_norm = nn.LayerNorm(width)
        self.flow_head = nn.Linear(width, change)
        self.virual_tracks = nn.Parameter(torch.randn(1, config.num_virtual_tracks, 1, width))
        self.time_blocks, self.space_virtual_blocks = (
            nn.ModuleList(SelfBlock(width, heads) for _ in range(depth)) for _ in range(2)
        )
        self.space_point2virtual_blocks, self.space_virtual2point_blocks = (
            nn.ModuleList(CrossBlock(width, heads) for _ in range(depth)) for _ in range(2)
        )

    def forward(
        self, tokens: Float[Tensor, "batch points frames token"]
    ) -> Float[Tensor, "batch points frames change"]:
        """The change of position (2) and features of each track in each frame."""
        batch, points, frames, _ = tokens.shape
        start = self.input_transform(self.input_norm(tokens))
        virtual = self.virual_tracks.expand(batch, -1, frames, -1)
        x = torch.cat([start, virtual.to(start.dtype)], 1)
        for time, among, from_points, to_points in zip(
            self.time_blocks,
            self.space_virtual_blocks,
            self.space_virtual2point_blocks,
            self.space_point2virtual_blocks,
            strict=True,
        ):
            x = time(x.flatten(0, 1)).unflatten(0, (batch, -1))
            x = x.transpose(1, 2).flatten(0, 1)
            real, virtual = x[:, :points], x[:, points:]
            virtual = among(from_points(virtual, real))
            x = torch.cat([to_points(real, virtual), virtual], 1)
            x = x.unflatten(0, (batch, frames)).transpose(1, 2)
        return self.flow_head(self.output_norm(x[:, :points] + start))


class Tracker(nn.Module):
    """Positions, features, visibility and confidence of tracks on feature maps."""

    def __init__(self, config: VggtConfig) -> None:
        super().__init__()
        self.config = config
        features, levels, side = (
            config.track_features, config.corr_levels, 2 * config.corr_radius + 1
        )  # fmt: skip
        self.corr_mlp = Mlp(levels * side**2, config.tracker_hidden, features)
        self.query_ref_token = nn.Parameter(torch.randn(1, 2, token_width(config)))
        self.updateformer = UpdateFormer(config)
        self.fmap_norm = nn.LayerNorm(features)
        self.ffeat_norm = nn.GroupNorm(1, features)
        self.ffeat_updater = nn.Sequential(nn.Linear(features, features), nn.GELU())
        self.vis_predictor = nn.Sequential(nn.Linear(features, 1))
        self.conf_predictor = nn.Sequential(nn.Linear(features, 1))

    def forward(
        self,
        maps: Float[Tensor, "batch frames channels rows columns"],
        queries: Float[Tensor, "batch points 2"],
        iterations: int | None = None,
    ) -> Tracks:
        """Tracks of `queries`, pixels of frame 0 of the network's input."""
        config = self.config
        maps = self.fmap_norm(maps.movedim(2, -1)).movedim(-1, 2)
        frames = maps.shape[1]
        start = queries.float() / config.tracker_stride
        xy = start[:, None].expand(-1, frames, -1, -1)
        found = sampled(maps[:, 0].float(), start, "border")
        features = found[:, None].expand(-1, frames, -1, -1)
        pyramid = self._pyramid(maps.float())
        fixed = self._fixed(maps, start)
        tracks = []
        for _ in range(config.tracker_iterations if iterations is None else iterations):
            correlations = self.corr_mlp(self._correlations(pyramid, features, xy))
            move = xy - xy[:, :1]
            tokens = torch.cat(
                [
                    *(_code(move[..., axis], config.track_features // 2) for axis in (0, 1)),
                    move / LARGEST_MOVE, move / LARGEST_MOVE, correlations, features,
                ],
                3,
            )  # fmt: skip
            change = self.updateformer((tokens + fixed).transpose(1, 2)).transpose(1, 2)
            features = features + self.ffeat_updater(self._normed(change[..., 2:]))
            xy = xy + change[..., :2].float()
            xy = torch.cat([start[:, None], xy[:, 1:]], 1)
            tracks.append(xy * config.tracker_stride)
        seen, sure = (
            predict(features)[..., 0].float().sigmoid()
            for predict in (self.vis_predictor, self.conf_predictor)
        )
        return Tracks(tracks, seen, sure)

    def _normed(
        self, x: Float[Tensor, "batch frames points channels"]
    ) -> Float[Tensor, "batch frames points channels"]:
        return self.ffeat_norm(x.flatten(0, 2)).unflatten(0, x.shape[:3])

    def _pyramid(
        self, maps: Float[Tensor, "batch frames channels rows columns"]
    ) -> list[Float[Tensor, "images channels _ _"]]:
        """The maps of all frames, each level of half the size."""
        pyramid = [maps.flatten(0, 1)]
        for _ in range(self.config.corr_levels - 1):
            pyramid.append(F.avg_pool2d(pyramid[-1], 2))
        return pyramid

    def _correlations(
        self,
        pyramid: list[Float[Tensor, "images channels _ _"]],
        features: Float[Tensor, "batch frames points channels"],
        xy: Float[Tensor, "batch frames points 2"],
    ) -> Float[Tensor, "batch frames points values"]:
        """Products of each track's feature with the maps around its position, at all levels.

        A product with interpolated features is the interpolated product, so that no map of
        products is made.
        """
        radius, channels = self.config.corr_radius, features.shape[3]
        steps = torch.arange(-radius, radius + 1, device=xy.device, dtype=xy.dtype)
        offsets = torch.cartesian_prod(steps, steps)  # x is the slow one, as in the authors' code
        parts = []
        for some, places in zip(features.split(POINTS, 2), xy.split(POINTS, 2), strict=True):
            levels = []
            for level, maps in enumerate(pyramid):
                at = places[..., None, :] / 2**level + offsets
                around = sampled(maps, at.flatten(0, 1).flatten(1, 2), "zeros")
                around = around.unflatten(1, (-1, len(offsets)))
                product = (around * some.flatten(0, 1).float()[:, :, None]).sum(3)
                levels.append(product / channels**0.5)
            parts.append(torch.cat(levels, 2))
        return torch.cat(parts, 1).unflatten(0, xy.shape[:2])

    def _fixed(
        self,
        maps: Float[Tensor, "batch frames channels rows columns"],
        start: Float[Tensor, "batch points 2"],
    ) -> Float[Tensor, "batch frames points token"]:
        """What is added to the tokens in every iteration: a code of the query's place, the same
        in all frames, and one token for frame 0 and another for all other frames.
        """
        rows, columns = maps.shape[3:]
        width, frames = token_width(self.config), maps.shape[1]
        table = _table(rows, columns, width, start.device)[None].expand(len(start), -1, -1, -1)
        place = sampled(table, start, "border")
        first, other = self.query_ref_token[0].split(1)
        kind = torch.cat([first, other.expand(frames - 1, -1)])
        return place[:, None] + kind[None, :, None]


class TrackHead(nn.Module):
    """Feature maps and the tracker on them."""

    def __init__(self, config: VggtConfig) -> None:
        super().__init__()
        self.feature_extractor = FeatureExtractor(config)
        self.tracker = Tracker(config)


def token_width(config: VggtConfig) -> int:
    """Channels of a track's token: code of its movement, movement twice, correlation, feature."""
    return 3 * config.track_features + 4


def sampled(
    maps: Float[Tensor, "images channels rows columns"],
    xy: Float[Tensor, "images points 2"],
    outside: str,
) -> Float[Tensor, "images points channels"]:
    """Bilinear interpolation at (x, y) in pixels; beyond the `border` its value, or `zeros`."""
    rows, columns = maps.shape[2:]
    size = xy.new_tensor([max(columns - 1, 1), max(rows - 1, 1)])
    grid = (xy * 2 / size - 1)[:, :, None]
    found = F.grid_sample(maps, grid, padding_mode=outside, align_corners=True)
    return found[..., 0].mT


def _code(
    x: Float[Tensor, "batch frames points"], channels: int
) -> Float[Tensor, "batch frames points channels"]:
    """Sine and cosine in turn, of frequencies that grow linearly from 0."""
    speed = torch.arange(0, channels, 2, device=x.device, dtype=x.dtype) * (FASTEST / channels)
    angle = x[..., None] * speed
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(3)


def _table(
    rows: int, columns: int, channels: int, device: torch.device
) -> Float[Tensor, "channels rows columns"]:
    """Sines, then cosines, of the column in the first half of the channels, of the row in the
    second; frequencies fall geometrically (Vaswani et al., 1706.03762).
    """
    count = channels // 4
    order = torch.arange(count, dtype=torch.float64, device=device)
    speed = 10000.0 ** (-order / count)
    halves = []
    for length, shape in ((columns, (1, columns)), (rows, (rows, 1))):
        angle = speed[:, None] * torch.arange(length, dtype=torch.float64, device=device)
        both = torch.cat([angle.sin(), angle.cos()]).float()
        halves.append(both.unflatten(1, shape).expand(-1, rows, columns))
    return torch.cat(halves)
