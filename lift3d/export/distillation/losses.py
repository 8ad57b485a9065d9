"""The losses of training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64

C1, C2 = 0.01**2, 0.03**2
WINDOW, SIGMA = 11, 1.5


def photometric(
    picture: Float[torch.Tensor, "height width 3"],
    photo: Float[torch.Tensor, "height width 3"],
    share: float = 0.2,
) -> Float[torch.Tensor, ""]:
    """(1 - share) L1 + share (1 - SSIM), as in 3DGS."""
    return (1 - share) * (picture - photo).abs().mean() + share * (1 - ssim(picture, photo))


def ssim(
    a: Float[torch.Tensor, "height width 3"], b: Float[torch.Tensor, "height width 3"]
) -> Float[torch.Tensor, ""]:
    """Structural similarity (Wang et al. 2004) of pictures from 0 to 1, mean over the pixels.

    Pictures are padded with 0, as in 3DGS.
    """
    x = torch.arange(WINDOW, dtype=a.dtype, device=a.device) - WINDOW // 2
    line = torch.exp(-(x**2) / (2 * SIGMA**2))
    line = line / line.sum()
    stack = torch.stack([a, b, a * a, b * b, a * b]).permute(0, 3, 1, 2).flatten(0, 1)
    # One group per plane; a batch of one-plane pictures is 20 times slower on a CPU.
    planes = len(stack)
    line = line.expand(planes, 1, 1, -1)
    stack = F.conv2d(stack[None], line, padding=(0, WINDOW // 2), groups=planes)
    stack = F.conv2d(stack, line.mT, padding=(WINDOW // 2, 0), groups=planes)[0]
    mean_a, mean_b, aa, bb, ab = stack.unflatten(0, (5, 3))
    both = mean_a * mean_b
    squares = mean_a**2 + mean_b**2
    variances = aa + bb - squares
    return ((2 * both + C1) * (2 * (ab - both) + C2) / (squares + C1) / (variances + C2)).mean()


def smoothness(
    scores: Float[torch.Tensor, "splats classes"],
    neighbours: Int64[torch.Tensor, "drawn k"],
    drawn: Int64[torch.Tensor, " drawn"],
) -> Float[torch.Tensor, ""]:
    """Mean Kullback-Leibler divergence between the ids of Gaussians and of their neighbours.

    The 3D regularisation of Gaussian Grouping (Ye et al. 2024, Eq. 2), for the Gaussians `drawn`.
    """
    log = scores.log_softmax(1)
    own = log[drawn][:, None]
    return (own.exp() * (own - log[neighbours])).sum(2).mean()
