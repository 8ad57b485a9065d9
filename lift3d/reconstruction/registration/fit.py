"""The colour camera that makes views agree on the colours of surface points.

Points of the depth maps keep their place; for a colour camera that differs from the stated one by
`theta`, each point has a colour in every view that sees it. `theta` minimises how far these are
from their mean over the views, over all points (as Zhou and Koltun 2014, "Color map optimization",
but with one camera for all views instead of one per picture). Colours are local contrasts,
so exposure does not matter. Gauss-Newton with damping, robust weights, coarse to fine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from lift3d.scene import Image
from lift3d.scene.compiled import compiled

PARAMETERS = ("log fx", "log fy", "cx", "cy", "x", "y", "z", "roll", "lag")
"""Differences of the colour camera from the stated one: logarithm of the factor of the focal
length; principal point in widths of the picture; position of the depth camera's origin in the
colour camera's axes, in world units; radians about the viewing axis; time in frames."""
COUNT = len(PARAMETERS)
USUAL = np.array([0.1, 0.1, 0.05, 0.05, 0.03, 0.03, 0.03, 0.02, 1.0])
"""Usual size of each difference; positions are in metres (of a metric scene)."""
PRIOR = 5e-4
"""Weight of a difference of the usual size against the mean squared residual. Chosen by hand."""
NOISE = 0.5
"""Contrast from which a residual counts less. Chosen by hand."""
FEWEST_VIEWS = 3
"""Points seen in fewer views are not used."""
CHUNK = 64
"""Points per task of a thread; results do not depend on the number of threads."""
STARTS = (-0.15, -0.075, 0.0, 0.075, 0.15)
"""Logarithms of the focal length's factor from which the coarsest level starts."""


@dataclass(frozen=True, eq=False)
class Observations:
    """Points seen by views, sorted by point."""

    start: Int32[np.ndarray, " points_and_end"]
    view: Int32[np.ndarray, " seen"]
    local: Float64[np.ndarray, "seen 3"]
    """In the axes of the view's depth camera."""
    motion: Float64[np.ndarray, "seen 3"]
    """Change of `local` from one frame to the next."""
    K: Float64[np.ndarray, "3 3"]
    """Of the stated colour camera."""
    width: int
    height: int
    unit: float
    """World units per metre."""

    @property
    def usual(self) -> Float64[np.ndarray, " parameters"]:
        """`USUAL` in world units."""
        return USUAL * np.where(np.isin(np.arange(COUNT), (4, 5, 6)), self.unit, 1.0)

    def some(self, every: int, first: int = 0) -> Observations:
        """Every so many points, from the `first` on."""
        counts = np.diff(self.start)
        chosen = np.arange(len(counts)) % every == first
        rows = np.repeat(chosen, counts)
        start = np.append(0, np.cumsum(counts[chosen])).astype(np.int32)
        return Observations(
            *(start, self.view[rows], self.local[rows], self.motion[rows]),
            *(self.K, self.width, self.height, self.unit),
        )

    def pixels(self, theta: Float64[np.ndarray, " parameters"]) -> Float64[np.ndarray, "seen 2"]:
        """Colour pixels (x, y) of all observations."""
        moved = self.local + theta[8] * self.motion
        cos, sin = np.cos(theta[7]), np.sin(theta[7])
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        at = moved @ turn.T + theta[4:7]
        focal = np.array([self.K[0, 0], self.K[1, 1]]) * np.exp(theta[:2])
        return at[:, :2] / at[:, 2:] * focal + self.K[:2, 2] + theta[2:4] * self.width


