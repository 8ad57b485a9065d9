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
    x, y, z = sums[0] / size, sums[1] / size, sums[2] / size
    out = np.empty((3, 3))
    out[0, 0], out[1, 1], out[2, 2] = (
        sums[3] / size - x * x, sums[4] / size - y * y, sums[5] / size - z * z
    )  # fmt: skip
    out[0, 1] = out[1, 0] = sums[6] / size - x * y
    out[0, 2] = out[2, 0] = sums[7] / size - x * z
    out[1, 2] = out[2, 1] = sums[8] / size - y * z
    return out


@compiled()
@no_type_check
def _eigenvalues(a):
    """Eigenvalues of a symmetric matrix, ascending (Smith 1961)."""
    middle = (a[0, 0] + a[1, 1] + a[2, 2]) / 3
    off = a[0, 1] ** 2 + a[0, 2] ** 2 + a[1, 2] ** 2
    p = ((a[0, 0] - middle) ** 2 + (a[1, 1] - middle) ** 2 + (a[2, 2] - middle) ** 2 + 2 * off) / 6
    out = np.full(3, middle)
    if p > 1e-18:
        p = np.sqrt(p)
        b = (a - middle * np.eye(3)) / p
        half = (
            b[0, 0] * (b[1, 1] * b[2, 2] - b[1, 2] ** 2)
            - b[0, 1] * (b[0, 1] * b[2, 2] - b[1, 2] * b[0, 2])
            + b[0, 2] * (b[0, 1] * b[1, 2] - b[1, 1] * b[0, 2])
        ) / 2
        angle = np.arccos(min(1.0, max(-1.0, half))) / 3
        out[2] += 2 * p * np.cos(angle)
        out[0] += 2 * p * np.cos(angle + 2 * np.pi / 3)
        out[1] = 3 * middle - out[0] - out[2]
    return out


@compiled()
@no_type_check
def _solids(sums, size):
    out = np.empty((len(size), 5))
    for i in range(len(size)):
        values = _eigenvalues(_covariance(sums[i], size[i]))
        for k in range(3):
            out[i, k] = np.sqrt(max(values[k], 0.0))
        out[i, 3] = np.sqrt((sums[i, 9:] ** 2).sum()) / size[i]
        out[i, 4] = size[i] / (12 * max(out[i, 1], ROW) * max(out[i, 2], ROW))
    return out


@compiled()
@no_type_check
def _cross(a, b):
    return np.array(
        [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
    )


@compiled()
@no_type_check
def _meetings(one, size, other, other_size):
    out = np.empty((len(size), 3))
    for i in range(len(size)):
        between = other[i, :3] / other_size[i] - one[i, :3] / size[i]
        a = one[i, 9:] / max(np.sqrt((one[i, 9:] ** 2).sum()), 1e-9)
        b = other[i, 9:] / max(np.sqrt((other[i, 9:] ** 2).sum()), 1e-9)
        along = _cross(a, b)
        folded = np.sqrt((along**2).sum()) > PARALLEL
        if not folded:
            along = _cross(a + b, between)
        along = along / max(np.sqrt((along**2).sum()), 1e-9)
        wide = along @ _covariance(one[i], size[i]) @ along
        wider = along @ _covariance(other[i], other_size[i]) @ along
        out[i, 0] = np.sqrt(12 * max(wide, ROW**2))
        out[i, 1] = np.sqrt(12 * max(wider, ROW**2))
        out[i, 2] = abs((between * along).sum()) if folded else np.nan
    return out
