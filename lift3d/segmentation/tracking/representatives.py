"""Choose representative points of masks (MastSAM's representative selection)."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from jaxtyping import Float64, Int32, Int64

from lift3d.scene import LabelMap
from lift3d.scene.compiled import compiled

SAMPLE = 500
"""Pixels of a mask used by K-Means; more change the centres by less than a pixel."""
ROUNDS = 10
"""Number of K-Means iterations."""


def choose(
    labels: LabelMap,
    ids: Int32[np.ndarray, " masks"],
    match_xy: Float64[np.ndarray, "matches 2"],
    match_label: Int32[np.ndarray, " matches"],
    total: int,
    seed: int | tuple[int, ...],
    at_least_one: bool = True,
    own: bool = True,
) -> tuple[Int64[np.ndarray, " chosen"], Int32[np.ndarray, " chosen"]]:
    """Indices of about `total` matches that represent the masks `ids`, and the id of each.

    K-Means centres of each mask's pixels are snapped to the nearest match on the mask, or to the
    nearest of all matches if not `own`. With `at_least_one`, every mask with a match gets one.
    """
    areas = np.bincount(labels.reshape(-1), minlength=int(ids.max(initial=0)) + 1)[ids]
    xy, owner = centres(labels, ids, allot(areas, total, at_least_one), seed)
    return snap(xy, ids[owner], match_xy, match_label, own)


def allot(
    areas: Int64[np.ndarray, " masks"], total: int, at_least_one: bool = True
) -> Int64[np.ndarray, " masks"]:
    """Number of points per mask, in proportion to area; at least one, even beyond `total`.

    Points left by rounding down go to the largest remainders. Without `at_least_one`, shares are
    rounded down, as in the scripts, and small masks get none.

    >>> allot(np.array([600, 390, 10]), 10)
    array([5, 4, 1])
    """
    if not len(areas):
        return np.zeros(0, np.int64)
    spare = max(total - len(areas), 0)
    exact = areas / max(areas.sum(), 1) * total
    if not at_least_one:
        return np.floor(exact).astype(np.int64)
    wish = np.maximum(exact - 1, 0)  # in addition to the first point
    wish *= spare / max(wish.sum(), 1e-9)
    points = np.floor(wish).astype(np.int64)
    order = np.argsort(points - wish, kind="stable")
    points[order[: spare - points.sum()]] += 1
    return points + 1


def centres(
    labels: LabelMap,
    ids: Int32[np.ndarray, " masks"],
    points: Int64[np.ndarray, " masks"],
    seed: int | tuple[int, ...],
) -> tuple[Float64[np.ndarray, "points 2"], Int64[np.ndarray, " points"]]:
    """K-Means centres (x, y) of each mask's pixels, and the index of each centre's mask.

    k-means++ initialisation, then Lloyd's iterations. A mask with fewer pixels than points gets
    one point per pixel. `ids` must occur in `labels`.
    """
    flat = labels.reshape(-1)
    pixels, bound = _by_label(flat, int(flat.max(initial=0)))
    start, end = bound[ids], bound[ids + 1]
    sampled, wanted = [], []
    for low, high, count in zip(start, end, points, strict=True):
        # Every n-th pixel in scan-line order may fall into columns; `_spread` avoids that.
        mine = pixels[low:high]
        if len(mine) > SAMPLE:
            mine = mine[_spread(len(mine), SAMPLE)]
        sampled.append(mine)
        wanted.append(min(int(count), len(mine)))
    owner = np.repeat(np.arange(len(ids)), wanted)
    if not len(owner):
        return np.zeros((0, 2)), owner.astype(np.int64)
    bounds = np.concatenate([[0], np.cumsum([len(s) for s in sampled])])
    together = np.concatenate(sampled)
    xy = np.stack([together % labels.shape[1], together // labels.shape[1]], 1).astype(np.float64)
    chance = np.random.default_rng(seed).random(len(owner))
    return _kmeans(xy, bounds, np.array(wanted), chance, ROUNDS), owner.astype(np.int64)


def snap(
    xy: Float64[np.ndarray, "points 2"],
    owner: Int32[np.ndarray, " points"],
    match_xy: Float64[np.ndarray, "matches 2"],
    match_owner: Int32[np.ndarray, " matches"],
    own: bool = True,
) -> tuple[Int64[np.ndarray, " chosen"], Int32[np.ndarray, " chosen"]]:
    """Indices of the matches nearest to the points, without repeats, and the points' owners.

    In the order of the points. With `own`, only matches on the point's own mask are used; a point
    whose mask has no match is dropped.
    """
    nearest = _snap(xy, owner, match_xy, match_owner, own)
    found = nearest >= 0
    nearest, owner = nearest[found], owner[found]
    _, first = np.unique(nearest, return_index=True)
    first = np.sort(first)
    return nearest[first], owner[first]


def _spread(size: int, sample: int) -> Int64[np.ndarray, " sample"]:
    """`sample` of `size` positions, evenly spread but not periodic (golden ratio)."""
    golden = (np.arange(sample) * 0.6180339887498949) % 1.0
    return ((np.arange(sample) + golden) * (size / sample)).astype(np.int64)


@compiled()
@no_type_check
def _by_label(flat, largest):
    """Pixels sorted by label (counting sort), and the start of each label's pixels."""
    bound = np.zeros(largest + 2, np.int64)
    for p in range(len(flat)):
        bound[flat[p] + 1] += 1
    for label in range(1, largest + 2):
        bound[label] += bound[label - 1]
    at = bound.copy()
    pixels = np.empty(len(flat), np.int64)
    for p in range(len(flat)):
        pixels[at[flat[p]]] = p
        at[flat[p]] += 1
    return pixels, bound


