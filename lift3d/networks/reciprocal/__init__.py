"""Mutual nearest neighbours of two descriptor maps, found from a grid of seeds.

Fast reciprocal matching after MASt3R (Leroy et al. 2024, section 3.3): a seed moves to its
nearest neighbour in the other map and back, until it returns to the same pixel. The search for
the nearest neighbour is exact: see `blocks`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32, Int64

from lift3d.networks.reciprocal.blocks import Blocks
from lift3d.networks.reciprocal.windows import Window, window_pairs
from lift3d.scene import Matches, distinct
from lift3d.scene.errors import InputError

__all__ = [
    "Blocks",
    "DescribedPair",
    "Search",
    "Window",
    "match_pair",
    "reciprocal_matches",
    "window_pairs",
]


@dataclass(frozen=True, eq=False)
class DescribedPair:
    """A network's prediction for two images: unit descriptors and their confidences."""

    a: Float32[np.ndarray, "height_a width_a channels"]
    b: Float32[np.ndarray, "height_b width_b channels"]
    confidence_a: Float32[np.ndarray, "height_a width_a"]
    """Above 0, without upper limit; 1 maps to a match confidence of 0.5."""
    confidence_b: Float32[np.ndarray, "height_b width_b"]


def reciprocal_matches(
    a: Float32[np.ndarray, "height_a width_a channels"],
    b: Float32[np.ndarray, "height_b width_b channels"],
    stride: int = 8,
    rounds: int = 10,
) -> tuple[Int64[np.ndarray, "matches 2"], Int64[np.ndarray, "matches 2"]]:
    """Mutual nearest neighbours: pixels (column, row) of `a` and `b`, ordered by `a`'s pixel.

    The nearest has the largest dot product in double precision; a tie goes to the first pixel in
    row-major order. Every pixel occurs at most once. Seeds are every `stride` pixels in `a`; one
    that does not converge within `rounds` steps there and back gives no match.
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
    """The matches of several predictions for the same two images, with seeds in both images.

    A match has the confidence c = sqrt(confidence_a * confidence_b) of its two pixels, the
    highest where several predictions have it; below `min_confidence` it is dropped.
    `Matches.confidence` is c / (1 + c), so 0.5 stands for c = 1. Ordered by `a`'s pixel, then by
    `b`'s.

    For a prediction made with the images swapped, swap `a` and `b` before passing it.
    """
    if not predictions:
        raise InputError("matching needs at least one prediction of the pair, got none")
    sizes = {(each.a.shape[:2], each.b.shape[:2]) for each in predictions}
    if len(sizes) > 1:
        raise InputError(
            f"predictions of one pair have different sizes {sorted(sizes)}; were some made with "
            "the images swapped?"
        )
    keys, confidences = [], []
    area_b = predictions[0].b.shape[0] * predictions[0].b.shape[1]
    for prediction in predictions:
        search = Search(prediction.a, prediction.b)
        found = np.union1d(search.from_a(stride, rounds), search.from_b(stride, rounds))
        there = search.b_of_a[found].astype(np.int64)
        keys.append(found * area_b + there)
        product = prediction.confidence_a.ravel()[found].astype(np.float64)
        confidences.append(np.sqrt(product * prediction.confidence_b.ravel()[there]))
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
    """Nearest neighbours between two maps, each searched once and cached."""

    def __init__(
        self,
        a: Float32[np.ndarray, "height_a width_a channels"],
        b: Float32[np.ndarray, "height_b width_b channels"],
    ) -> None:
        self._a, self._b = Blocks(a), Blocks(b)
        self.b_of_a = np.full(a.shape[0] * a.shape[1], -1, np.int32)
        """Nearest pixel of `b` for each pixel of `a` in row-major order; -1 where not searched."""
        self.a_of_b = np.full(b.shape[0] * b.shape[1], -1, np.int32)
        # A pixel whose nearest neighbour is p is a good first guess for the neighbour of p.
        self._guess_b = np.full_like(self.b_of_a, -1)
        self._guess_a = np.full_like(self.a_of_b, -1)

    def from_a(self, stride: int, rounds: int) -> Int64[np.ndarray, " matches"]:
        """Pixels of `a`, ascending, to which seeds on a grid in `a` converge."""
        seeds = _grid(self._a.height, self._a.width, stride)
        return self._settle(seeds, rounds, forth=self._to_b, back=self._to_a)

    def from_b(self, stride: int, rounds: int) -> Int64[np.ndarray, " matches"]:
        """Pixels of `a`, ascending, to which seeds on a grid in `b` converge."""
        seeds = _grid(self._b.height, self._b.width, stride)
        settled = self._settle(seeds, rounds, forth=self._to_a, back=self._to_b)
        return np.sort(self.a_of_b[settled].astype(np.int64))

    def pairs(
        self, found: Int64[np.ndarray, " matches"]
    ) -> tuple[Int64[np.ndarray, "matches 2"], Int64[np.ndarray, "matches 2"]]:
        """(column, row) of these pixels of `a` and of their nearest neighbours in `b`."""
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
            here = distinct(again[again != here])
            if not len(here):
                break
        return distinct(np.concatenate(settled)) if settled else here[:0]

    def _to_b(self, pixels: Int64[np.ndarray, " pixels"]) -> Int64[np.ndarray, " pixels"]:
        known, guess, back = self.b_of_a, self._guess_b, self._guess_a
        return _cached_nearest(pixels, self._a, self._b, known, guess, back)

    def _to_a(self, pixels: Int64[np.ndarray, " pixels"]) -> Int64[np.ndarray, " pixels"]:
        known, guess, back = self.a_of_b, self._guess_a, self._guess_b
        return _cached_nearest(pixels, self._b, self._a, known, guess, back)


def _cached_nearest(
    pixels: Int64[np.ndarray, " pixels"],
    source: Blocks,
    target: Blocks,
    known: Int32[np.ndarray, " area"],
    guess: Int32[np.ndarray, " area"],
    guess_back: Int32[np.ndarray, " target_area"],
) -> Int64[np.ndarray, " pixels"]:
    """The nearest neighbour of each pixel, searched where `known` is -1."""
    new = distinct(pixels[known[pixels] < 0])
    if len(new):
        # Sorted by cells of 32x32, because neighbouring pixels need the same blocks.
        row, column = new // source.width, new % source.width
        new = new[np.lexsort([column // 32, row // 32])]
        found = target.nearest(source.flat[new], guess[new], source.off_unit)
        known[new] = found
        guess_back[found] = new
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
