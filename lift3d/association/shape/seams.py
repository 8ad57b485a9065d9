"""Dark lines on the surface: where two things touch, light does not get in between."""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float64, Int32

from lift3d.association.shape.surfels import Surfels
from lift3d.association.superpoints import lab
from lift3d.scene import Points

DARKEST = 0.2
"""A surfel is as dark as this share of its points: a line is thinner than a surfel."""
REACH, AROUND = 2.8, 33
"""Cells around a surfel that are looked at, and surfels at most."""
TURNS = 8
"""Directions in half a turn that a line may have."""


def darkness(surface: Surfels, points: Points) -> Float64[np.ndarray, " surfels"]:
    """Lightness (CIELAB, 0 to 100) of the darker points of each surfel."""
    known = surface.of_point >= 0
    surfel, light = surface.of_point[known], lab(points.rgb[known])[:, 0]
    order = np.lexsort((light, surfel))
    surfel, light = surfel[order], light[order]
    count = np.bincount(surfel, minlength=len(surface))
    first = np.searchsorted(surfel, np.arange(len(surface)))
    at = first + np.floor(DARKEST * np.maximum(count - 1, 0)).astype(np.int64)
    found = np.append(light, 0)[np.minimum(at, len(light))]
    return np.where(count > 0, found, surface.lab[:, 0]).astype(np.float64)


def seams(
    surface: Surfels,
    dark: Float64[np.ndarray, " surfels"],
    cell: float,
    a: Int32[np.ndarray, " pairs"],
    b: Int32[np.ndarray, " pairs"],
) -> Float64[np.ndarray, " pairs"]:
    """How much darker, in CIELAB's lightness, a line between two neighbouring surfels is than both
    of its sides; 0 where there is none.

    A line is tried through each surfel in eight directions: its own surfels against the mean of the
    surfels on the lighter sides, of which the darker counts, so that a step of lightness, the edge
    of a shadow, is no line.
    """
    from scipy.spatial import cKDTree

    if not len(surface) or not len(a):
        return np.zeros(len(a))
    nearest = min(AROUND, len(surface))
    _, near = cKDTree(surface.xyz).query(
        surface.xyz, nearest, distance_upper_bound=REACH * cell, workers=-1
    )
    near = near.reshape(len(surface), nearest)
    depth, across = _lines(surface.xyz, surface.normal, dark, near, cell)
    return np.asarray(_between(a, b, surface.xyz, depth, across, near, cell))


@numba.njit(cache=True, parallel=True)
@no_type_check
def _lines(xyz, normal, dark, near, cell):
    """Depth of the deepest line through each surfel, and the direction across it."""
    count = len(xyz)
    depth, across = np.zeros(count), np.zeros((count, 3))
    for i in numba.prange(count):
        facing = normal[i]
        axis = np.zeros(3)
        axis[np.argmin(np.abs(facing))] = 1.0
        u = np.cross(facing, axis)
        u /= np.sqrt((u**2).sum())
        v = np.cross(facing, u)
        for turn in range(TURNS):
            c, s = np.cos(np.pi * turn / TURNS), np.sin(np.pi * turn / TURNS)
            line, on = dark[i], 1.0
            left, lefts, right, rights = 0.0, 0, 0.0, 0
            for k in range(near.shape[1]):
                j = near[i, k]
                if j == count:
                    break
                if j == i:
                    continue
                off = (xyz[j] - xyz[i]) / cell
                if abs((off * facing).sum()) > 2.5:
                    continue
                x, y = (off * u).sum(), (off * v).sum()
                over, along = c * x + s * y, c * y - s * x
                if abs(over) < 0.5:
                    line, on = line + dark[j], on + 1
                elif abs(along) < 1.8 and over > 1.0:
                    left, lefts = left + dark[j], lefts + 1
                elif abs(along) < 1.8 and over < -1.0:
                    right, rights = right + dark[j], rights + 1
            if lefts >= 2 and rights >= 2 and on >= 3:
                found = min(left / lefts, right / rights) - line / on
                if found > depth[i]:
                    depth[i] = found
                    across[i] = c * u + s * v
    return depth, across


@numba.njit(cache=True, parallel=True)
@no_type_check
def _between(a, b, xyz, depth, across, near, cell):
    """The deepest line that two surfels lie on different sides of, or on."""
    count = len(xyz)
    out = np.zeros(len(a))
    for pair in numba.prange(len(a)):
        i, j = a[pair], b[pair]
        way = xyz[j] - xyz[i]
        length = np.sqrt((way**2).sum())
        way = way / max(length, 1e-12)
        best = max(depth[i] * abs((way * across[i]).sum()), depth[j] * abs((way * across[j]).sum()))
        if length > 1.2 * cell:
            middle = (xyz[i] + xyz[j]) / 2
            for k in range(near.shape[1]):
                q = near[i, k]
                if q == count:
                    break
                if ((xyz[q] - middle) ** 2).sum() < (0.7 * cell) ** 2:
                    best = max(best, depth[q] * abs((way * across[q]).sum()))
        out[pair] = best
    return out
