"""Masks that cover one another: who shares how much, who becomes one, who lies on top."""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Int32, Int64

from lift3d.scene import LabelMap


def shared_pixels(
    stack: Bool[np.ndarray, "masks height width"],
) -> Int64[np.ndarray, "masks masks"]:
    """How many pixels each two masks share; the diagonal holds the areas.

    Counted in one pass over the pixels, by the masks that meet there.
    """
    return _shared_pixels(_rows(np.ascontiguousarray(stack)))


def groups(
    shared: Int64[np.ndarray, "masks masks"], overlap: float = 0.5, whole: bool = False
) -> Int64[np.ndarray, " masks"]:
    """For each mask the first mask of its group.

    Two masks are in one group when they share more than `overlap` of the smaller (of the
    larger too if not `whole`), or when others join them so. `whole` makes parts one with
    the wholes they lie on; without it only masks that cover each other are joined.
    """
    area = np.diag(shared)
    bound = np.minimum if whole else np.maximum
    joined = shared > overlap * bound(area[:, None], area[None])
    first = np.arange(len(shared))

    def root(mask: int) -> int:
        while first[mask] != mask:
            first[mask] = first[first[mask]]
            mask = int(first[mask])
        return mask

    for a, b in zip(*np.nonzero(np.triu(joined, 1)), strict=True):
        low, high = sorted((root(int(a)), root(int(b))))
        first[high] = low
    return np.array([root(mask) for mask in range(len(shared))], np.int64)


def paint(
    stack: Bool[np.ndarray, "masks height width"], ids: Int32[np.ndarray, " masks"]
) -> LabelMap:
    """Each mask painted as its id, larger masks first, so that parts stay visible on wholes.

    Masks with the same id count as one. Of masks of one size the later is on top.
    """
    labels = np.zeros(stack.shape[1:], np.int32)
    areas = np.array([np.count_nonzero(mask) for mask in stack], np.int64)
    of_id = {int(i): int(areas[ids == i].sum()) for i in np.unique(ids)}
    order = np.argsort([-of_id[int(i)] for i in ids], kind="stable")
    _paint(_rows(stack), ids, order, labels.reshape(-1))
    return labels


def connected_parts(labels: LabelMap) -> Int32[np.ndarray, "height width"]:
    """The 8-connected parts of each label, numbered from 1; 0 where unlabelled."""
    from skimage.measure import label

    return label(labels, background=0, connectivity=2).astype(np.int32)


def _rows(stack: Bool[np.ndarray, "masks height width"]) -> Bool[np.ndarray, "masks pixels"]:
    # Not -1: it has no meaning for a stack without masks.
    return stack.reshape(len(stack), stack.shape[1] * stack.shape[2])


@numba.njit(cache=True)
@no_type_check
def _shared_pixels(stack):
    masks, pixels = stack.shape
    shared = np.zeros((masks, masks), np.int64)
    # Blocks small enough for the cache, so that the stack is read along its rows.
    block = 1024
    here = np.empty((block, masks), np.int32)
    count = np.empty(block, np.int32)
    for start in range(0, pixels, block):
        size = min(block, pixels - start)
        count[:] = 0
        for mask in range(masks):
            for p in range(size):
                if stack[mask, start + p]:
                    here[p, count[p]] = mask
                    count[p] += 1
        for p in range(size):
            for i in range(count[p]):
                for j in range(count[p]):
                    shared[here[p, i], here[p, j]] += 1
    return shared


@numba.njit(cache=True)
@no_type_check
def _paint(stack, ids, order, labels):
    for mask in order:
        for p in range(len(labels)):
            if stack[mask, p]:
                labels[p] = ids[mask]
