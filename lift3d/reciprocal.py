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
from jaxtyping import Bool, Float, Float32, Float64, Int32, Int64

from lift3d.errors import InputError
from lift3d.scene import Matches

Descriptors: TypeAlias = Float32[np.ndarray, "height width channels"]

BLOCK = 8
"""Side of a block in pixels; the kernels count on 64 pixels in one."""
TILE = 16
"""Queries that share a pass over the blocks: bounds what a thread needs in memory."""
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
        return _remembered(pixels, self._a, self._b, self.b_of_a)

    def _to_a(self, pixels: Int64[np.ndarray, " pixels"]) -> Int64[np.ndarray, " pixels"]:
        return _remembered(pixels, self._b, self._a, self.a_of_b)


class Blocks:
    """A map of unit descriptors cut into blocks, each with the cone that holds it."""

    def __init__(self, descriptors: Descriptors) -> None:
        self.height, self.width, channels = descriptors.shape
        if descriptors.size == 0:
            raise InputError(f"descriptor map of shape {descriptors.shape} is empty")
        self.flat = np.ascontiguousarray(descriptors).reshape(-1, channels)
        padded = -(-channels // CHUNK) * CHUNK
        down, across = -(-self.height // BLOCK), -(-self.width // BLOCK)
        blocks = down * across
        self.values = np.zeros((blocks, padded, BLOCK * BLOCK), np.float32)
        self.axis = np.zeros((padded, blocks), np.float32)
        self.cosine = np.empty(blocks, np.float32)
        self.sine = np.empty(blocks, np.float32)
        off = np.empty(blocks)
        _cut(descriptors, across, self.values, self.axis, self.cosine, self.sine, off)
        self.off_unit = float(off.max())
        """How far the lengths are from 1 at most."""
        if not self.off_unit < 0.01:
            raise InputError(
                f"descriptors must have unit length, some are off by {self.off_unit:.3g}; "
                "divide them by their norm"
            )


def nearest(
    queries: Float32[np.ndarray, "queries channels"], blocks: Blocks, off_unit: float = 0.0
) -> tuple[Int32[np.ndarray, " queries"], Float64[np.ndarray, " queries"]]:
    """Row-major pixel with the largest dot product for each query, and that product.

    `off_unit` says how far the queries' lengths are from 1 at most.
    """
    padded = np.zeros((len(queries), blocks.values.shape[1]), np.float32)
    padded[:, : queries.shape[1]] = queries
    # Single precision may be wrong by this much, products of lengths by this much more.
    noise = np.float32(2e-7 * (padded.shape[1] + 8))
    slack = np.float32(2 * noise + 4 * (off_unit + blocks.off_unit))
    found = np.zeros(len(queries), np.int32)
    score = np.full(len(queries), -np.inf)
    _search(
        padded,
        blocks.values,
        blocks.axis,
        blocks.cosine,
        blocks.sine,
        blocks.height,
        blocks.width,
        noise,
        slack,
        found,
        score,
    )
    return found, score


def _remembered(
    pixels: Int64[np.ndarray, " pixels"],
    source: Blocks,
    target: Blocks,
    known: Int32[np.ndarray, " area"],
) -> Int64[np.ndarray, " pixels"]:
    """The nearest of each pixel, searched for where `known` has none yet."""
    asked = np.unique(pixels[known[pixels] < 0])
    if len(asked):
        known[asked], _ = nearest(source.flat[asked], target, source.off_unit)
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


@numba.njit(cache=True, parallel=True)
@no_type_check
def _cut(descriptors, across, values, axis, cosine, sine, off):
    """Fill the blocks; a block over the border repeats the border's pixels, which harms no one."""
    height, width, channels = descriptors.shape
    for block in numba.prange(len(values)):
        top, left = block // across * 8, block % across * 8
        mean = np.zeros(channels)
        worst = 0.0
        for p in range(64):
            pixel = descriptors[min(top + p // 8, height - 1), min(left + p % 8, width - 1)]
            square = 0.0
            for c in range(channels):
                values[block, c, p] = pixel[c]
                mean[c] += pixel[c]
                square += np.float64(pixel[c]) * pixel[c]
            away = abs(np.sqrt(square) - 1.0)
            if not away <= worst:  # NaN is worse than anything
                worst = away if away == away else np.inf
        off[block] = worst
        length = np.sqrt((mean * mean).sum())
        for c in range(channels):
            axis[c, block] = mean[c] / length if length > 0.0 else np.float64(c == 0)
        narrowest = 1.0
        for p in range(64):
            along = 0.0
            square = 0.0
            for c in range(channels):
                along += np.float64(axis[c, block]) * values[block, c, p]
                square += np.float64(values[block, c, p]) * values[block, c, p]
            narrowest = min(narrowest, along / np.sqrt(square) if square > 0.0 else -1.0)
        # Rounded towards a wider cone.
        narrowest = max(narrowest - 1e-6, -1.0)
        cosine[block] = narrowest
        sine[block] = np.sqrt(1.0 - narrowest * narrowest) + 1e-7


@numba.njit(cache=True, inline="always", fastmath={"contract", "nnan", "nsz"})
@no_type_check
def _products(query, matrix, out):
    """out = query @ matrix, eight channels at a time so that sums stay in registers."""
    wide = matrix.shape[1]
    for c in range(0, len(query), 8):
        q0, q1, q2, q3 = query[c], query[c + 1], query[c + 2], query[c + 3]
        q4, q5, q6, q7 = query[c + 4], query[c + 5], query[c + 6], query[c + 7]
        m0, m1, m2, m3 = matrix[c], matrix[c + 1], matrix[c + 2], matrix[c + 3]
        m4, m5, m6, m7 = matrix[c + 4], matrix[c + 5], matrix[c + 6], matrix[c + 7]
        if c == 0:
            for i in range(wide):
                out[i] = np.float32(0.0)
        for i in range(wide):
            low = q0 * m0[i] + q1 * m1[i] + q2 * m2[i] + q3 * m3[i]
            high = q4 * m4[i] + q5 * m5[i] + q6 * m6[i] + q7 * m7[i]
            out[i] += low + high


@numba.njit(cache=True, fastmath={"contract", "nnan", "nsz", "reassoc"})
@no_type_check
def _largest(values):
    most = values[0]
    for i in range(len(values)):
        most = max(most, values[i])
    return most


@numba.njit(cache=True)
@no_type_check
def _look(query, block, top, left, height, width, noise, room, best, pixel):
    """Best score and pixel after looking at one block; those near the best are summed again."""
    _products(query, block, room)
    if _largest(room) < best - noise:
        return best, pixel
    for p in range(64):
        if room[p] >= best - noise:
            exact = 0.0
            for c in range(len(query)):
                exact += np.float64(query[c]) * np.float64(block[c, p])
            candidate = min(top + p // 8, height - 1) * width + min(left + p % 8, width - 1)
            if exact > best or (exact == best and candidate < pixel):
                best, pixel = exact, candidate
    return best, pixel


@numba.njit(cache=True, parallel=True)
@no_type_check
def _search(queries, values, axis, cosine, sine, height, width, noise, slack, found, score):
    blocks = len(values)
    across = (width + 7) // 8
    tiles = (len(queries) + 15) // 16
    for tile in numba.prange(tiles):
        begin, end = tile * 16, min(tile * 16 + 16, len(queries))
        bound = np.empty((16, blocks), np.float32)
        room = np.empty(64, np.float32)
        start = np.empty(16, np.int64)
        for q in range(begin, end):
            row = bound[q - begin]
            _products(queries[q], axis, row)
            first = np.argmax(row)
            _raise_to_bound(row, cosine, sine, slack)
            # A good start: the block whose axis is nearest.
            top, left = first // across * 8, first % across * 8
            score[q], found[q] = _look(
                queries[q], values[first], top, left, height, width, noise, room, -2.0, 0
            )
            start[q - begin] = first
        for block in range(blocks):
            top, left = block // across * 8, block % across * 8
            for q in range(begin, end):
                if bound[q - begin, block] >= score[q] and block != start[q - begin]:
                    score[q], found[q] = _look(
                        queries[q],
                        values[block],
                        top,
                        left,
                        height,
                        width,
                        noise,
                        room,
                        score[q],
                        found[q],
                    )


@numba.njit(cache=True, fastmath={"contract", "nnan", "nsz"})
@no_type_check
def _raise_to_bound(row, cosine, sine, slack):
    """From the cosine to the axis, the cosine to the nearest direction inside the cone."""
    for i in range(len(row)):
        t = row[i]
        inside = max(np.float32(1.0) - t * t, np.float32(0.0))
        edge = t * cosine[i] + np.sqrt(inside) * sine[i]
        row[i] = (np.float32(1.0) if t >= cosine[i] else edge) + slack


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
