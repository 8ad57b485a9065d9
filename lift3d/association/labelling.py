"""The second look at every view: votes and evidence for the settled objects, point by point."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float32, Int32
from scipy import sparse

from lift3d.ahead import looked_up
from lift3d.association.evidence import Observations
from lift3d.scene import DENSE, LabelMap, Points, Scene
from lift3d.visibility import DepthTolerance, sightings
from lift3d.voting import Ballot


@dataclass(frozen=True, eq=False)
class Evidence:
    """What all views say of the objects, per superpoint, and of the objects' ids, per point."""

    gain: Float32[np.ndarray, "superpoints objects"]
    """Log-likelihood of each object summed over looks, in weighted views times points."""
    labelled: Float32[np.ndarray, " superpoints"]
    """Weight of the looks under some mask."""
    looked: Float32[np.ndarray, " superpoints"]
    """Weight of all looks."""
    ballot: Ballot
    """Votes for object + 1, each mask for the object it covers most of."""


def gather(
    points: Points,
    superpoint: Int32[np.ndarray, " points"],
    scene: Scene,
    label_maps: Iterable[LabelMap],
    seen: Observations,
    gains: sparse.csr_array,
    primary: Int32[np.ndarray, " masks"],
    tolerance: DepthTolerance,
    progress: Callable[[], None] | None = None,
) -> Evidence:
    """Stream over the views once more, every point this time.

    `gains` is (masks, objects); `primary` the object a mask stands for in the ballot, -1 none.
    """
    pieces = int(superpoint.max(initial=-1)) + 1
    objects = gains.shape[1]
    gain = np.zeros((pieces, objects), np.float32)
    labelled, looked = np.zeros((2, pieces), np.float32)
    ballot = Ballot(len(points))
    starts = np.searchsorted(seen.mask_view, np.arange(len(scene.views) + 1))
    data = gains.data.astype(np.float32)
    votes = np.append(primary + 1, 0).astype(np.int32)  # the last for mask -1
    for index, (view, depth, labels) in enumerate(looked_up(scene, label_maps)):
        sight = sightings(points, view, tolerance, depth)
        label = labels[sight.row, sight.column]
        low, high = int(starts[index]), int(starts[index + 1])
        mask = mask_index(label, seen.mask_label[low:high], low)
        _add(
            superpoint[sight.point],
            label,
            mask,
            sight.weight,
            gains.indptr,
            gains.indices,
            data,
            gain,
            labelled,
            looked,
        )
        ballot.add(sight.point, votes[mask], sight.weight)
        if progress:
            progress()
    return Evidence(gain, labelled, looked, ballot)


def mask_index(
    label: Int32[np.ndarray, "*shape"], known: Int32[np.ndarray, " masks"], first: int
) -> Int32[np.ndarray, "*shape"]:
    """Row of the mask table of each label of one view; -1 for 0 and for masks never observed."""
    if not len(known):
        return np.full(label.shape, -1, np.int32)
    most = int(max(label.max(initial=0), known[-1]))
    if most < DENSE and label.min(initial=0) >= 0:  # a table is several times as fast as searching
        row = np.full(most + 1, -1, np.int32)
        row[known] = np.arange(first, first + len(known), dtype=np.int32)
        return row[label]
    at = np.minimum(np.searchsorted(known, label), len(known) - 1)
    return np.where(known[at] == label, at + first, -1).astype(np.int32)


@numba.njit(cache=True)
@no_type_check
def _add(piece, label, mask, weight, indptr, indices, data, gain, labelled, looked):
    for i in range(len(piece)):
        looked[piece[i]] += weight[i]
        if label[i] > 0:
            labelled[piece[i]] += weight[i]
        if mask[i] >= 0:
            for at in range(indptr[mask[i]], indptr[mask[i] + 1]):
                gain[piece[i], indices[at]] += weight[i] * data[at]
