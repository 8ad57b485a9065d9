"""Depth and focal length of one image, from all predictions with it as the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float32, Float64

from lift3d.scene import Depth
from lift3d.scene.compiled import compiled

COARSE = 4
"""Scales and focal lengths are estimated on every n-th pixel."""
SAMPLE = 4000
"""Number of pixels on which predictions are compared."""
OUTLIER_FACTOR = 3.0
"""Two predictions disagree if they differ by this many times the usual difference. Chosen by hand;
not tuned on data."""
LEAST_SPREAD = 0.03
"""Predictions that differ by less (relative depth) always agree. Chosen by hand; not tuned on
data."""
NEAR = 0.05
"""Relative distance from a pixel's median within which depths are averaged. Chosen by hand; not
tuned on data."""
SINGLE_SIGMA = 0.02
"""Relative depth error assumed for a single prediction. Chosen by hand; not tuned on data."""
LEAST_SIGMA = 0.002
"""Lower bound of the relative error of one prediction. Chosen by hand; not tuned on data."""


@dataclass(frozen=True, eq=False)
class Canonical:
    """Robust average of the predictions of one image."""

    depth: Depth
    """Up to a scale factor per image; 0 where no prediction has depth."""
    confidence: Float32[np.ndarray, "height width"]
    """Mean of the predictions' confidence."""
    focal: float
    """Pixels."""
    sigma: float
    """Relative error of the depth, estimated from the spread of the predictions."""
    log_scale: Float64[np.ndarray, " predictions"]
    """log(prediction / depth), as a median over pixels."""
    outlier: Bool[np.ndarray, " predictions"]
    """Predictions that disagree with the others."""

    def scale_of(self, points: Float32[np.ndarray, "rows columns 3"], step: int) -> float | None:
        """Log scale of a further prediction, thinned by `step`; None if it is an outlier."""
        z = points[..., 2]
        own = self.depth[step // 2 :: step, step // 2 :: step]
        there = (z > 0) & (own > 0) & np.isfinite(z)
        if not there.any():
            return None
        log = np.log(z[there] / own[there].astype(np.float64))
        scale = float(np.median(log))
        spread = self.sigma * np.sqrt(max((~self.outlier).sum(), 1))
        allowed = max(OUTLIER_FACTOR * spread, LEAST_SPREAD)
        return scale if np.median(np.abs(log - scale)) <= allowed else None


def canonical(
    points: Sequence[Float32[np.ndarray, "height width 3"]],
    confidence: Sequence[Float32[np.ndarray, "height width"]],
    centre: Float64[np.ndarray, "2"],
    focal: float | None = None,
) -> Canonical:
    """Average the predictions' depth, after fitting a scale to each, without outliers.

    `centre` is the principal point; `focal` is the known focal length, if any. Depths near the
    pixel's median are averaged, weighted by confidence.
    """
    depth = np.stack([each[..., 2] for each in points])
    weight = np.stack(list(confidence)).astype(np.float32)
    log_scale, outlier = _scales(depth[:, ::COARSE, ::COARSE])
    good = np.flatnonzero(~outlier)
    mean, spread = _robust_mean(
        depth[good], weight[good], np.exp(-log_scale[good]).astype(np.float32)
    )
    if focal is None:
        each = [_focal(points[k][::COARSE, ::COARSE], centre, weight[k]) for k in good.tolist()]
        focal = float(np.exp(np.median(np.log(each))))
    known = mean[::COARSE, ::COARSE] > 0
    per_prediction = float(np.median(spread[::COARSE, ::COARSE][known])) if known.any() else 1.0
    if len(good) < 2:
        per_prediction = SINGLE_SIGMA
    return Canonical(
        depth=mean,
        confidence=weight[good].mean(0),
        focal=focal,
        sigma=max(per_prediction, LEAST_SIGMA) / np.sqrt(len(good)),
        log_scale=log_scale,
        outlier=outlier,
    )


def _scales(
    depth: Float32[np.ndarray, "predictions height width"],
) -> tuple[Float64[np.ndarray, " predictions"], Bool[np.ndarray, " predictions"]]:
    """Log scale of each prediction relative to the others, and which are outliers.

    Inliers agree with each other; outliers agree with no other prediction. So the largest set of
    predictions that agree with one of them holds the inliers, even if most predictions are wrong.
    """
    flat = depth.reshape(len(depth), -1)
    flat = flat[:, (np.isfinite(flat) & (flat > 0)).all(0)]
    if not flat.shape[1]:
        return np.zeros(len(depth)), np.zeros(len(depth), bool)
    log = np.log(flat[:, :: max(1, flat.shape[1] // SAMPLE)].astype(np.float64))
    log -= np.median(log, axis=1, keepdims=True)
    apart = np.zeros((len(log), len(log)))
    for k in range(len(log)):
        off = log - log[k]
        apart[k] = np.median(np.abs(off - np.median(off, axis=1, keepdims=True)), axis=1)
    apart = np.maximum(apart, apart.T)
    others = apart + np.diag(np.full(len(log), np.inf))
    usual = float(np.quantile(others.min(1), 0.25)) if len(log) > 1 else 0.0
    near = apart <= max(OUTLIER_FACTOR * usual, LEAST_SPREAD)
    # The prediction with the most neighbours; among equals, the one closest to them.
    centre = np.lexsort((np.where(near, apart, 0).sum(1) / near.sum(1), -near.sum(1)))[0]
    good = near[centre]
    full = np.log(flat[:, :: max(1, flat.shape[1] // SAMPLE)].astype(np.float64))
    scale = np.median(full - full[centre], axis=1)
    for _ in range(3):
        middle = np.median(full[good] - scale[good, None], axis=0)
        scale = np.median(full - middle, axis=1)
    return scale, ~good


def _focal(
    points: Float32[np.ndarray, "height width 3"],
    centre: Float64[np.ndarray, "2"],
    weight: Float32[np.ndarray, "full_height full_width"],
) -> float:
    """Focal length in pixels that fits a point map best.

    Minimises the weighted sum of |p - f (x, y) / z| over pixels p, relative to the principal
    point, by reweighted least squares (Weiszfeld; DUSt3R 2312.14132, section 3.3).
    """
    height, width = points.shape[:2]
    row, column = np.mgrid[:height, :width] * float(COARSE)
    pixel = np.stack([column - centre[0], row - centre[1]], -1).reshape(-1, 2)
    xyz = points.reshape(-1, 3).astype(np.float64)
    seen = np.isfinite(xyz).all(1) & (xyz[:, 2] > 1e-6)
    pixel, xyz = pixel[seen], xyz[seen]
    share = weight[::COARSE, ::COARSE].reshape(-1)[seen].astype(np.float64)
    ray = xyz[:, :2] / xyz[:, 2:]
    along, across = (pixel * ray).sum(1), (ray * ray).sum(1)
    if not len(along) or not (share * across).sum() > 0:
        return float(max(height, width) * COARSE)
    focal = (share * along).sum() / (share * across).sum()
    for _ in range(10):
        rate = share / np.maximum(np.linalg.norm(pixel - focal * ray, axis=1), 1e-3)
        focal = (rate * along).sum() / (rate * across).sum()
    # Meaningless point maps (untrained weights) may give a focal length that is not positive.
    return float(focal) if focal > 0 else float(max(height, width) * COARSE)


def _robust_mean(
    depth: Float32[np.ndarray, "predictions height width"],
    weight: Float32[np.ndarray, "predictions height width"],
    scale: Float32[np.ndarray, " predictions"],
) -> tuple[Depth, Float32[np.ndarray, "height width"]]:
    """Mean of the depths near each pixel's median, and their relative spread."""
    _, height, width = depth.shape
    mean, spread = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    _average(depth, weight, scale, mean, spread)
    return mean, spread


@compiled(parallel=True)
@no_type_check
def _average(depth, weight, scale, mean, spread):
    """Fill both maps; see `_robust_mean`."""
    count, height, width = depth.shape
    for y in numba.prange(height):
        value, share = np.empty(count, np.float64), np.empty(count, np.float64)
        for x in range(width):
            n = 0
            for k in range(count):
                z = depth[k, y, x] * scale[k]
                if z > 0 and z < np.inf:
                    at = n  # insertion sort
                    while at > 0 and value[at - 1] > z:
                        value[at], share[at] = value[at - 1], share[at - 1]
                        at -= 1
                    value[at], share[at] = z, weight[k, y, x]
                    n += 1
            if n == 0:
                continue
            middle = 0.5 * (value[(n - 1) // 2] + value[n // 2])
            near = NEAR * middle
            total, first, second = 0.0, 0.0, 0.0
            for k in range(n):
                off = value[k] - middle
                if abs(off) <= near:
                    total += share[k]
                    first += share[k] * off
                    second += share[k] * off * off
            if total > 0:
                first /= total
                mean[y, x] = middle + first
                spread[y, x] = np.sqrt(max(second / total - first * first, 0.0)) / middle
            else:
                mean[y, x] = middle
                spread[y, x] = NEAR
