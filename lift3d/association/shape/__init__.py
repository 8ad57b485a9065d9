"""Things by the shape of the fused surface, for masks of surfaces.

Floor and walls are taken out (`layout`); what remains is cut into smooth pieces of one colour
(`surfels`, `borders`), and pieces are joined, the least different first, where they (`pieces`)

* look alike: the same colour means the same thing, less so where they meet in a concave edge;
* or go on without an inward bend or a step: a box's own edges are convex, whatever its colours
  (Stein et al. 2014, "Object partitioning using local convexity");

but not, along a broad contact, where most views put them into different masks (`agreement`).
At last what cannot stand alone, because it touches neither floor nor wall and what carries it is
thin beside it, joins what carries it: a seat its legs, leaves their pot.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float64, Int32, Int64

from lift3d.association.shape.agreement import Agreement
from lift3d.association.shape.borders import AGREED, ASKED, OTHERS, OWN, Neighbours, borders
from lift3d.association.shape.layout import layout
from lift3d.association.shape.pieces import SIZE, Pieces
from lift3d.association.shape.surfels import Surfels, surfels
from lift3d.graphs import felzenszwalb
from lift3d.scene import Camera, Depth, LabelMap, Points, View
from lift3d.visibility import DepthTolerance

CELLS, FEWEST, CELL = 1.93, 1.1, 0.025
"""Side of a surfel's cell: so many spacings of the points, but where these are coarse no more than
`CELL` metres, as long as that is `FEWEST` spacings: the rules were made for such surfels."""


class Shape:
    """The surface in pieces. Show it the views (`look`), then ask for the `things`.

    `spacing` is the distance between neighbouring points, in metres where `metric`.
    """

    def __init__(
        self, points: Points, spacing: float, cameras: Iterable[Camera], metric: bool
    ) -> None:
        self._points, self.cell = points, CELLS * spacing
        if metric:
            self.cell = min(self.cell, max(CELL, FEWEST * spacing))
        self._surface = surface = surfels(points, self.cell)
        near = Neighbours(surface, self.cell)
        nothing = np.zeros(len(surface), np.int64)
        smooth = felzenszwalb(near.a, near.b, near.difference(0.0), 0.3, 12, nothing)
        planes, plane = layout(surface, smooth, self.cell)
        fine = felzenszwalb(near.a, near.b, near.difference(1 / 60), 0.05, 12, nothing)
        piece = np.where(plane >= 0, len(surface) + plane, fine)
        self._piece = np.unique(piece, return_inverse=True)[1].astype(np.int64)
        count = int(self._piece.max(initial=-1)) + 1
        self._is_layout = np.bincount(self._piece, plane >= 0, count) > 0
        self._up = _up(cameras, [each.normal for each in planes])
        self._borders = borders(surface, self._piece, near, self._up)
        one, other, _ = self._borders
        self._agreement = Agreement(_as_points(surface), self._piece, one, other)

    def look(
        self, view: View, depth: Depth | None, labels: LabelMap, tolerance: DepthTolerance
    ) -> None:
        """Hear what one view's masks say of the pieces."""
        self._agreement.look(view, depth, labels, tolerance)

    def things(self) -> tuple[Int32[np.ndarray, " points"], Float64[np.ndarray, " things"]]:
        """Thing of each point from 0, -1 where it is near no surface; and how sure each is, 0 to 1.

        Each layout plane is one too.
        """
        one, other, sums = self._borders
        share = self._agreement.shares()
        width = np.sqrt(np.minimum(sums[:, OWN], sums[:, OTHERS])) * ~np.isnan(share)
        sums[:, AGREED], sums[:, ASKED] = width * np.nan_to_num(share), width
        pieces = Pieces(self._surface, self._piece, self._is_layout, (one, other, sums), self._up)
        pieces.join()
        pieces.carry()
        kept, thing = np.unique(pieces.roots()[self._piece], return_inverse=True)
        sure = _sure(self._surface.xyz / self.cell, thing, kept, pieces)
        return self._of_points(thing.astype(np.int64)), sure

    def _of_points(self, thing: Int64[np.ndarray, " surfels"]) -> Int32[np.ndarray, " points"]:
        """Each point's surfel decides, for noise the nearest one near by."""
        from scipy.spatial import cKDTree

        surface = self._surface
        if not len(surface):
            return np.full(len(self._points), -1, np.int32)
        of_point = surface.of_point.copy()
        noise = np.flatnonzero(of_point < 0)
        distance, near = cKDTree(surface.xyz).query(
            self._points.xyz[noise], distance_upper_bound=3 * self.cell
        )
        of_point[noise] = np.where(np.isfinite(distance), near, -1)
        return np.where(of_point >= 0, thing[of_point], -1).astype(np.int32)


def _sure(
    xyz: Float64[np.ndarray, "surfels 3"],
    thing: np.ndarray,
    kept: Int64[np.ndarray, " things"],
    pieces: Pieces,
) -> Float64[np.ndarray, " things"]:
    """The larger, the rounder, and the freer of floor and walls, the surer.

    A logistic model of whether an object of the truth is it, over its size, its second and first
    principal standard deviation in cells, and the share of its border along the layout; fitted to
    ten synthetic rooms.
    """
    size = pieces.sums[kept, SIZE]
    count = len(kept)
    middle = np.stack([np.bincount(thing, xyz[:, c], count) for c in range(3)], 1) / size[:, None]
    off = xyz - middle[thing]
    spread = np.zeros((count, 3, 3))
    for i in range(3):
        for j in range(3):
            spread[:, i, j] = np.bincount(thing, off[:, i] * off[:, j], count) / size
    extent = np.sqrt(np.maximum(np.linalg.eigvalsh(spread), 0))
    along = np.array([pieces.against_layout(int(each)) for each in kept])
    score = 0.7 * np.log1p(size) + 0.56 * extent[:, 1] - 0.28 * extent[:, 2] - 1.4 * along - 3.8
    score = np.where(pieces.layout[kept], np.inf, score)
    return 1 / (1 + np.exp(-score))


def _as_points(surface: Surfels) -> Points:
    count = len(surface)
    return Points(
        surface.xyz.astype(np.float32),
        np.zeros((count, 3), np.uint8),
        surface.normal.astype(np.float32),
        np.ones(count, np.float32),
    )


def _up(
    cameras: Iterable[Camera], normals: list[Float64[np.ndarray, "3"]]
) -> Float64[np.ndarray, "3"]:
    """Against gravity: the floor's normal, else where the pictures' tops point, else zeros."""
    tops = [-each.pose[:3, 1] for each in cameras]
    mean = np.mean(tops, axis=0) if tops else np.zeros(3)
    length = float(np.linalg.norm(mean))
    if length < 0.3:
        return np.zeros(3)
    return next((each for each in normals if each @ mean > 0.9 * length), mean / length)
