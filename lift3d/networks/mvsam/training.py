"""Losses and prompts of MV-SAM's training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate, mse_loss

from lift3d.networks.mvsam.network import NEGATIVE, NOTHING, POSITIVE, Masks, PromptTokens
from lift3d.networks.mvsam.pointmaps import Tokens


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses, as published; the last two are not mentioned there."""

    focal: float = 1.0
    dice: float = 0.05
    alpha: float = 0.9
    gamma: float = 1.5
    iou: float = 0.0
    """Uncertain: no loss of the predicted IoU is mentioned."""
    present: float = 0.0
    """Uncertain, likewise."""


@dataclass(frozen=True)
class PromptConfig:
    """Prompts of an object in training."""

    count: int = 10
    negative: float = 0.1
    """Largest share of negative ones."""
    dense: float = 0.2
    """Share of objects that have a perturbed mask as a prompt; uncertain what exactly is dropped
    from the others."""


def mask_loss(
    found: Masks, truth: Bool[Tensor, "views objects height width"], config: LossConfig
) -> Float[Tensor, ""]:
    """Focal loss (Lin et al. 2017) and Dice loss of the masks, at the resolution of the logits."""
    rows, columns = found.logits.shape[-2:]
    target = interpolate(truth.float(), (rows, columns), mode="area")
    logits = found.logits.float()
    chance = logits.sigmoid()
    hit = chance * target + (1 - chance) * (1 - target)
    weight = config.alpha * target + (1 - config.alpha) * (1 - target)
    entropy = binary_cross_entropy_with_logits(logits, target, reduction="none")
    focal = (weight * (1 - hit) ** config.gamma * entropy).mean()
    overlap = (chance * target).sum((-2, -1))
    dice = 1 - (2 * overlap + 1) / (chance.sum((-2, -1)) + target.sum((-2, -1)) + 1)
    loss = config.focal * focal + config.dice * dice.mean()
    if config.iou:
        inside = logits > 0
        union = (inside | (target > 0.5)).sum((-2, -1)).clamp_min(1)
        real = (inside & (target > 0.5)).sum((-2, -1)) / union
        loss = loss + config.iou * mse_loss(found.iou.float(), real)
    if config.present:
        there = (truth.sum((-2, -1)) > 0).float()
        loss = loss + config.present * binary_cross_entropy_with_logits(
            found.present.float(), there
        )
    return loss


class Drawn(NamedTuple):
    """Pixels of prompts for one object in one view."""

    row: np.ndarray
    column: np.ndarray
    kind: np.ndarray


def draw(
    mask: Bool[np.ndarray, "height width"], positives: int, negatives: int, rng: np.random.Generator
) -> Drawn:
    """Pixels inside and outside of a mask, evenly at random; none where there is no such pixel."""
    parts = []
    for region, count, kind in ((mask, positives, POSITIVE), (~mask, negatives, NEGATIVE)):
        rows, columns = np.nonzero(region)
        if len(rows) and count:
            chosen = rng.integers(len(rows), size=count)
            parts.append((rows[chosen], columns[chosen], np.full(count, kind)))
    if not parts:
        return Drawn(*(np.zeros(0, np.int64) for _ in range(3)))
    return Drawn(*(np.concatenate(each).astype(np.int64) for each in zip(*parts, strict=True)))


def training_prompts(
    mask: Bool[np.ndarray, "height width"], config: PromptConfig, rng: np.random.Generator
) -> Drawn:
    """`count` prompts of which at most the share `negative` are negative."""
    negatives = int(rng.integers(int(config.negative * config.count) + 1))
    return draw(mask, config.count - negatives, negatives, rng)


def prompt_tokens(
    pixels: Tokens, drawn: list[tuple[int, Drawn]], code: str, least: int = 0
) -> PromptTokens:
    """Tokens of each object's pixels, of (view, pixels), padded to one length.

    A pixel takes the point of its own; with 2D codes its place in its own view, from -1 to 1.
    """
    length = max([least, *(len(each.kind) for _, each in drawn)])
    device = pixels.low.device
    xyz = torch.full((len(drawn), length, 3), torch.nan, device=device)
    low = torch.ones(len(drawn), length, dtype=torch.bool, device=device)
    kind = torch.full((len(drawn), length), NOTHING, dtype=torch.long, device=device)
    height, width = pixels.low.shape[1:]
    for number, (view, each) in enumerate(drawn):
        row, column = torch.from_numpy(each.row), torch.from_numpy(each.column)
        some = slice(0, len(each.kind))
        kind[number, some] = torch.from_numpy(each.kind).to(device)
        low[number, some] = pixels.low[view, row, column]
        if code == "2d":
            x, y = (column + 0.5) / width * 2 - 1, (row + 0.5) / height * 2 - 1
            place = torch.stack([x, y, torch.zeros_like(x)], -1).to(device)
        else:
            place = pixels.xyz[view, row, column]
        xyz[number, some] = place.float()
    return PromptTokens(xyz, low, kind)


def perturbed(
    mask: Bool[np.ndarray, "height width"], side: int, rng: np.random.Generator
) -> Float[np.ndarray, "side side"]:
    """Logits of a mask prompt: the mask shrunk or grown, and moved, by up to 3 % of the side."""
    import cv2

    height, width = mask.shape
    reach = max(1, round(0.03 * width))
    size = int(rng.integers(-reach, reach + 1))
    around = np.ones((2 * abs(size) + 1,) * 2, np.uint8)
    changed = (cv2.dilate if size > 0 else cv2.erode)(mask.astype(np.uint8), around)
    right, down = rng.integers(-reach, reach + 1, 2)
    move = np.array([[1, 0, right], [0, 1, down]], np.float32)
    changed = cv2.warpAffine(changed, move, (width, height))
    small = cv2.resize(changed.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    return (2 * small - 1) * 10


def stacked(parts: Sequence[PromptTokens]) -> PromptTokens:
    """The prompts of several views, each its own."""
    return PromptTokens(*(torch.stack(each) for each in zip(*parts, strict=True)))
