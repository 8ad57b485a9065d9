"""Dark lines on the surface: where two things touch, light does not get in between."""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float64, Int32

from lift3d.association.shape.surfels import Surfels
from lift3d.association.superpoints import lab
from lift3d.scene import Points

REACH, AROUND = 2.8, 24
"""Spacings around a point, or cells around a surfel, that are looked at, and how many at most."""
TURNS = 8
"""Directions in half a turn that a line may have."""
CHUNK = 1 << 18
"""Points looked at together: the neighbours of all would not fit."""


def lines(
    surface: Surfels, points: Points, spacing: float
) -> tuple[Float64[np.ndarray, " surfels"], Float64[np.ndarray, "surfels 3"]]:
    """The deepest dark line through any point of each surfel: how much darker than both of its
    sides, in CIELAB's lightness, 0 where there is none; and the direction across it.

    A line is tried through each point in eight directions: its own points against the mean of those
    on its sides, of which the darker counts, so that a step of lightness, the edge of a shadow, is
    no line. Of points and not of surfels, since a line is thinner than a surfel.
    """
    from scipy.spatial import cKDTree

    depth, across = np.zeros(len(surface)), np.zeros((len(surface), 3))
    known = np.flatnonzero(surface.of_point >= 0)
    if not len(known):
        return depth, across
    surfel = surface.of_point[known]
    normal = surface.normal[surfel]
    xyz = points.xyz[known].astype(np.float64)
    xyz -= ((xyz - surface.xyz[surfel]) * normal).sum(1, keepdims=True) * normal
    light = lab(points.rgb[known])[:, 0].astype(np.float64)
    tree = cKDTree(xyz)
    nearest = min(AROUND, len(xyz))
    for start in range(0, len(xyz), CHUNK):
        chunk = slice(start, start + CHUNK)
        _, near = tree.query(xyz[chunk], nearest, distance_upper_bound=REACH * spacing, workers=-1)
        found, way = _lines(
            xyz, normal, light, near.reshape(-1, nearest), start, max(spacing, 1e-12)
        )
        order = np.argsort(found, kind="stable")  # the deepest is written last
        order = order[found[order] > depth[surfel[chunk]][order]]
        depth[surfel[chunk][order]], across[surfel[chunk][order]] = found[order], way[order]
    return depth, across


def seams(
    surface: Surfels,
    depth: Float64[np.ndarray, " surfels"],
    across: Float64[np.ndarray, "surfels 3"],
    cell: float,
    a: Int32[np.ndarray, " pairs"],
    b: Int32[np.ndarray, " pairs"],
) -> Float64[np.ndarray, " pairs"]:
    """Depth of the deepest of `lines` between two neighbouring surfels; 0 where there is none."""
    from scipy.spatial import cKDTree

    if not len(surface) or not len(a):
        return np.zeros(len(a))
    nearest = min(AROUND, len(surface))
    _, near = cKDTree(surface.xyz).query(
        surface.xyz, nearest, distance_upper_bound=REACH * cell, workers=-1
    )
    near = near.reshape(len(surface), nearest)
    return np.asarray(_between(a, b, surface.xyz, depth, across, near, cell))


@numba.njit(cache=True, parallel=True)
@no_type_check
def _lines(xyz, normal, light, near, start, spacing):
    """Of the points from `start` on: depth of the deepest line, and the direction across it."""
    count, rows = len(xyz), len(near)
    depth, across = np.zeros(rows), np.zeros((rows, 3))
    for row in numba.prange(rows):
        i = start + row
        facing = normal[i]
        axis = np.zeros(3)
        axis[np.argmin(np.abs(facing))] = 1.0
        u = np.cross(facing, axis)
        u /= np.sqrt((u**2).sum())
        v = np.cross(facing, u)
        for turn in range(TURNS):
            c, s = np.cos(np.pi * turn / TURNS), np.sin(np.pi * turn / TURNS)
            line, on = light[i], 1.0
            left, lefts, right, rights = 0.0, 0, 0.0, 0
            for k in range(near.shape[1]):
                j = near[row, k]
                if j == count:
                    break
                if j == i:
                    continue
                off = (xyz[j] - xyz[i]) / spacing
                if abs((off * facing).sum()) > 2.5:
                    continue
                x, y = (off * u).sum(), (off * v).sum()
                over, along = c * x + s * y, c * y - s * x
                if abs(over) < 0.5:
                    line, on = line + light[j], on + 1
                elif abs(along) < 1.8 and over > 1.0:
                    left, lefts = left + light[j], lefts + 1
                elif abs(along) < 1.8 and over < -1.0:
                    right, rights = right + light[j], rights + 1
            if lefts >= 2 and rights >= 2 and on >= 3:
                found = min(left / lefts, right / rights) - line / on
                if found > depth[row]:
                    depth[row] = found
                    across[row] = c * u + s * v
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
