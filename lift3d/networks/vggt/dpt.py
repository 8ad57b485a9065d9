"""From tokens to pixels: a DPT (Ranftl et al., 2103.13413) with a code of position (VGGT).

Names follow the keys of the published weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lift3d.networks.vggt.aggregator import Aggregated
from lift3d.networks.vggt.sizes import VggtConfig

LAST = 32
"""Channels before the last convolution of the depth and the point head."""
CODE_SHARE, CODE_BASE = 0.1, 100.0
"""Weight of the code of position, and the base of its frequencies."""


class ResidualUnit(nn.Module):
    """Two convolutions with a skip connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(
        self, x: Float[Tensor, "frames features rows_ columns_"]
    ) -> Float[Tensor, "frames features rows_ columns_"]:
        """The skip connection adds the input after its ReLU, which is where it differs from the
        paper: the authors' ReLU overwrites its input, and the weights were trained with that.
        """
        x = F.relu(x)
        return self.conv2(F.relu(self.conv1(x))) + x


class Fusion(nn.Module):
    """One step of the DPT from coarse to fine."""

    def __init__(self, width: int, coarsest: bool) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(width, width, 1)
        if not coarsest:
            self.resConfUnit1 = ResidualUnit(width)
        self.resConfUnit2 = ResidualUnit(width)

    def forward(
        self,
        level: Float[Tensor, "frames features rows_ columns_"],
        coarser: Float[Tensor, "frames features rows_ columns_"] | None,
        size: tuple[int, int],
    ) -> Float[Tensor, "frames features fine_rows fine_columns"]:
        """The map at `size`.

        The 1x1 convolution is applied before the interpolation, at a quarter of the work:
        interpolation weights sum to 1, so the two commute.
        """
        x = level if coarser is None else coarser + self.resConfUnit1(level)
        return _resized(self.out_conv(self.resConfUnit2(x)), size)


class Scratch(nn.Module):
    """Projects the four maps to one number of channels and fuses them."""

    def __init__(self, widths: tuple[int, int, int, int], width: int, out: int) -> None:
        super().__init__()
        for level, own in enumerate(widths, 1):
            self.add_module(f"layer{level}_rn", nn.Conv2d(own, width, 3, padding=1, bias=False))
            self.add_module(f"refinenet{level}", Fusion(width, coarsest=level == 4))
        self.output_conv1 = nn.Conv2d(width, out, 3, padding=1)

    def forward(
        self, maps: list[Float[Tensor, "frames _ _ _"]]
    ) -> Float[Tensor, "frames out rows_ columns_"]:
        """One map of twice the finest size; `maps` are finest first."""
        levels = [
            self.get_submodule(f"layer{number}_rn")(each) for number, each in enumerate(maps, 1)
        ]
        sizes = [(each.shape[2], each.shape[3]) for each in levels]
        sizes.insert(0, (2 * sizes[0][0], 2 * sizes[0][1]))
        path: Tensor | None = None
        for number in (4, 3, 2, 1):
            fusion = self.get_submodule(f"refinenet{number}")
            path = fusion(levels[number - 1], path, sizes[number - 1])
        return self.output_conv1(path)


