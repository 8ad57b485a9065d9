"""New objects: automatic masks where no track is (MastSAM's unmasked-region initialisation)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int32, Int64

from lift3d.scene import LabelMap, Masks
from lift3d.scene.overlap import groups, paint, shared_pixels

PAPER_AREA = 1000 / (854 * 480)
"""The scripts' 1000 pixels as a share of the image they were meant for."""


def disjoint(masks: Masks, overlap: float, whole: bool) -> LabelMap:
    """Automatic masks without overlap, numbered from 1: one becomes of those that should."""
    shared = shared_pixels(masks.stack)
    group = groups(shared, overlap, whole)
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
    large[0] = False  # what is labelled
    return large[part] if count > 1 else np.zeros(labels.shape, bool)


def fresh(
    automatic: LabelMap, free: Bool[np.ndarray, "height width"], least: float = 0.5
) -> Int32[np.ndarray, "height width"]:
    """The parts in the free region of those automatic masks that lie mostly in it; 0 elsewhere.

    A mask that mostly lies on tracks is one of them, seen a little wider: its rim is no object.
    """
    size = int(automatic.max(initial=0)) + 1
    area = np.bincount(automatic.reshape(-1), minlength=size)
    inside = np.bincount(automatic[free], minlength=size)
    new = inside >= least * np.maximum(area, 1)
    new[0] = False
    return np.where(free & new[automatic], automatic, 0).astype(np.int32)


def regions(free: Bool[np.ndarray, "height width"]) -> Int32[np.ndarray, "height width"]:
    """The free regions themselves, numbered from 1, as the paper starts new masks."""
    import cv2

    _, part = cv2.connectedComponents(free.astype(np.uint8), connectivity=8)
    return np.asarray(part, np.int32)


def claimed(
    new: Int32[np.ndarray, "height width"],
    pixel: Int64[np.ndarray, " places"],
    label: Int32[np.ndarray, " places"],
    least: float = 0.5,
) -> dict[int, int]:
    """Which new masks are old acquaintances: most of a mask's places had that id before.

    Unlabelled places count in the whole, so a mask that nobody named is new.
    """
    here = new.reshape(-1)[pixel]
    inside = here > 0
    here, before = here[inside], label[inside].astype(np.int64)
    size = int(before.max(initial=0)) + 1
    key, votes = np.unique(here * size + before, return_counts=True)
    whole = np.bincount(here)
    found = {}
    for mask, one, count in zip(key // size, key % size, votes, strict=True):
        if one > 0 and count > least * whole[mask]:
            found[int(mask)] = int(one)
    return found
