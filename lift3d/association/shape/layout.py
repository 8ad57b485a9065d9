"""Floor and walls: large planes with all of the scene on their front side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from lift3d.association.shape.surfels import Surfels
from lift3d.scene.compiled import compiled

AREA = 2500
"""Minimum surfels of a layout plane: a square of 50 cells. Chosen by hand; not tuned on data."""
CANDIDATE_AREA = AREA / 16
"""Minimum surfels of a piece whose plane is tried. Chosen by hand; not tuned on data."""
BEHIND, BEHIND_REACH = 0.03, 3
"""Maximum share of surfels more than so many cells behind a layout plane. Chosen by hand; not tuned
on data."""
CANDIDATES = 60
"""Number of pieces, the largest, whose planes are tried. Chosen by hand; not tuned on data."""
FLAT = 0.95
"""Minimum length of the mean normal of such a piece. Chosen by hand; not tuned on data."""
FREE = 0.5
"""Minimum share of such a piece outside the planes found before. Chosen by hand; not tuned on
data."""
ALIKE, ALIKE_NOISE, PARALLEL = 0.9, 0.6, 0.97
"""Minimum cosine of normals: of a surfel on a plane, of noise behind a plane, of two parallel
planes. Chosen by hand; not tuned on data."""
SPREADS, THINNEST = 3, 0.3
"""Half the thickness of a plane in median distances of its surfels, and its minimum in cells.
Chosen by hand; not tuned on data."""
DEPTH = 7.5
"""Cells: maximum distance of noise behind a plane, and of a door or rug before it. Chosen by hand;
not tuned on data."""
BANDS, BINS = (0.75, 0.6, 0.5), 30
"""Half the thickness, in cells, of the band of surfels in each round of fitting, and bins of their
heights. Chosen by hand; not tuned on data."""


@dataclass(frozen=True, eq=False)
class Plane:
    """A plane through `point` with unit `normal` towards its front."""

    point: Float64[np.ndarray, "3"]
    normal: Float64[np.ndarray, "3"]

    def height(self, xyz: Float64[np.ndarray, "points 3"]) -> Float64[np.ndarray, " points"]:
        """Signed distance, positive on the front side."""
        return np.asarray(_height(xyz, self.point, self.normal))

    def near(
        self, surface: Surfels, reach: float, among: Bool[np.ndarray, " surfels"]
    ) -> Bool[np.ndarray, " surfels"]:
        """Those of `among` that are closer than `reach` and face alike."""
        return np.asarray(_near(surface.xyz, surface.normal, self.point, self.normal, reach, among))


def layout(
    surface: Surfels, piece: Int32[np.ndarray, " surfels"], cell: float
) -> tuple[list[Plane], Int64[np.ndarray, " surfels"]]:
    """The planes that bound the scene, largest first, and the plane of each surfel, -1 = none.

    `piece` are smooth pieces of the surface. A plane close in front of a parallel one is an object
    (a door, a rug). Surfels just behind a plane with a similar normal are its noise.
    """
    xyz, normal = surface.xyz, surface.normal
    label = np.full(len(surface), -1, np.int64)
    free = np.ones(len(surface), bool)
    planes: list[Plane] = []
    for each, guess in _candidates(surface, piece, cell):
        if free[piece == each].mean() < FREE:
            continue
        plane = _fitted(surface, free, guess, cell)
        if plane is None:
            continue
        height = plane.height(xyz)
        inside = plane.near(surface, cell, free)
        if inside.sum() < AREA or (height < -BEHIND_REACH * cell).mean() >= BEHIND:
            continue
        spread = float(np.median(np.abs(height[inside])))
        thickness = float(np.clip(SPREADS * spread, THINNEST * cell, cell))
        inside = plane.near(surface, thickness, free)
        free &= ~inside
        middle = xyz[inside].mean(0)
        if any(_before(middle, plane, other, DEPTH * cell) for other in planes):
            continue
        label[inside] = len(planes)
        planes.append(plane)
    for index, plane in enumerate(planes):
        height = plane.height(xyz)
        noise = (height < THINNEST * cell) & (height > -DEPTH * cell)
        noise &= normal @ plane.normal > ALIKE_NOISE
        label[(label < 0) & noise] = index
    return planes, label


def _before(middle: np.ndarray, plane: Plane, other: Plane, reach: float) -> bool:
    height = float((middle - other.point) @ other.normal)
    return float(plane.normal @ other.normal) > PARALLEL and 0 < height < reach


def _candidates(
    surface: Surfels, piece: Int32[np.ndarray, " surfels"], cell: float
) -> list[tuple[int, Plane]]:
    """Planes of the largest pieces, the one with the most surfels first."""
    found, every = [], np.ones(len(surface), bool)
    size = np.bincount(piece)
    for each in np.argsort(-size, kind="stable")[:CANDIDATES]:
        if size[each] < CANDIDATE_AREA:
            break
        inside = np.flatnonzero(piece == each)
        xyz, facing = surface.xyz[inside], surface.normal[inside].mean(0)
        if np.linalg.norm(facing) >= FLAT:
            plane = _plane(xyz, facing, np.median(xyz, axis=0))
            found.append((int(plane.near(surface, cell, every).sum()), int(each), plane))
    found = [one for one in found if one[0] >= AREA]
    return [(each, plane) for _, each, plane in sorted(found, key=lambda one: (-one[0], one[1]))]


def _plane(xyz: np.ndarray, facing: np.ndarray, point: np.ndarray) -> Plane:
    """Plane through `point` with the least-squares normal of `xyz`, towards `facing`."""
    off = xyz - xyz.mean(0)
    # Not `off.T @ off`: of so few columns the threads of BLAS mostly wait for each other.
    normal = np.linalg.eigh(np.einsum("pi,pj->ij", off, off))[1][:, 0]
    return Plane(point, normal if normal @ facing > 0 else -normal)


def _fitted(
    surface: Surfels, free: Bool[np.ndarray, " surfels"], plane: Plane, cell: float
) -> Plane | None:
    """Fit again to surfels in ever thinner bands, at the mode of their heights; None if too few."""
    for band in (share * cell for share in BANDS):
        near = plane.near(surface, band, free)
        if near.sum() < AREA:
            return None
        xyz = surface.xyz[near]
        plane = _plane(xyz, plane.normal, xyz.mean(0))
        count, edge = np.histogram(plane.height(xyz), BINS, (-band, band))
        peak = edge[int(np.argmax(count[:-1] + count[1:])) + 1]
        plane = Plane(plane.point + peak * plane.normal, plane.normal)
    return plane


@compiled(parallel=True, nogil=True)
@no_type_check
def _height(xyz, point, normal):
    height = np.zeros(len(xyz))
    for i in numba.prange(len(xyz)):
        for c in range(3):
            height[i] += (xyz[i, c] - point[c]) * normal[c]
    return height


@compiled(parallel=True, nogil=True)
@no_type_check
def _near(xyz, normal, point, facing, reach, among):
    near = np.zeros(len(xyz), np.bool_)
    for i in numba.prange(len(xyz)):
        height, cosine = 0.0, 0.0
        for c in range(3):
            height += (xyz[i, c] - point[c]) * facing[c]
            cosine += normal[i, c] * facing[c]
        near[i] = among[i] and abs(height) < reach and cosine > ALIKE
    return near
