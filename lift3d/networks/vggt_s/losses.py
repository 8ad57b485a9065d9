"""The losses of VGGT-Segmentor (2604.13596): 20 times the focal loss and the Dice loss."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

FOCAL, DICE = 20.0, 1.0
ALPHA, GAMMA = 0.25, 2.0


def focal(logits: Float[Tensor, "n h w"], truth: Float[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Per mask, the mean over its pixels (Lin et al. 2017, alpha 0.25, gamma 2)."""
    loss = binary_cross_entropy_with_logits(logits, truth, reduction="none")
    wrong = torch.where(truth > 0.5, 1 - logits.sigmoid(), logits.sigmoid())
    weight = torch.where(truth > 0.5, ALPHA, 1 - ALPHA)
    return (weight * wrong**GAMMA * loss).flatten(1).mean(1)


def dice(logits: Float[Tensor, "n h w"], truth: Float[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Per mask, 1 - (2 |p g| + 1) / (|p| + |g| + 1)."""
    found, truth = logits.sigmoid().flatten(1), truth.flatten(1)
    return 1 - (2 * (found * truth).sum(1) + 1) / (found.sum(1) + truth.sum(1) + 1)


def loss(logits: Float[Tensor, "n h w"], truth: Float[Tensor, "n h w"]) -> Float[Tensor, ""]:
    """The mean over masks, in float32."""
    logits, truth = logits.float(), truth.float()
    return (FOCAL * focal(logits, truth) + DICE * dice(logits, truth)).mean()
