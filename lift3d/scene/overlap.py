"""Overlapping masks: shared pixels, groups to merge, and painting into one label map."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt64

from lift3d.scene import LabelMap
from lift3d.scene.compiled import compiled


def shared_pixels(
    stack: Bool[np.ndarray, "masks height width"],
) -> Int64[np.ndarray, "masks masks"]:
    """How many pixels each two masks share; the diagonal holds the areas.

    Counted in one pass over the pixels, by the masks that meet there.
    """
    return _shared_pixels(*mask_words(stack))


def groups(
    shared: Int64[np.ndarray, "masks masks"], overlap: float = 0.5, nested: bool = False
) -> Int64[np.ndarray, " masks"]:
    """For each mask the first mask of its group.

    Two masks are linked when they share more than `overlap` of the larger one's area, or, with
    `nested`, of the smaller one's: then a part joins the mask that contains it. A group is a
    connected component of these links.
    """
    area = np.diag(shared)
    bound = np.minimum if nested else np.maximum
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
    stack: Bool[np.ndarray, "masks height width"],
    ids: Int32[np.ndarray, " masks"] | None = None,
    areas: Int64[np.ndarray, " masks"] | None = None,
) -> LabelMap:
    """Each mask painted as its id, larger masks first, so that small masks stay visible.

    Without `ids` mask i is painted as i + 1. The size of an id is the sum over its masks; of equal
    sizes the later mask is on top. `areas` in pixels, where they are known already.
    """
    if ids is None:
        ids = np.arange(1, len(stack) + 1, dtype=np.int32)
    labels = np.zeros(stack.shape[1:], np.int32)
    words, rows = mask_words(stack)
    _paint(words, rows, ids, painting_order(rows, ids, areas), labels.reshape(-1))
    return labels


def painting_order(
    rows: Bool[np.ndarray, "masks pixels"],
    ids: Int32[np.ndarray, " masks"],
    areas: Int64[np.ndarray, " masks"] | None = None,
) -> Int64[np.ndarray, " masks"]:
    """The masks from the bottom to the top: ids of more pixels first, equal ones as they come."""
    if areas is None:
        areas = np.array([np.count_nonzero(mask) for mask in rows], np.int64)
    of_id = {int(i): int(areas[ids == i].sum()) for i in np.unique(ids)}
    order = np.array([-of_id[int(i)] for i in ids], np.int64)
    return np.argsort(order, kind="stable")


def connected_parts(labels: LabelMap) -> Int32[np.ndarray, "height width"]:
    """The 8-connected parts of each label, numbered from 1; 0 where unlabelled."""
    return _connected_parts(labels)


@compiled()
@no_type_check
def _connected_parts(labels):
    """Runs of each row, joined by union-find with those of the row above that they touch."""
    height, width = labels.shape
    part = np.zeros((height, width), np.int32)
    parent = np.zeros(height * width // 2 + 2 + height, np.int32)
    parts = 0
    for y in range(height):
        for x in range(width):
            label = labels[y, x]
            if label == 0:
                continue
            if x > 0 and labels[y, x - 1] == label:
                root = part[y, x - 1]
                start = x + 1  # the left pixel has joined its neighbours above already
            else:
                root = 0
                start = max(x - 1, 0)
            if y > 0:
                for above in range(start, min(x + 2, width)):
                    if labels[y - 1, above] != label:
                        continue
                    other = part[y - 1, above]
                    while parent[other] != other:
                        parent[other] = parent[parent[other]]
                        other = parent[other]
                    if root == 0:
                        root = other
                        continue
                    while parent[root] != root:
                        parent[root] = parent[parent[root]]
                        root = parent[root]
                    low, high = min(root, other), max(root, other)
                    parent[high] = low
                    root = low
            if root == 0:
                parts += 1
                if parts >= len(parent):
                    grown = np.zeros(2 * len(parent), np.int32)
                    grown[: len(parent)] = parent
                    parent = grown
                parent[parts] = parts
                root = parts
            part[y, x] = root
    name = np.zeros(parts + 1, np.int32)
    count = 0
    for each in range(1, parts + 1):
        if parent[each] == each:
            count += 1
            name[each] = count
        else:
            name[each] = name[parent[each]]  # parents come before their children
    for y in range(height):
        for x in range(width):
            part[y, x] = name[part[y, x]]
    return part


def mask_words(
    stack: Bool[np.ndarray, "masks height width"],
) -> tuple[UInt64[np.ndarray, "masks words"], Bool[np.ndarray, "masks pixels"]]:
    """The pixels of each mask as 64-bit words and as bools; a word of 0 is eight empty pixels."""
    # Not -1: it has no meaning for a stack without masks.
    pixels = stack.shape[1] * stack.shape[2]
    rows = np.ascontiguousarray(stack).reshape(len(stack), pixels)
    if pixels % 8:
        rows = np.pad(rows, ((0, 0), (0, -pixels % 8)))
    return rows.view(np.uint64), rows


@compiled()
@no_type_check
def _shared_pixels(words, rows):
    masks = len(rows)
    shared = np.zeros((masks, masks), np.int64)
    first = np.zeros(rows.shape[1], np.int32)  # 1 + the first mask of each pixel
    # Few pixels have more masks: these form a linked list per pixel.
    chain = np.zeros(rows.shape[1], np.int32)
    member = np.zeros((1024, 2), np.int32)  # a mask, and the member before it
    members = 1
    for mask in range(masks):
        for w in range(words.shape[1]):
            if words[mask, w] == 0:
                continue
            for p in range(8 * w, 8 * w + 8):
                if not rows[mask, p]:
                    continue
                shared[mask, mask] += 1
                if first[p] == 0:
                    first[p] = mask + 1
                    continue
                shared[first[p] - 1, mask] += 1
                at = chain[p]
                while at:
                    shared[member[at, 0], mask] += 1
                    at = member[at, 1]
                if members == len(member):
                    grown = np.zeros((2 * members, 2), np.int32)
                    grown[:members] = member
                    member = grown
                member[members, 0] = mask
                member[members, 1] = chain[p]
                chain[p] = members
                members += 1
    for a in range(masks):
        for b in range(a):
            shared[a, b] = shared[b, a]
    return shared


@compiled()
@no_type_check
def _paint(words, rows, ids, order, labels):
    for mask in order:
        for w in range(words.shape[1]):
            if words[mask, w] == 0:
                continue
            for p in range(8 * w, 8 * w + 8):
                if rows[mask, p]:
                    labels[p] = ids[mask]
