"""Keep the depth that other views confirm, and average what they say (Merrell et al. 2007)."""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float32, UInt8

from lift3d.reconstruction.stereo.shots import Stack
from lift3d.scene.compiled import compiled

CLOSE = 0.015
"""Two views agree where their depths differ by at most this share."""
SPECKLE = 60
"""Patches of fewer pixels are dropped, at 640 x 480."""
STEP = 0.02
"""Share of the depth by which neighbouring pixels of one patch may differ."""


def confirmed(
    inverse: Float32[np.ndarray, "height width"],
    quality: Float32[np.ndarray, "height width"],
    stack: Stack,
    others: Float32[np.ndarray, "sources rows columns"],
    trust: Float32[np.ndarray, "sources rows columns"],
) -> tuple[Float32[np.ndarray, "height width"], UInt8[np.ndarray, "height width"]]:
    """The mean inverse depth of the views that agree at each pixel, and how many others do.

    `others` is the inverse depth of the sources and `trust` their quality; 0 is none.
    """
    args = (stack.size, stack.turn, stack.shift)
    return _confirmed(inverse, quality, *args, others, trust)


def without_speckles(
    depth: Float32[np.ndarray, "height width"],
) -> Float32[np.ndarray, "height width"]:
    """The depth without small patches; 0 in their place."""
    import cv2

    known = depth > 0
    if not known.any():
        return depth
    log = np.log(np.where(known, depth, 1.0))
    low, high = float(log[known].min()), float(log[known].max())
    units = 30000 / max(high - low, 1e-3)
    whole = np.where(known, 1 + (log - low) * units, 0).astype(np.int16)
    size = max(4, round(SPECKLE * depth.size / (640 * 480)))
    cv2.filterSpeckles(whole, 0, size, max(1, round(STEP * units)))
    return np.where(whole > 0, depth, np.float32(0)).astype(np.float32)


@compiled(parallel=True, error_model="numpy")
@no_type_check
def _confirmed(inverse, quality, size, turn, shift, others, trust):
    height, width = inverse.shape
    mean = np.zeros((height, width), np.float32)
    count = np.zeros((height, width), np.uint8)
    for y in numba.prange(height):
        for x in range(width):
            w = float(inverse[y, x])
            if not w > 0:
                continue
            total, weight = w * quality[y, x], float(quality[y, x])
            for s in range(len(others)):
                px = turn[s, 0, 0] * x + turn[s, 0, 1] * y + turn[s, 0, 2] + w * shift[s, 0]
                py = turn[s, 1, 0] * x + turn[s, 1, 1] * y + turn[s, 1, 2] + w * shift[s, 1]
                pz = turn[s, 2, 0] * x + turn[s, 2, 1] * y + turn[s, 2, 2] + w * shift[s, 2]
                if not pz > 0:
                    continue
                column, row = int(np.floor(px / pz + 0.5)), int(np.floor(py / pz + 0.5))
                if not (0 <= column < size[s, 1] and 0 <= row < size[s, 0]):
                    continue
                told = others[s, row, column] * pz  # its inverse depth as this view has it
                if told > 0 and abs(told - w) <= CLOSE * w:
                    count[y, x] += 1
                    total += told * trust[s, row, column]
                    weight += trust[s, row, column]
            mean[y, x] = total / max(weight, 1e-9)
    return mean, count
