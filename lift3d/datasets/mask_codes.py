"""Masks as other programs code them: COCO's run lengths, plain and compressed, and polygons.

Run lengths count pixels column by column, first those outside the mask. Compressed, each count is
written in digits of 5 bits, the lowest first, as characters from "0" on: bit 6 says that more
digits follow, the highest bit of the last digit is the sign. From the fourth count on, the
difference to the count two before is written (the format of pycocotools).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

MOST_PIXELS = 1 << 28
"""Larger sizes are not believed."""


def from_run_lengths(code: Mapping[str, Any]) -> Bool[np.ndarray, "height width"]:
    """The mask of `{"size": [height, width], "counts": ...}`; ValueError where it is damaged.

    >>> from_run_lengths({"size": [2, 3], "counts": [1, 3, 2]}).astype(int).tolist()
    [[0, 1, 0], [1, 1, 0]]
    >>> from_run_lengths({"size": [2, 3], "counts": "132"}).astype(int).tolist()
    [[0, 1, 0], [1, 1, 0]]
    """
    height, width = size_of(code)
    stored = code["counts"]
    counts = decompressed(stored) if isinstance(stored, str) else [int(each) for each in stored]
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise ValueError(f"its counts sum to {sum(counts)}, not {width}x{height}")
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, np.array(counts, np.int64)).reshape(width, height).T


def size_of(code: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of a run-length code."""
    height, width = (int(each) for each in code["size"])
    if min(height, width) < 1 or height * width > MOST_PIXELS:
        raise ValueError(f"its size is {width}x{height}")
    return height, width


def decompressed(text: str) -> list[int]:
    """The counts of a compressed run-length code; ValueError where it is damaged."""
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        digit = ord(character) - 48
        if not 0 <= digit < 64 or shift > 60:
            raise ValueError(f"character {character!r} in its counts")
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value, shift = 0, 0
    if shift:
        raise ValueError("its counts end too early")
    return counts


def from_polygons(
    polygons: Sequence[Float64[np.ndarray, "_ 2"]], height: int, width: int
) -> Bool[np.ndarray, "height width"]:
    """Pixels whose centre is in one of the polygons (even-odd rule).

    Corners are (x, y) in pixels from the corner of the picture: the centre of the first pixel is
    (0.5, 0.5).

    >>> square = np.array([[1.0, 0.0], [3.0, 0.0], [3.0, 1.0], [1.0, 1.0]])
    >>> from_polygons([square], 2, 4).astype(int).tolist()
    [[0, 1, 1, 0], [0, 0, 0, 0]]
    """
    mask = np.zeros((height, width), bool)
    for polygon in polygons:
        turns = np.zeros((height, width + 1), np.int32)
        for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            low, high = sorted((y0, y1))
            # Rows whose middle is in [low, high).
            first, last = (int(np.clip(np.ceil(y - 0.5), 0, height)) for y in (low, high))
            row = np.arange(first, last)
            if len(row):
                x = x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0)
                column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
                turns[row, column] += 1
        mask |= np.cumsum(turns, axis=1)[:, :width] % 2 == 1
    return mask
