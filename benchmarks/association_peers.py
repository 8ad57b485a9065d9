"""Other methods to associate masks across views, written from their papers, for comparison.

All take points and the observations of every view, and return a label per point (0 = none)
and a confidence per label (entry 0 is unused). None of them chooses anchors: they see all
points, as they do in the papers.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from jaxtyping import Float32, Int32
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from lift3d.association.evidence import Observations
from lift3d.geometry.graphs import felzenszwalb

XYZ: TypeAlias = Float32[np.ndarray, "points 3"]
Labels: TypeAlias = Int32[np.ndarray, " points"]
Scores: TypeAlias = Float32[np.ndarray, " labels"]


def membership(seen: Observations) -> sparse.csr_array:
    """Points x masks, 1 where the point is in the mask."""
    looks = seen.whole()
    known = looks.region >= 0
    shape = (seen.anchors, len(seen.mask_view))
    ones = np.ones(int(known.sum()), np.float32)
    return sparse.csr_array((ones, (looks.anchor[known], looks.region[known])), shape)


def visibility(seen: Observations) -> sparse.csr_array:
    """Points x views, 1 where the view sees the point."""
    looks = seen.whole()
    ones = np.ones(len(looks.anchor), np.float32)
    return sparse.csr_array((ones, (looks.anchor, looks.view)), (seen.anchors, seen.views))


def compact(labels: np.ndarray, least: int = 0) -> Labels:
    """Labels renumbered 1, 2, ... without gaps; labels of fewer than `least` points become 0."""
    size = np.bincount(labels)
    good = size >= max(least, 1)
    good[0] = False
    return np.where(good, np.cumsum(good), 0).astype(np.int32)[labels]


# --- frame by frame -----------------------------------------------------------------------


def greedy_merge(
    xyz: XYZ,
    seen: Observations,
    threshold: float = 0.3,
    measure: str = "iou",
    least_views: int = 3,
    least_points: int = 50,
    labelled: float = 0.2,
    slots: int = 12,
) -> tuple[Labels, Scores]:
    """Each mask is merged into the object it overlaps most, or starts a new one; points vote.

    Overlap is measured among the points that the mask's view sees: intersection over union,
    or over the smaller of the two (`containment`). Each point remembers the `slots` objects it
    was given most; the rarest makes room.
    """
    objects = np.zeros((seen.anchors, slots), np.int32)
    count = np.zeros((seen.anchors, slots), np.int32)
    owner = np.zeros(seen.anchors, np.int32)
    met = [0]  # number of views that have met each object
    looks = seen.whole()
    for view in range(seen.views):
        part = slice(looks.start[view], looks.start[view + 1])
        point, mask = looks.anchor[part], looks.region[part]
        if not (mask >= 0).any():
            continue
        first = mask[mask >= 0].min()
        masks = mask.max() - first + 1
        local = np.where(mask >= 0, mask - first + 1, 0)
        known, held = np.unique(owner[point], return_inverse=True)
        table = np.bincount(local * len(known) + held, minlength=(masks + 1) * len(known))
        table = table.reshape(masks + 1, len(known)).astype(float)
        mask_size, object_size = table.sum(1)[1:, None], table.sum(0)[None]
        inter = table[1:]
        if measure == "iou":
            overlap = inter / (mask_size + object_size - inter)
        else:
            overlap = inter / np.maximum(np.minimum(mask_size, object_size), 1)
        overlap[:, known == 0] = 0
        best = overlap.argmax(1)
        joins = overlap[np.arange(masks), best] >= threshold
        given = np.where(joins, known[best], 0)
        given[~joins] = len(met) + np.arange(int((~joins).sum()))
        met += [0] * int((~joins).sum())
        for each in np.unique(given):
            met[each] += 1
        inside = mask >= 0
        who, what = point[inside], given[local[inside] - 1]
        same = objects[who] == what[:, None]
        slot = np.where(same.any(1), same.argmax(1), count[who].argmin(1))
        count[who, slot] = np.where(same.any(1), count[who, slot], 0) + 1
        objects[who, slot] = what
        owner[who] = objects[who, count[who].argmax(1)]
    times = np.bincount(seen.whole().anchor, minlength=seen.anchors)
    owner[count.max(1) < labelled * times] = 0
    owner[np.array(met)[owner] < least_views] = 0
    labels = compact(owner, least_points)
    share = count.max(1) / np.maximum(times, 1)
    size = np.bincount(labels)
    return labels, (np.bincount(labels, share) / np.maximum(size, 1)).astype(np.float32)


# --- pairs of neighbouring frames ---------------------------------------------------------


def sam3d(
    xyz: XYZ,
    seen: Observations,
    normals: np.ndarray | None = None,
    ratio: float = 0.5,
    least_group: int = 50,
    least_points: int = 50,
    scale: float = 0.01,
    mutual: bool = False,
    common: bool = False,
) -> tuple[Labels, Scores]:
    """Yang et al., SAM3D: Segment Anything in 3D Scenes, 2023.

    Neighbouring frames' point groups merge, then neighbouring pairs of frames, and so on up
    a binary tree. Two groups merge where one is the other's best partner and they share
    `ratio` of the smaller. With normals, superpoints then take their majority's label.
    `mutual` asks for best partners both ways. `common` counts a group's size only among the
    points that both sides label.
    """
    level = []
    looks = seen.whole()
    for view in range(seen.views):
        part = slice(looks.start[view], looks.start[view + 1])
        known = looks.region[part] >= 0
        point, group = looks.anchor[part][known], looks.region[part][known]
        big = np.bincount(group, minlength=len(seen.mask_view))[group] >= least_group
        level.append((point[big], group[big]))
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        merged = [_merge_groups(*one, *two, ratio, mutual, common) for one, two in pairs]
        level = merged + level[len(level) // 2 * 2 :]
    labels = np.zeros(len(xyz), np.int64)
    point, group = level[0]
    labels[point] = group + 1
    labels = compact(labels, least_points)
    share = np.ones(len(xyz))
    if normals is not None:
        part = superpoints(xyz, normals, scale)
        width = int(labels.max()) + 1
        table = sparse.csr_array((np.ones(len(xyz)), (part, labels)), (part.max() + 1, width))
        size = np.bincount(part)
        labels = compact(np.asarray(table.argmax(1)).ravel()[part], least_points)
        share = (table.max(1).toarray().ravel() / size)[part]
    size = np.bincount(labels)
    purity = np.bincount(labels, share) / np.maximum(size, 1)
    return labels, (purity * np.log1p(size)).astype(np.float32)


def _merge_groups(point_a, group_a, point_b, group_b, ratio, mutual, common):
    """Merge two labelled sets of points; where both label a point, the first's label stays."""
    _, at_a, at_b = np.intersect1d(point_a, point_b, assume_unique=True, return_indices=True)
    ids_a, a = np.unique(group_a, return_inverse=True)
    ids_b, b = np.unique(group_b, return_inverse=True)
    if len(at_a):
        shape = (len(ids_a), len(ids_b))
        inter = sparse.coo_array((np.ones(len(at_a)), (a[at_a], b[at_b])), shape).toarray()
        sum_a = inter.sum(1) if common else np.bincount(a)
        sum_b = inter.sum(0) if common else np.bincount(b)
        share = inter / np.maximum(np.minimum(sum_a[:, None], sum_b[None]), 1)
        forth, back = np.zeros(shape, bool), np.zeros(shape, bool)
        forth[np.arange(shape[0]), inter.argmax(1)] = True
        back[inter.argmax(0), np.arange(shape[1])] = True
        best = forth & back if mutual else forth | back
        one, two = np.nonzero(best & (share >= ratio) & (inter > 0))
        total = len(ids_a) + len(ids_b)
        graph = sparse.coo_array((np.ones(len(one)), (one, two + len(ids_a))), (total, total))
        _, part = connected_components(graph, directed=False)
        _, first = np.unique(part, return_index=True)
        name = np.concatenate([ids_a, ids_b])[first][part]
        group_a, group_b = name[a], name[len(ids_a) + b]
    fresh = np.ones(len(point_b), bool)
    fresh[at_b] = False
    return np.concatenate([point_a, point_b[fresh]]), np.concatenate([group_a, group_b[fresh]])


