"""Coarse depth by a plane sweep with the census transform and semi-global matching.

The planes face the camera, evenly spaced in inverse depth (Collins 1996). The cost is the Hamming
distance of census transforms (Zabih and Woodfill 1994), which exposure does not change; paths in
eight directions smooth it (Hirschmueller 2008, Eq. 13).
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float32, Float64, UInt8

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
    paths = _paths(volume, picture)
    return _winners(paths, float(inverse[0]), float(inverse[1] - inverse[0]))


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
                seen[y - REACH, x]
                & seen[y + REACH, x + 2 * REACH]
                & seen[y - REACH, x + 2 * REACH]
                & seen[y + REACH, x]
            ):
                row[x] = 255


@compiled(parallel=True, error_model="numpy")
@no_type_check
def _paths(
    volume: UInt8[np.ndarray, "height width planes"],
    picture: Float32[np.ndarray, "height width"],
) -> UInt8[np.ndarray, "8 height width planes"]:
    """The costs along the paths of each direction: Eq. 13 of Hirschmueller 2008.

    One task a direction: few and long ones, so that threads seldom wait for each other. A cost is
    at most SCALE * 24 + JUMP, which fits a byte.
    """
    height, width, planes = volume.shape
    along = np.array([[0, 1], [0, -1], [1, 0], [-1, 0], [1, 1], [-1, -1], [1, -1], [-1, 1]])
    paths = np.empty((8, height, width, planes), np.uint8)
    for way in numba.prange(8):
        down, right = along[way]
        for k in range(height):
            y = height - 1 - k if down < 0 else k
            for m in range(width):
                x = width - 1 - m if right < 0 else m
                now, cost = paths[way, y, x], volume[y, x]
                i, j = y - down, x - right
                if not (0 <= i < height and 0 <= j < width):
                    now[:] = cost
                    continue
                apart = abs(picture[y, x] - picture[i, j])
                jump = np.uint8(max(STEP + 8, JUMP / (1.0 + apart / EDGE)))
                before = paths[way, i, j]
                least = before[0]
                for d in range(np.uint64(planes)):
                    least = min(least, before[d])
                far = np.uint8(least + jump)
                for d in range(np.uint64(planes)):
                    now[d] = min(before[d], far)
                for d in range(np.uint64(planes - 1)):
                    now[d + 1] = min(now[d + 1], np.uint8(before[d] + np.uint8(STEP)))
                for d in range(np.uint64(planes - 1)):
                    now[d] = min(now[d], np.uint8(before[d + 1] + np.uint8(STEP)))
                for d in range(np.uint64(planes)):
                    now[d] = np.uint8(now[d] - least + cost[d])
    return paths


@compiled(parallel=True, error_model="numpy")
@no_type_check
def _winners(paths: UInt8[np.ndarray, "8 height width planes"], first, step):
    _, height, width, planes = paths.shape
    inverse = np.empty((height, width), np.float32)
    margin = np.empty((height, width), np.float32)
    for y in numba.prange(height):
        row = np.empty(planes, np.uint16)
        for x in range(width):
            row[:] = 0
            for way in range(8):
                for d in range(np.uint64(planes)):
                    row[d] += paths[way, y, x, d]
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
