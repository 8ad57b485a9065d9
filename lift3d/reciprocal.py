"""Pixels of two descriptor maps that are each other's nearest: found from a grid of seeds.

Fast reciprocal matching after MASt3R (Leroy et al. 2024, section 3.3): a seed jumps to its
nearest neighbour in the other map and back, until it stays. The search for the nearest
neighbour is exact: blocks of 8x8 pixels whose cone of descriptors cannot hold a better one
are left out, the rest is compared pixel by pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, Int64

from lift3d.errors import InputError
from lift3d.scene import Matches

Descriptors: TypeAlias = Float32[np.ndarray, "height width channels"]

LARGE = 16
"""Side of a large block in pixels; the kernels count on it."""
SMALL = 16
"""Small blocks in a large one, and pixels in a small one."""
CHUNK = 8
"""Channels come in multiples of this, filled up with zeros."""


@dataclass(frozen=True, eq=False)
class DescribedPair:
    """What one run of a network says of two images: unit descriptors and their confidences."""

    a: Float32[np.ndarray, "height_a width_a channels"]
    b: Float32[np.ndarray, "height_b width_b channels"]
    confidence_a: Float32[np.ndarray, "height_a width_a"]
    """Above 0, without upper limit; 1 is neither sure nor unsure."""
    confidence_b: Float32[np.ndarray, "height_b width_b"]


def reciprocal_matches(
    a: Float32[np.ndarray, "height_a width_a channels"],
    b: Float32[np.ndarray, "height_b width_b channels"],
    stride: int = 8,
    rounds: int = 10,
) -> tuple[Int64[np.ndarray, "matches 2"], Int64[np.ndarray, "matches 2"]]:
    """Pixels (column, row) of `a` and `b` that are each other's nearest, ordered by `a`'s pixel.

    Nearest is the largest dot product, in double precision; a tie goes to the first pixel in
    row-major order. No pixel comes twice. The seeds lie every `stride` pixels in `a`; one that
    does not settle within `rounds` jumps there and back gives no match.
    Raises `InputError` where descriptors are not of unit length.
    """
    search = Search(a, b)
    return search.pairs(search.from_a(stride, rounds))


def match_pair(
    predictions: Sequence[DescribedPair],
    stride: int = 8,
    rounds: int = 10,
    min_confidence: float = 0.0,
) -> Matches:
    """All that several predictions say of the same two images, with seeds in both images.

    A match has the confidence c = sqrt(confidence_a * confidence_b) of its two pixels, the best
    one where predictions agree; below `min_confidence` it is dropped. `Matches.confidence` is
    c / (1 + c), so 0.5 stands for c = 1. Ordered by `a`'s pixel, then by `b`'s.

    Turn a prediction made with the images swapped before passing it.
    """
    if not predictions:
        raise InputError("matching needs at least one prediction of the pair, got none")
    sizes = {(one.a.shape[:2], one.b.shape[:2]) for one in predictions}
    if len(sizes) > 1:
        raise InputError(
            f"predictions of one pair have different sizes {sorted(sizes)}; were some made with "
            "the images swapped?"
        )
    keys, confidences = [], []
    area_b = predictions[0].b.shape[0] * predictions[0].b.shape[1]
    for one in predictions:
        search = Search(one.a, one.b)
        found = np.union1d(search.from_a(stride, rounds), search.from_b(stride, rounds))
        there = search.b_of_a[found].astype(np.int64)
        keys.append(found * area_b + there)
        product = one.confidence_a.ravel()[found].astype(np.float64)
        confidences.append(np.sqrt(product * one.confidence_b.ravel()[there]))
    key, confidence = np.concatenate(keys), np.concatenate(confidences)
    order = np.lexsort([-confidence, key])  # of equal keys the best confidence is first
    key, first = np.unique(key[order], return_index=True)
    confidence = confidence[order][first]

    kept = confidence >= min_confidence
    key, confidence = key[kept], confidence[kept]
    return Matches(
        _column_row(key // area_b, predictions[0].a.shape[1]).astype(np.float32),
        _column_row(key % area_b, predictions[0].b.shape[1]).astype(np.float32),
        (confidence / (1 + confidence)).astype(np.float32),
    )


class Search:
    """Nearest neighbours between two maps, each searched for once and remembered."""

    def __init__(
        self,
        a: Float32[np.ndarray, "height_a width_a channels"],
        b: Float32[np.ndarray, "height_b width_b channels"],
    ) -> None:
        self._a, self._b = Blocks(a), Blocks(b)
        self.b_of_a = np.full(a.shape[0] * a.shape[1], -1, np.int32)
        """Per pixel of `a` in row-major order its nearest of `b`, -1 where nobody asked."""
        self.a_of_b = np.full(b.shape[0] * b.shape[1], -1, np.int32)
        # Whoever has a pixel as its nearest is a good guess for that pixel's own.
        self._guess_b = np.full_like(self.b_of_a, -1)
        self._guess_a = np.full_like(self.a_of_b, -1)

    def from_a(self, stride: int, rounds: int) -> Int64[np.ndarray, " matches"]:
        """Pixels of `a`, ascending, where seeds on a grid in `a` settled."""
        seeds = _grid(self._a.height, self._a.width, stride)
        return self._settle(seeds, rounds, forth=self._to_b, back=self._to_a)

    def from_b(self, stride: int, rounds: int) -> Int64[np.ndarray, " matches"]:
        """Pixels of `a`, ascending, where seeds on a grid in `b` settled."""
        seeds = _grid(self._b.height, self._b.width, stride)
        settled = self._settle(seeds, rounds, forth=self._to_a, back=self._to_b)
        return np.sort(self.a_of_b[settled].astype(np.int64))

    def pairs(
        self, found: Int64[np.ndarray, " matches"]
    ) -> tuple[Int64[np.ndarray, "matches 2"], Int64[np.ndarray, "matches 2"]]:
        """(Column, row) in `a` and `b` of these pixels of `a` and their nearest."""
        there = self.b_of_a[found].astype(np.int64)
        return _column_row(found, self._a.width), _column_row(there, self._b.width)

    def _settle(
        self,
        here: Int64[np.ndarray, " seeds"],
        rounds: int,
        forth: Callable[[np.ndarray], np.ndarray],
        back: Callable[[np.ndarray], np.ndarray],
    ) -> Int64[np.ndarray, " settled"]:
        settled = []
        for _ in range(rounds):
            again = back(forth(here))
            settled.append(here[again == here])
            here = np.unique(again[again != here])
            if not len(here):
                break
        return np.unique(np.concatenate(settled)) if settled else here[:0]

    def _to_b(self, pixels: Int64[np.ndarray, " pixels"]) -> Int64[np.ndarray, " pixels"]:
        known, guess, back = self.b_of_a, self._guess_b, self._guess_a
        return _remembered(pixels, self._a, self._b, known, guess, back)

    def _to_a(self, pixels: Int64[np.ndarray, " pixels"]) -> Int64[np.ndarray, " pixels"]:
        known, guess, back = self.a_of_b, self._guess_a, self._guess_b
        return _remembered(pixels, self._b, self._a, known, guess, back)


class Blocks:
    """A map of unit descriptors cut into blocks of 4x4 pixels, 4x4 of them in a large block.

    Each has a cone: the axis and the widest angle of the descriptors in it.
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
        """Cosine and sine of each cone's widest angle."""
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
        """How far the lengths are from 1 at most."""
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

        A good `guess` saves time, -1 stands for none. `off_unit` says how far the queries'
        lengths are from 1 at most.
        """
        padded = np.zeros((len(queries), self.axis.shape[0]), np.float32)
        padded[:, : queries.shape[1]] = queries
        # Single precision may be wrong by this much; products of lengths by the slack's rest.
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


def _remembered(
    pixels: Int64[np.ndarray, " pixels"],
    source: Blocks,
    target: Blocks,
    known: Int32[np.ndarray, " area"],
    guess: Int32[np.ndarray, " area"],
    guess_back: Int32[np.ndarray, " target_area"],
) -> Int64[np.ndarray, " pixels"]:
    """The nearest of each pixel, searched for where `known` has none yet."""
    asked = np.unique(pixels[known[pixels] < 0])
    if len(asked):
        # Neighbours look at the same blocks: cell by cell of 32x32.
        row, column = asked // source.width, asked % source.width
        asked = asked[np.lexsort([column // 32, row // 32])]
        found = target.nearest(source.flat[asked], guess[asked], source.off_unit)
        known[asked] = found
        guess_back[found] = asked
    return known[pixels].astype(np.int64)


def _grid(height: int, width: int, stride: int) -> Int64[np.ndarray, " seeds"]:
    """Row-major pixels of a grid that starts half a stride from the corner."""
    if stride < 1:
        raise InputError(f"matching stride is {stride}; it must be 1 or more")
    rows = np.arange(min(stride // 2, height - 1), height, stride, dtype=np.int64)
    columns = np.arange(min(stride // 2, width - 1), width, stride, dtype=np.int64)
    return (rows[:, None] * width + columns).ravel()


def _column_row(pixels: Int64[np.ndarray, " pixels"], width: int) -> Int64[np.ndarray, "pixels 2"]:
    return np.stack([pixels % width, pixels // width], axis=1)


@numba.njit(cache=True, inline="always")
@no_type_check
def _pixel(large, small, p, height, width):
    """Row and column of a pixel of a block; outside the image those of the nearest inside."""
    across = (width + 15) // 16
    row = large // across * 16 + small // 4 * 4 + p // 4
    column = large % across * 16 + small % 4 * 4 + p % 4
    return min(row, height - 1), min(column, width - 1)


@numba.njit(cache=True)
@no_type_check
def _narrowest(values, axis):
    """Least cosine between the axis and the descriptors, rounded towards a wider cone."""
    least = 1.0
    for p in range(16):
        along = 0.0
        square = 0.0
        for c in range(len(axis)):
            along += axis[c] * values[c, p]
            square += np.float64(values[c, p]) * values[c, p]
        least = min(least, along / np.sqrt(square) if square > 0.0 else -1.0)
    return max(least - 1e-6, -1.0)


@numba.njit(cache=True, parallel=True)
@no_type_check
def _cut(descriptors, values, axis, angle, small_axis, small_angle, off):
    """Fill the blocks; one over the border repeats the border's pixels, which harms no one."""
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
                    worst = away if away == away else np.inf  # NaN is as far off as can be
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


