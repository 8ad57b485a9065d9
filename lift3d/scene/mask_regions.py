"""Overlapping masks to the regions between their borders."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Int, Int32

from lift3d.scene import LabelMap
from lift3d.scene.compiled import compiled
from lift3d.scene.overlap import mask_words, painting_order


def regions_between(
    stack: Bool[np.ndarray, "masks height width"],
    ids: Int32[np.ndarray, " masks"],
    index: Int[np.ndarray, " masks"],
) -> tuple[LabelMap, Int32[np.ndarray, " regions_plus_one"], Int32[np.ndarray, " entries"]]:
    """Region of each pixel, from 1, and starts and masks of the regions as in `MaskSet`.

    Masks lie on each other as `paint` paints them under `ids`; `index` is what each is called in
    the result.
    """
    words, rows = mask_words(stack)
    order = painting_order(rows, ids)
    shape = stack.shape[1:]
    region, below, top = _regions(words, rows, order, int(np.prod(shape)))
    start, mask, kept = _chains(region, below, np.append(-1, index[top[1:]]))
    return kept[region].reshape(shape), start, mask


@compiled()
@no_type_check
def _regions(words, rows, order, pixels):
    """Region of each pixel; for each region the one below it (without its top mask) and that mask.

    Masks are laid on each other in `order`; each divides the regions that it covers in part.
    """
    region = np.zeros(rows.shape[1], np.int32)
    below, top = [np.int32(-1)], [np.int32(-1)]
    for mask in order:
        above = np.zeros(len(below), np.int32)  # region of the pixels of each that it covers
        for w in range(words.shape[1]):
            if words[mask, w] == 0:
                continue
            for p in range(8 * w, 8 * w + 8):
                if rows[mask, p]:
                    at = region[p]
                    if above[at] == 0:
                        above[at] = len(below)
                        below.append(np.int32(at))
                        top.append(np.int32(mask))
                    region[p] = above[at]
    return region[:pixels], np.array(below), np.array(top)


@compiled()
@no_type_check
def _chains(region, below, top):
    """Starts and masks of the regions that have pixels, topmost first, and their new numbers."""
    number = np.zeros(len(below), np.int32)
    for at in region:
        number[at] = 1
    number[0] = 0
    start = [np.int32(0)]
    mask = [np.int32(0) for _ in range(0)]
    for each in range(1, len(below)):
        if number[each] == 0:
            continue
        number[each] = len(start)
        at = each
        while at > 0:
            known = False
            for before in range(start[-1], len(mask)):
                known = known or mask[before] == top[at]  # two masks of one id
            if not known:
                mask.append(np.int32(top[at]))
            at = below[at]
        start.append(np.int32(len(mask)))
    return np.array(start), np.array(mask), number