def superpoints(
    xyz: XYZ, normals: np.ndarray, scale: float = 0.01, least: int = 20, neighbours: int = 8
) -> Labels:
    """Felzenszwalb and Huttenlocher's graph segmentation, over nearest neighbours' normals.

    An edge weighs 1 - cos of the angle between normals, squared where the surface is convex.
    """
    _, near = cKDTree(xyz).query(xyz, k=neighbours + 1, workers=-1)
    a = np.repeat(np.arange(len(xyz)), neighbours)
    b = near[:, 1:].ravel()
    once = a < b
    a, b = a[once], b[once]
    weight = np.clip(1 - (normals[a] * normals[b]).sum(1), 0, 2)
    convex = ((xyz[b] - xyz[a]) * normals[b]).sum(1) > 0
    weight = np.where(convex, weight**2, weight)
    ends = a.astype(np.int32), b.astype(np.int32)
    return felzenszwalb(*ends, weight.astype(np.float32), scale, least, np.zeros(len(xyz), int))


# --- view consensus -----------------------------------------------------------------------


def mask_clustering(
    xyz: XYZ,
    seen: Observations,
    visible_share: float = 0.3,
    contained_share: float = 0.8,
    undersegmented: float = 0.3,
    consensus: float = 0.9,
    detection: float = 0.5,
    radius: float = 0.1,
    overlap: float = 0.8,
    least_masks: int = 2,
    least_points: int = 50,
    labelled_share: float = 0.0,
) -> tuple[Labels, Scores]:
    """Yan et al., MaskClustering: View Consensus based Mask Graph Clustering, CVPR 2024.

    A view with less than `labelled_share` of the visible part labelled counts as not
    observing it (0: every view that sees the mask's points observes it).
    """
    inside, sees = membership(seen), visibility(seen)
    size = np.asarray(inside.sum(0)).ravel()
    kept = size >= 10
    visible = (inside.T @ sees).toarray()
    inter = (inside.T @ inside).tocoo()
    row, col = inter.coords
    view = seen.mask_view[col]
    labelled = np.zeros_like(visible)
    np.add.at(labelled, (row, view), inter.data)
    observes = visible >= visible_share * size[:, None]
    observes &= labelled > labelled_share * visible
    observes &= kept[:, None]
    holds = inter.data >= contained_share * visible[row, view]
    holds &= observes[row, view] & kept[col]
    row, col, view = row[holds], col[holds], view[holds]
    agreed = np.zeros(observes.shape, bool)
    agreed[row, view] = True
    count = observes.sum(1)
    bad = kept & ((observes & ~agreed).sum(1) > undersegmented * count)
    # Points in an under-segmented mask of a view count as not observed by that view.
    lost = bad[col]
    observes[row[lost], view[lost]] = False
    row, col = row[~lost], col[~lost]
    shape = (len(size), len(size))
    supports = sparse.csr_array((np.ones(len(row), np.float32), (row, col)), shape)
    good = np.flatnonzero(kept & ~bad)
    observes, supports = observes[good].astype(np.float32), supports[good]
    part = np.arange(len(good))
    shared = observes @ observes.T
    pairs = shared[np.triu_indices(len(good), 1)]
    pairs = pairs[pairs > 0]
    for percent in range(95, -5, -5):
        least = max(np.percentile(pairs, percent), 1) if len(pairs) else 1
        if least <= 1 and percent < 50:
            break
        shared = observes @ observes.T
        rate = (supports @ supports.T).toarray() / np.maximum(shared, 1)
        linked = (rate >= consensus) & (shared >= least)
        clusters, joined = connected_components(sparse.csr_array(linked), directed=False)
        sums = sparse.csr_array(
            (np.ones(len(joined), np.float32), (joined, np.arange(len(joined)))),
            (clusters, len(joined)),
        )
        observes = np.minimum(sums @ observes, 1)
        supports = sums @ supports
        supports.data = np.minimum(supports.data, 1)
        part = joined[part]
    return _objects(
        xyz, seen, inside, sees, good, part, detection, radius, overlap, least_masks, least_points
    )


