"""Masks of a view that overlap: the regions between their borders, and the masks over each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import no_type_check

import numpy as np
from jaxtyping import Float64, Int32
from scipy import sparse

from lift3d.scene.compiled import compiled
from lift3d.scene.mask_sets import MaskSet

NESTED = 0.5
"""Share of a view's evidence that is for one object where a mask is over both regions, however many
others are over one of them alone. Chosen by hand, so that two parts of a whole (Jaccard index 1/3,
0.67 in all) stay above the association's threshold of 0.6; 0.25 scored about the same."""


@dataclass(frozen=True, eq=False)
class Overlap:
    """The regions of all views; every pixel of a region is under the same masks.

    One row per region, view by view, as `Observations.mask_view` has one per mask. A view with a
    label map has a region per mask, with score 1.
    """

    region_view: Int32[np.ndarray, " regions"]
    region_label: Int32[np.ndarray, " regions"]
    """Number of the region in its view's mask set; in a view with a label map the label."""
    scores: sparse.csr_array
    """(regions, masks): the score of each mask over a region, above 0; no region has none."""

    @staticmethod
    def of(
        region_view: Int32[np.ndarray, " regions"],
        region_label: Int32[np.ndarray, " regions"],
        views: Sequence[sparse.csr_array],
    ) -> Overlap:
        """From the (regions, masks) of each view."""
        scores = sparse.csr_array(sparse.block_diag(views, format="csr"))
        scores.sort_indices()
        return Overlap(region_view, region_label, scores)

    @cached_property
    def over(self) -> sparse.csr_array:
        """(regions, masks): 1 where the mask covers the region."""
        return self._with(np.ones_like(self.scores.data))

    @cached_property
    def mean(self) -> sparse.csr_array:
        """(regions, masks): the scores, scaled to a sum of 1 over each region."""
        entries = np.diff(self.scores.indptr)
        total = np.bincount(np.repeat(np.arange(len(entries)), entries), self.scores.data)
        return self._with(self.scores.data / np.repeat(total, entries))

    @cached_property
    def confidence(self) -> Float64[np.ndarray, " regions"]:
        """Weight of each region: the largest score of a mask over it."""
        return np.maximum.reduceat(self.scores.data, self.scores.indptr[:-1])

    @cached_property
    def mask_score(self) -> Float64[np.ndarray, " masks"]:
        """Score of each mask."""
        found = np.zeros(self.scores.shape[1])
        found[self.scores.indices] = self.scores.data
        return found

    def together(self, low: int, high: int) -> Float64[np.ndarray, "some some"]:
        """Evidence that each two of the regions low:high are one object, by `together`."""
        found = np.zeros((high - low, high - low))
        scores = self.scores
        _together_all(low, scores.indptr, scores.indices, scores.data, self.confidence, found)
        return found

    def _with(self, data: Float64[np.ndarray, " entries"]) -> sparse.csr_array:
        return sparse.csr_array((data, self.scores.indices, self.scores.indptr), self.scores.shape)


def regions_under_masks(
    masks: MaskSet, seen: Int32[np.ndarray, " points"]
) -> tuple[Int32[np.ndarray, " regions"], Int32[np.ndarray, " known"], sparse.csr_array]:
    """Regions and ids of the masks with a point in one of the regions `seen`; scores of these.

    Masks of score 0 say nothing and are left out, and so are regions without any other.
    """
    region = np.repeat(np.arange(1, masks.regions + 1), np.diff(masks.start))
    shown = np.zeros(masks.regions + 1, bool)
    shown[seen] = True
    good = masks.scores[masks.mask] > 0
    known = np.unique(masks.mask[shown[region] & good])
    entry = good & np.isin(masks.mask, known)
    kept, row = np.unique(region[entry], return_inverse=True)
    column = np.searchsorted(known, masks.mask[entry])
    score = masks.scores[masks.mask[entry]].astype(np.float64)
    shape = (len(kept), len(known))
    scores = sparse.coo_array((score, (row, column)), shape).tocsr()
    return kept.astype(np.int32), masks.ids[known], scores


@compiled()
@no_type_check
def together(one, other, start, masks, scores, confidence):
    """Evidence of a view that two of its regions are one object.

    The view's whole evidence is the product of the best scores over the two. Without a mask over
    both, all of it is against. With one, the share `NESTED` is for one object, in proportion to
    the score of that mask, so that a part of a whole does not contradict the whole; the rest
    follows the overlap (Jaccard index) of the two sets of masks, weighted by their scores.
    """
    best, shared, all_scores = 0.0, 0.0, 0.0
    i, j = start[one], start[other]
    while i < start[one + 1] or j < start[other + 1]:
        if j == start[other + 1] or (i < start[one + 1] and masks[i] < masks[j]):
            all_scores += scores[i]
            i += 1
        elif i == start[one + 1] or masks[j] < masks[i]:
            all_scores += scores[j]
            j += 1
        else:
            best = max(best, scores[i])
            shared += scores[i]
            all_scores += scores[i]
            i += 1
            j += 1
    evidence = confidence[one] * confidence[other]
    nested = best / max(confidence[one], confidence[other])
    return evidence * (NESTED * nested + (1 - NESTED) * shared / all_scores)


@compiled()
@no_type_check
def _together_all(first, start, masks, scores, confidence, found):
    for i in range(len(found)):
        for j in range(len(found)):
            found[i, j] = together(first + i, first + j, start, masks, scores, confidence)
