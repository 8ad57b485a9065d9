"""Clusters of anchors to objects: joined across gaps, and kept only where views confirm them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, no_type_check

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64
from scipy import sparse

from lift3d.association.evidence import Observations
from lift3d.association.overlap import Overlap
from lift3d.geometry.linkage import agglomerate
from lift3d.scene.compiled import compiled

TRACK_EVIDENCE = 2.0
"""Evidence, in views, of a tracked id on two clusters that are never visible in the same view.
Chosen by hand; not tuned on data."""
TRACKED = 0.6
"""Minimum threshold where ids were carried through views: wrong ids are evidence too. Chosen by
hand: at 0.5, ids that are right in one view of three joined two of three toy objects."""
GOOD_LOOK = 0.3
"""A view counts for a cluster if it sees at least this share of the most that one view sees of it.
Chosen by hand; not tuned on data."""
ENOUGH = 0.2
"""A view counts fully for a pair of clusters if it sees this share of the most that one view sees
of each, and less below. Chosen, with `FAR`, on the HoloLens kitchen with damaged masks."""
FAR = 0.8
"""Part of the threshold at which clusters merge that need not touch: their evidence is that of many
points, so it is surer than that of two pieces."""
FLOOR = 0.05
"""Probability of a mask at a point of another object, in the likelihood. Chosen by hand; not tuned
on data."""
OWN_REGION = 0.5
"""Where masks overlap: how much of a region's gain is its own, rather than of the masks over it.
Chosen by hand: 0 and 1 scored the same within 0.03 AP on a synthetic room."""


@dataclass(frozen=True, eq=False)
class Cover:
    """How many anchors of each cluster each mask covers and each view sees."""

    under: sparse.csr_array
    """(clusters, masks)."""
    regions: sparse.csr_array
    """(clusters, regions); `under` itself where no masks overlap."""
    visible: Float64[np.ndarray, "clusters views"]
    size: Int64[np.ndarray, " clusters"]
    mask_size: Float64[np.ndarray, " masks"]
    """Anchors under each mask, of whatever cluster."""


def cover(seen: Observations, cluster: Int32[np.ndarray, " anchors"], clusters: int) -> Cover:
    """Count; anchors with cluster -1 belong to none."""
    regions = len(seen.region_view)
    visible, size = np.zeros((clusters, seen.views)), np.zeros(regions)
    found = [(np.zeros(0, np.int32),) * 3]
    for some in seen.blocks():
        seen_as = some.first, some.start, some.anchor, some.region
        found.append(_count(*seen_as, cluster, visible, size))
    row, column, count = (np.concatenate(each) for each in zip(*found, strict=True))
    entries = count.astype(np.float64), (row, column)
    by_region = sparse.coo_array(entries, (clusters, regions)).tocsr()
    under = by_region
    if seen.overlap is not None:
        under, size = (by_region @ seen.overlap.over).tocsr(), size @ seen.overlap.over
        under.sort_indices()
    members = np.bincount(cluster[cluster >= 0], minlength=clusters)
    return Cover(under, by_region, visible, members, size)


@compiled()
@no_type_check
def _count(first, start, anchor, region, cluster, visible, size):
    """Add the anchors of each cluster to `visible` and of each region to `size`.

    Returns each cluster and region of which a view sees anchors, and how many.
    """
    row, column = np.empty(len(anchor), np.int32), np.empty(len(anchor), np.int32)
    count = np.empty(len(anchor), np.int32)
    pairs = 0
    place = np.full(1, -1, np.int32)  # in these, of each cluster and region of one view
    for view in range(len(start) - 1):
        low, high = np.int32(np.iinfo(np.int32).max), np.int32(-1)
        for at in range(start[view], start[view + 1]):
            if region[at] >= 0:
                low, high = min(low, region[at]), max(high, region[at])
        span = max(np.int64(high) - low + 1, 0)
        if len(visible) * span > len(place):
            place = np.full(len(visible) * span, -1, np.int32)
        before = pairs
        for at in range(start[view], start[view + 1]):
            c, r = cluster[anchor[at]], region[at]
            if r >= 0:
                size[r] += 1
            if c >= 0:
                visible[c, first + view] += 1
            if c < 0 or r < 0:
                continue
            slot = c * span + r - low
            if place[slot] < 0:
                place[slot] = pairs
                row[pairs], column[pairs], count[pairs] = c, r, 0
                pairs += 1
            count[place[slot]] += 1
        for pair in range(before, pairs):
            place[row[pair] * span + column[pair] - low] = -1
    return row[:pairs].copy(), column[:pairs].copy(), count[:pairs].copy()


def join_distant(
    seen: Observations,
    cluster: Int32[np.ndarray, " anchors"],
    threshold: float,
    half: float,
    smallest: int,
    most: int = 3000,
) -> Int32[np.ndarray, " anchors"]:
    """Merge clusters that share masks although they do not touch.

    A partly occluded object is visible as two pieces, and no view may see two sides of a box well.
    The agreement of two clusters in a view is the chance that a random anchor of each is under the
    same mask; views that see little of one count less (`ENOUGH`). Clusters of fewer than `smallest`
    anchors become -1.
    """
    threshold *= FAR
    if len(np.unique(seen.mask_label)) < len(seen.mask_label):
        threshold = max(threshold, TRACKED)
    while True:
        cluster = _largest(cluster, smallest, most)
        count = int(cluster.max(initial=-1)) + 1
        agree, total = _dense_agreement(seen, cover(seen, cluster, count), half)
        a, b = np.triu_indices(count, 1)
        evidence = total[a, b] >= 1
        a, b = a[evidence].astype(np.int32), b[evidence].astype(np.int32)
        merged = agglomerate(count, a, b, agree[a, b], total[a, b], threshold)
        if int(merged.max(initial=-1)) + 1 == count:
            return cluster
        cluster = np.append(merged, np.int32(-1))[cluster]


class Support(NamedTuple):
    """How well views segment each cluster as a whole, by the IoU with each view's best mask.

    Only views that see at least `GOOD_LOOK` of what the best view sees of a cluster count.
    """

    mean: Float64[np.ndarray, " clusters"]
    """Over the views, each weighted by how much it sees. A sliver between two objects lies under
    large masks and has little; so has a union of two."""
    best_two: Float64[np.ndarray, " clusters"]
    """Mean of the two highest: a piece that one view cut off is no mask of a second, while a whole
    object that many views cut needs only two that do not."""
    views: Int64[np.ndarray, " clusters"]
    """Views with IoU >= 0.5."""


def support(seen: Observations, covered: Cover) -> Support:
    """Of each cluster. In the means, an IoU is multiplied by the mask's score."""
    entries = covered.under.tocoo()
    row, mask = entries.coords
    view = seen.mask_view[mask]
    union = covered.visible[row, view] + covered.mask_size[mask] - entries.data
    iou = entries.data / np.maximum(union, 1)
    best = np.zeros_like(covered.visible)
    np.maximum.at(best, (row, view), iou)
    weight = _good_looks(covered)
    views = ((best >= 0.5) & (weight > 0)).sum(1)
    if seen.overlap is not None:
        best[:] = 0
        np.maximum.at(best, (row, view), iou * seen.overlap.mask_score[mask])
    mean = (best * weight).sum(1) / np.maximum(weight.sum(1), 1e-9)
    best[weight == 0] = 0
    every, first = np.arange(len(best)), best.argmax(1)
    highest = best[every, first]
    best[every, first] = 0
    return Support(mean, (highest + best.max(1)) / 2, views)


