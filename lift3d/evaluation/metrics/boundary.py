"""The boundary measure F of DAVIS (Perazzi et al., CVPR 2016)."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool

TOLERANCE = 0.008
"""Largest distance of matching boundary pixels, as a share of the image's diagonal (DAVIS)."""


def boundary(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels that differ from the one to the right, below, or below to the right (DAVIS)."""
    out = np.zeros_like(mask)
    out[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    out[:-1] |= mask[:-1] ^ mask[1:]
    out[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return out


def boundary_f(
    predicted: Bool[np.ndarray, "h w"],
    truth: Bool[np.ndarray, "h w"],
    tolerance: float = TOLERANCE,
) -> float:
    """DAVIS' F: the F-measure of boundary pixels (Perazzi et al. 2016).

    A boundary pixel is matched if the other mask has a boundary pixel at most r pixels away, r
    being `tolerance` of the diagonal, rounded up. That equals dilation by a disk of radius r, here
    by a distance transform. 1 where neither mask has a boundary, 0 where only one has.
    """
    ours, true = boundary(predicted), boundary(truth)
    if not ours.any() or not true.any():
        return 1.0 if ours.any() == true.any() else 0.0
    radius = math.ceil(tolerance * math.hypot(*truth.shape))
    precision = float((_distance(true)[ours] <= radius + 1e-3).mean())
    recall = float((_distance(ours)[true] <= radius + 1e-3).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _distance(pixels: Bool[np.ndarray, "h w"]) -> np.ndarray:
    """Exact distance from each pixel to the nearest of `pixels`."""
    import cv2

    return cv2.distanceTransform((~pixels).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