def _objects(
    xyz, seen, inside, sees, good, part, detection, radius, overlap, least_masks, least_points
):
    """From clusters of masks to points: detection ratio, DBSCAN, removal of overlaps."""
    from sklearn.cluster import DBSCAN

    by_mask, sees = inside.tocsc(), sees.tocsc()
    found = []
    for cluster in np.flatnonzero(np.bincount(part) >= least_masks):
        masks = good[part == cluster]
        views = np.unique(seen.mask_view[masks])
        times = np.asarray(by_mask[:, masks].sum(1)).ravel()
        asked = np.asarray(sees[:, views].sum(1)).ravel()
        point = np.flatnonzero(times)
        if len(point) < least_points:
            continue
        piece = DBSCAN(eps=radius, min_samples=4).fit_predict(xyz[point])
        ratio = times[point] / asked[point]
        for each in range(piece.max() + 1):
            mine = (piece == each) & (ratio >= detection)
            if mine.sum() < least_points:
                continue
            here = point[mine]
            held = np.asarray(by_mask[:, masks][here].sum(0)).ravel()
            voters = int((held >= 0.3 * np.diff(by_mask[:, masks].indptr)).sum())
            if voters >= least_masks:
                found.append((here, ratio[mine], voters))
    count = len(found)
    if not count:
        return np.zeros(len(xyz), np.int32), np.zeros(1, np.float32)
    at = np.concatenate([each[0] for each in found])
    which = np.repeat(np.arange(count), [len(each[0]) for each in found])
    table = sparse.csr_array((np.ones(len(at)), (which, at)), (count, len(xyz)))
    common = (table @ table.T).toarray()
    size = np.diag(common).copy()
    keep = np.ones(count, bool)
    for small in np.argsort(size, kind="stable"):
        common_share = common[small] / size[small]
        common_share[small] = 0
        keep[small] = not ((common_share > overlap) & keep).any()
    best = np.zeros(len(xyz))
    labels = np.zeros(len(xyz), np.int32)
    for index in np.flatnonzero(keep):
        here, ratio, _ = found[index]
        better = ratio > best[here]
        labels[here[better]] = index + 1
        best[here[better]] = ratio[better]
    votes = np.array([0] + [each[2] for each in found])
    final = compact(labels, least_points)
    score = np.zeros(int(final.max()) + 1, np.float32)
    score[final] = votes[labels]
    score[0] = 0
    spread = np.bincount(final, best, minlength=len(score)) / np.maximum(np.bincount(final), 1)
    return final, (score * spread).astype(np.float32)


PEERS = {"greedy merge": greedy_merge, "SAM3D": sam3d, "MaskClustering": mask_clustering}
"""Methods with the papers' settings, which are the functions' defaults. With `normals` SAM3D votes
in superpoints."""

TUNED = {
    "greedy merge": {"threshold": 0.2, "labelled": 0.1},
    "SAM3D": {"mutual": True, "ratio": 0.2},
    "MaskClustering": {
        "labelled_share": 0.3,
        "undersegmented": 0.5,
        "contained_share": 0.6,
        "consensus": 0.6,
        "detection": 0.3,
    },
}
"""The best settings for each method, chosen on rooms 0 and 1 at low, middle and high severity, with
pose noise."""
