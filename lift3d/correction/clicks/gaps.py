"""Pixels that a depth map leaves out: their depth, and the point that each shows."""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float64, Int32, UInt8

from lift3d.association.superpoints import lab
from lift3d.scene import Depth, Image
from lift3d.scene.compiled import compiled

JUMP = 0.02
"""Relative difference of depths between which a gap of one pixel is one surface. Chosen by hand."""
WINDOW = 0.01
"""Share of the width within which the pixel of the most similar colour is looked for."""
SIMILAR = 3.0
"""CIELAB distance that weighs as much as one pixel of 320 further away. Both chosen on synthetic
room 0: IoU after one perfect mask 0.821, with windows of 2 and 3 pixels 0.828, 0.830, and with a
distance of 6 instead of 3 0.829. Rooms 1 to 4 gain 0.010 to 0.015."""

ALIKE = 12
"""Difference of 8-bit CIELAB values up to which pixels look alike. Chosen by hand."""


def closed(depth: Depth) -> Depth:
    """Gaps of one pixel within a surface take the mean inverse depth of the pixels around.

    A depth map that was carried into a colour camera of more pixels is a grid with such gaps.

    >>> closed(np.float32([[2, 0, 2, 0, 9]])).tolist()
    [[2.0, 2.0, 2.0, 0.0, 9.0]]
    """
    import cv2

    known, window = depth > 0, (3, 3)
    kernel = np.ones(window, np.uint8)
    far = cv2.dilate(depth, kernel)
    near = cv2.erode(np.where(known, depth, np.float32(1e30)), kernel)
    inverse = np.where(known, 1 / np.where(known, depth, 1), 0).astype(np.float32)

    def summed(values: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(values, -1, window, normalize=False, borderType=cv2.BORDER_CONSTANT)

    count = summed(known.astype(np.float32))
    gap = ~known & (count >= 2) & (far <= (1 + JUMP) * near)
    return np.where(gap, count / np.maximum(summed(inverse), 1e-9), depth).astype(np.float32)


def by_colour(
    nearest: Int32[np.ndarray, "height width"], image: Image
) -> Int32[np.ndarray, "height width"]:
    """Pixels without a point (-1) take that of the pixel near by with the most similar colour.

    Sensors lose depth at the border between two things, of which such a pixel is one; its colour
    says which. Pixels with none within `WINDOW` stay -1.

    >>> image = np.uint8([[[0] * 3, [0] * 3, [0] * 3, [255] * 3, [255] * 3]])
    >>> by_colour(np.int32([[7, -1, -1, -1, 9]]), np.repeat(image, 64, 1)[:, 126:196:16]).tolist()
    [[7, 7, -1, 9, 9]]
    """
    height, width = nearest.shape
    colour = lab(image.reshape(-1, 3)).reshape(height, width, 3).astype(np.float32)
    found = nearest.copy()
    reach = max(1, round(WINDOW * width))
    _most_similar(nearest, colour, reach, np.float32((320 / width) ** 2), found)
    return found


@compiled(parallel=True)
@no_type_check
def _most_similar(nearest, colour, reach, square, found):
    """`square` is the cost of one pixel of way, squared, relative to that of 320 in a row."""
    height, width = nearest.shape
    for row in numba.prange(height):
        for column in range(width):
            if nearest[row, column] >= 0:
                continue
            best = np.float32(np.inf)
            for y in range(max(row - reach, 0), min(row + reach + 1, height)):
                for x in range(max(column - reach, 0), min(column + reach + 1, width)):
                    way = (y - row) ** 2 + (x - column) ** 2
                    if nearest[y, x] < 0 or way > reach * reach:
                        continue
                    apart = np.float32(0)
                    for each in range(3):
                        apart += (colour[y, x, each] - colour[row, column, each]) ** 2
                    cost = np.float32(way) * square + apart / np.float32(SIMILAR**2)
                    if cost < best:
                        best = cost
                        found[row, column] = nearest[y, x]


def patch(
    colour: UInt8[np.ndarray, "height width 3"],
    measured: Bool[np.ndarray, "height width"],
    xy: Float64[np.ndarray, "2"],
) -> Bool[np.ndarray, "height width"]:
    """The pixels without depth that hang together with one (column, row) and look like it.

    Those up to `WINDOW` away count as such. `colour` is CIELAB in 8 bits.
    """
    import cv2

    column, row = (int(np.floor(each + 0.5)) for each in xy)
    around = np.pad(measured.astype(np.uint8), 1, constant_values=1)
    reach = max(1, round(WINDOW * measured.shape[1]))
    cv2.circle(around, (column + 1, row + 1), reach, 0, -1)
    around[[0, -1]] = around[:, [0, -1]] = 1
    same = (ALIKE,) * 3
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (2 << 8)
    cv2.floodFill(colour, around, (column, row), (0, 0, 0), same, same, flags)
    return around[1:-1, 1:-1] == 2


def beside(
    nearest: Int32[np.ndarray, "height width"], reach: float = np.inf
) -> Int32[np.ndarray, "height width"]:
    """Pixels without a point take that of the nearest pixel with one, up to `reach` pixels away;
    -1 where none has.
    """
    from scipy import ndimage

    empty = nearest < 0
    if not empty.any() or empty.all():
        return nearest
    away, index = ndimage.distance_transform_edt(empty, return_indices=True)
    return np.where(away <= reach, nearest[tuple(index)], -1).astype(np.int32)
