"""The depth of one view from its neighbours' pictures: coarse, then sharpened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from lift3d.reconstruction.stereo.neighbours import Neighbourhood
from lift3d.reconstruction.stereo.refine import refined
from lift3d.reconstruction.stereo.shots import Shot, Stack
from lift3d.reconstruction.stereo.sweep import coarse_depth

FACTOR = 2
"""The plane sweep works on pictures that are smaller by this factor."""
SHARPEN = 4
"""Sources that sharpen the depth: the best."""
CLEAR = 0.3
"""Lead of the best plane over the others from which on it counts as sure. On the HoloLens kitchen
93 % of such pixels are within 5 % of the sensor."""
PLAIN, TEXTURED = 0.5, 1.5
"""Standard deviation of grey levels around a pixel, up to which a surface has no texture at all,
and from which on it has enough. On a plain surface all planes cost the same, and the depth of
whatever is beside it would spread. Chosen by hand, below the noise of cameras."""
ALIKE = 0.8
"""Cost (1 - NCC) up to which a surface counts as the same in the pictures."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """Depth of one view as its pictures alone give it."""

    inverse: Float32[np.ndarray, "height width"]
    slope: Float32[np.ndarray, "height width 2"]
    """Change of the inverse depth per pixel along x and y."""
    quality: Float32[np.ndarray, "height width"]
    """How clear it is, 0 to 1."""


def estimate(
    shot: Shot, sources: Sequence[Shot], near_by: Neighbourhood, planes: int, seed: int
) -> Estimate:
    """Match a picture with those of its neighbours, the best first."""
    import cv2

    small, few = shot.smaller(FACTOR), [each.smaller(FACTOR) for each in sources]
    inverse = np.linspace(1 / near_by.far, 1 / near_by.near, planes)
    step = float(inverse[1] - inverse[0])
    stack = Stack.of(small, few)
    grey = small.grey.astype(np.float32)
    coarse, lead = coarse_depth(grey, stack.grey, stack.size, stack.turn, stack.shift, inverse)
    size = (shot.camera.width, shot.camera.height)
    first = cv2.resize(coarse, size, interpolation=cv2.INTER_LINEAR)
    around = np.ones((3, 3), np.uint8)  # on an edge either side may be right
    least = cv2.resize(cv2.erode(coarse, around), size, interpolation=cv2.INTER_NEAREST) - step
    most = cv2.resize(cv2.dilate(coarse, around), size, interpolation=cv2.INTER_NEAREST) + step
    plane = np.ascontiguousarray(np.stack([first, *_slopes(first, step)], -1))
    stack = Stack.of(shot, sources[:SHARPEN])
    cost = refined(
        shot.grey.astype(np.float32),
        stack.grey,
        stack.size,
        stack.turn,
        stack.shift,
        plane,
        np.maximum(least, inverse[0]).astype(np.float32),
        most.astype(np.float32),
        step / 2,
        1,
        seed,
    )
    sure = np.clip(cv2.resize(lead, size) / CLEAR, 0, 1)
    sure *= cv2.resize(_texture(grey), size)
    return Estimate(
        plane[..., 0].copy(),
        plane[..., 1:].copy(),
        (sure * np.where(cost < ALIKE, 1.0, 0.7)).astype(np.float32),
    )


def _texture(grey: Float32[np.ndarray, "height width"]) -> Float32[np.ndarray, "height width"]:
    """0 where a surface is plain to 1 where it has texture, over 9 x 9 pixels."""
    import cv2

    mean, squares = (cv2.boxFilter(each, cv2.CV_32F, (9, 9)) for each in (grey, grey * grey))
    spread = np.sqrt(np.maximum(squares - mean * mean, 0))
    return np.clip((spread - PLAIN) / (TEXTURED - PLAIN), 0, 1).astype(np.float32)


def _slopes(
    inverse: Float32[np.ndarray, "height width"], step: float
) -> list[Float32[np.ndarray, "height width"]]:
    """Slopes along x and y; 0 at edges."""
    import cv2

    found = [
        cv2.Sobel(inverse, cv2.CV_32F, dx, dy, ksize=5, scale=1 / 128)
        for dx, dy in ((1, 0), (0, 1))
    ]
    edge = np.hypot(*found) > step
    return [np.where(edge, np.float32(0), each) for each in found]
