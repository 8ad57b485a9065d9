"""Objects by the shape of the fused surface, for masks of surfaces.

Floor and walls are taken out (`layout`); what remains is cut into smooth pieces of one colour
(`surfels`, `borders`), also where a dark line runs between two things that touch (`seams`). Then
neighbouring pieces are joined, the surest first, to a hierarchy, of which those nodes are chosen
that are together most likely objects (`hierarchy`). What is asked of two neighbours: how the
surface bends and steps along their border, their colours, seams, extents, how broadly they touch,
and whether the views put both into one mask (`cues`, `agreement`); of a node: its extents and its
rim (`wholes`). How much each says was learned from synthetic rooms (`joining`).

At last what cannot stand alone, because it touches neither floor nor wall and what carries it is
thin beside it, joins what carries it: a seat its legs, leaves their pot.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from lift3d.association.looks import Look
from lift3d.association.shape.agreement import Agreement
from lift3d.association.shape.borders import AGREED, ASKED, OTHERS, OWN, Neighbours, borders
from lift3d.association.shape.cues import cues
from lift3d.association.shape.hierarchy import Hierarchy, grow
from lift3d.association.shape.joining import joining
from lift3d.association.shape.layout import layout
from lift3d.association.shape.pieces import SIZE, JoinProbability, Pairs, Pieces, largest
from lift3d.association.shape.seams import lines
from lift3d.association.shape.surfels import Surfels, surfels
from lift3d.association.surface import Surface, majority
from lift3d.geometry.graphs import felzenszwalb
from lift3d.scene import Camera, Points

CELLS, FEWEST, CELL = 1.93, 1.1, 0.025
"""Side of a surfel's cell: so many spacings of the points, but where these are coarse no more than
`CELL` metres, as long as that is `FEWEST` spacings: the rules were made for such surfels."""


def learned_probability(pieces: Pieces, pairs: Pairs) -> Float64[np.ndarray, " pairs"]:
    """Learned probability that pairs of neighbours are parts of one object."""
    return joining().join(cues(pieces, pairs))


@dataclass(frozen=True, eq=False)
class SurfaceObjects:
    """The objects that the surface shows, and what they are made of."""

    object: Int32[np.ndarray, " points"]
    """Object of each point from 0; -1 where it is near no surface."""
    confidence: Float64[np.ndarray, " objects"]
    """Confidence of each object, 0 to 1."""
    piece: Int32[np.ndarray, " points"]
    """Piece of surface of each point; -1 where it is near no surface."""
    edges: Int32[np.ndarray, "edges 2"]
    """Pieces that touch."""
    strength: Float32[np.ndarray, " edges"]
    """Probability that the two are one object, before any join."""
    tree: Hierarchy
    node: Int32[np.ndarray, " pieces"]
    """The node of the tree that each piece ended in."""

    def surface(self, label: Int32[np.ndarray, " points"]) -> Surface:
        """The pieces as superpoints, with the final objects `label`."""
        leaves = len(self.node)
        return Surface(
            self.piece,
            self.edges,
            self.strength,
            self.tree.kids.astype(np.int32),
            self.tree.likely[leaves:].astype(np.float32),
            self.node,
            majority(self.piece, label, leaves),
        )


class Shape:
    """The surface in pieces. Show it the views (`add`), then ask for the `objects`.

    `spacing` is the distance between neighbouring points, in metres where `metric`.
    """

    def __init__(
        self, points: Points, spacing: float, cameras: Iterable[Camera], metric: bool
    ) -> None:
        self._points, self.cell = points, CELLS * spacing
        if metric:
            self.cell = min(self.cell, max(CELL, FEWEST * spacing))
        self.surface = surface = surfels(points, self.cell)
        near = Neighbours(surface, lines(surface, points, spacing), self.cell)
        nothing = np.zeros(len(surface), np.int64)
        smooth = felzenszwalb(near.a, near.b, near.difference(0.0), 0.3, 12, nothing)
        planes, plane = layout(surface, smooth, self.cell)
        fine = felzenszwalb(near.a, near.b, near.difference(1 / 60, 1 / 8), 0.05, 12, nothing)
        piece = np.where(plane >= 0, len(surface) + plane, fine)
        self.piece = np.unique(piece, return_inverse=True)[1].astype(np.int64)
        count = int(self.piece.max(initial=-1)) + 1
        self._is_layout = np.bincount(self.piece, plane >= 0, count) > 0
        self._up = _up(cameras, [each.normal for each in planes])
        self._borders = borders(surface, self.piece, near, self._up)
        one, other, _ = self._borders
        self._agreement = Agreement(_as_points(surface), self.piece, one, other)

    def add(self, look: Look) -> None:
        """Accumulate mask co-occurrence of the pieces in one view; `look` may be at any points."""
        self._agreement.add(look)

    def objects(self) -> SurfaceObjects:
        """The objects that the surface shows; each layout plane is one too."""
        first = self.pieces()
        pairs = [(p, q) for p, edge in enumerate(first.edge) for q in edge if p < q]
        strength = first.together(pairs) if pairs else np.zeros(0)
        tree = grow(first)
        worth = joining().whole(tree.cues)
        end = tree.cut(tree.chosen(worth))
        pieces = self.pieces()
        pieces.gather(end)
        size = np.where(pieces.alive, pieces.sums[:, SIZE], 0)
        pieces.carry()
        root = pieces.roots()
        kept, of_surfel = np.unique(root[self.piece], return_inverse=True)
        # The confidence of an object is that of its largest part, whichever part is the root.
        confidence = np.where(pieces.layout[kept], 1.0, worth[end[largest(root, size)[kept]]])
        return SurfaceObjects(
            self.of_points(of_surfel.astype(np.int64)),
            confidence,
            self.of_points(self.piece),
            np.array(pairs, np.int32).reshape(-1, 2),
            strength.astype(np.float32),
            tree,
            end.astype(np.int32),
        )

    def pieces(
        self, kind: type[Pieces] = Pieces, probability: JoinProbability = learned_probability
    ) -> Pieces:
        """The pieces, not yet joined, with what the views have said of them so far."""
        one, other, sums = self._borders
        share = self._agreement.shares()
        sums = sums.copy()
        width = np.sqrt(np.minimum(sums[:, OWN], sums[:, OTHERS])) * ~np.isnan(share)
        sums[:, AGREED], sums[:, ASKED] = width * np.nan_to_num(share), width
        found = (one, other, sums)
        return kind(
            self.surface, self.cell, self.piece, self._is_layout, found, self._up, probability
        )

    def of_points(self, thing: Int64[np.ndarray, " surfels"]) -> Int32[np.ndarray, " points"]:
        """Each point's surfel decides, for noise the nearest one near by."""
        from scipy.spatial import cKDTree

        surface = self.surface
        if not len(surface):
            return np.full(len(self._points), -1, np.int32)
        of_point = surface.of_point.copy()
        noise = np.flatnonzero(of_point < 0)
        distance, near = cKDTree(surface.xyz).query(
            self._points.xyz[noise], distance_upper_bound=3 * self.cell
        )
        of_point[noise] = np.where(np.isfinite(distance), near, -1)
        return np.where(of_point >= 0, thing[of_point], -1).astype(np.int32)


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