class Dpt(nn.Module):
    """Tokens of four rounds to a map of features."""

    def __init__(self, config: VggtConfig, width: int, out: int, reduced: int, coded: bool) -> None:
        """`out` channels at a `reduced`-th of the resolution; `coded` adds codes of position."""
        super().__init__()
        self.rounds, self.patch = config.intermediate_layer_idx, config.patch_size
        self.reduced, self.coded = reduced, coded
        widths = config.dpt_out_channels
        self.norm = nn.LayerNorm(2 * config.embed_dim)
        self.projects = nn.ModuleList(nn.Conv2d(2 * config.embed_dim, own, 1) for own in widths)
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(widths[0], widths[0], 4, stride=4),
                nn.ConvTranspose2d(widths[1], widths[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(widths[3], widths[3], 3, stride=2, padding=1),
            ]
        )
        self.scratch = Scratch(widths, width, out)

    def fused(
        self, tokens: Aggregated, frames: slice
    ) -> Float[Tensor, "frames_ channels rows_ columns_"]:
        """The features of some of the frames, counted over the whole batch."""
        maps = []
        aspect = tokens.width / tokens.height
        for number, project, resize in zip(
            self.rounds, self.projects, self.resize_layers, strict=True
        ):
            layer = tokens.layers[number].flatten(0, 1)[frames, tokens.special :]
            x = project(self.norm(layer).mT.unflatten(2, (tokens.rows, tokens.columns)))
            maps.append(resize(x + _code(x, aspect) if self.coded else x))
        x = self.scratch(maps)
        sides = (tokens.rows * self.patch, tokens.columns * self.patch)
        x = _resized(x, (sides[0] // self.reduced, sides[1] // self.reduced))
        return x + _code(x, aspect) if self.coded else x

    def chunks(self, tokens: Aggregated, chunk: int) -> list[slice]:
        """All frames of the batch, `chunk` at a time."""
        batch, frames = tokens.shape
        return [
            slice(first, min(first + chunk, batch * frames))
            for first in range(0, batch * frames, chunk)
        ]


class FeatureExtractor(Dpt):
    """The track head's feature maps."""

    def __init__(self, config: VggtConfig) -> None:
        width = config.track_features
        super().__init__(config, width, width, config.tracker_stride, coded=False)

    def forward(
        self, tokens: Aggregated, chunk: int
    ) -> Float[Tensor, "batch frames channels rows_ columns_"]:
        """Features at a stride-th of the resolution."""
        parts = [self.fused(tokens, frames) for frames in self.chunks(tokens, chunk)]
        return torch.cat(parts).unflatten(0, tokens.shape)


class PixelHead(Dpt):
    """Values and a confidence at every pixel."""

    def __init__(self, config: VggtConfig, channels: int) -> None:
        width = config.dpt_features
        super().__init__(config, width, width // 2, 1, coded=True)
        last = [nn.Conv2d(width // 2, LAST, 3, padding=1), nn.Conv2d(LAST, channels + 1, 1)]
        self.scratch.add_module("output_conv2", nn.Sequential(last[0], nn.ReLU(), last[1]))

    def raw(
        self, tokens: Aggregated, chunk: int
    ) -> tuple[
        Float[Tensor, "batch frames height width channels"],
        Float[Tensor, "batch frames height width"],
    ]:
        """Values before their activation, and confidence."""
        last = self.scratch.get_submodule("output_conv2")
        parts = [last(self.fused(tokens, frames)) for frames in self.chunks(tokens, chunk)]
        x = torch.cat(parts).unflatten(0, tokens.shape).movedim(2, -1)
        return x[..., :-1], 1 + x[..., -1].exp()


class DepthHead(PixelHead):
    """Depth along z."""

    def __init__(self, config: VggtConfig) -> None:
        super().__init__(config, 1)

    def forward(
        self, tokens: Aggregated, chunk: int
    ) -> tuple[
        Float[Tensor, "batch frames height width 1"], Float[Tensor, "batch frames height width"]
    ]:
        """Depth and confidence."""
        raw, confidence = self.raw(tokens, chunk)
        return raw.exp(), confidence


class PointHead(PixelHead):
    """Points in the camera frame of frame 0."""

    def __init__(self, config: VggtConfig) -> None:
        super().__init__(config, 3)

    def forward(
        self, tokens: Aggregated, chunk: int
    ) -> tuple[
        Float[Tensor, "batch frames height width 3"], Float[Tensor, "batch frames height width"]
    ]:
        """Points and confidence."""
        raw, confidence = self.raw(tokens, chunk)
        return raw.sign() * raw.abs().expm1(), confidence


def _resized(
    x: Float[Tensor, "frames channels _ _"], size: tuple[int, int]
) -> Float[Tensor, "frames channels _ _"]:
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def _code(
    x: Float[Tensor, "frames channels rows_ columns_"], aspect: float
) -> Float[Tensor, "channels rows_ columns_"]:
    """Sines and cosines of the pixel's place; `aspect` is the picture's width over its height.

    The picture's half diagonal has length 1.
    """
    channels, rows, columns = x.shape[1:]
    half = (aspect**2 + 1) ** 0.5
    parts = []
    for count, reach, shape in (
        (columns, aspect / half, (1, columns)),
        (rows, 1 / half, (rows, 1)),
    ):
        end = reach * (count - 1) / count
        at = torch.linspace(-end, end, count, dtype=torch.float64, device=x.device)
        order = torch.arange(channels // 4, dtype=torch.float64, device=x.device)
        angle = CODE_BASE ** (-order / (channels // 4))[:, None] * at
        both = torch.cat([angle.sin(), angle.cos()]).float()
        parts.append(both.unflatten(1, shape).expand(-1, rows, columns))
    return CODE_SHARE * torch.cat(parts)