@numba.njit(cache=True)
@no_type_check
def _set_axis(mean):
    """To unit length; where there is no mean any direction will do."""
    length = np.sqrt((mean * mean).sum())
    if length > 0.0:
        mean /= length
    else:
        mean[0] = 1.0


@numba.njit(cache=True, fastmath={"contract", "nnan", "nsz"})
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


@numba.njit(cache=True, fastmath={"contract", "nnan", "nsz"})
@no_type_check
def _sixteen(query, flat, start, out):
    """As `_products` with a matrix of 16 columns that starts somewhere in a flat array.

    Unsigned indices need no look whether they count from the end: that is 6 times faster.
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


@numba.njit(cache=True, fastmath={"contract", "nnan", "nsz"})
@no_type_check
def _bound(products, cosine, sine, slack):
    """From cosines to the axes to cosines to the nearest directions in the cones."""
    for i in range(np.uint64(len(products))):
        t = products[i]
        rest = max(np.float32(1.0) - t * t, np.float32(0.0))
        edge = t * cosine[i] + np.sqrt(rest) * sine[i]
        products[i] = (np.float32(1.0) if t >= cosine[i] else edge) + slack


@numba.njit(cache=True)
@no_type_check
def _exact(query, flat, start):
    """Product with a column of a matrix of 16 columns, in double precision."""
    total = 0.0
    for c in range(len(query)):
        total += np.float64(query[c]) * np.float64(flat[start + c * 16])
    return total


@numba.njit(cache=True)
@no_type_check
def _look(query, large, flat, axes, angle, size, noise, slack, bound, product, best, pixel):
    """Best score and pixel after looking into one large block."""
    block = 16 * len(query)
    _sixteen(query, axes, large * block, bound)
    first = 0
    for small in range(1, 16):
        if bound[small] > bound[first]:
            first = small
    _bound(bound, angle[large, 0], angle[large, 1], slack)
    for step in range(16):  # first where the axis is nearest
        small = first if step == 0 else (0 if step == first else step)
        if bound[small] < best:
            continue
        start = (large * 16 + small) * block
        _sixteen(query, flat, start, product)
        enough = np.float32(best - noise)
        for p in range(np.uint64(16)):
            if product[p] >= enough:  # close calls are decided in double precision
                exact = _exact(query, flat, start + p)
                if exact >= best:
                    row, column = _pixel(large, small, p, size[0], size[1])
                    candidate = row * size[1] + column
                    if exact > best or candidate < pixel:
                        best, pixel = exact, candidate
                        enough = np.float32(best - noise)
    return best, pixel


@numba.njit(cache=True, parallel=True)
@no_type_check
def _search(queries, flat, axis, angle, small_axes, small_angle, size, noise, slack, found):
    """Sixteen queries at a time, so that they share what they look at."""
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
            if found[q] < 0:  # look first where the axis is nearest
                best[q - begin], found[q] = _look(
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
                    best[q - begin], found[q] = _look(
                        queries[q], large, flat, small_axes, small_angle, size,
                        noise, slack, bound, product, best[q - begin], found[q]
                    )  # fmt: skip


class Window(NamedTuple):
    """A rectangle of whole pixels in an image."""

    left: int
    top: int
    width: int
    height: int

    def holds(self, xy: Float[np.ndarray, "points 2"]) -> Bool[np.ndarray, " points"]:
        """Whether the point's nearest pixel lies in the window."""
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
    """Windows of two large images to be matched again, until `cover` of `coarse` is in a pair.

    From coarse to fine after MASt3R (section 3.4): both images are cut into windows that share
    `overlap` of their sides with the next, and the pair of windows that holds most matches not
    yet in a pair is taken, again and again; a tie goes to the first in row-major order. Sizes
    are (width, height), `coarse` is in pixels of the large images.
    """
    if not 0 <= overlap < 1:
        raise InputError(f"overlap of windows is {overlap}; it must be at least 0 and below 1")
    if not 0 < cover <= 1:
        raise InputError(f"share of matches to cover is {cover}; it must be above 0, at most 1")
    windows_a, windows_b = _windows(size_a, window, overlap), _windows(size_b, window, overlap)
    in_a = np.stack([one.holds(coarse.xy_in_a) for one in windows_a], axis=1)
    in_b = np.stack([one.holds(coarse.xy_in_b) for one in windows_b], axis=1)
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
    """Windows over the whole image; the last of a row or column ends at the border."""
    starts = []
    for side, length in zip(size, window, strict=True):
        step = max(1, int(length * (1 - overlap)))
        end = max(side - length, 0)
        starts.append([*range(0, end, step), end])
    width, height = min(window[0], size[0]), min(window[1], size[1])
    return [Window(x, y, width, height) for y in starts[1] for x in starts[0]]
