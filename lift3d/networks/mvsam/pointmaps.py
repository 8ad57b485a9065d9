"""From point maps to what a token knows of its place."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d


class PointMaps(NamedTuple):
    """The points of all pixels of all views, in one frame."""

    xyz: Float[Tensor, "views rows columns 3"]
    """NaN where unknown."""
    confidence: Float[Tensor, "views rows columns"] | None = None
    """Larger is surer; None where nothing is known: then only unknown points are of low
    confidence."""


class Tokens(NamedTuple):
    """Place and confidence of each token, or of each pixel."""

    xyz: Float[Tensor, "views rows columns 3"]
    """z-scored; NaN where unknown."""
    low: Bool[Tensor, "views rows columns"]
    """Whether of low confidence; unknown points are."""


def normalised(
    maps: PointMaps, low_share: float, statistics: Literal["all", "confident"] = "all"
) -> Tokens:
    """Every pixel's point, z-scored per coordinate over all views, and whether it is low.

    Low is the `low_share` of known points with the least confidence over all views, and all others
    as sure as one of these; but no point of the highest confidence, so none where all are alike.
    """
    known = torch.isfinite(maps.xyz).all(-1)
    low = ~known
    if maps.confidence is not None and low_share > 0 and known.any():
        values = maps.confidence[known].float()
        rank = max(1, round(low_share * len(values)))
        limit = values.kthvalue(rank).values
        low = low | ((maps.confidence <= limit) & (maps.confidence < values.max()))
    counted = known & ~low if statistics == "confident" and (known & ~low).any() else known
    if not counted.any():
        return Tokens(maps.xyz, low)
    points = maps.xyz[counted]
    mean = points.mean(0)
    deviation = points.std(0, unbiased=False).clamp_min(1e-6)
    return Tokens((maps.xyz - mean) / deviation, low)


def per_cell(
    pixels: Tokens, rows: int, columns: int, cell: Literal["mean", "centre"] = "mean"
) -> Tokens:
    """Tokens of a grid from pixels: the mean of known points, or the point of the central pixel.

    A cell is low where most of its known pixels are.
    """
    height, width = pixels.low.shape[1:]
    if cell == "centre":
        row = ((torch.arange(rows) + 0.5) * height / rows).long()
        column = ((torch.arange(columns) + 0.5) * width / columns).long()
        return Tokens(pixels.xyz[:, row][:, :, column], pixels.low[:, row][:, :, column])
    known = torch.isfinite(pixels.xyz).all(-1)
    weight = known.float()[:, None]
    total = torch.nan_to_num(pixels.xyz).permute(0, 3, 1, 2) * weight
    share = adaptive_avg_pool2d(weight, (rows, columns))
    mean = adaptive_avg_pool2d(total, (rows, columns)) / share.clamp_min(1e-9)
    low = adaptive_avg_pool2d((pixels.low & known).float()[:, None], (rows, columns))
    xyz = torch.where(share > 0, mean, torch.nan).permute(0, 2, 3, 1)
    return Tokens(xyz, ((low > 0.5 * share) | (share == 0))[:, 0])
