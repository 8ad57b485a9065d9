"""Points that stand for a mask, and for where it was tracked to (the code of 2604.13596)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float32

from lift3d.scene.errors import MissingExtra

KEPT = 0.8
"""Share of the tracked points that is kept: 40 of 50."""


def of_mask(mask: Bool[np.ndarray, "height width"], count: int) -> Float32[np.ndarray, "count 2"]:
    """K-Means centres (x, y) of the mask's pixels, each moved to a pixel of the mask.

    A mask of fewer pixels gives them all and repeats the first; an empty one gives zeros.
    """
    rows, columns = np.nonzero(mask)
    xy = np.stack([columns, rows], 1).astype(np.float32)
    if not len(xy):
        return np.zeros((count, 2), np.float32)
    if len(xy) <= count:
        return _padded(xy, count)
    chosen: list[tuple[int, int]] = []
    for centre in _centres(xy, count, random_state=42, n_init=1):
        x, y = np.rint(centre).astype(int)
        if not mask[y, x]:
            free = np.ones(len(xy), bool)
            for column, row in chosen:
                free &= (xy[:, 0] != column) | (xy[:, 1] != row)
            if not free.any():
                break
            near = xy[free]
            x, y = near[((near - centre) ** 2).sum(1).argmin()].astype(int)
        if (x, y) not in chosen:
            chosen.append((int(x), int(y)))
    return _padded(np.array(chosen, np.float32), count)


def inliers(xy: Float[np.ndarray, "points 2"], kept: float = KEPT) -> Float[np.ndarray, "kept 2"]:
    """The points nearest to their median along each axis, in their order."""
    away = np.linalg.norm(xy - np.median(xy, 0), axis=1)
    order = np.argsort(away, kind="stable")[: max(1, round(kept * len(xy)))]
    return xy[np.sort(order)]


def clustered(xy: Float[np.ndarray, "points 2"], count: int) -> Float32[np.ndarray, "count 2"]:
    """K-Means centres of points; with fewer distinct points, they and the first repeated."""
    distinct = np.unique(xy, axis=0)
    if len(distinct) <= count:
        return _padded(distinct.astype(np.float32), count)
    return np.asarray(_centres(xy, count, random_state=0, n_init="auto"), np.float32)


def _centres(xy: np.ndarray, count: int, **options: object) -> np.ndarray:
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise MissingExtra(
            "the points of VGGT-Segmentor need scikit-learn: pip install 'lift3d[vggt]'"
        ) from error
    return np.asarray(KMeans(count, **options).fit(xy).cluster_centers_)


def _padded(xy: np.ndarray, count: int) -> Float32[np.ndarray, "count 2"]:
    first = np.repeat(xy[:1], max(0, count - len(xy)), axis=0)
    return np.concatenate([xy, first])[:count].astype(np.float32)
