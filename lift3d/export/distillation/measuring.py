"""Render labels and colours into the views, and measure their agreement with the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int32, Int64

from lift3d.export.distillation.gaussians import Gaussians
from lift3d.export.distillation.rasterising import Rasteriser
from lift3d.export.distillation.training import Picture
from lift3d.scene import Camera, Image, LabelMap

COVERED = 0.5
"""Pixels with less alpha are unlabelled. Chosen by hand; not tuned on data."""


@torch.no_grad()
def rendered_view(
    model: Gaussians, rasteriser: Rasteriser, camera: Camera
) -> tuple[Image, LabelMap]:
    """Colour, and the most probable id of each pixel; 0 where alpha is below `COVERED`."""
    rendered = rasteriser(model.splats(), camera)
    colour = (255 * rendered.values[..., :3]).round().clamp(0, 255).byte().cpu().numpy()
    labels = model.ids[model.scores(rendered.values[..., 3:]).argmax(2)]
    labels = torch.where(rendered.alpha >= COVERED, labels, 0)
    return colour, labels.int().cpu().numpy()


@dataclass(frozen=True)
class Agreement:
    """Agreement of rendered views with their pictures and label maps."""

    views: int
    psnr: float
    """Mean over the views, dB."""
    miou: float
    """Mean IoU over the ids above 0 of the label maps, with the pixels of all views pooled."""
    objects: int
    """Number of these ids."""
    same: float
    """Share of pixels with the id of the label map, including 0."""


def agreement(
    pictures: Sequence[Picture], drawn: Sequence[tuple[Image, LabelMap]]
) -> Agreement | None:
    """Compare rendered views with their pictures; None without views."""
    if not pictures:
        return None
    ids = np.unique(np.concatenate([np.unique(each.labels) for each in pictures]))
    counts = np.zeros((3, len(ids)), np.int64)
    for picture, (_, labels) in zip(pictures, drawn, strict=True):
        counts += _counts(picture.labels, labels, ids.astype(np.int32))
    both, true, rendered = counts
    objects = ids > 0
    iou = both[objects] / np.maximum(true + rendered - both, 1)[objects]
    return Agreement(
        views=len(pictures),
        psnr=float(np.mean([psnr(c, p.image) for (c, _), p in zip(drawn, pictures, strict=True)])),
        miou=float(iou.mean()) if objects.any() else float("nan"),
        objects=int(objects.sum()),
        same=float(both.sum() / true.sum()),
    )


def _counts(
    truth: LabelMap, found: LabelMap, ids: Int32[np.ndarray, " ids"]
) -> Int64[np.ndarray, "3 ids"]:
    """Pixels of each id in both maps, in the truth, and in the found map."""

    def count(values: np.ndarray) -> np.ndarray:
        index = np.searchsorted(ids, values).clip(max=len(ids) - 1)
        return np.bincount(index[ids[index] == values], minlength=len(ids))

    return np.stack([count(truth[truth == found]), count(truth.ravel()), count(found.ravel())])


def psnr(a: Image, b: Image) -> float:
    """Peak signal-to-noise ratio in dB of 8-bit pictures; infinite if they are equal.

    >>> black = np.zeros((2, 2, 3), np.uint8)
    >>> psnr(black, black + np.uint8(255))
    0.0
    """
    error: Float[np.ndarray, "..."] = np.mean((a.astype(np.float64) - b) ** 2)
    return float(10 * np.log10(255**2 / error)) if error > 0 else float("inf")
