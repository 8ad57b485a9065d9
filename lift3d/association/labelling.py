"""The second pass over the views: votes and evidence for the objects, at every point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, no_type_check

import numpy as np
from jaxtyping import Float32, Int32
from scipy import sparse

from lift3d.association.evidence import Observations
from lift3d.association.looks import looks
from lift3d.association.votes.ballot import Ballot
from lift3d.geometry.visibility import DepthTolerance
from lift3d.scene import DENSE, Points, Scene
from lift3d.scene.compiled import compiled
from lift3d.scene.mask_sets import ViewMasks


@dataclass(frozen=True, eq=False)
class Evidence:
    """Evidence of all views for the objects, per superpoint, and votes for their ids, per point."""

    gain: sparse.csr_array
    """(superpoints, objects): log-likelihood summed over observations, in weighted views times
    points. Only pairs with some evidence are stored."""
    labelled: Float32[np.ndarray, " superpoints"]
    """Weight of the observations under some mask."""
    looked: Float32[np.ndarray, " superpoints"]
    """Weight of all observations."""
    ballot: Ballot
    """Votes for object + 1, each region for the object it covers most of."""


def gather(
    points: Points,
    superpoint: Int32[np.ndarray, " points"],
    scene: Scene,
    label_maps: Mapping[str, ViewMasks],
    seen: Observations,
    gains: sparse.csr_array,
    primary: Int32[np.ndarray, " regions"],
    tolerance: DepthTolerance,
    progress: Callable[[], None] | None = None,
) -> Evidence:
    """Stream over the views once more, every point this time.

    `gains` is (regions, objects); `primary` the object a region stands for in the ballot, -1 none.
    Where masks overlap, a look weighs as much as the best score of a mask over the point.
    """
    pieces = int(superpoint.max(initial=-1)) + 1
    table = _Table.empty(pieces)
    labelled, looked = np.zeros((2, pieces), np.float32)
    ballot = Ballot(len(points))
    starts = np.searchsorted(seen.region_view, np.arange(len(scene.views) + 1))
    data = gains.data.astype(np.float32)
    votes = np.append(primary + 1, 0).astype(np.int32)  # the last for region -1
    if seen.overlap is not None:
        confidence = np.append(seen.overlap.confidence, 1).astype(np.float32)
    for look in looks(points, scene, label_maps, tolerance, ballot.skipped):
        point = look.seen.point
        low, high = int(starts[look.index]), int(starts[look.index + 1])
        region = mask_index(look.region, seen.region_label[low:high], low)
        weight = look.weight
        if seen.overlap is not None:
            weight = weight * confidence[region]
        table = _Table(
            *_add(
                superpoint[point],
                look.region,
                region,
                weight,
                gains.indptr,
                gains.indices,
                data,
                *table,
                labelled,
                looked,
            )
        )
        ballot.add(point, votes[region], weight)
        if progress:
            progress()
    shape = (pieces, gains.shape[1])
    return Evidence(sparse.csr_array(_rows(*table), shape), labelled, looked, ballot)


class _Table(NamedTuple):
    """Sums per superpoint and object: the entries of a superpoint are a chain."""

    last: Int32[np.ndarray, " superpoints"]
    """The newest entry of each superpoint, -1 = none."""
    before: Int32[np.ndarray, " room"]
    """The entry before each in its chain, -1 = none."""
    object: Int32[np.ndarray, " room"]
    gain: Float32[np.ndarray, " room"]
    entries: int

    @staticmethod
    def empty(superpoints: int) -> _Table:
        """No entries, and room for a few."""
        room = superpoints + 1024
        last, before, of = (np.full(n, -1, np.int32) for n in (superpoints, room, room))
        return _Table(last, before, of, np.zeros(room, np.float32), 0)


def mask_index(
    label: Int32[np.ndarray, "*shape"], known: Int32[np.ndarray, " masks"], first: int
) -> Int32[np.ndarray, "*shape"]:
    """Row of the table of each label or region of one view; -1 for 0 and for those not in it."""
    if not len(known):
        return np.full(label.shape, -1, np.int32)
    most = int(max(label.max(initial=0), known[-1]))
    if most < DENSE and label.min(initial=0) >= 0:  # a table is several times as fast as searching
        row = np.full(most + 1, -1, np.int32)
        row[known] = np.arange(first, first + len(known), dtype=np.int32)
        return row[label]
    at = np.minimum(np.searchsorted(known, label), len(known) - 1)
    return np.where(known[at] == label, at + first, -1).astype(np.int32)


@compiled()
@no_type_check
def _add(
    piece, label, mask, weight, indptr, indices, data,
    last, before, of, gain, entries, labelled, looked,
):  # fmt: skip
    """Add the looks of one view; the table comes back, with twice the room where it was full."""
    for i in range(len(piece)):
        p, m = piece[i], mask[i]
        looked[p] += weight[i]
        if label[i] > 0:
            labelled[p] += weight[i]
        if m < 0:
            continue
        if entries + indptr[m + 1] - indptr[m] > len(gain):
            more = len(gain) + indptr[m + 1] - indptr[m]
            before = np.append(before, np.full(more, -1, np.int32))
            of = np.append(of, np.full(more, -1, np.int32))
            gain = np.append(gain, np.zeros(more, np.float32))
        for at in range(indptr[m], indptr[m + 1]):
            entry = last[p]
            while entry >= 0 and of[entry] != indices[at]:
                entry = before[entry]
            if entry < 0:
                entry = entries
                entries += 1
                of[entry], before[entry], last[p] = indices[at], last[p], entry
            gain[entry] += weight[i] * data[at]
    return last, before, of, gain, entries


@compiled()
@no_type_check
def _rows(last, before, of, gain, entries):
    """Values, columns and starts of a sparse matrix; columns ascend in each row."""
    value, column = np.empty(entries, np.float32), np.empty(entries, np.int32)
    start = np.zeros(len(last) + 1, np.int32)
    n = 0
    for row in range(len(last)):
        entry = last[row]
        while entry >= 0:
            at = n
            while at > start[row] and column[at - 1] > of[entry]:
                value[at], column[at] = value[at - 1], column[at - 1]
                at -= 1
            value[at], column[at] = gain[entry], of[entry]
            n += 1
            entry = before[entry]
        start[row + 1] = n
    return value, column, start
