"""Closed meshes that are not boxes: tubes, sheets, lumps and mounds."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64

from lift3d.datasets.synthetic.shapes import Mesh, Number


def waves(
    rng: np.random.Generator,
    u: Float64[np.ndarray, "*shape"],
    v: Float64[np.ndarray, "*shape"],
    finest: Number,
    count: int = 12,
) -> Float64[np.ndarray, "*shape"]:
    """A sum of random waves over the plane, about -1 to 1; the shortest is `finest` long."""
    total = np.zeros(u.shape)
    for _ in range(count):
        length = finest * rng.uniform(1, 4)
        turn, phase = rng.uniform(0, 2 * np.pi, 2)
        along = (u * np.cos(turn) + v * np.sin(turn)) / length
        total += length / finest * np.sin(2 * np.pi * along + phase)
    return total / (2.5 * np.sqrt(count))


def tube(path: Float64[np.ndarray, "steps 3"], radius: Number, sides: int = 8) -> Mesh:
    """A round tube along a path of two points or more, closed at both ends."""
    path = np.asarray(path, np.float64)
    ahead = np.gradient(path, axis=0)
    ahead /= np.maximum(np.linalg.norm(ahead, axis=1, keepdims=True), 1e-9)
    # One reference direction, far from all tangents, so that the tube does not twist.
    reference = np.eye(3)[np.abs(ahead).max(0).argmin()]
    side = np.cross(ahead, reference)
    side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-9)
    up = np.cross(side, ahead)
    angle = np.arange(sides) * (2 * np.pi / sides)
    ring = np.cos(angle)[:, None] * side[:, None] + np.sin(angle)[:, None] * up[:, None]
    vertices = (path[:, None] + radius * ring).reshape(-1, 3)
    quads = _grid(len(path), sides, around=True)
    last = (len(path) - 1) * sides
    i, j = np.arange(sides), (np.arange(sides) + 1) % sides
    start, end = len(vertices), len(vertices) + 1
    ends = [np.c_[i, j, np.full(sides, start)], np.c_[last + j, last + i, np.full(sides, end)]]
    return Mesh(np.concatenate([vertices, path[[0, -1]]]), np.concatenate([quads[:, ::-1], *ends]))


def sheet(grid: Float64[np.ndarray, "rows columns 3"], thick: Number) -> Mesh:
    """A cloth through a grid of points, `thick` metres thick, half of it on each side."""
    across, along = np.gradient(grid, axis=1), np.gradient(grid, axis=0)
    normal = np.cross(across, along)
    normal /= np.maximum(np.linalg.norm(normal, axis=2, keepdims=True), 1e-9)
    front, back = (grid + side * normal * thick / 2 for side in (1, -1))
    rows, columns = grid.shape[:2]
    quads = _grid(rows, columns)
    count = rows * columns
    index = np.arange(count).reshape(rows, columns)
    rim = np.concatenate([index[0], index[1:, -1], index[-1, -2::-1], index[-2:0:-1, 0]])
    after = np.roll(rim, -1)
    sides = np.concatenate(
        [np.c_[rim, rim + count, after], np.c_[after, rim + count, after + count]]
    )
    return Mesh(
        np.concatenate([front.reshape(-1, 3), back.reshape(-1, 3)]),
        np.concatenate([quads, quads[:, ::-1] + count, sides]),
    )


def lump(
    rng: np.random.Generator, x: Number, y: Number, z: Number, rough: Number, rings: int = 16
) -> Mesh:
    """A sphere displaced by waves of `rough` times its radius, standing on z = 0."""
    up = np.linspace(-np.pi / 2, np.pi / 2, rings + 1)
    around = np.arange(2 * rings) * (np.pi / rings)
    flat = np.cos(up)[:, None]
    unit = np.stack(
        [flat * np.cos(around), flat * np.sin(around), np.sin(up)[:, None] + 0 * around], axis=-1
    )
    # Waves over three planes, so that there is no seam.
    noise = np.sum(
        [waves(rng, unit[..., i], unit[..., (i + 1) % 3], 0.5, 6) for i in range(3)], axis=0
    )
    points = unit * (1 + rough * noise)[..., None] * [x / 2, y / 2, z / 2]
    points[0], points[-1] = points[0].mean(0), points[-1].mean(0)
    points[..., 2] = np.maximum(points[..., 2] + 0.42 * z, 0)
    quads = _grid(rings + 1, 2 * rings, around=True)
    # A pole is one vertex.
    last = 2 * rings * rings
    quads = np.where(quads < 2 * rings, 0, np.where(quads >= last, last, quads))
    kept = (quads != np.roll(quads, 1, axis=1)).all(1)
    return Mesh(points.reshape(-1, 3), quads[kept])


def mound(height: Float64[np.ndarray, "rows columns"], x: Number, y: Number) -> Mesh:
    """A height field over x by y metres, closed by its floor at z = 0."""
    rows, columns = height.shape
    v, u = np.meshgrid(np.linspace(-0.5, 0.5, rows), np.linspace(-0.5, 0.5, columns), indexing="ij")
    top = np.stack([u * x, v * y, np.maximum(height, 1e-3)], axis=-1)
    floor = top * [1, 1, 0]
    quads, count = _grid(rows, columns), rows * columns
    index = np.arange(count).reshape(rows, columns)
    rim = np.concatenate([index[0], index[1:, -1], index[-1, -2::-1], index[-2:0:-1, 0]])
    after = np.roll(rim, -1)
    sides = np.concatenate(
        [np.c_[rim, rim + count, after], np.c_[after, rim + count, after + count]]
    )
    return Mesh(
        np.concatenate([top.reshape(-1, 3), floor.reshape(-1, 3)]),
        np.concatenate([quads, quads[:, ::-1] + count, sides]),
    )


def _grid(rows: int, columns: int, around: bool = False) -> Int64[np.ndarray, "triangles 3"]:
    """Triangles of a grid of points, row by row; `around`: the last column meets the first."""
    index = np.arange(rows * columns, dtype=np.int64).reshape(rows, columns)
    a = index[:-1] if around else index[:-1, :-1]
    b = np.roll(index, -1, axis=1)[:-1] if around else index[:-1, 1:]
    c = index[1:] if around else index[1:, :-1]
    d = np.roll(index, -1, axis=1)[1:] if around else index[1:, 1:]
    a, b, c, d = (each.ravel() for each in (a, b, c, d))
    return np.concatenate([np.c_[a, b, d], np.c_[a, d, c]])
