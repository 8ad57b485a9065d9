"""What the views say about pairs of points: seen together, in one mask or in two."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, UInt, UInt8

from lift3d.association.looks import Look, looks
from lift3d.geometry.visibility import DepthTolerance
from lift3d.scene import LabelMap, Points, Scene, Skipped

BLOCK = 512
"""Views whose observations are unpacked at a time."""


@dataclass(frozen=True, eq=False)
class Labels:
    """Which label each of some views gives each anchor that it sees, view after view."""

    first: int
    """The first of the views."""
    start: Int64[np.ndarray, " views_plus_one"]
    """The observations of the i-th of them are start[i]:start[i + 1]."""
    anchor: Int32[np.ndarray, " observations"]
    mask: Int32[np.ndarray, " observations"]
    """Index into the table of masks; -1 where unlabelled."""

    @property
    def view(self) -> Int32[np.ndarray, " observations"]:
        """The view of each observation."""
        every = np.arange(self.first, self.first + len(self.start) - 1, dtype=np.int32)
        return np.repeat(every, np.diff(self.start))


@dataclass(frozen=True, eq=False)
class Packed:
    """One view's observations: a bit for each anchor, a byte for each that is seen."""

    seen: UInt8[np.ndarray, " bytes"]
    mask: UInt[np.ndarray, " seen"]
    """Number of the mask in its view, from 1; 0 where unlabelled."""
    first: int
    """Index of the view's first mask in the table."""


@dataclass(frozen=True, eq=False)
class Observations:
    """Which label each view gives each anchor that it sees; about 20 kB a view."""

    anchors: int
    packed: tuple[Packed, ...]
    mask_view: Int32[np.ndarray, " masks"]
    """The table of masks, one per (view, label)."""
    mask_label: Int32[np.ndarray, " masks"]
    skipped: tuple[Skipped, ...] = ()
    """Views that see no anchor because they cannot be read."""

    @property
    def views(self) -> int:
        """How many views were asked."""
        return len(self.packed)

    def blocks(self, views: int = BLOCK) -> Iterator[Labels]:
        """All observations, that many views at a time, so that memory does not grow with them."""
        for first in range(0, self.views, views):
            some = self.packed[first : first + views]
            anchor = [
                np.flatnonzero(np.unpackbits(each.seen, count=self.anchors)).astype(np.int32)
                for each in some
            ]
            mask = []
            for each in some:
                index = each.mask.astype(np.int32) + np.int32(each.first - 1)
                index[each.mask == 0] = -1
                mask.append(index)
            start = np.append(0, np.cumsum([len(each) for each in anchor])).astype(np.int64)
            yield Labels(first, start, np.concatenate(anchor), np.concatenate(mask))

    def whole(self) -> Labels:
        """All observations at once."""
        if not self.packed:
            none = np.zeros(0, np.int32)
            return Labels(0, np.zeros(1, np.int64), none, none)
        return next(self.blocks(self.views))


def observe(
    anchors: Points,
    scene: Scene,
    label_maps: Mapping[str, LabelMap],
    tolerance: DepthTolerance,
    progress: Callable[[], None] | None = None,
    also: Callable[[Look], None] | None = None,
) -> Observations:
    """Read the label of every anchor in every view that sees it. Streams over the views.

    `also` is called with each look, so that the view is decoded once.
    """
    packed: list[Packed] = []
    mask_label: list[np.ndarray] = [np.zeros(0, np.int32)]
    masks: list[int] = []
    first = 0
    skipped: list[Skipped] = []
    for look in looks(anchors, scene, label_maps, tolerance, skipped):
        known, inverse = np.unique(look.label, return_inverse=True)
        ids = known[known != 0]
        seen = np.zeros(len(anchors), bool)
        seen[look.seen.point] = True
        # Label 0, the smallest, is number 0, whether it occurs or not.
        number = inverse + (len(ids) == len(known))
        mask = number.astype(np.min_scalar_type(len(ids)))
        packed.append(Packed(np.packbits(seen), mask, first))
        mask_label.append(ids.astype(np.int32))
        masks.append(len(ids))
        first += len(ids)
        if also:
            also(look)
        if progress:
            progress()
    return Observations(
        len(anchors),
        tuple(packed),
        np.repeat(np.arange(len(packed), dtype=np.int32), masks),
        np.concatenate(mask_label),
        tuple(skipped),
    )


def pair_graph(
    xyz: Float32[np.ndarray, "anchors 3"], neighbours: tuple[int, ...], seed: int
) -> tuple[Int32[np.ndarray, " pairs"], Int32[np.ndarray, " pairs"]]:
    """Pairs (a < b) at growing distances: neighbours in the whole set, in a quarter of it, ...

    `neighbours` says how many on each level.
    The near pairs connect, the far ones tell: across a rough mask border two neighbours
    nearly always fall into one mask, two points a hand's width away on either side do not.
    """
    from scipy.spatial import cKDTree

    rng = np.random.default_rng(seed)
    order = rng.permutation(len(xyz))
    keys = []
    for level, wanted in enumerate(neighbours):
        chosen = np.sort(order[: max(1, len(xyz) >> (2 * level))])
        count = min(wanted + 1, len(chosen))
        _, near = cKDTree(xyz[chosen]).query(xyz, k=count, workers=-1)
        target = chosen[near.reshape(len(xyz), count)]
        source = np.broadcast_to(np.arange(len(xyz))[:, None], target.shape)
        low, high = np.minimum(source, target), np.maximum(source, target)
        keys.append((low * len(xyz) + high)[low != high])
    unique = np.unique(np.concatenate(keys))
    return (unique // len(xyz)).astype(np.int32), (unique % len(xyz)).astype(np.int32)


def pair_agreement(
    seen: Observations,
    a: Int32[np.ndarray, " pairs"],
    b: Int32[np.ndarray, " pairs"],
    half: float,
) -> tuple[Float64[np.ndarray, " pairs"], Float64[np.ndarray, " pairs"]]:
    """For each pair: views that put both in one mask, and views that say anything.

    A view that labels one of the two and not the other counts `half`: a segmenter leaves
    parts of objects out more often than it cuts them. A view that labels neither says nothing.
    """
    agree, total = np.zeros((2, len(a)))
    for some in seen.blocks():
        _count_pairs(some.start, some.anchor, some.mask, seen.anchors, a, b, half, agree, total)
    return agree, total


@numba.njit(cache=True, parallel=True)
@no_type_check
def _count_pairs(start, anchor, mask, anchors, a, b, half, agree, total):
    pairs = len(a)
    blocks = 8
    for block in numba.prange(blocks):
        low, high = block * pairs // blocks, (block + 1) * pairs // blocks
        current = np.full(anchors, -2, np.int32)  # -2: this view does not see it
        for view in range(len(start) - 1):
            for at in range(start[view], start[view + 1]):
                current[anchor[at]] = mask[at]
            for pair in range(low, high):
                one = current[a[pair]]
                if one == -2:
                    continue
                other = current[b[pair]]
                if other == -2 or (one == -1 and other == -1):
                    continue
                if one == other:
                    agree[pair] += 1.0
                    total[pair] += 1.0
                elif one == -1 or other == -1:
                    total[pair] += half
                else:
                    total[pair] += 1.0
            for at in range(start[view], start[view + 1]):
                current[anchor[at]] = -2
