"""Coarse depth by a plane sweep with the census transform and semi-global matching.

The planes face the camera, evenly spaced in inverse depth (Collins 1996). The cost is the Hamming
distance of census transforms (Zabih and Woodfill 1994), which exposure does not change; paths in
eight directions smooth it (Hirschmueller 2008, Eq. 13).
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float32, Float64, UInt8, UInt16

from lift3d.scene.compiled import compiled

REACH = 2
"""Half width of the census window: 5 x 5, 24 comparisons."""
UNSEEN = 48
"""Cost where no neighbour sees the place: that of chance (12 of 24 bits), times `SCALE`."""
SCALE = 4
"""Cost units per bit of the census transform."""
STEP, JUMP = 16, 88
"""Penalties of a change by one plane and by more, in cost units; JUMP falls at edges in the
picture. Chosen on the HoloLens kitchen."""
EDGE = 12.0
"""Grey levels between neighbours at which JUMP is halved."""


def coarse_depth(
    picture: Float32[np.ndarray, "height width"],
    sources: Float32[np.ndarray, "sources rows columns"],
    sizes: np.ndarray,
    turn: Float64[np.ndarray, "sources 3 3"],
    shift: Float64[np.ndarray, "sources 3"],
    inverse: Float64[np.ndarray, " planes"],
) -> tuple[Float32[np.ndarray, "height width"], Float32[np.ndarray, "height width"]]:
    """Inverse depth of every pixel, and by how much its plane is better than any other.

    A pixel (x, y) at inverse depth w is at `turn @ (x, y, 1) + w * shift` in a source, before
    the division. `sizes` are the (height, width) that each source has in the stack.
    """
    args = (sources, sizes, turn.astype(np.float32), shift.astype(np.float32))
    volume = _costs(picture, *args, inverse.astype(np.float32))
    total = np.zeros(volume.shape, np.uint16)
    _rows(volume, picture, total)
    _columns(volume, picture, total, 1)
    _columns(volume, picture, total, -1)
    return _winners(total, float(inverse[0]), float(inverse[1] - inverse[0]))


@compiled(parallel=True, error_model="numpy")
@no_type_check
def _costs(
    picture: Float32[np.ndarray, "height width"],
    sources,
    sizes,
    turn,
    shift,
    inverse,
) -> UInt8[np.ndarray, "height width planes"]:
    height, width = picture.shape
    count, planes = len(sources), len(inverse)
    volume = np.empty((height, width, planes), np.uint8)
    for plane in numba.prange(planes):
        cost = np.empty((count, height, width), np.uint8)
        warped = np.empty((height, width), np.float32)
        seen = np.empty((height, width), np.bool_)
        for s in range(count):
            _warp(sources[s], sizes[s], turn[s], shift[s] * inverse[plane], warped, seen)
            _census(picture, warped, seen, cost[s])
        for y in range(height):
            for x in range(width):
                volume[y, x, plane] = _best_half(cost, y, x)
    return volume


@compiled(inline="always")
@no_type_check
def _best_half(cost, y, x):
    """Mean of the better half of the costs, so that a source that is occluded does not count."""
    count = 0
    first, second, third = 255, 255, 255
    for s in range(len(cost)):
        c = int(cost[s, y, x])
        if c == 255:
            continue
        count += 1
        if c < first:
            first, second, third = c, first, second
        elif c < second:
            second, third = c, second
        elif c < third:
            third = c
    if count == 0:
        return UNSEEN
    if count <= 2:
        return first * SCALE
    if count <= 4:
        return (first + second) * SCALE // 2
    return (first + second + third) * SCALE // 3


@compiled(error_model="numpy")
@no_type_check
def _warp(source, size, turn, shift, warped, seen):
    """The source as the camera would see it on one plane."""
    rows, columns = size[0], size[1]
    for y in range(warped.shape[0]):
        px = turn[0, 1] * y + turn[0, 2] + shift[0]
        py = turn[1, 1] * y + turn[1, 2] + shift[1]
        pz = turn[2, 1] * y + turn[2, 2] + shift[2]
        for x in range(warped.shape[1]):
            z = turn[2, 0] * x + pz
            u = (turn[0, 0] * x + px) / z
            v = (turn[1, 0] * x + py) / z
            inside = (z > 0) & (u >= 0) & (v >= 0) & (u < columns - 1) & (v < rows - 1)
            seen[y, x] = inside
            if inside:
                i, j = int(v), int(u)
                a, b = v - i, u - j
                top = source[i, j] * (1 - b) + source[i, j + 1] * b
                bottom = source[i + 1, j] * (1 - b) + source[i + 1, j + 1] * b
                warped[y, x] = top * (1 - a) + bottom * a
            else:
                warped[y, x] = 0.0


@compiled(error_model="numpy")
@no_type_check
def _census(picture, warped, seen, cost):
    """Hamming distance of the two census transforms; 255 where the source does not see it."""
    height, width = picture.shape
    cost[:] = 255
    for y in range(REACH, height - REACH):
        row = cost[y, REACH : width - REACH]
        row[:] = 0
        a, b = picture[y, REACH : width - REACH], warped[y, REACH : width - REACH]
        for dy in range(-REACH, REACH + 1):
            for dx in range(-REACH, REACH + 1):
                if dy == 0 and dx == 0:
                    continue
                c = picture[y + dy, REACH + dx : width - REACH + dx]
                d = warped[y + dy, REACH + dx : width - REACH + dx]
                for x in range(np.uint64(len(row))):
                    row[x] += np.uint8((c[x] > a[x]) != (d[x] > b[x]))
        for x in range(width - 2 * REACH):
            if not (
                seen[y - REACH, x] & seen[y + REACH, x + 2 * REACH]
                & seen[y - REACH, x + 2 * REACH] & seen[y + REACH, x]
            ):
                row[x] = 255


@compiled(inline="always")
@no_type_check
def _step(cost, before, now, total, jump):
    """One step of a path: Eq. 13 of Hirschmueller 2008."""
    planes = len(cost)
    least = before[0]
    for d in range(np.uint64(planes)):
        least = min(least, before[d])
    far = least + np.uint16(jump)
    for d in range(np.uint64(planes)):
        now[d] = min(before[d], far)
    for d in range(np.uint64(planes - 1)):
        now[d + 1] = min(now[d + 1], np.uint16(before[d] + np.uint16(STEP)))
        now[d] = min(now[d], np.uint16(before[d + 1] + np.uint16(STEP)))
    for d in range(np.uint64(planes)):
        now[d] = np.uint16(now[d] - least + cost[d])
        total[d] += now[d]


@compiled(inline="always")
@no_type_check
def _jump(a, b):
    """The penalty of a jump between two neighbours of these grey values."""
    return max(STEP + 8, JUMP / (1.0 + abs(a - b) / EDGE))


@compiled(parallel=True, error_model="numpy")
@no_type_check
def _rows(
    volume: UInt8[np.ndarray, "height width planes"],
    picture: Float32[np.ndarray, "height width"],
    total: UInt16[np.ndarray, "height width planes"],
):
    """Paths from left to right and back."""
    height, width, planes = volume.shape
    for y in numba.prange(height):
        paths = np.zeros((2, planes), np.uint16)
        for x in range(width):
            jump = _jump(picture[y, x], picture[y, max(x - 1, 0)])
            _step(volume[y, x], paths[x % 2], paths[1 - x % 2], total[y, x], jump)
        paths[:] = 0
        for k in range(width):
            x = width - 1 - k
            jump = _jump(picture[y, x], picture[y, min(x + 1, width - 1)])
            _step(volume[y, x], paths[k % 2], paths[1 - k % 2], total[y, x], jump)


@compiled(parallel=True, error_model="numpy")
@no_type_check
def _columns(
    volume: UInt8[np.ndarray, "height width planes"],
    picture: Float32[np.ndarray, "height width"],
    total: UInt16[np.ndarray, "height width planes"],
    way,
):
    """The three paths downwards (`way` 1) or upwards (-1)."""
    height, width, planes = volume.shape
    paths = np.zeros((2, 3, width + 2, planes), np.uint16)
    for k in range(height):
        y = k if way == 1 else height - 1 - k
        above = min(max(y - way, 0), height - 1)
        for x in numba.prange(width):
            for side in range(3):
                other = min(max(x + side - 1, 0), width - 1)
                jump = _jump(picture[y, x], picture[above, other])
                before = paths[k % 2, side, x + side]
                _step(volume[y, x], before, paths[1 - k % 2, side, x + 1], total[y, x], jump)


@compiled(parallel=True, error_model="numpy")
@no_type_check
def _winners(total, first, step):
    height, width, planes = total.shape
    inverse = np.empty((height, width), np.float32)
    margin = np.empty((height, width), np.float32)
    for y in numba.prange(height):
        for x in range(width):
            row = total[y, x]
            best = 0
            for d in range(planes):
                if row[d] < row[best]:
                    best = d
            second = np.uint16(65535)
            for d in range(planes):
                if abs(d - best) > 1 and row[d] < second:
                    second = row[d]
            at = float(best)
            if 0 < best < planes - 1:
                left, here, right = float(row[best - 1]), float(row[best]), float(row[best + 1])
                bend = left - 2 * here + right
                if bend > 0:
                    at += 0.5 * (left - right) / bend
            inverse[y, x] = first + step * at
            margin[y, x] = (float(second) - float(row[best])) / (float(second) + 1.0)
    return inverse, margin