def contrast(image: Image, width: int) -> Float32[np.ndarray, "rows columns 3"]:
    """Local contrast of the picture at `width` pixels, and its derivatives along x and y."""
    import cv2

    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    size = (width, max(1, round(grey.shape[0] * width / grey.shape[1])))
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    fine, mean = cv2.GaussianBlur(small, (0, 0), 1.2), cv2.GaussianBlur(small, (0, 0), 5.0)
    spread = np.sqrt(cv2.GaussianBlur((small - mean) ** 2, (0, 0), 5.0))
    value = (fine - mean) / (spread + 4)  # 4 grey values of noise
    slopes = (cv2.Sobel(value, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
    return np.stack([value, *slopes], axis=-1)


def disagreement(
    seen: Observations,
    maps: Float32[np.ndarray, "views height width 3"],
    theta: Float64[np.ndarray, " parameters"],
) -> tuple[float, float]:
    """Robust mean squared difference of the colours from their points' means; share of use."""
    cost, used, _, _ = _sums(seen, maps, theta, False)
    return cost, used


def solved(
    seen: Observations,
    maps: Float32[np.ndarray, "views height width 3"],
    theta: Float64[np.ndarray, " parameters"],
    free: Int64[np.ndarray, " free"],
    steps: int = 8,
) -> tuple[Float64[np.ndarray, " parameters"], float]:
    """`theta` with its `free` entries fitted from where they are, and what it costs."""
    usual = seen.usual[free]

    def total(cost: float, theta: Float64[np.ndarray, " parameters"]) -> float:
        return cost + PRIOR * float(((theta[free] / usual) ** 2).sum())

    damping = 1e-2
    cost, least, hessian, slope = _sums(seen, maps, theta, True)
    best = total(cost, theta)
    for _ in range(steps):
        known = hessian[np.ix_(free, free)] * np.outer(usual, usual)
        right = -(slope[free] * usual + PRIOR * theta[free] / usual)
        gain = 0.0
        for _ in range(4):
            left = known + np.diag(damping * np.diag(known) + PRIOR)
            tried = theta.copy()
            tried[free] += np.linalg.solve(left, right) * usual
            cost, used = disagreement(seen, maps, tried)
            if used > 0.5 * least and total(cost, tried) < best:
                gain, theta, best = best - total(cost, tried), tried, total(cost, tried)
                damping /= 4
                break
            damping *= 8
        if gain < 1e-5:
            break
        _, _, hessian, slope = _sums(seen, maps, theta, True)
    return theta, best


def _sums(
    seen: Observations,
    maps: Float32[np.ndarray, "views height width 3"],
    theta: Float64[np.ndarray, " parameters"],
    derive: bool,
) -> tuple[float, float, Float64[np.ndarray, "9 9"], Float64[np.ndarray, " parameters"]]:
    """Mean cost, share of observations inside, and the sums of Gauss-Newton."""
    lens = np.array([seen.K[0, 0], seen.K[1, 1], seen.K[0, 2], seen.K[1, 2], seen.width])
    scale = maps.shape[2] / seen.width
    parts = _evaluate(
        *(seen.start, seen.view, seen.local, seen.motion, maps, lens, scale, theta, derive)
    )
    costs, counts, hessians, slopes = (part.sum(0) for part in parts)
    used = max(float(counts), 1.0)
    return (
        float(costs) / used,
        float(counts) / max(len(seen.view), 1),
        hessians / used,
        slopes / used,
    )


@compiled(parallel=True)
@no_type_check
def _evaluate(start, view, local, motion, maps, lens, scale, theta, derive):
    """Per chunk of points: cost, observations, J^T W J and J^T W r."""
    points = len(start) - 1
    chunks = (points + CHUNK - 1) // CHUNK
    costs, counts = np.zeros(chunks), np.zeros(chunks)
    hessians, slopes = np.zeros((chunks, COUNT, COUNT)), np.zeros((chunks, COUNT))
    height, width = maps.shape[1], maps.shape[2]
    fx, fy = lens[0] * np.exp(theta[0]), lens[1] * np.exp(theta[1])
    cx, cy = lens[2] + theta[2] * lens[4], lens[3] + theta[3] * lens[4]
    cos, sin = np.cos(theta[7]), np.sin(theta[7])
    for chunk in numba.prange(chunks):
        most = 0
        for p in range(chunk * CHUNK, min((chunk + 1) * CHUNK, points)):
            most = max(most, start[p + 1] - start[p])
        value, weight = np.empty(most), np.empty(most)
        rows, mean_row = np.zeros((most, COUNT)), np.zeros(COUNT)
        for p in range(chunk * CHUNK, min((chunk + 1) * CHUNK, points)):
            n = 0
            for k in range(start[p], start[p + 1]):
                a = local[k, 0] + theta[8] * motion[k, 0]
                b = local[k, 1] + theta[8] * motion[k, 1]
                z = local[k, 2] + theta[8] * motion[k, 2] + theta[6]
                if z <= 1e-6:
                    continue
                xr, yr = cos * a - sin * b, sin * a + cos * b
                x, y = xr + theta[4], yr + theta[5]
                u = (fx * x / z + cx + 0.5) * scale - 0.5
                v = (fy * y / z + cy + 0.5) * scale - 0.5
                if not (u >= 0.0 and v >= 0.0 and u < width - 1.001 and v < height - 1.001):
                    continue
                i, j, m = int(v), int(u), view[k]
                s, t = v - i, u - j
                w00, w01, w10, w11 = (1 - s) * (1 - t), (1 - s) * t, s * (1 - t), s * t
                value[n] = (
                    w00 * maps[m, i, j, 0]
                    + w01 * maps[m, i, j + 1, 0]
                    + w10 * maps[m, i + 1, j, 0]
                    + w11 * maps[m, i + 1, j + 1, 0]
                )
                if derive:
                    gx = scale * (
                        w00 * maps[m, i, j, 1]
                        + w01 * maps[m, i, j + 1, 1]
                        + w10 * maps[m, i + 1, j, 1]
                        + w11 * maps[m, i + 1, j + 1, 1]
                    )
                    gy = scale * (
                        w00 * maps[m, i, j, 2]
                        + w01 * maps[m, i, j + 1, 2]
                        + w10 * maps[m, i + 1, j, 2]
                        + w11 * maps[m, i + 1, j + 1, 2]
                    )
                    ax, ay = gx * fx / z, gy * fy / z
                    az = -(ax * x + ay * y) / z
                    da, db = motion[k, 0], motion[k, 1]
                    rows[n, 0], rows[n, 1] = ax * x, ay * y
                    rows[n, 2], rows[n, 3] = gx * lens[4], gy * lens[4]
                    rows[n, 4], rows[n, 5], rows[n, 6] = ax, ay, az
                    rows[n, 7] = ay * xr - ax * yr
                    rows[n, 8] = (
                        ax * (cos * da - sin * db) + ay * (sin * da + cos * db) + az * motion[k, 2]
                    )
                n += 1
            if n < FEWEST_VIEWS:
                continue
            mean = 0.0
            for k in range(n):
                mean += value[k] / n
            total = 0.0
            for _ in range(2):  # the robust mean, by reweighting
                total, sum_ = 0.0, 0.0
                for k in range(n):
                    weight[k] = 1.0 / (1.0 + ((value[k] - mean) / NOISE) ** 2)
                    total += weight[k]
                    sum_ += weight[k] * value[k]
                mean = sum_ / total
            counts[chunk] += n
            for k in range(n):
                costs[chunk] += np.log1p(((value[k] - mean) / NOISE) ** 2)
            if not derive:
                continue
            for c in range(COUNT):
                mean_row[c] = 0.0
                for k in range(n):
                    mean_row[c] += weight[k] * rows[k, c] / total
            for k in range(n):
                r = value[k] - mean
                for c in range(COUNT):
                    d = weight[k] * (rows[k, c] - mean_row[c])
                    slopes[chunk, c] += d * r
                    for e in range(COUNT):
                        hessians[chunk, c, e] += d * (rows[k, e] - mean_row[e])
    return costs, counts, hessians, slopes
