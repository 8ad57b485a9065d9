"""Dark lines on the surface: little light reaches the gap between two objects that touch."""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float64, Int32

from lift3d.association.shape.surfels import Surfels
from lift3d.association.superpoints import lab
from lift3d.geometry.grid import Grid
from lift3d.scene import Points
from lift3d.scene.compiled import compiled

REACH, AROUND = 2.8, 24
"""Radius of neighbours, in spacings of points or cells of surfels, and their maximum number. Chosen
by hand; not tuned on data."""
TURNS = 8
"""Directions of a line that are tried in half a turn. Chosen by hand; not tuned on data."""
CHUNK = 1 << 18
"""Points per chunk, to bound memory."""
THICKNESS, HALF_WIDTH, SIDE, HALF_LENGTH = 2.5, 0.5, 1.0, 1.8
"""In spacings: maximum distance from the tangent plane; half the width of a line; minimum distance
of its sides from its middle, and half their length. Chosen by hand; not tuned on data."""
LEAST_SIDE, LEAST_LINE = 2, 3
"""Minimum points on each side of a line, and on it. Chosen by hand; not tuned on data."""
FAR, NEAR_MIDDLE = 1.2, 0.7
"""In cells: minimum distance of two surfels to also use surfels between them, and maximum distance
of these from their middle. Chosen by hand; not tuned on data."""


def lines(
    surface: Surfels, points: Points, spacing: float
) -> tuple[Float64[np.ndarray, " surfels"], Float64[np.ndarray, "surfels 3"]]:
    """Depth of the deepest dark line through any point of each surfel, and the direction across it.

    Depth is the CIELAB lightness of the darker side minus that of the line, 0 without a line; the
    darker side, so that a step of lightness (the edge of a shadow) is no line. Lines are tried
    through each point in `TURNS` directions. Points are used, because a line is thinner than a
    surfel.
    """
    depth, across = np.zeros(len(surface)), np.zeros((len(surface), 3))
    known = np.flatnonzero(surface.of_point >= 0)
    if not len(known):
        return depth, across
    surfel = surface.of_point[known]
    normal = surface.normal[surfel]
    xyz = points.xyz[known].astype(np.float64)
    xyz -= ((xyz - surface.xyz[surfel]) * normal).sum(1, keepdims=True) * normal
    light = lab(points.rgb[known])[:, 0].astype(np.float64)
    spacing = max(spacing, 1e-12)
    found, way = np.empty(len(xyz)), np.empty((len(xyz), 3))
    for some, near in Grid(xyz, REACH * spacing).chunks(AROUND, CHUNK):
        found[some], way[some] = _lines(xyz, normal, light, some, near, spacing)
    order = np.argsort(found, kind="stable")  # the deepest is written last
    depth[surfel[order]], across[surfel[order]] = found[order], way[order]
    return depth, across


def seams(
    surface: Surfels,
    depth: Float64[np.ndarray, " surfels"],
    across: Float64[np.ndarray, "surfels 3"],
    cell: float,
    a: Int32[np.ndarray, " pairs"],
    b: Int32[np.ndarray, " pairs"],
    near: Int32[np.ndarray, "surfels around"],
) -> Float64[np.ndarray, " pairs"]:
    """Depth of the deepest line of `lines` between two neighbouring surfels; 0 without a line.

    `near` are up to `AROUND` surfels within `REACH` cells of each.
    """
    return np.asarray(_between(a, b, surface.xyz, depth, across, near, cell))


@compiled(parallel=True, nogil=True)
@no_type_check
def _lines(xyz, normal, light, points, near, spacing):
    """Deepest line through each of `points`, and direction across it."""
    count, (rows, nearest) = len(xyz), near.shape
    depth, across = np.zeros(rows), np.zeros((rows, 3))
    turns = np.pi * np.arange(TURNS) / TURNS
    cosine, sine = np.cos(turns), np.sin(turns)
    for row in numba.prange(rows):
        i = points[row]
        facing = normal[i]
        axis = np.zeros(3)
        axis[np.argmin(np.abs(facing))] = 1.0
        u = np.cross(facing, axis)
        u /= np.sqrt((u**2).sum())
        v = np.cross(facing, u)
        x, y, grey, around = np.empty(nearest), np.empty(nearest), np.empty(nearest), 0
        for k in range(nearest):
            j = near[row, k]
            if j == count:
                break
            # Scalars, because small arrays would take most of the time.
            ox, oy = (xyz[j, 0] - xyz[i, 0]) / spacing, (xyz[j, 1] - xyz[i, 1]) / spacing
            oz = (xyz[j, 2] - xyz[i, 2]) / spacing
            off = abs(ox * facing[0] + oy * facing[1] + oz * facing[2])
            if j != i and off <= THICKNESS:
                x[around] = ox * u[0] + oy * u[1] + oz * u[2]
                y[around] = ox * v[0] + oy * v[1] + oz * v[2]
                grey[around] = light[j]
                around += 1
        for turn in range(TURNS):
            c, s = cosine[turn], sine[turn]
            line, on = light[i], 1.0
            left, lefts, right, rights = 0.0, 0, 0.0, 0
            for k in range(around):  # without branches, which no processor can predict
                over, along = c * x[k] + s * y[k], c * y[k] - s * x[k]
                middle, beside = abs(over) < HALF_WIDTH, abs(along) < HALF_LENGTH
                one, other = beside & (over > SIDE), beside & (over < -SIDE)
                line, on = line + middle * grey[k], on + middle
                left, lefts = left + one * grey[k], lefts + one
                right, rights = right + other * grey[k], rights + other
            if lefts >= LEAST_SIDE and rights >= LEAST_SIDE and on >= LEAST_LINE:
                found = min(left / lefts, right / rights) - line / on
                if found > depth[row]:
                    depth[row] = found
                    across[row] = c * u + s * v
    return depth, across


@compiled(parallel=True, nogil=True)
@no_type_check
def _between(a, b, xyz, depth, across, near, cell):
    """Depth of the deepest line between or at two surfels."""
    count = len(xyz)
    out = np.zeros(len(a))
    for pair in numba.prange(len(a)):
        i, j = a[pair], b[pair]
        x, y, z = xyz[j, 0] - xyz[i, 0], xyz[j, 1] - xyz[i, 1], xyz[j, 2] - xyz[i, 2]
        length = np.sqrt(x**2 + y**2 + z**2)
        x, y, z = x / max(length, 1e-12), y / max(length, 1e-12), z / max(length, 1e-12)
        best = max(_crossed(x, y, z, depth, across, i), _crossed(x, y, z, depth, across, j))
        if length > FAR * cell:
            for k in range(near.shape[1]):
                q = near[i, k]
                if q == count:
                    break
                apart = 0.0
                for c in range(3):
                    apart += (xyz[q, c] - (xyz[i, c] + xyz[j, c]) / 2) ** 2
                if apart < (NEAR_MIDDLE * cell) ** 2:
                    best = max(best, _crossed(x, y, z, depth, across, q))
        out[pair] = best
    return out


@compiled()
@no_type_check
def _crossed(x, y, z, depth, across, i):
    """Depth of the line at a surfel, less the more the way is along it."""
    return depth[i] * abs(x * across[i, 0] + y * across[i, 1] + z * across[i, 2])