def _good_looks(covered: Cover) -> Float64[np.ndarray, "clusters views"]:
    """Share of what the best view sees of a cluster that each view sees; 0 under `GOOD_LOOK`."""
    peak = np.maximum(covered.visible.max(1, keepdims=True, initial=0), 1)
    return np.where(covered.visible >= GOOD_LOOK * peak, covered.visible / peak, 0)


def gains(
    seen: Observations, covered: Cover, kept: Bool[np.ndarray, " clusters"]
) -> sparse.csr_array:
    """Log-likelihood that a region gives a point for each kept cluster, over `FLOOR`.

    (regions, kept). P(mask | cluster) is the share of the cluster's visible anchors under the mask.
    A mask that covers two objects is evidence for both; a mask of a part, for the complete object.

    Where masks overlap, a region has half of its gain from the masks over it, weighted by their
    scores, and half from P(region | cluster): that a cup lies in no region of the table alone
    speaks for the table there, though a mask of both covers all of it.
    """
    own = _gain(covered.regions, covered.visible, seen.region_view, kept)
    if seen.overlap is None:
        return own
    masks = seen.overlap.mean @ _gain(covered.under, covered.visible, seen.mask_view, kept)
    own_share = np.where(np.diff(own.indptr) > 0, OWN_REGION, 0)
    both = sparse.diags_array(own_share) @ own + sparse.diags_array(1 - own_share) @ masks
    return sparse.csr_array(both)


def _gain(
    under: sparse.csr_array,
    visible: Float64[np.ndarray, "clusters views"],
    view: Int32[np.ndarray, " columns"],
    kept: Bool[np.ndarray, " clusters"],
) -> sparse.csr_array:
    """(columns, kept): the gain of each column of `under`, which is of the view `view`."""
    entries = under.tocoo()
    row, column = entries.coords
    share = entries.data / np.maximum(visible[row, view[column]], 1)
    gain = np.log1p(share * (1 - FLOOR) / FLOOR)
    index = np.cumsum(kept) - 1
    of = kept[row]
    shape = (len(view), int(kept.sum()))
    return sparse.coo_array((gain[of], (column[of], index[row[of]])), shape).tocsr()


