"""Coarse-to-fine matching: the windows of large images to match again (MASt3R, section 3.4)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from lift3d.scene import Matches
from lift3d.scene.errors import InputError


class Window(NamedTuple):
    """A rectangle of pixels in an image."""

    left: int
    top: int
    width: int
    height: int

    def holds(self, xy: Float[np.ndarray, "points 2"]) -> Bool[np.ndarray, " points"]:
        """Whether the point's nearest pixel is in the window."""
        x, y = xy[:, 0] - self.left, xy[:, 1] - self.top
        return (x >= -0.5) & (x < self.width - 0.5) & (y >= -0.5) & (y < self.height - 0.5)


def window_pairs(
    coarse: Matches,
    size_a: tuple[int, int],
    size_b: tuple[int, int],
    window: tuple[int, int],
    overlap: float = 0.5,
    cover: float = 0.9,
) -> list[tuple[Window, Window]]:
    """Pairs of windows to match again, so that they contain at least `cover` of `coarse`.

    After MASt3R (section 3.4): both images are divided into windows that share `overlap` of their
    side with the next. Greedily, the pair with the most matches not yet covered is added; a tie
    goes to the first in row-major order. Sizes are (width, height); `coarse` is in pixels of the
    large images.
    """
    if not 0 <= overlap < 1:
        raise InputError(f"overlap of windows is {overlap}; it must be at least 0 and below 1")
    if not 0 < cover <= 1:
        raise InputError(f"share of matches to cover is {cover}; it must be above 0, at most 1")
    windows_a, windows_b = _windows(size_a, window, overlap), _windows(size_b, window, overlap)
    in_a = np.stack([each.holds(coarse.xy_in_a) for each in windows_a], axis=1)
    in_b = np.stack([each.holds(coarse.xy_in_b) for each in windows_b], axis=1)
    left = in_a.any(1) & in_b.any(1)
    enough = len(coarse) - cover * len(coarse)
    chosen: list[tuple[Window, Window]] = []
    while left.any() and np.count_nonzero(left) > enough:
        held = in_a[left].astype(np.float32).T @ in_b[left].astype(np.float32)
        first, second = divmod(int(held.argmax()), len(windows_b))
        chosen.append((windows_a[first], windows_b[second]))
        left &= ~(in_a[:, first] & in_b[:, second])
    return chosen


def _windows(size: tuple[int, int], window: tuple[int, int], overlap: float) -> list[Window]:
    """Windows that cover the image; the last of a row or column ends at the border."""
    starts = []
    for side, length in zip(size, window, strict=True):
        step = max(1, int(length * (1 - overlap)))
        end = max(side - length, 0)
        starts.append([*range(0, end, step), end])
    width, height = min(window[0], size[0]), min(window[1], size[1])
    return [Window(x, y, width, height) for y in starts[1] for x in starts[0]]