@compiled()
@no_type_check
def _kmeans(xy, bounds, wanted, chance, rounds):
    """K-Means of each mask's pixels; the centres of all masks, concatenated."""
    centres = np.empty((wanted.sum(), 2))
    at = 0
    for mask in range(len(wanted)):
        mine = xy[bounds[mask] : bounds[mask + 1]]
        k, n = wanted[mask], bounds[mask + 1] - bounds[mask]
        found = centres[at : at + k]
        nearest = np.full(n, np.inf)
        for c in range(k):
            # k-means++: draw the next centre with probability by squared distance to the others.
            pick = min(int(chance[at + c] * n), n - 1)
            if c > 0:
                goal = chance[at + c] * nearest.sum()
                total = 0.0
                for p in range(n):
                    total += nearest[p]
                    if nearest[p] > 0:
                        pick = p
                        if total >= goal:
                            break
            found[c] = mine[pick]
            for p in range(n):
                dx, dy = mine[p, 0] - found[c, 0], mine[p, 1] - found[c, 1]
                nearest[p] = min(nearest[p], dx * dx + dy * dy)
        for _ in range(rounds):
            total_xy = np.zeros((k, 2))
            members = np.zeros(k)
            for p in range(n):
                best, best_c = np.inf, 0
                for c in range(k):
                    dx, dy = mine[p, 0] - found[c, 0], mine[p, 1] - found[c, 1]
                    if dx * dx + dy * dy < best:
                        best, best_c = dx * dx + dy * dy, c
                total_xy[best_c] += mine[p]
                members[best_c] += 1
            for c in range(k):
                if members[c] > 0:
                    found[c] = total_xy[c] / members[c]
        at += k
    return centres


@compiled()
@no_type_check
def _snap(xy, owner, match_xy, match_owner, own):
    nearest = np.full(len(xy), -1)
    distance = np.full(len(xy), np.inf)
    # Points of a mask are consecutive.
    if not len(owner) or not len(match_owner):
        return nearest
    first = np.zeros(max(owner.max(), match_owner.max()) + 1, np.int64)
    last = np.zeros_like(first)
    for p in range(len(owner)):
        if last[owner[p]] == 0:
            first[owner[p]] = p
        last[owner[p]] = p + 1
    for m in range(len(match_xy)):
        low, high = 0, len(xy)
        if own:
            low, high = first[match_owner[m]], last[match_owner[m]]
        for p in range(low, high):
            dx, dy = match_xy[m, 0] - xy[p, 0], match_xy[m, 1] - xy[p, 1]
            if dx * dx + dy * dy < distance[p]:
                distance[p] = dx * dx + dy * dy
                nearest[p] = m
    return nearest
