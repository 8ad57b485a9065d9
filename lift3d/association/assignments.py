"""Which mask of which view became which object, and why some became none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, UInt8
from scipy import ndimage, sparse

from lift3d.association.clusters import cover
from lift3d.association.evidence import Observations
from lift3d.association.labelling import mask_index
from lift3d.geometry.visibility import DepthTolerance, sightings
from lift3d.scene import LabelledPoints, LabelMap, View
from lift3d.scene.mask_sets import MaskSet, ViewMasks
from lift3d.scene.skipping import readable
from lift3d.scene.storage import load_arrays, save_arrays

MIXED = 0.2
"""A mask is divided where objects other than the first have more than this share of its points."""

KEPT, UNCONFIRMED, SMALL, UNSEEN = range(4)
REASONS = (
    "became an object",
    "no object was found at the points under it",
    "its object has too few points",
    "the view sees no point of the cloud in it",
)
"""Why a mask became an object or none, by the code of `Assignments.reason`."""


@dataclass(frozen=True, eq=False)
class Assignments:
    """One row per mask, view by view, ids ascending within a view.

    Counts are of anchors: an even subset of the cloud that is read in every view.
    """

    view: Int32[np.ndarray, " masks"]
    """Index of the view in the scene."""
    mask: Int32[np.ndarray, " masks"]
    """Id of the mask in the view, as segmented."""
    object: Int32[np.ndarray, " masks"]
    """Id of the object with most of the mask's points; 0 = none."""
    second: Int32[np.ndarray, " masks"]
    """Id of the object with the second most; 0 = none."""
    points: Int32[np.ndarray, " masks"]
    """Anchors that the view sees in the mask."""
    share: Float32[np.ndarray, " masks"]
    """Share of these that belong to `object`."""
    second_share: Float32[np.ndarray, " masks"]
    """Share of these that belong to `second`."""
    divided: Bool[np.ndarray, " masks"]
    """True where the mask is divided among its objects along the cloud's labels."""
    reason: UInt8[np.ndarray, " masks"]
    """Index into `REASONS`."""

    def __len__(self) -> int:
        return len(self.view)

    def of_view(self, index: int) -> slice:
        """The rows of a view."""
        low, high = np.searchsorted(self.view, [index, index + 1])
        return slice(int(low), int(high))

    def row(self, index: int, mask: int) -> int | None:
        """The row of one mask of a view; None where the view has no such mask."""
        rows = self.of_view(index)
        found = np.flatnonzero(self.mask[rows] == mask)
        return rows.start + int(found[0]) if len(found) else None

    def relabelled(
        self,
        index: int,
        view: View,
        masks: ViewMasks,
        cloud: LabelledPoints,
        tolerance: DepthTolerance,
    ) -> LabelMap:
        """The label map of view `index`, whose masks are `masks`, with the objects' ids.

        A mask of one object gets its id as a whole, borders as the mask has them. A mask that
        covers several is divided: each pixel takes the id of the nearest cloud point seen in it.
        Where masks overlap, the topmost of those that became an object counts.
        """
        if not len(self):
            return np.zeros(masks.shape, np.int32)
        rows = self.of_view(index)
        if isinstance(masks, MaskSet):
            labels = masks.labels_of(self.mask[rows][self.object[rows] > 0])
        else:
            labels = masks
        mask = mask_index(labels, self.mask[rows], rows.start)
        result = np.append(self.object, 0).astype(np.int32)[mask]  # the last for mask -1
        divided = np.flatnonzero(self.divided[rows]) + rows.start
        if not len(divided):
            return result
        view, _, _ = readable(view)  # a lost view has been warned of; its masks stay whole
        sight = sightings(cloud.points, view, tolerance)
        shown = np.zeros(labels.shape, np.int32)
        shown[sight.row, sight.column] = cloud.instance[sight.point]
        boxes = ndimage.find_objects(np.maximum(mask - rows.start + 1, 0), len(self.mask[rows]))
        for each in divided:
            if boxes[each - rows.start] is None:  # smaller masks cover all of it
                continue
            box_rows, columns = boxes[each - rows.start]
            here = mask[box_rows, columns] == each
            known = np.where(here, shown[box_rows, columns], 0)
            if known.any():
                result[box_rows, columns][here] = nearest_known(known, here)[0]
        return result

    def save(self, path: Path) -> None:
        """Write every column under its name."""
        save_arrays(path, vars(self))

    @staticmethod
    def load(path: Path) -> Assignments:
        """What `save` wrote; InputError where it is missing or damaged."""
        return load_arrays(path, Assignments)


def nearest_known(
    known: Int32[np.ndarray, "height width"], here: Bool[np.ndarray, "height width"]
) -> tuple[Int32[np.ndarray, " chosen"], Int32[np.ndarray, "2 chosen"]]:
    """Value, and row and column, of the nearest pixel above 0 for each pixel of `here`.

    >>> nearest_known(np.int32([[7, 0, 0, 5]]), np.array([[False, True, True, False]]))[0]
    array([7, 5], dtype=int32)
    """
    nearest = ndimage.distance_transform_edt(
        known <= 0, return_distances=False, return_indices=True
    )[:, here]
    return known[tuple(nearest)], nearest


def assign(
    seen: Observations,
    label: Int32[np.ndarray, " anchors"],
    before: Int32[np.ndarray, " anchors"],
) -> Assignments:
    """What each mask became, by the final `label` of the anchors under it (0 = none).

    `before` are their labels before small objects were dropped: only the reason depends on them.
    """
    under = cover(seen, label - 1, int(label.max(initial=0)))
    table = under.under.T.tocsr()
    first, most, second, runner_up, named = _two_largest(table)
    points = under.mask_size
    once = cover(seen, before - 1, int(before.max(initial=0)))
    held = np.asarray(once.under.sum(axis=0)).ravel()
    reason = np.where(first > 0, KEPT, np.where(held > 0, SMALL, UNCONFIRMED))
    reason[points == 0] = UNSEEN
    share = most / np.maximum(points, 1)
    return Assignments(
        seen.mask_view,
        seen.mask_label,
        first.astype(np.int32),
        second.astype(np.int32),
        points.astype(np.int32),
        share.astype(np.float32),
        (runner_up / np.maximum(points, 1)).astype(np.float32),
        named - most > MIXED * named,
        reason.astype(np.uint8),
    )


def _two_largest(table: sparse.csr_array) -> tuple[Float64[np.ndarray, " masks"], ...]:
    """Per row of (masks, objects): id and count of the largest, of the second, and the sum."""
    masks = table.shape[0]
    count, ids = table.data, table.indices + 1
    row = np.repeat(np.arange(masks), np.diff(table.indptr))
    order = np.lexsort((ids, -count, row))  # of equals the smaller id
    count, ids = count[order], ids[order]
    entries = np.diff(table.indptr)
    found = np.zeros((5, masks))
    for place, (at_id, at_count) in enumerate(((0, 1), (2, 3))):
        some = entries > place
        found[at_id, some] = ids[table.indptr[:-1][some] + place]
        found[at_count, some] = count[table.indptr[:-1][some] + place]
    found[4] = np.bincount(row, count, masks)
    return tuple(found)
