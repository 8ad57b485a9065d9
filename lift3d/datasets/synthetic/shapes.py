"""Closed triangle meshes of the furniture; outward normals, z up."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float64, Int64

Number: TypeAlias = float | int
"""A length or an angle."""


class Mesh(NamedTuple):
    """A closed surface; triangles are counter-clockwise as seen from outside."""

    vertices: Float64[np.ndarray, "vertices 3"]
    triangles: Int64[np.ndarray, "triangles 3"]


def box(x: Number, y: Number, z: Number) -> Mesh:
    """A box standing on z = 0, centred in x and y.

    >>> box(1, 1, 2).vertices.max(0).tolist()
    [0.5, 0.5, 2.0]
    """
    corner = np.array([[i, j, k] for k in (0, 1) for j in (-0.5, 0.5) for i in (-0.5, 0.5)])
    quads = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]
    triangles = [t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))]
    return Mesh(corner * [x, y, z], np.array(triangles))


def worn_box(x: Number, y: Number, z: Number, edge: Number) -> Mesh:
    """A box with edges bevelled by `edge`, as real cartons and books have.

    Two touching boxes leave a groove, which makes their boundary visible in a picture.

    >>> worn_box(1, 1, 2, 0.1).triangles.shape
    (44, 3)
    """
    from scipy.spatial import ConvexHull

    sign = np.array([[i, j, k] for k in (-1, 1) for j in (-1, 1) for i in (-1, 1)], np.float64)
    half = np.array([x, y, z]) / 2
    # Three points per corner: one on each of its faces, `edge` away from the other two faces.
    points = (sign[:, None] * (half - edge * (1 - np.eye(3)))).reshape(-1, 3)
    triangles = ConvexHull(points).simplices.astype(np.int64)
    a, b, c = np.moveaxis(points[triangles], 1, 0)
    inside_out = np.einsum("ij,ij->i", np.cross(b - a, c - a), a) < 0
    triangles[inside_out] = triangles[inside_out][:, ::-1]
    return Mesh(points + [0, 0, half[2]], triangles)


def cone(bottom: Number, top: Number, height: Number, sides: int = 20) -> Mesh:
    """A cylinder or truncated cone on z = 0 with radii `bottom` and `top`, both above 0."""
    angle = np.arange(sides) * (2 * np.pi / sides)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    low = np.c_[circle * bottom, np.zeros(sides)]
    high = np.c_[circle * top, np.full(sides, height)]
    ends = np.array([[0, 0, 0], [0, 0, height]], np.float64)
    i = np.arange(sides)
    j = (i + 1) % sides
    triangles = np.concatenate(
        [
            np.c_[i, j, j + sides],
            np.c_[i, j + sides, i + sides],
            np.c_[j, i, np.full(sides, 2 * sides)],
            np.c_[i + sides, j + sides, np.full(sides, 2 * sides + 1)],
        ]
    )
    return Mesh(np.concatenate([low, high, ends]), triangles)


def cushion(x: Number, y: Number, z: Number, square: Number = 0.35, rings: int = 12) -> Mesh:
    """A superellipsoid on z = 0: `square` 1 is an ellipsoid, towards 0 a box."""
    up = np.linspace(-np.pi / 2, np.pi / 2, rings + 1)[1:-1]
    around = np.arange(2 * rings) * (np.pi / rings)

    def power(value: np.ndarray, exponent: Number) -> np.ndarray:
        return np.sign(value) * np.abs(value) ** exponent

    wide = power(np.cos(up), 0.6)[:, None]
    grid = np.stack(
        [
            wide * power(np.cos(around), square),
            wide * power(np.sin(around), square),
            np.broadcast_to(power(np.sin(up), 0.6)[:, None], (len(up), len(around))),
        ],
        axis=-1,
    ).reshape(-1, 3)
    count = len(around)
    vertices = np.concatenate([grid, [[0, 0, -1], [0, 0, 1]]])
    triangles = []
    for ring in range(len(up) - 1):
        for i in range(count):
            a, b = ring * count + i, ring * count + (i + 1) % count
            triangles += [(a, b, b + count), (a, b + count, a + count)]
    last = (len(up) - 1) * count
    for i in range(count):
        j = (i + 1) % count
        triangles += [(j, i, len(grid)), (last + i, last + j, len(grid) + 1)]
    half = np.array([x, y, z]) / 2
    return Mesh(vertices * half + [0, 0, half[2]], np.array(triangles))


def leaf(length: Number, width: Number, thick: Number = 0.003) -> Mesh:
    """A flat diamond along +x from the origin: a closed octahedron."""
    vertices = np.array(
        [
            [0, 0, 0],
            [length, 0, 0],
            [0.5 * length, width / 2, 0],
            [0.5 * length, -width / 2, 0],
            [0.5 * length, 0, thick],
            [0.5 * length, 0, -thick],
        ]
    )
    rim = [(0, 3), (3, 1), (1, 2), (2, 0)]
    triangles = [t for a, b in rim for t in ((a, b, 4), (b, a, 5))]
    return Mesh(vertices, np.array(triangles))
