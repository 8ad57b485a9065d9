"""Extents of pieces of surface and of their unions, from additive sums."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from jaxtyping import Float64, Int64

from lift3d.association.shape.surfels import Surfels
from lift3d.scene.compiled import compiled

SUMS = 12
"""Sums over a piece, in cells: positions x y z; products xx yy zz xy xz yz; normals x y z."""
PARALLEL = 0.5
"""Minimum sine between the mean normals of two pieces for an edge along their cross product. Chosen
by hand; not tuned on data."""
ROW = 0.3
"""Minimum standard deviation in cells, that of a single row of surfels (1 / sqrt(12), rounded)."""


def moments(
    surface: Surfels, cell: float, piece: Int64[np.ndarray, " surfels"], count: int
) -> Float64[np.ndarray, "pieces 12"]:
    """Sums over each piece, centred on the mean of all surfels to avoid cancellation."""
    xyz = surface.xyz / cell
    xyz = xyz - xyz.mean(0) if len(xyz) else xyz
    x, y, z = xyz.T
    columns = [x, y, z, x * x, y * y, z * z, x * y, x * z, y * z, *surface.normal.T]
    return np.stack([np.bincount(piece, each, count) for each in columns], axis=1).astype(
        np.float64
    )


def solids(
    sums: Float64[np.ndarray, "pieces 12"], size: Float64[np.ndarray, " pieces"]
) -> Float64[np.ndarray, "pieces 5"]:
    """Principal standard deviations of each piece in cells (thickness, breadth, length), length of
    its mean normal (1 for a plane, 0 for a closed surface), and its surfels divided by those of a
    full rectangle of that breadth and length.
    """
    return np.asarray(_solids(sums, size))


def meetings(
    one: Float64[np.ndarray, "pairs 12"],
    size: Float64[np.ndarray, " pairs"],
    other: Float64[np.ndarray, "pairs 12"],
    other_size: Float64[np.ndarray, " pairs"],
) -> Float64[np.ndarray, "pairs 3"]:
    """Widths of both pieces along their common edge and distance of their centres along it, in
    cells.

    The edge of a fold is along the cross product of the mean normals. Where these are parallel it
    is taken perpendicular to the line between the centres, and the distance is NaN.
    """
    return np.asarray(_meetings(one, size, other, other_size))


@compiled()
@no_type_check
def _covariance(sums, size):
    """xx, yy, zz, xy, xz, yz; scalars, because small arrays would take most of the time."""
    x, y, z = sums[0] / size, sums[1] / size, sums[2] / size
    return (
        sums[3] / size - x * x, sums[4] / size - y * y, sums[5] / size - z * z,
        sums[6] / size - x * y, sums[7] / size - x * z, sums[8] / size - y * z,
    )  # fmt: skip


@compiled()
@no_type_check
def _eigenvalues(xx, yy, zz, xy, xz, yz):
    """Eigenvalues of a symmetric matrix, ascending (Smith 1961)."""
    middle = (xx + yy + zz) / 3
    off = xy**2 + xz**2 + yz**2
    p = ((xx - middle) ** 2 + (yy - middle) ** 2 + (zz - middle) ** 2 + 2 * off) / 6
    if p <= 1e-18:
        return middle, middle, middle
    p = np.sqrt(p)
    xx, yy, zz, xy, xz, yz = (
        (xx - middle) / p, (yy - middle) / p, (zz - middle) / p, xy / p, xz / p, yz / p
    )  # fmt: skip
    half = (xx * (yy * zz - yz**2) - xy * (xy * zz - yz * xz) + xz * (xy * yz - yy * xz)) / 2
    angle = np.arccos(min(1.0, max(-1.0, half))) / 3
    largest = middle + 2 * p * np.cos(angle)
    least = middle + 2 * p * np.cos(angle + 2 * np.pi / 3)
    return least, 3 * middle - least - largest, largest


@compiled()
@no_type_check
def solid(sums, size):
    """`solids` of one piece, in a kernel."""
    least, middle, largest = _eigenvalues(*_covariance(sums, size))
    thickness, breadth = np.sqrt(max(least, 0.0)), np.sqrt(max(middle, 0.0))
    length = np.sqrt(max(largest, 0.0))
    facing = np.sqrt(sums[9] ** 2 + sums[10] ** 2 + sums[11] ** 2) / size
    filled = size / (12 * max(breadth, ROW) * max(length, ROW))
    return thickness, breadth, length, facing, filled


@compiled()
@no_type_check
def _solids(sums, size):
    out = np.empty((len(size), 5))
    for i in range(len(size)):
        out[i] = solid(sums[i], size[i])
    return out


@compiled()
@no_type_check
def _cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@compiled()
@no_type_check
def _scaled(vector, length):
    return vector[0] / length, vector[1] / length, vector[2] / length


@compiled()
@no_type_check
def _length(vector):
    return np.sqrt(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2)


@compiled()
@no_type_check
def _width(along, sums, size):
    """Of a row of surfels with the same variance along a unit vector."""
    x, y, z = along
    xx, yy, zz, xy, xz, yz = _covariance(sums, size)
    variance = (
        (x * xx + y * xy + z * xz) * x
        + (x * xy + y * yy + z * yz) * y
        + (x * xz + y * yz + z * zz) * z
    )
    return np.sqrt(12 * max(variance, ROW**2))


@compiled()
@no_type_check
def meeting(one, size, other, other_size):
    """`meetings` of one pair, in a kernel."""
    between = (
        other[0] / other_size - one[0] / size,
        other[1] / other_size - one[1] / size,
        other[2] / other_size - one[2] / size,
    )
    a = _scaled(one[9:], max(_length(one[9:]), 1e-9))
    b = _scaled(other[9:], max(_length(other[9:]), 1e-9))
    along = _cross(a, b)
    folded = _length(along) > PARALLEL
    if not folded:
        along = _cross((a[0] + b[0], a[1] + b[1], a[2] + b[2]), between)
    along = _scaled(along, max(_length(along), 1e-9))
    beside = abs(between[0] * along[0] + between[1] * along[1] + between[2] * along[2])
    return (
        _width(along, one, size), _width(along, other, other_size), beside if folded else np.nan
    )  # fmt: skip


@compiled()
@no_type_check
def _meetings(one, size, other, other_size):
    out = np.empty((len(size), 3))
    for i in range(len(size)):
        out[i] = meeting(one[i], size[i], other[i], other_size[i])
    return out