def confirmed(
    seen: Observations,
    cluster: Int32[np.ndarray, " anchors"],
    least_support: float,
    least_views: int,
) -> Int32[np.ndarray, " anchors"]:
    """Drop clusters without enough support; their anchors join the best other cluster, or -1.

    Kept are those that `least_views` views segment with IoU >= 0.5, or every view that sees them
    well where those are fewer.
    """
    count = int(cluster.max(initial=-1)) + 1
    covered = cover(seen, cluster, count)
    mean, _, views = support(seen, covered)
    seeing = (_good_looks(covered) > 0).sum(1)
    kept = (mean >= least_support) & (views >= np.clip(seeing, 1, max(least_views, 1)))
    gain = gains(seen, covered, kept)
    score = sparse.csr_array((seen.anchors, gain.shape[1]))
    for some in seen.blocks():
        masked = some.region >= 0
        at = some.anchor[masked], some.region[masked]
        weight = np.ones(len(at[0]), np.float32)
        if seen.overlap is not None:
            weight = seen.overlap.confidence[at[1]].astype(np.float32)
        under = sparse.coo_array((weight, at), (seen.anchors, len(seen.region_view))).tocsr()
        score = (score + under @ gain).tocsr()
    return _largest(largest_in_rows(score), 1, count)


def largest_in_rows(matrix: sparse.csr_array) -> Int32[np.ndarray, " rows"]:
    """Column of the largest stored entry of each row, the first of equals; -1 without any.

    SciPy's `argmax` takes a hundred times as long.
    """
    matrix.sort_indices()
    return np.asarray(_largest_in_rows(matrix.indptr, matrix.indices, matrix.data))


@compiled()
@no_type_check
def _largest_in_rows(start, column, value):
    found = np.full(len(start) - 1, -1, np.int32)
    for row in range(len(found)):
        most = -np.inf
        for at in range(start[row], start[row + 1]):
            if value[at] > most:
                most, found[row] = value[at], column[at]
    return found


def _largest(
    cluster: Int32[np.ndarray, " anchors"], smallest: int, most: int
) -> Int32[np.ndarray, " anchors"]:
    """Renumbered by size, largest first; clusters that are too small or too many become -1."""
    sizes = np.bincount(cluster[cluster >= 0])
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] >= max(smallest, 1)][:most]
    index = np.full(len(sizes) + 1, -1, np.int32)  # the last for cluster -1
    index[order] = np.arange(len(order))
    return index[cluster]


def _dense_agreement(
    seen: Observations, covered: Cover, half: float
) -> tuple[Float64[np.ndarray, "clusters clusters"], Float64[np.ndarray, "clusters clusters"]]:
    """Evidence for and against every pair of clusters, in views."""
    peak = np.maximum(covered.visible.max(1, keepdims=True, initial=0), 1)
    weight = np.minimum(covered.visible / (ENOUGH * peak), 1)
    entries = covered.regions.tocoo()
    row, region = entries.coords
    view = seen.region_view[region]
    data = entries.data / np.maximum(covered.visible, 1)[row, view] * weight[row, view]
    share = sparse.csr_array((data, (row, region)), covered.regions.shape)
    labelled = np.zeros_like(weight)
    np.add.at(labelled, (row, view), data)
    unlabelled = weight - labelled
    if seen.overlap is not None:
        labelled[:] = 0
        np.add.at(labelled, (row, view), data * seen.overlap.confidence[region])
    mixed = labelled @ unlabelled.T
    total = labelled @ labelled.T + half * (mixed + mixed.T)
    if seen.overlap is None:
        agree = (share @ share.T).toarray()
    else:
        agree = _shared_agreement(share, seen.region_view, seen.overlap)
    tracked = _tracks(seen, covered)
    return agree + tracked, total + tracked


def _shared_agreement(
    share: sparse.csr_array,
    region_view: Int32[np.ndarray, " regions"],
    overlap: Overlap,
) -> Float64[np.ndarray, "clusters clusters"]:
    """Evidence for every pair of clusters, by masks over both, as `pair_agreement` counts it."""
    agree = np.zeros((share.shape[0], share.shape[0]))
    by_region = share.tocsc()
    starts = np.flatnonzero(np.diff(region_view, prepend=-1))
    for low, high in zip(starts, np.append(starts, len(region_view))[1:], strict=True):
        some = by_region[:, low:high].tocsr()
        here = np.flatnonzero(np.diff(some.indptr))
        some = some[here]
        agree[np.ix_(here, here)] += (some @ overlap.together(int(low), int(high))) @ some.T
    return agree


def _tracks(seen: Observations, covered: Cover) -> Float64[np.ndarray, "clusters clusters"]:
    """Evidence from ids that a tracker carried through several views: only ever for."""
    _, track, views = np.unique(seen.mask_label, return_inverse=True, return_counts=True)
    mask = np.flatnonzero(views[track] > 1)
    if not len(mask):  # no tracker: a table of clusters by ids would be as large as it is empty
        return np.zeros((len(covered.size), len(covered.size)))
    ids, track = np.unique(track[mask], return_inverse=True)
    of = sparse.coo_array(
        (np.ones(len(mask)), (mask, track)), (len(seen.mask_label), len(ids))
    ).tocsr()
    share = (covered.under @ of).toarray()
    share /= np.maximum(np.asarray(covered.regions.sum(axis=1)).reshape(-1, 1), 1)
    both = share @ share.T
    return TRACK_EVIDENCE * (both if seen.overlap is None else np.minimum(both, 1))
