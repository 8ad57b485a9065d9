"""From tokens to pixels: points by a DPT (Ranftl et al., 2103.13413), descriptors by an MLP.

Names follow the keys of the published weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lift3d.networks.mast3r.sizes import NetworkConfig


@dataclass(frozen=True, eq=False)
class Decoded:
    """One view's tokens after the encoder (layer 0) and after each decoder layer."""

    layers: list[Float[Tensor, "batch tokens _"]]
    rows: int
    columns: int

    def map(self, layer: int) -> Float[Tensor, "batch width rows columns"]:
        """A layer's tokens as a 2D map."""
        return self.layers[layer].mT.unflatten(2, (self.rows, self.columns))


class Linear(nn.Linear):
    """A linear layer that computes in the precision of its weights."""

    def forward(self, x: Tensor) -> Tensor:
        """As `nn.Linear`, whatever the precision of `x`."""
        return super().forward(x.to(self.weight.dtype))


class Mlp(nn.Module):
    """Two linear layers with the exact GELU between them."""

    def __init__(self, width_in: int, hidden: int, width_out: int) -> None:
        super().__init__()
        self.fc1 = Linear(width_in, hidden)
        self.fc2 = Linear(hidden, width_out)

    def forward(self, x: Float[Tensor, "batch tokens _"]) -> Float[Tensor, "batch tokens _"]:
        """Applied to each token."""
        return self.fc2(F.gelu(self.fc1(x)))


class ResidualUnit(nn.Module):
    """Two convolutions with a skip connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(
        self, x: Float[Tensor, "batch features rows_ columns_"]
    ) -> Float[Tensor, "batch features rows_ columns_"]:
        """The skip connection adds the input before its ReLU."""
        return self.conv2(F.relu(self.conv1(F.relu(x)))) + x


class Fusion(nn.Module):
    """One step of the DPT from coarse to fine."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(width, width, 1)
        self.resConfUnit1 = ResidualUnit(width)  # for the skip; unused at the coarsest step
        self.resConfUnit2 = ResidualUnit(width)

    def forward(
        self, x: Float[Tensor, "batch features rows_ columns_"]
    ) -> Float[Tensor, "batch features fine_rows fine_columns"]:
        """The map at twice the size. `x` is the coarser path plus the skip's residual unit.

        The 1x1 convolution is applied before the interpolation, at a quarter of the work:
        interpolation weights sum to 1, so the two commute.
        """
        return _double(self.out_conv(self.resConfUnit2(x)))


class Scratch(nn.Module):
    """Projects the four maps to one number of channels and fuses them."""

    def __init__(self, widths: tuple[int, int, int, int], width: int) -> None:
        super().__init__()
        for level, own in enumerate(widths, 1):
            self.add_module(f"layer{level}_rn", nn.Conv2d(own, width, 3, padding=1, bias=False))
            self.add_module(f"refinenet{level}", Fusion(width))

    def skip(
        self, level: int, x: Float[Tensor, "batch own rows_ columns_"]
    ) -> Float[Tensor, "batch features rows_ columns_"]:
        """The input of a level to the fusion."""
        x = self.get_submodule(f"layer{level}_rn")(x)
        return x if level == 4 else self.get_submodule(f"refinenet{level}.resConfUnit1")(x)

    def fuse(
        self, skips: list[Float[Tensor, "batch features _ _"]]
    ) -> Float[Tensor, "batch features rows_ columns_"]:
        """Fuse all levels, given finest first, to one map at twice the finest size."""
        path: Tensor | None = None
        for level in (4, 3, 2, 1):
            x = skips[level - 1]
            if path is not None:  # a doubled odd grid has one row or column too many
                x = x + path[:, :, : x.shape[2], : x.shape[3]]
            path = self.get_submodule(f"refinenet{level}")(x)
        assert path is not None
        return path


class Dpt(nn.Module):
    """Tokens of four depths to (x, y, z, c) at every pixel."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        widths, width, last = config.dpt_widths, config.dpt_features, config.dpt_last
        tokens = [config.encoder_width, *[config.decoder_width] * 3]
        resample: list[list[nn.Module]] = [
            [nn.ConvTranspose2d(widths[0], widths[0], 4, stride=4)],
            [nn.ConvTranspose2d(widths[1], widths[1], 2, stride=2)],
            [],
            [nn.Conv2d(widths[3], widths[3], 3, stride=2, padding=1)],
        ]
        self.act_postprocess = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 1), *rest)
            for a, b, rest in zip(tokens, widths, resample, strict=True)
        )
        self.scratch = Scratch(widths, width)
        self.head = nn.Sequential(
            nn.Conv2d(width, width // 2, 3, padding=1),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Conv2d(width // 2, last, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(last, 4, 1),
        )
        self.hooks = config.hooks

    def encoder_branch(self, decoded: Decoded) -> Float[Tensor, "batch features rows_ columns_"]:
        """The finest level. It depends only on the encoder's tokens, so it is reused in pairs."""
        return self.scratch.skip(1, self.act_postprocess[0](decoded.map(0)))

    def forward(
        self,
        decoded: Decoded,
        encoder_branch: Float[Tensor, "batch features rows_ columns_"] | None = None,
    ) -> Float[Tensor, "batch 4 height width"]:
        """Raw (x, y, z, c), before the exponentials."""
        if encoder_branch is None:
            encoder_branch = self.encoder_branch(decoded)
        skips = [encoder_branch]
        for level in (2, 3, 4):
            picture = self.act_postprocess[level - 1](decoded.map(self.hooks[level - 1]))
            skips.append(self.scratch.skip(level, picture))
        return self.head(self.scratch.fuse(skips))


class Head(nn.Module):
    """Predicts points and descriptors of one view, each with confidence."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.dpt = Dpt(config)
        both = config.encoder_width + config.decoder_width
        self.head_local_features = Mlp(
            both, 4 * both, (config.descriptor_width + 1) * config.patch**2
        )
        self.patch = config.patch

    def points(
        self,
        decoded: Decoded,
        encoder_branch: Float[Tensor, "batch features rows_ columns_"] | None = None,
    ) -> tuple[Float[Tensor, "batch height width 3"], Float[Tensor, "batch height width"]]:
        """Points in view 1's camera frame, and confidence (1 and above)."""
        raw = self.dpt(decoded, encoder_branch).permute(0, 2, 3, 1).float()
        xyz, c = raw[..., :3], raw[..., 3]
        distance = xyz.norm(dim=3, keepdim=True).clamp(min=1e-8)
        return xyz / distance * torch.expm1(distance), 1 + c.exp()

    def descriptors(
        self, decoded: Decoded
    ) -> tuple[Float[Tensor, "batch height width channels"], Float[Tensor, "batch height width"]]:
        """Unit descriptors, and confidence (0 and above)."""
        tokens = torch.cat([decoded.layers[0], decoded.layers[-1]], dim=2)
        maps = self.head_local_features(tokens).float()
        maps = maps.mT.unflatten(2, (decoded.rows, decoded.columns))
        maps = F.pixel_shuffle(maps, self.patch).permute(0, 2, 3, 1)
        return F.normalize(maps[..., :-1], dim=3), maps[..., -1].exp()


def _double(x: Float[Tensor, "batch features _ _"]) -> Float[Tensor, "batch features _ _"]:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
