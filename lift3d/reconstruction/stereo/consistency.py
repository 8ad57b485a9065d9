"""Keep the depth that several views agree on (Merrell et al. 2007).

The depth of the other views is brought into a view. Each pixel takes the depth that most of them
and its own agree on, so a view that sees little of a surface gets it from those that see it well.
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from lift3d.scene.compiled import compiled

CLOSE = 0.02
"""Two views agree where their inverse depths differ by at most this share. 0.015 and 0.03, with
less and more support, are as good on the HoloLens kitchen."""
WEAK = 0.15
"""Quality below which the depth of another view says nothing."""
SPECKLE = 60
"""Patches of fewer pixels are dropped, at 640 x 480."""
STEP = 0.02
"""Share of the depth by which neighbouring pixels of one patch may differ."""


def brought(
    inverse: Float32[np.ndarray, "rows columns"],
    quality: Float32[np.ndarray, "rows columns"],
    turn: Float64[np.ndarray, "3 3"],
    shift: Float64[np.ndarray, "3"],
    shape: tuple[int, int],
) -> tuple[Float32[np.ndarray, "height width"], Float32[np.ndarray, "height width"]]:
    """Another view's inverse depth and its quality as a view of `shape` sees them; 0 is none.

    `turn @ (x, y, 1) + w * shift` is the other view's pixel (x, y) of inverse depth w in this one.
    A pixel lands on the four around its place. Of these the nearest surface is kept, and of one
    surface what lands nearest: the largest of all would be too near on slanted surfaces.
    """
    found, sure = np.zeros((2, *shape), np.float32)
    args = (turn.astype(np.float32), shift.astype(np.float32), np.float32(WEAK))
    _bring(inverse, quality, *args, found, sure)
    return found, sure


def agreed(
    inverse: Float32[np.ndarray, "views height width"],
    quality: Float32[np.ndarray, "views height width"],
) -> tuple[
    Float32[np.ndarray, "height width"],
    Float32[np.ndarray, "height width"],
    UInt8[np.ndarray, "height width"],
    Bool[np.ndarray, "height width"],
]:
    """The inverse depth with the most support at each pixel, of all views'; 0 is none.

    It is the mean of the views that agree, weighed by quality. Then the sum of their quality, how
    many they are, and whether the first view, the pixel's own, is one of them.
    """
    return _agreed(inverse, quality)


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


@compiled(error_model="numpy")
@no_type_check
def _bring(inverse, quality, turn, shift, weak, found, sure):
    height, width = found.shape
    apart = np.zeros((height, width), np.float32)
    for y in range(inverse.shape[0]):
        for x in range(inverse.shape[1]):
            w = inverse[y, x]
            if not (w > 0 and quality[y, x] >= weak):
                continue
            z = turn[2, 0] * x + turn[2, 1] * y + turn[2, 2] + w * shift[2]
            if not z > 0:
                continue
            u = (turn[0, 0] * x + turn[0, 1] * y + turn[0, 2] + w * shift[0]) / z
            v = (turn[1, 0] * x + turn[1, 1] * y + turn[1, 2] + w * shift[1]) / z
            if not (u > -1 and v > -1 and u < width and v < height):
                continue
            top, left = int(np.floor(v)), int(np.floor(u))
            for i in range(max(top, 0), min(top + 2, height)):
                for j in range(max(left, 0), min(left + 2, width)):
                    far = (v - i) ** 2 + (u - j) ** 2
                    share = np.float32(CLOSE) if far < apart[i, j] else np.float32(-CLOSE)
                    if w / z > found[i, j] * (1 - share):
                        found[i, j], sure[i, j], apart[i, j] = w / z, quality[y, x], far


@compiled(parallel=True, error_model="numpy")
@no_type_check
def _agreed(inverse, quality):
    views, height, width = inverse.shape
    best = np.zeros((height, width), np.float32)
    support = np.zeros((height, width), np.float32)
    count = np.zeros((height, width), np.uint8)
    own = np.zeros((height, width), np.bool_)
    for y in numba.prange(height):
        for x in range(width):
            for i in range(views):
                w = inverse[i, y, x]
                if not w > 0:
                    continue
                total, weighted, number = np.float32(0), np.float32(0), 0
                for k in range(views):
                    told = inverse[k, y, x]
                    if told > 0 and abs(told - w) <= CLOSE * w:
                        total += quality[k, y, x]
                        weighted += quality[k, y, x] * told
                        number += 1
                if total > support[y, x]:
                    support[y, x], count[y, x] = total, number
                    best[y, x] = weighted / total
                    own[y, x] = inverse[0, y, x] > 0 and abs(inverse[0, y, x] - w) <= CLOSE * w
    return best, support, count, own
