"""Start new objects from automatic masks in unlabelled regions (MastSAM's initialisation)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int32, Int64

from lift3d.scene import LabelMap, Masks
from lift3d.scene.overlap import groups, paint, shared_pixels

PAPER_AREA = 1000 / (854 * 480)
"""The scripts' 1000 pixels as a share of their image size."""


def disjoint(masks: Masks, overlap: float, nested: bool) -> LabelMap:
    """Automatic masks as a label map with ids from 1; masks that overlap strongly are merged."""
    shared = shared_pixels(masks.stack)
    group = groups(shared, overlap, nested)
    return paint(masks.stack, (group + 1).astype(np.int32), np.diag(shared))


def uncovered(labels: LabelMap, share: float) -> Bool[np.ndarray, "height width"]:
    """The connected unlabelled regions of at least `share` of the image."""
    import cv2

    if labels.size - np.count_nonzero(labels) < share * labels.size:
        return np.zeros(labels.shape, bool)
    count, part, stats, _ = cv2.connectedComponentsWithStats(
        (labels == 0).astype(np.uint8), connectivity=8
    )
    large = stats[:, cv2.CC_STAT_AREA] >= share * labels.size
    large[0] = False  # the labelled pixels
    return large[part] if count > 1 else np.zeros(labels.shape, bool)


def fresh(
    automatic: LabelMap, free: Bool[np.ndarray, "height width"], least: float = 0.5
) -> Int32[np.ndarray, "height width"]:
    """The parts inside the free region of automatic masks that are mostly inside it; else 0.

    A mask that is mostly on tracked masks shows one of these objects; its remaining border is not
    a new object.
    """
    size = int(automatic.max(initial=0)) + 1
    area = np.bincount(automatic.reshape(-1), minlength=size)
    inside = np.bincount(automatic[free], minlength=size)
    new = inside >= least * np.maximum(area, 1)
    new[0] = False
    return np.where(free & new[automatic], automatic, 0).astype(np.int32)


def regions(free: Bool[np.ndarray, "height width"]) -> Int32[np.ndarray, "height width"]:
    """The connected free regions, numbered from 1; the paper's new masks."""
    import cv2

    _, part = cv2.connectedComponents(free.astype(np.uint8), connectivity=8)
    return np.asarray(part, np.int32)


def claimed(
    new: Int32[np.ndarray, "height width"],
    pixel: Int64[np.ndarray, " places"],
    label: Int32[np.ndarray, " places"],
    least: float = 0.5,
) -> dict[int, int]:
    """Earlier ids of new masks: id of a mask if more than `least` of its points had that id.

    Unlabelled points are included in the total, so a mostly unlabelled mask is new.
    """
    here = new.reshape(-1)[pixel]
    inside = here > 0
    here, before = here[inside], label[inside].astype(np.int64)
    size = int(before.max(initial=0)) + 1
    key, votes = np.unique(here * size + before, return_counts=True)
    total = np.bincount(here)
    found = {}
    for mask, id_, count in zip(key // size, key % size, votes, strict=True):
        if id_ > 0 and count > least * total[mask]:
            found[int(mask)] = int(id_)
    return found
