"""Each view's masks under the ids of the objects they show."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32
from scipy import ndimage

from lift3d.association.labelling import mask_index
from lift3d.association.looks import decoded
from lift3d.geometry.visibility import DepthTolerance, sightings
from lift3d.scene import LabelledPoints, LabelMap, View

log = logging.getLogger(__name__)
MIXED = 0.2
"""A mask is split where the second object has more than this share of its points."""


@dataclass(frozen=True, eq=False)
class Relabelling:
    """What every mask of every view stands for."""

    mask_view: Int32[np.ndarray, " masks"]
    mask_label: Int32[np.ndarray, " masks"]
    first: Int32[np.ndarray, " masks"]
    """Id of the object with most of the mask's points, 0 = none."""
    mixed: np.ndarray
    """True where another object has more than `MIXED` of them."""

    def apply(
        self,
        index: int,
        view: View,
        labels: LabelMap,
        cloud: LabelledPoints,
        tolerance: DepthTolerance,
    ) -> LabelMap:
        """The label map of view `index` with the objects' ids.

        A mask of one object gets its id as a whole, borders as the mask has them. A mask that
        covers several is divided: each pixel takes the id of the nearest cloud point seen in it.
        """
        if not len(self.first):
            return np.zeros_like(labels)
        low, high = np.searchsorted(self.mask_view, [index, index + 1])
        mask = mask_index(labels, self.mask_label[low:high], int(low))
        result = np.append(self.first, 0).astype(np.int32)[mask]  # the last for mask -1
        divided = np.flatnonzero(self.mixed[low:high]) + low
        if not len(divided):
            return result
        view, reason = decoded(view)
        if reason is not None:
            log.warning("masks of view %s are not divided: %s", reason.name, reason.reason)
        sight = sightings(cloud.points, view, tolerance)
        shown = np.zeros(labels.shape, np.int32)
        shown[sight.row, sight.column] = cloud.instance[sight.point]
        boxes = ndimage.find_objects(np.maximum(mask - low + 1, 0))
        for each in divided:
            rows, columns = boxes[each - low]
            here = mask[rows, columns] == each
            known = here & (shown[rows, columns] > 0)
            if known.any():
                nearest = ndimage.distance_transform_edt(
                    ~known, return_distances=False, return_indices=True
                )
                result[rows, columns][here] = shown[rows, columns][tuple(nearest[:, here])]
        return result
