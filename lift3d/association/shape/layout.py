"""Floor and walls: large planes with the whole scene before them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from lift3d.association.shape.surfels import Surfels

AREA = 2500
"""Least size of a layout plane, in surfels: a square of 50 cells."""
BEHIND = 0.03
"""Most of the scene that may lie behind a layout plane."""
CANDIDATES = 60
"""Largest pieces of surface whose planes are tried."""


@dataclass(frozen=True, eq=False)
class Plane:
    """Through `point`, facing along `normal`."""

    point: Float64[np.ndarray, "3"]
    normal: Float64[np.ndarray, "3"]

    def height(self, xyz: Float64[np.ndarray, "points 3"]) -> Float64[np.ndarray, " points"]:
        """Signed distance before the plane."""
        return (xyz - self.point) @ self.normal


def layout(
    surface: Surfels, piece: Int32[np.ndarray, " surfels"], cell: float
) -> tuple[list[Plane], Int64[np.ndarray, " surfels"]]:
    """The planes that bound the scene, largest first, and which each surfel belongs to, -1 none.

    `piece` are smooth pieces of the surface. Of two parallel planes close to each other the one
    in front is a door or a rug, so a thing. What lies just behind a plane and faces as it does
    is its noise.
    """
    xyz, normal = surface.xyz, surface.normal
    label = np.full(len(surface), -1, np.int64)
    free = np.ones(len(surface), bool)
    planes: list[Plane] = []
    for each, guess in _candidates(surface, piece, cell):
        if free[piece == each].mean() < 0.5:
            continue
        plane = _fitted(surface, free, guess, cell)
        if plane is None:
            continue
        height = plane.height(xyz)
        alike = free & (normal @ plane.normal > 0.9)
        inside = alike & (np.abs(height) < cell)
        if inside.sum() < AREA or (height < -3 * cell).mean() >= BEHIND:
            continue
        spread = float(np.median(np.abs(height[inside])))
        inside = alike & (np.abs(height) < np.clip(3 * spread, 0.3 * cell, cell))
        free &= ~inside
        middle = xyz[inside].mean(0)
        if any(_before(middle, plane, other, 7.5 * cell) for other in planes):
            continue
        label[inside] = len(planes)
        planes.append(plane)
    for index, plane in enumerate(planes):
        height = plane.height(xyz)
        noise = (height < 0.3 * cell) & (height > -7.5 * cell) & (normal @ plane.normal > 0.6)
        label[(label < 0) & noise] = index
    return planes, label


def _before(middle: np.ndarray, plane: Plane, other: Plane, reach: float) -> bool:
    height = float((middle - other.point) @ other.normal)
    return float(plane.normal @ other.normal) > 0.97 and 0 < height < reach


def _candidates(
    surface: Surfels, piece: Int32[np.ndarray, " surfels"], cell: float
) -> list[tuple[int, Plane]]:
    """Planes of the largest pieces, those with most surface in them first."""
    found = []
    size = np.bincount(piece)
    for each in np.argsort(-size, kind="stable")[:CANDIDATES]:
        mine = piece == each
        facing = surface.normal[mine].mean(0)
        if size[each] < AREA / 16 or np.linalg.norm(facing) < 0.95:
            continue
        plane = _plane(surface.xyz[mine], facing, np.median(surface.xyz[mine], axis=0))
        near = (np.abs(plane.height(surface.xyz)) < cell) & (surface.normal @ plane.normal > 0.9)
        found.append((int(near.sum()), int(each), plane))
    found = [one for one in found if one[0] >= AREA]
    return [(each, plane) for _, each, plane in sorted(found, key=lambda one: (-one[0], one[1]))]


def _plane(xyz: np.ndarray, facing: np.ndarray, point: np.ndarray) -> Plane:
    """Least squares normal, on the side of `facing`."""
    off = xyz - xyz.mean(0)
    normal = np.linalg.eigh(off.T @ off)[1][:, 0]
    return Plane(point, normal if normal @ facing > 0 else -normal)


def _fitted(
    surface: Surfels, free: Bool[np.ndarray, " surfels"], plane: Plane, cell: float
) -> Plane | None:
    """Fitted again to what lies ever nearer, at the height where most of it is."""
    for band in (0.75 * cell, 0.6 * cell, 0.5 * cell):
        near = free & (np.abs(plane.height(surface.xyz)) < band)
        near &= surface.normal @ plane.normal > 0.9
        if near.sum() < AREA:
            return None
        xyz = surface.xyz[near]
        plane = _plane(xyz, plane.normal, xyz.mean(0))
        count, edge = np.histogram(plane.height(xyz), 30, (-band, band))
        peak = edge[int(np.argmax(count[:-1] + count[1:])) + 1]
        plane = Plane(plane.point + peak * plane.normal, plane.normal)
    return plane
