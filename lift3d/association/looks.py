"""The pass over the views: read each one's depth and label map, see the points, look them up."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Int32

from lift3d.association.votes.weight import vote_weight
from lift3d.geometry.scale import fitted
from lift3d.geometry.visibility import DepthTolerance, Sightings, sightings
from lift3d.scene import Points, Scene, Skipped, View
from lift3d.scene.compiled import compiled
from lift3d.scene.labelmaps import check_label_maps
from lift3d.scene.mask_sets import MaskSet, ViewMasks, view_masks_of
from lift3d.scene.prefetch import prefetch
from lift3d.scene.skipping import readable

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Look:
    """What one view sees of some points, and the label that it gives each."""

    index: int
    """Of the view in the scene."""
    view: View
    """With depth and confidence decoded."""
    masks: ViewMasks
    points: Points
    seen: Sightings
    region: Int32[np.ndarray, " seen"]
    """Label of each point, or region of the mask set, where the view's masks are one."""
    tolerance: DepthTolerance

    @property
    def label(self) -> Int32[np.ndarray, " seen"]:
        """Id of the (topmost) mask over each point; 0 = none."""
        if isinstance(self.masks, MaskSet):
            return self.masks.top[self.region]
        return self.region

    @cached_property
    def weight(self) -> Float32[np.ndarray, " seen"]:
        """How much the view's vote for each point weighs."""
        return vote_weight(self.points, self.seen, self.view.geometry_camera)

    def at(self, points: Points) -> Look:
        """The same view's look at other points; nothing is decoded again."""
        return _look(self.index, self.view, self.masks, points, self.tolerance)


def looks(
    points: Points,
    scene: Scene,
    label_maps: Mapping[str, ViewMasks] | None = None,
    tolerance: DepthTolerance = DepthTolerance(),
    skipped: list[Skipped] | None = None,
) -> Iterator[Look]:
    """A look of each view, in order; the next views are decoded meanwhile.

    Without `label_maps` no pixel has a label. A view whose depth or confidence cannot be read
    sees nothing; that is added to `skipped`, or logged as a warning where that is not given.
    Raises InputError where a view has no label map, or one of another size than its image.
    """
    if label_maps is not None:
        check_label_maps(label_maps, scene)

    def load(item: tuple[int, View]) -> tuple[int, View, Skipped | None, ViewMasks]:
        index, view = item
        view, _, reason = readable(view)
        if label_maps is None:
            masks: ViewMasks = np.zeros((view.camera.height, view.camera.width), np.int32)
        else:
            masks = view_masks_of(label_maps, view)
        return index, view, reason, masks

    tolerance = fitted(tolerance, scene, points)
    for index, view, reason, masks in prefetch(enumerate(scene.views), load):
        if reason is not None and skipped is not None:
            skipped.append(reason)
        elif reason is not None:
            log.warning("view %s sees nothing: %s", reason.name, reason.reason)
        yield _look(index, view, masks, points, tolerance)


def _look(
    index: int, view: View, masks: ViewMasks, points: Points, tolerance: DepthTolerance
) -> Look:
    seen = sightings(points, view, tolerance)
    labels = masks.region if isinstance(masks, MaskSet) else masks
    return Look(index, view, masks, points, seen, _pick(labels, seen.row, seen.column), tolerance)


@compiled()
@no_type_check
def _pick(labels, row, column):
    picked = np.empty(len(row), np.int32)
    for i in range(len(row)):
        picked[i] = labels[row[i], column[i]]
    return picked
