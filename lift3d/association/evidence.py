"""Co-occurrence of pairs of points: visible in the same view, in one mask or in two."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int, Int32, Int64, UInt, UInt8
from scipy import sparse

from lift3d.association.looks import Look, looks
from lift3d.association.overlap import Overlap, regions_under_masks, together
from lift3d.geometry.visibility import DepthTolerance
from lift3d.scene import Points, Scene, Skipped, distinct
from lift3d.scene.compiled import compiled
from lift3d.scene.mask_sets import MaskSet, ViewMasks

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
    region: Int32[np.ndarray, " observations"]
    """Index into the table of regions; -1 where unlabelled."""

    @property
    def view(self) -> Int32[np.ndarray, " observations"]:
        """The view of each observation."""
        every = np.arange(self.first, self.first + len(self.start) - 1, dtype=np.int32)
        return np.repeat(every, np.diff(self.start))


@dataclass(frozen=True, eq=False)
class Packed:
    """One view's observations: a bit for each anchor, a byte for each that is seen."""

    seen: UInt8[np.ndarray, " bytes"]
    region: UInt[np.ndarray, " seen"]
    """Number of the region in its view, from 1; 0 where unlabelled."""
    first: int
    """Index of the view's first region in the table."""


@dataclass(frozen=True, eq=False)
class Observations:
    """Which label each view gives each anchor that it sees; about 20 kB a view.

    A region is what lies under the same masks of a view. Where no masks overlap and all scores are
    1 (`overlap` is None), the table of regions is that of the masks.
    """

    anchors: int
    packed: tuple[Packed, ...]
    mask_view: Int32[np.ndarray, " masks"]
    """The table of masks, one per (view, label)."""
    mask_label: Int32[np.ndarray, " masks"]
    skipped: tuple[Skipped, ...] = ()
    """Views that see no anchor because they cannot be read."""
    overlap: Overlap | None = None

    @property
    def region_view(self) -> Int32[np.ndarray, " regions"]:
        """The view of each region, ascending."""
        return self.mask_view if self.overlap is None else self.overlap.region_view

    @property
    def region_label(self) -> Int32[np.ndarray, " regions"]:
        """Label or region of each region in its view's masks, ascending in a view."""
        return self.mask_label if self.overlap is None else self.overlap.region_label

    @property
    def views(self) -> int:
        """Number of views."""
        return len(self.packed)

    def under(self, kept: Bool[np.ndarray, " regions"]) -> Observations:
        """These without what is under other regions, as if no view saw that."""
        packed = []
        for each in self.packed:
            low, high = each.first, each.first + int(each.region.max(initial=0))
            there = np.append(True, kept[low:high])[each.region]  # True: unlabelled
            seen = np.unpackbits(each.seen, count=self.anchors)
            seen[np.flatnonzero(seen)[~there]] = 0
            packed.append(Packed(np.packbits(seen), each.region[there], each.first))
        return replace(self, packed=tuple(packed))

    def blocks(self, views: int = BLOCK) -> Iterator[Labels]:
        """All observations, that many views at a time, so that memory does not grow with them."""
        for first in range(0, self.views, views):
            some = self.packed[first : first + views]
            anchor = [
                np.flatnonzero(np.unpackbits(each.seen, count=self.anchors)).astype(np.int32)
                for each in some
            ]
            region = []
            for each in some:
                index = each.region.astype(np.int32) + np.int32(each.first - 1)
                index[each.region == 0] = -1
                region.append(index)
            start = np.append(0, np.cumsum([len(each) for each in anchor])).astype(np.int64)
            yield Labels(first, start, np.concatenate(anchor), np.concatenate(region))

    def whole(self) -> Labels:
        """All observations at once."""
        if not self.packed:
            none = np.zeros(0, np.int32)
            return Labels(0, np.zeros(1, np.int64), none, none)
        return next(self.blocks(self.views))


def observe(
    anchors: Points,
    scene: Scene,
    label_maps: Mapping[str, ViewMasks],
    tolerance: DepthTolerance,
    progress: Callable[[], None] | None = None,
    also: Callable[[Look], None] | None = None,
) -> Observations:
    """Read the label of every anchor in every view that sees it. Streams over the views.

    `also` is called with each look, so that the view is decoded once.
    """
    packed: list[Packed] = []
    tables: list[_Table] = []
    first = 0
    skipped: list[Skipped] = []
    for look in looks(anchors, scene, label_maps, tolerance, skipped):
        table, number = _table(look)
        seen = np.zeros(len(anchors), bool)
        seen[look.seen.point] = True
        region = number.astype(np.min_scalar_type(len(table.regions)))
        packed.append(Packed(np.packbits(seen), region, first))
        tables.append(table)
        first += len(table.regions)
        if also:
            also(look)
        if progress:
            progress()
    mask_view, mask_label = _joined([each.masks for each in tables])
    overlap = None
    if any(each.scores is not None for each in tables):
        overlap = Overlap.of(
            *_joined([each.regions for each in tables]),
            [
                sparse.eye_array(len(t.masks), format="csr") if t.scores is None else t.scores
                for t in tables
            ],
        )
    return Observations(len(anchors), tuple(packed), mask_view, mask_label, tuple(skipped), overlap)


