"""Surfels: the denoised surface as few points, each on the plane of its neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float32, Float64, Int64

from lift3d.association.superpoints import lab
from lift3d.geometry.grid import Grid
from lift3d.scene import Points
from lift3d.scene.compiled import compiled

NEAR = 2.25
"""Radius in cells of the neighbours whose plane a surfel moves onto. Chosen by hand; not tuned
on data."""
NEIGHBOURS = 40
"""Maximum number of these neighbours. Chosen by hand; not tuned on data."""
FIRST_CELL = 0.75
"""Side of the cells that are averaged before that, in final cells. Chosen by hand; not tuned on
data."""
ROUNDS = 2
"""Rounds of moving least squares. Chosen by hand; not tuned on data."""
ALIKE = 0.5
"""Minimum cosine of the normals of neighbours on one plane. Chosen by hand; not tuned on data."""
SHELL, AROUND = 0.12, 9
"""Minimum confidence of a surfel, as a share of the median of so many surfels around it; less is
noise beside the surface. Chosen by hand; not tuned on data."""
KNOWN = 0.25
"""Minimum squared length of a normal; a shorter one is unknown."""


@dataclass(frozen=True, eq=False)
class Surfels:
    """One point per cell and side of the surface."""

    xyz: Float64[np.ndarray, "surfels 3"]
    normal: Float64[np.ndarray, "surfels 3"]
    """Unit length."""
    lab: Float32[np.ndarray, "surfels 3"]
    of_point: Int64[np.ndarray, " points"]
    """Surfel of each point; -1 for noise and for points without a normal."""

    def __len__(self) -> int:
        return len(self.xyz)


def surfels(points: Points, cell: float, neighbours: int = NEIGHBOURS) -> Surfels:
    """Average the points of each cell with similar normals, then move them onto the local plane.

    Moving least squares of order 1 (Alexa et al. 2003) over neighbours with similar normals,
    weighted by confidence: in a fused room the median error falls from 5 mm to 1 mm.
    """
    from scipy.spatial import cKDTree

    known = np.flatnonzero((points.normal**2).sum(1) > KNOWN)
    xyz = points.xyz[known].astype(np.float64)
    normal = points.normal[known].astype(np.float64)
    weight = points.confidence[known].astype(np.float64) + 1e-6
    colour = points.rgb[known].astype(np.float64)
    group = _cells(xyz, normal, FIRST_CELL * cell)
    xyz, normal, colour, weight = _averages(group, weight, xyz, normal, colour)
    near, first = Grid(xyz, NEAR * cell).nearest(neighbours), xyz
    for _ in range(ROUNDS):
        xyz, normal = _onto_planes(xyz, normal, weight, near, first, NEAR * cell)
    again = _cells(xyz, normal, cell)
    xyz, normal, colour, weight = _averages(again, weight, xyz, normal, colour)
    kept = (normal**2).sum(1) > KNOWN
    if len(xyz) > AROUND:
        around = Grid(xyz, NEAR * cell).nearest(AROUND)
        far = np.flatnonzero(around[:, -1] == len(xyz))
        around[far] = cKDTree(xyz).query(xyz[far], AROUND, workers=-1)[1]
        kept &= weight > SHELL * np.median(weight[around], axis=1)
    index = np.where(kept, np.cumsum(kept) - 1, -1)
    of_point = np.full(len(points), -1, np.int64)
    of_point[known] = index[again[group]]
    rgb = np.round(colour[kept]).astype(np.uint8)
    return Surfels(xyz[kept], normal[kept], lab(rgb), of_point)


def _cells(xyz: np.ndarray, normal: np.ndarray, cell: float) -> Int64[np.ndarray, " points"]:
    """Index from 0 per cell and nearest half-axis of the normal."""
    if not len(xyz):
        return np.zeros(0, np.int64)
    place = np.floor((xyz - xyz.min(0)) / cell).astype(np.int64)
    side = place.max(0) + 1
    axis = np.abs(normal).argmax(1)
    face = 2 * axis + (normal[np.arange(len(normal)), axis] > 0)
    key = ((place[:, 0] * side[1] + place[:, 1]) * side[2] + place[:, 2]) * 6 + face
    return np.unique(key, return_inverse=True)[1].astype(np.int64)


def _averages(
    group: np.ndarray, weight: np.ndarray, *values: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Weighted means of positions, normals (normalised) and colours; sums of weights."""
    count = int(group.max(initial=-1)) + 1
    total = np.bincount(group, weight, count)
    xyz, normal, colour = (
        np.stack([np.bincount(group, weight * each[:, c], count) / total for c in range(3)], 1)
        for each in values
    )
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    normal = np.divide(normal, length, out=np.zeros_like(normal), where=length > 1e-9)
    return xyz, normal, colour, total


@compiled(parallel=True, nogil=True)
@no_type_check
def _onto_planes(xyz, normal, weight, near, first, reach):
    """Scalars, because small arrays would take most of the time. `first`: `xyz` of `near`."""
    count = len(xyz)
    moved, turned = np.empty((count, 3)), np.empty((count, 3))
    for i in numba.prange(count):
        nx, ny, nz = normal[i, 0], normal[i, 1], normal[i, 2]
        mx, my, mz = xyz[i, 0], xyz[i, 1], xyz[i, 2]
        closeness, around = np.empty(near.shape[1]), 0
        while around < near.shape[1] and near[i, around] < count:
            k = near[i, around]
            apart = (first[k, 0] - first[i, 0]) ** 2 + (first[k, 1] - first[i, 1]) ** 2
            apart = np.sqrt(apart + (first[k, 2] - first[i, 2]) ** 2) / reach
            closeness[around] = weight[k] * np.exp(-2.0 * apart**2)
            around += 1
        for _ in range(2):
            px = py = pz = sx = sy = sz = total = 0.0
            for j in range(around):
                k = near[i, j]
                cosine = nx * normal[k, 0] + ny * normal[k, 1] + nz * normal[k, 2]
                if cosine < ALIKE:
                    continue
                share = closeness[j] * cosine
                total += share
                px, py, pz = px + share * xyz[k, 0], py + share * xyz[k, 1], pz + share * xyz[k, 2]
                sx, sy = sx + share * normal[k, 0], sy + share * normal[k, 1]
                sz = sz + share * normal[k, 2]
            length = np.sqrt(sx**2 + sy**2 + sz**2)
            if total > 0.0 and length > 0.0:
                nx, ny, nz = sx / length, sy / length, sz / length
                mx, my, mz = px / total, py / total, pz / total
        off = (xyz[i, 0] - mx) * nx + (xyz[i, 1] - my) * ny + (xyz[i, 2] - mz) * nz
        moved[i, 0], moved[i, 1] = xyz[i, 0] - off * nx, xyz[i, 1] - off * ny
        moved[i, 2] = xyz[i, 2] - off * nz
        turned[i, 0], turned[i, 1], turned[i, 2] = nx, ny, nz
    return moved, turned
