"""Sharpen depth: a slanted plane per pixel, improved by PatchMatch (Bleyer et al. 2011).

The cost is 1 - NCC between the pictures in a window, with bilateral weights (Schoenberger et al.
2016, Sec. 4.1). A plane in space is an affine function of the pixel in inverse depth, so it is
three numbers: the inverse depth at the pixel and its slope along x and y.
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float32, Float64

from lift3d.scene.compiled import compiled

HALF, STRIDE = 4, 2
"""The window reaches 4 pixels to each side, every second pixel: 25 samples over 9 x 9."""
SAMPLES = (2 * HALF // STRIDE + 1) ** 2
COLOUR, SPACE = 12.0, 5.0
"""Grey levels and pixels at which a bilateral weight has fallen by e."""
NOISE = 4.0
"""Variance of the pictures' noise in squared grey levels; it makes the NCC of a surface without
texture 0 rather than that of its noise."""
GAIN = 0.005
"""A plane is replaced by one whose cost is lower by this much."""
WORST = 2.0
"""Cost where no source sees the window."""


def refined(
    picture: Float32[np.ndarray, "height width"],
    sources: Float32[np.ndarray, "sources rows columns"],
    sizes: np.ndarray,
    turn: Float64[np.ndarray, "sources 3 3"],
    shift: Float64[np.ndarray, "sources 3"],
    plane: Float32[np.ndarray, "height width 3"],
    least: Float32[np.ndarray, "height width"],
    most: Float32[np.ndarray, "height width"],
    step: float,
    rounds: int,
    seed: int,
) -> Float32[np.ndarray, "height width"]:
    """Improve `plane` in place; returns the cost of each pixel, 0 (best) to 2.

    `turn` and `shift` are as in `coarse_depth`, `least` and `most` the range of inverse depth
    of each pixel, `step` the first change that is tried. The random changes depend on `seed` and
    the pixel alone.
    """
    args = (sources, sizes, turn.astype(np.float32), shift.astype(np.float32))
    cost = np.empty(picture.shape, np.float32)
    for colour in (0, 1):
        _pass(picture, *args, plane, cost, least, most, np.float32(step), colour, -1, seed)
    for number in range(rounds):
        for colour in (0, 1):
            change = np.float32(step * 0.5**number)
            _pass(picture, *args, plane, cost, least, most, change, colour, number, seed)
    return cost


@compiled(inline="always")
@no_type_check
def _random(state):
    """The next state of xorshift32, and a number in [-1, 1)."""
    state ^= (state << np.uint32(13)) & np.uint32(0xFFFFFFFF)
    state ^= state >> np.uint32(17)
    state ^= (state << np.uint32(5)) & np.uint32(0xFFFFFFFF)
    state = np.uint32(state)
    return state, np.float32(state) / np.float32(2147483648.0) - np.float32(1.0)


@compiled(error_model="numpy", fastmath={"contract", "nsz", "arcp"})
@no_type_check
def _cost(grey, weight, mean, spread, source, size, turn, shift, x, y, w, wx, wy):
    """1 - NCC of the window at (x, y) with its image in one source; `WORST` outside."""
    zero = np.float32(0)
    ax = turn[0, 0] + shift[0] * wx
    ay = turn[1, 0] + shift[1] * wx
    az = turn[2, 0] + shift[2] * wx
    bx = turn[0, 1] + shift[0] * wy
    by = turn[1, 1] + shift[1] * wy
    bz = turn[2, 1] + shift[2] * wy
    cx = turn[0, 0] * x + turn[0, 1] * y + turn[0, 2] + shift[0] * w
    cy = turn[1, 0] * x + turn[1, 1] * y + turn[1, 2] + shift[1] * w
    cz = turn[2, 0] * x + turn[2, 1] * y + turn[2, 2] + shift[2] * w
    right, low = np.float32(size[1] - 1.001), np.float32(size[0] - 1.001)
    total, squares, product = zero, zero, zero
    k = 0
    for dy in range(-HALF, HALF + 1, STRIDE):
        for dx in range(-HALF, HALF + 1, STRIDE):
            z = cz + az * np.float32(dx) + bz * np.float32(dy)
            u = (cx + ax * np.float32(dx) + bx * np.float32(dy)) / z
            v = (cy + ay * np.float32(dx) + by * np.float32(dy)) / z
            if not ((z > zero) & (u >= zero) & (v >= zero) & (u < right) & (v < low)):
                return np.float32(WORST)
            i, j = np.int32(v), np.int32(u)
            a, b = v - np.float32(i), u - np.float32(j)
            top = source[i, j] + b * (source[i, j + 1] - source[i, j])
            bottom = source[i + 1, j] + b * (source[i + 1, j + 1] - source[i + 1, j])
            value = top + a * (bottom - top)
            part = weight[k] * value
            total += part
            squares += part * value
            product += part * grey[k]
            k += 1
    variance = squares - total * total
    covariance = product - total * mean
    noise = np.float32(NOISE)
    return np.float32(1) - covariance / np.sqrt((max(variance, zero) + noise) * (spread + noise))


@compiled(error_model="numpy")
@no_type_check
def _robust(grey, weight, mean, spread, sources, sizes, turn, shift, x, y, w, wx, wy):
    """Mean over the better half of the sources."""
    first = second = third = np.float32(WORST)
    count = len(sources)
    for s in range(count):
        c = _cost(
            grey, weight, mean, spread, sources[s], sizes[s], turn[s], shift[s], x, y, w, wx, wy
        )
        if c < first:
            first, second, third = c, first, second
        elif c < second:
            second, third = c, second
        elif c < third:
            third = c
    if count <= 2:
        return first
    if count <= 4:
        return (first + second) * np.float32(0.5)
    return (first + second + third) / np.float32(3)


@compiled(parallel=True, error_model="numpy")
@no_type_check
def _pass(
    picture, sources, sizes, turn, shift, plane, cost, least, most, change, colour, number, seed
):
    """Try other planes at the pixels of one colour of a checkerboard; only costs if number < 0."""
    height, width = picture.shape
    side = 2 * HALF // STRIDE + 1
    reach = np.array([1, 1, 1, 1, 5, 5, 5, 5])
    for y in numba.prange(height):
        grey = np.empty(side * side, np.float32)
        weight = np.empty(side * side, np.float32)
        for x in range((y + colour) % 2, width, 2):
            own = picture[y, x]
            total = np.float32(0)
            k = 0
            for dy in range(-HALF, HALF + 1, STRIDE):
                for dx in range(-HALF, HALF + 1, STRIDE):
                    i, j = min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)
                    grey[k] = picture[i, j]
                    far = np.float32(np.sqrt(np.float32(dx * dx + dy * dy)) / SPACE)
                    weight[k] = np.exp(-abs(grey[k] - own) / np.float32(COLOUR) - far)
                    total += weight[k]
                    k += 1
            mean, spread = np.float32(0), np.float32(0)
            for k in range(side * side):
                weight[k] /= total
                mean += weight[k] * grey[k]
            for k in range(side * side):
                grey[k] -= mean  # smaller numbers: single precision is enough
                spread += weight[k] * grey[k] * grey[k]
            zero = np.float32(0)
            px, py = np.float32(x), np.float32(y)
            w, wx, wy = plane[y, x, 0], plane[y, x, 1], plane[y, x, 2]
            if number < 0:
                cost[y, x] = _robust(
                    grey, weight, zero, spread, sources, sizes, turn, shift, px, py, w, wx, wy
                )
                continue
            best = cost[y, x]
            state = np.uint32(
                (y * 73856093) ^ (x * 19349663) ^ ((number + 1) * 83492791) ^ (seed * 2654435761)
            ) | np.uint32(1)
            for _ in range(3):
                state, _ = _random(state)
            for trial in range(11):
                if trial < 8:
                    far = reach[trial]
                    j = x + far * (trial % 4 == 0) - far * (trial % 4 == 1)
                    i = y + far * (trial % 4 == 2) - far * (trial % 4 == 3)
                    if i < 0 or j < 0 or i >= height or j >= width:
                        continue
                    ux, uy = plane[i, j, 1], plane[i, j, 2]
                    u = plane[i, j, 0] + ux * np.float32(x - j) + uy * np.float32(y - i)
                    apart = abs(u - w) + abs(ux - wx) + abs(uy - wy)
                    if apart < np.float32(1e-4) * w:
                        continue  # the same plane
                else:
                    state, r0 = _random(state)
                    state, r1 = _random(state)
                    state, r2 = _random(state)
                    scale = change if trial < 10 else change * np.float32(0.25)
                    u = w + scale * r0
                    tilt = scale * np.float32(0.15)
                    ux, uy = wx + tilt * r1, wy + tilt * r2
                if not (u >= least[y, x] and u <= most[y, x]):
                    continue
                c = _robust(
                    grey, weight, zero, spread, sources, sizes, turn, shift, px, py, u, ux, uy
                )
                if c < best - np.float32(GAIN):
                    best, w, wx, wy = c, u, ux, uy
            cost[y, x] = best
            plane[y, x, 0], plane[y, x, 1], plane[y, x, 2] = w, wx, wy
