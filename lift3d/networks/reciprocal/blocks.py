"""Exact nearest-neighbour search in a map of descriptors, by blocks with bounding cones.

Blocks whose cone cannot contain a nearer descriptor are skipped; in the others every pixel is
compared.
"""

from __future__ import annotations

from typing import TypeAlias, no_type_check

import numba
import numpy as np
from jaxtyping import Float32, Int32

from lift3d.scene.compiled import compiled
from lift3d.scene.errors import InputError

Descriptors: TypeAlias = Float32[np.ndarray, "height width channels"]

LARGE = 16
"""Side of a large block in pixels; the kernels depend on it."""
SMALL = 16
"""Small blocks in a large one, and pixels in a small one."""
CHUNK = 8
"""The number of channels is padded with zeros to a multiple of this."""


class Blocks:
    """A map of unit descriptors in small blocks of 4x4 pixels, 4x4 of them in a large block.

    Each block has a cone: an axis and the largest angle between it and a descriptor.
    """

    def __init__(self, descriptors: Descriptors) -> None:
        self.height, self.width, channels = descriptors.shape
        if descriptors.size == 0:
            raise InputError(f"descriptor map of shape {descriptors.shape} is empty")
        self.flat = np.ascontiguousarray(descriptors).reshape(-1, channels)
        padded = -(-channels // CHUNK) * CHUNK
        large = -(-self.height // LARGE) * -(-self.width // LARGE)
        self.values = np.zeros((large, SMALL, padded, SMALL), np.float32)
        self.axis = np.zeros((padded, large), np.float32)
        self.angle = np.empty((2, large), np.float32)
        """Cosine and sine of each cone's angle."""
        self.small_axis = np.zeros((large, padded, SMALL), np.float32)
        self.small_angle = np.empty((large, 2, SMALL), np.float32)
        off = np.empty(large)
        _cut(
            self.flat.reshape(descriptors.shape),
            self.values,
            self.axis,
            self.angle,
            self.small_axis,
            self.small_angle,
            off,
        )
        self.off_unit = float(off.max())
        """Largest difference of a length from 1."""
        if not self.off_unit < 0.01:
            raise InputError(
                f"descriptors must have unit length, some are off by {self.off_unit:.3g}; "
                "divide them by their norm"
            )

    def nearest(
        self,
        queries: Float32[np.ndarray, "queries channels"],
        guess: Int32[np.ndarray, " queries"],
        off_unit: float,
    ) -> Int32[np.ndarray, " queries"]:
        """Row-major pixel with the largest dot product for each query.

        A good `guess` (-1: none) saves time. `off_unit` is the largest difference of a query's
        length from 1.
        """
        padded = np.zeros((len(queries), self.axis.shape[0]), np.float32)
        padded[:, : queries.shape[1]] = queries
        # Bounds of the error by single precision, and (in slack) by lengths other than 1.
        noise = np.float32(2e-7 * (len(self.axis) + 8))
        slack = np.float32(2 * noise + 4 * (off_unit + self.off_unit))
        found = guess.copy()
        _search(
            padded,
            self.values.ravel(),
            self.axis,
            self.angle,
            self.small_axis.ravel(),
            self.small_angle,
            (self.height, self.width),
            noise,
            slack,
            found,
        )
        return found


@compiled(inline="always")
@no_type_check
def _pixel(large, small, p, height, width):
    """Row and column of a pixel of a block, clamped to the image."""
    across = (width + 15) // 16
    row = large // across * 16 + small // 4 * 4 + p // 4
    column = large % across * 16 + small % 4 * 4 + p % 4
    return min(row, height - 1), min(column, width - 1)


@compiled()
@no_type_check
def _narrowest(values, axis):
    """Smallest cosine between the axis and the descriptors, rounded towards a wider cone."""
    least = 1.0
    for p in range(16):
        along = 0.0
        square = 0.0
        for c in range(len(axis)):
            along += axis[c] * values[c, p]
            square += np.float64(values[c, p]) * values[c, p]
        least = min(least, along / np.sqrt(square) if square > 0.0 else -1.0)
    return max(least - 1e-6, -1.0)


@compiled(parallel=True)
@no_type_check
def _cut(descriptors, values, axis, angle, small_axis, small_angle, off):
    """Fill the blocks; beyond the image border they repeat its pixels, which changes no result."""
    height, width, channels = descriptors.shape
    for large in numba.prange(len(values)):
        mean = np.zeros(channels)
        small_mean = np.empty(channels)
        worst = 0.0
        for small in range(16):
            small_mean[:] = 0.0
            for p in range(16):
                row, column = _pixel(large, small, p, height, width)
                square = 0.0
                for c in range(channels):
                    value = np.float64(descriptors[row, column, c])
                    values[large, small, c, p] = value
                    small_mean[c] += value
                    square += value * value
                away = abs(np.sqrt(square) - 1.0)
                if not away <= worst:
                    worst = away if away == away else np.inf  # NaN counts as infinite
            mean += small_mean
            _set_axis(small_mean)
            for c in range(channels):
                small_axis[large, c, small] = small_mean[c]
            cosine = _narrowest(values[large, small], small_mean)
            small_angle[large, 0, small] = cosine
            small_angle[large, 1, small] = np.sqrt(1.0 - cosine * cosine) + 1e-7
        off[large] = worst
        _set_axis(mean)
        for c in range(channels):
            axis[c, large] = mean[c]
        cosine = 1.0
        for small in range(16):
            cosine = min(cosine, _narrowest(values[large, small], mean))
        angle[0, large] = cosine
        angle[1, large] = np.sqrt(1.0 - cosine * cosine) + 1e-7


@compiled()
@no_type_check
def _set_axis(mean):
    """Normalise the mean; where it is 0, any axis is valid."""
    length = np.sqrt((mean * mean).sum())
    if length > 0.0:
        mean /= length
    else:
        mean[0] = 1.0


@compiled(fastmath={"contract", "nnan", "nsz"})
@no_type_check
def _products(query, matrix, out):
    """out = query @ matrix, eight channels at a time so that sums stay in registers."""
    out[:] = np.float32(0.0)
    for c in range(0, len(query), 8):
        q0, q1, q2, q3 = query[c], query[c + 1], query[c + 2], query[c + 3]
        q4, q5, q6, q7 = query[c + 4], query[c + 5], query[c + 6], query[c + 7]
        m0, m1, m2, m3 = matrix[c], matrix[c + 1], matrix[c + 2], matrix[c + 3]
        m4, m5, m6, m7 = matrix[c + 4], matrix[c + 5], matrix[c + 6], matrix[c + 7]
        for i in range(len(out)):
            low = q0 * m0[i] + q1 * m1[i] + q2 * m2[i] + q3 * m3[i]
            high = q4 * m4[i] + q5 * m5[i] + q6 * m6[i] + q7 * m7[i]
            out[i] += low + high


@compiled(fastmath={"contract", "nnan", "nsz"})
@no_type_check
def _sixteen(query, flat, start, out):
    """As `_products` with a matrix of 16 columns at `start` of a flat array.

    Unsigned indices need no check for negative values, which is 6 times faster.
    """
    for i in range(np.uint64(16)):
        out[i] = np.float32(0.0)
    for c in range(np.uint64(0), np.uint64(len(query)), np.uint64(8)):
        q0, q1, q2 = query[c], query[c + np.uint64(1)], query[c + np.uint64(2)]
        q3, q4, q5 = query[c + np.uint64(3)], query[c + np.uint64(4)], query[c + np.uint64(5)]
        q6, q7 = query[c + np.uint64(6)], query[c + np.uint64(7)]
        for i in range(np.uint64(16)):
            k = np.uint64(start) + c * np.uint64(16) + i
            low = q0 * flat[k] + q1 * flat[k + np.uint64(16)]
            low += q2 * flat[k + np.uint64(32)] + q3 * flat[k + np.uint64(48)]
            high = q4 * flat[k + np.uint64(64)] + q5 * flat[k + np.uint64(80)]
            high += q6 * flat[k + np.uint64(96)] + q7 * flat[k + np.uint64(112)]
            out[i] += low + high


@compiled(fastmath={"contract", "nnan", "nsz"})
@no_type_check
def _bound(products, cosine, sine, slack):
    """Replace cosines to the axes by upper bounds of the cosine to any direction in the cones."""
    for i in range(np.uint64(len(products))):
        t = products[i]
        rest = max(np.float32(1.0) - t * t, np.float32(0.0))
        edge = t * cosine[i] + np.sqrt(rest) * sine[i]
        products[i] = (np.float32(1.0) if t >= cosine[i] else edge) + slack


@compiled()
@no_type_check
def _exact(query, flat, start):
    """Dot product with a column of a matrix of 16 columns, in double precision."""
    total = 0.0
    for c in range(len(query)):
        total += np.float64(query[c]) * np.float64(flat[start + c * 16])
    return total


@compiled()
@no_type_check
def _scan(query, large, flat, axes, angle, size, noise, slack, bound, product, best, pixel):
    """Best score and pixel after a search in one large block."""
    block = 16 * len(query)
    _sixteen(query, axes, large * block, bound)
    first = 0
    for small in range(1, 16):
        if bound[small] > bound[first]:
            first = small
    _bound(bound, angle[large, 0], angle[large, 1], slack)
    for step in range(16):  # the block with the nearest axis first
        small = first if step == 0 else (0 if step == first else step)
        if bound[small] < best:
            continue
        start = (large * 16 + small) * block
        _sixteen(query, flat, start, product)
        enough = np.float32(best - noise)
        for p in range(np.uint64(16)):
            if product[p] >= enough:  # close candidates are compared in double precision
                exact = _exact(query, flat, start + p)
                if exact >= best:
                    row, column = _pixel(large, small, p, size[0], size[1])
                    candidate = row * size[1] + column
                    if exact > best or candidate < pixel:
                        best, pixel = exact, candidate
                        enough = np.float32(best - noise)
    return best, pixel


@compiled(parallel=True)
@no_type_check
def _search(queries, flat, axis, angle, small_axes, small_angle, size, noise, slack, found):
    """Search sixteen queries at a time, so that they share the cached blocks."""
    large_blocks = axis.shape[1]
    width = size[1]
    across = (width + 15) // 16
    for tile in numba.prange((len(queries) + 15) // 16):
        begin, end = tile * 16, min(tile * 16 + 16, len(queries))
        bounds = np.empty((16, large_blocks), np.float32)
        bound, product = np.empty(16, np.float32), np.empty(16, np.float32)
        best = np.full(16, -np.inf)
        for q in range(begin, end):
            query, row = queries[q], bounds[q - begin]
            _products(query, axis, row)
            if found[q] < 0:  # start in the block with the nearest axis
                best[q - begin], found[q] = _scan(
                    query, np.argmax(row), flat, small_axes, small_angle, size,
                    noise, slack, bound, product, -np.inf, 0
                )  # fmt: skip
            else:
                y, x = found[q] // width, found[q] % width
                small = (y // 16 * across + x // 16) * 16 + y % 16 // 4 * 4 + x % 16 // 4
                start = small * 16 * len(query) + y % 4 * 4 + x % 4
                best[q - begin] = _exact(query, flat, start)
            _bound(row, angle[0], angle[1], slack)
        for large in range(large_blocks):
            for q in range(begin, end):
                if bounds[q - begin, large] >= best[q - begin]:
                    best[q - begin], found[q] = _scan(
                        queries[q], large, flat, small_axes, small_angle, size,
                        noise, slack, bound, product, best[q - begin], found[q]
                    )  # fmt: skip
