"""Noise of estimated depth smoothed out of a cloud: points are moved onto fitted planes."""

from __future__ import annotations

from dataclasses import replace
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float64, Int64

from lift3d.scene import Points
from lift3d.scene.compiled import compiled

ROUNDS = 2
"""Passes over the cloud. Objects were found best with two of one, two and four (HoloLens kitchen
with its depth hidden)."""
NEIGHBOURS = 80
"""Nearest points that a plane is fitted to, at most."""
ALIKE = 0.3
"""Minimum cosine between the normals of a point and of a neighbour on its plane, so that a corner
and the two sides of a board are not one. Chosen by hand; not tuned on data."""
FEWEST = 8
"""A point with fewer neighbours stays where it is."""
BLOCK = 50_000
"""Points at a time, to bound memory; does not change the result."""


def smoothed(points: Points, radius: float) -> Points:
    """The points moved along the normals of planes fitted to their neighbours, with these normals.

    Moving least squares of degree 1 (Alexa et al. 2003, "Computing and rendering point set
    surfaces"): Gaussian weights with a standard deviation of `radius` / 2 sqrt(2), in world units.
    """
    from scipy.spatial import cKDTree

    xyz, normal = points.xyz.astype(np.float64), points.normal.astype(np.float64)
    for _ in range(ROUNDS):
        tree = cKDTree(xyz)
        moved, turned = xyz.copy(), normal.copy()
        for first in range(0, len(xyz), BLOCK):
            some = np.arange(first, min(first + BLOCK, len(xyz)))
            most = min(NEIGHBOURS, len(xyz))
            _, near = tree.query(xyz[some], k=most, distance_upper_bound=radius, workers=-1)
            near = near.reshape(len(some), most)
            enough = (near < len(xyz)).sum(1) >= FEWEST
            some, near = some[enough], near[enough]
            mean, spread = _moments(xyz, normal, some, near, radius)
            plane = np.linalg.eigh(spread)[1][:, :, 0]
            plane *= np.where((plane * normal[some]).sum(1, keepdims=True) < 0, -1, 1)
            off = ((xyz[some] - mean) * plane).sum(1, keepdims=True)
            moved[some] = xyz[some] - off * plane
            turned[some] = plane
        xyz, normal = moved, turned
    return replace(points, xyz=xyz.astype(np.float32), normal=normal.astype(np.float32))


@compiled(parallel=True)
@no_type_check
def _moments(
    xyz: Float64[np.ndarray, "points 3"],
    normal: Float64[np.ndarray, "points 3"],
    some: Int64[np.ndarray, " some"],
    near: Int64[np.ndarray, "some neighbours"],
    radius: float,
) -> tuple[Float64[np.ndarray, "some 3"], Float64[np.ndarray, "some 3 3"]]:
    """Weighted mean and covariance of the neighbours of some points; absent ones are len(xyz)."""
    mean = np.zeros((len(some), 3))
    spread = np.zeros((len(some), 3, 3))
    for row in numba.prange(len(some)):
        one = some[row]
        total = 0.0
        for column in range(near.shape[1]):
            other = near[row, column]
            if other == len(xyz):
                break
            cosine, distance = 0.0, 0.0
            for c in range(3):
                cosine += normal[one, c] * normal[other, c]
                distance += (xyz[one, c] - xyz[other, c]) ** 2
            if cosine <= ALIKE:
                continue
            weight = np.exp(-4 * distance / radius**2)
            total += weight
            for c in range(3):
                offset = xyz[other, c] - xyz[one, c]
                mean[row, c] += weight * offset
                for d in range(3):
                    spread[row, c, d] += weight * offset * (xyz[other, d] - xyz[one, d])
        total = max(total, 1e-12)
        for c in range(3):
            mean[row, c] /= total
        for c in range(3):
            for d in range(3):
                spread[row, c, d] = spread[row, c, d] / total - mean[row, c] * mean[row, d]
        for c in range(3):
            mean[row, c] += xyz[one, c]
    return mean, spread