class _Table(NamedTuple):
    """One view's part of the tables of regions and masks."""

    regions: Int32[np.ndarray, " regions"]
    masks: Int32[np.ndarray, " masks"]
    scores: sparse.csr_array | None
    """(regions, masks); None where the regions are the masks and all scores are 1."""


def _table(look: Look) -> tuple[_Table, Int[np.ndarray, " seen"]]:
    """One view's regions and masks, and for each point the number of its region, from 1."""
    if isinstance(look.masks, MaskSet):
        regions, ids, scores = regions_under_masks(look.masks, look.region)
        number = np.zeros(look.masks.regions + 1, np.int32)
        number[regions] = np.arange(1, len(regions) + 1)
        return _Table(regions, ids, scores), number[look.region]
    known, inverse = np.unique(look.region, return_inverse=True)
    ids = known[known != 0].astype(np.int32)
    # Label 0, the smallest, is number 0, whether it occurs or not.
    return _Table(ids, ids, None), inverse + (len(ids) == len(known))


def _joined(
    views: list[np.ndarray],
) -> tuple[Int32[np.ndarray, " all"], Int32[np.ndarray, " all"]]:
    """The view of each entry, and the entries of all views."""
    view = np.repeat(np.arange(len(views), dtype=np.int32), [len(each) for each in views])
    return view, np.concatenate([np.zeros(0, np.int32), *views])


def pair_graph(
    xyz: Float32[np.ndarray, "anchors 3"], neighbours: tuple[int, ...], seed: int
) -> tuple[Int32[np.ndarray, " pairs"], Int32[np.ndarray, " pairs"]]:
    """Pairs (a < b) at growing distances: neighbours in the whole set, in a quarter of it, ...

    `neighbours` is the number of pairs per point on each level.
    Near pairs connect the graph, far pairs separate objects: across a rough mask border two
    neighbours nearly always share a mask, two points about 10 cm apart do not.
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
    unique = distinct(np.concatenate(keys))
    return (unique // len(xyz)).astype(np.int32), (unique % len(xyz)).astype(np.int32)


def pair_agreement(
    seen: Observations,
    a: Int32[np.ndarray, " pairs"],
    b: Int32[np.ndarray, " pairs"],
    half: float,
) -> tuple[Float64[np.ndarray, " pairs"], Float64[np.ndarray, " pairs"]]:
    """For each pair, `a` ascending: views that put both in one mask, and that give any evidence.

    A view that labels only one of the two counts `half`, against: segmenters leave parts of
    objects out more often than they cut objects. A view that labels neither does not count.

    Where masks overlap, a view counts for a pair as `together` says, of the
    product of the best scores over the two.
    """
    agree, total = np.zeros((2, len(a)))
    masks = (np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0), np.zeros(0))
    if seen.overlap is not None:
        scores = seen.overlap.scores
        masks = (scores.indptr, scores.indices, scores.data, seen.overlap.confidence)
    pairs = np.searchsorted(a, np.arange(seen.anchors + 1))  # a ascends
    threads = numba.get_num_threads()
    for some in seen.blocks():
        seen_as = (some.start, some.anchor, some.region)
        _count_pairs(*seen_as, pairs, b, half, *masks, agree, total, threads)
    return agree, total


@compiled(parallel=True)
@no_type_check
def _count_pairs(
    start, anchor, region, pairs, b, half, indptr, masks, scores, confidence, agree, total, parts
):  # fmt: skip
    """The pairs of anchor a are pairs[a]:pairs[a + 1], `b` has their other ends."""
    anchors = len(pairs) - 1
    overlap = len(confidence) > 0
    for part in numba.prange(parts):
        # Pairs are shared evenly.
        low = np.searchsorted(pairs, part * len(b) // parts)
        high = np.searchsorted(pairs, (part + 1) * len(b) // parts)
        low, high = low if part else 0, high if part + 1 < parts else anchors
        current = np.full(anchors, -2, np.int32)  # -2: this view does not see it
        for view in range(len(start) - 1):
            for at in range(start[view], start[view + 1]):
                current[anchor[at]] = region[at]
            for at in range(start[view], start[view + 1]):
                if not low <= anchor[at] < high:
                    continue
                one = region[at]
                for pair in range(pairs[anchor[at]], pairs[anchor[at] + 1]):
                    other = current[b[pair]]
                    if other == -2 or (one == -1 and other == -1):
                        continue
                    if one == -1 or other == -1:
                        total[pair] += half * confidence[max(one, other)] if overlap else half
                    elif not overlap:
                        agree[pair] += 1.0 if one == other else 0.0
                        total[pair] += 1.0
                    else:
                        agree[pair] += together(one, other, indptr, masks, scores, confidence)
                        total[pair] += confidence[one] * confidence[other]
            for at in range(start[view], start[view + 1]):
                current[anchor[at]] = -2
