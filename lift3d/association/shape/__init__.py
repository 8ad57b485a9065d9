"""Objects by the shape of the fused surface, for masks of surfaces.

Floor and walls are removed (`layout`), but for objects flush with them (`flush`). The rest is cut
into smooth pieces of one colour (`surfels`, `borders`), also along dark lines where two objects
touch (`seams`). Neighbouring pieces are merged, the most probable pair first, to a hierarchy; of
its nodes those are chosen that are most probably objects (`hierarchy`). Two classifiers trained on
synthetic rooms (`joining`) rate pairs and nodes. Features of a pair: bends and steps along the
border, colours, seams, extents, the width of the contact, and whether the views put both into one
mask (`cues`, `agreement`). Features of a node: its extents and its border (`nodes`). Several such
cuts, at other resolutions, vote on the objects (`consensus`).

Finally, an object that touches neither floor nor wall and whose support is narrow merges with its
support: a seat with its legs, leaves with their pot.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64

from lift3d.association.looks import Look
from lift3d.association.shape.agreement import Agreement, shares
from lift3d.association.shape.borders import OBSERVED, OTHERS, OWN, SAME_MASK, Neighbours, borders
from lift3d.association.shape.cues import cues
from lift3d.association.shape.flush import patches, split
from lift3d.association.shape.hierarchy import Tree, build_hierarchy
from lift3d.association.shape.joining import joining
from lift3d.association.shape.layout import layout
from lift3d.association.shape.patchwork import ONE_PIECE, with_patches
from lift3d.association.shape.pieces import SIZE, PairProbability, Pairs, Pieces, largest
from lift3d.association.shape.seams import lines
from lift3d.association.shape.surfels import Surfels, surfels
from lift3d.association.surface import Surface, majority
from lift3d.geometry.graphs import felzenszwalb
from lift3d.scene import Camera, Points

CELL_SPACINGS = 1.93
"""Side of a surfel's cell in spacings of the points. Chosen by hand; the classifiers were trained
with it."""
LARGEST_CELL = 0.025
"""Metres; maximum side of a cell in metric scenes. Chosen on a real scan, where cells of 0.02 made
pieces of noise."""
LEAST_SPACINGS = 1.1
"""Minimum side of a cell in spacings, also above `LARGEST_CELL`. Chosen by hand; not tuned on
data."""
SMALLEST = 12
"""Minimum surfels of a piece. Chosen by hand; not tuned on data."""
SMOOTH_SCALE, FINE_SCALE = 0.3, 0.05
"""Scale k of the graph segmentation: of the smooth pieces that propose planes, and of the pieces
that are merged. Chosen by hand; not tuned on data."""
COLOUR_WEIGHT, SEAM_WEIGHT = 1 / 60, 1 / 8
"""Difference of neighbours per unit of CIELAB distance, and of a seam's lightness. Chosen by hand;
not tuned on data."""
NOISE_REACH = 3
"""Cells up to which a point without a surfel gets the nearest one. Chosen by hand; not tuned on
data."""
LEAST_ALIGNED = 0.3
"""Minimum length of the cameras' mean upward vector; below it gravity is unknown. Chosen by hand;
not tuned on data."""
LEAST_COSINE = 0.9
"""Minimum cosine between a layout plane's normal and the cameras' mean upward vector for a floor.
Chosen by hand; not tuned on data."""


def learned_probability(pieces: Pieces, pairs: Pairs) -> Float64[np.ndarray, " pairs"]:
    """Probability by the trained classifier that two neighbours are parts of one object."""
    return joining().join(cues(pieces, pairs))


@dataclass(frozen=True, eq=False)
class SurfaceObjects:
    """Objects found on the surface, with the pieces and the hierarchy behind them."""

    object: Int32[np.ndarray, " points"]
    """Object of each point from 0; -1 where no surface is near."""
    confidence: Float64[np.ndarray, " objects"]
    """From 0 to 1."""
    patch: Int32[np.ndarray, " points"]
    """Patch of each point, a leaf of the tree; -1 where no surface is near."""
    edges: Int32[np.ndarray, "edges 2"]
    """Pairs of patches that touch."""
    strength: Float32[np.ndarray, " edges"]
    """Probability that the patches of an edge are one object, before any merge."""
    tree: Tree
    node: Int32[np.ndarray, " patches"]
    """Node of the tree that contains each patch in the result."""

    def at(self, near: Int64[np.ndarray, " others"]) -> SurfaceObjects:
        """The same objects at other points, each with its nearest point, -1 where none is near."""
        return replace(self, object=_taken(self.object, near), patch=_taken(self.patch, near))

    def surface(self, label: Int32[np.ndarray, " points"]) -> Surface:
        """The patches as superpoints, with the final objects `label`."""
        leaves = len(self.node)
        return Surface(
            self.patch,
            self.edges,
            self.strength,
            self.tree.children.astype(np.int32),
            self.tree.probability[leaves:].astype(np.float32),
            self.node,
            majority(self.patch, label, leaves),
        )


class Objects(NamedTuple):
    """Objects of one cut."""

    object: Int32[np.ndarray, " points"]
    """From 0; -1 = none."""
    confidence: Float64[np.ndarray, " objects"]

    def at(self, near: Int64[np.ndarray, " others"]) -> Objects:
        """The same objects at other points, as `SurfaceObjects.at`."""
        return Objects(_taken(self.object, near), self.confidence)


class _Decided(NamedTuple):
    """What became of the pieces of a cut."""

    object: Int64[np.ndarray, " pieces"]
    confidence: Float64[np.ndarray, " objects"]
    pairs: Int64[np.ndarray, "pairs 2"]
    """Pieces that touch, and the probability that they are one object, before any merge."""
    strength: Float64[np.ndarray, " pairs"]
    tree: Tree
    end: Int64[np.ndarray, " pieces"]
    """Node of the tree that contains each piece in the result."""


class _Cut(NamedTuple):
    """The surface cut into pieces, and the borders of these with what the views say of them."""

    piece: Int64[np.ndarray, " surfels"]
    of_patch: Int64[np.ndarray, " patches"]
    """The piece of each patch."""
    is_layout: Bool[np.ndarray, " pieces"]
    borders: tuple[np.ndarray, np.ndarray, Float64[np.ndarray, "borders sums"]]


def side_of_cell(spacing: float, metric: bool, resolution: float) -> float:
    """Side of a surfel's cell, from `resolution` in spacings."""
    limit = max(LARGEST_CELL, LEAST_SPACINGS * spacing) if metric else np.inf
    return min(resolution * spacing, limit)


class Shape:
    """The surface cut into pieces; `add` the views, then get the `objects`.

    `spacing` is the distance between neighbouring points, in metres where `metric`; `resolution`
    the side of a cell in spacings.
    """

    def __init__(
        self,
        points: Points,
        spacing: float,
        cameras: Iterable[Camera],
        metric: bool,
        resolution: float = CELL_SPACINGS,
    ) -> None:
        self.points, self.cell = points, side_of_cell(spacing, metric, resolution)
        self.surface = surface = surfels(points, self.cell)
        near = Neighbours(surface, lines(surface, points, spacing), self.cell)
        one_block = np.zeros(len(surface), np.int64)
        smooth = felzenszwalb(
            near.a, near.b, near.difference(0.0), SMOOTH_SCALE, SMALLEST, one_block
        )
        planes, plane = layout(surface, smooth, self.cell)
        difference = near.difference(COLOUR_WEIGHT, SEAM_WEIGHT)
        fine = felzenszwalb(near.a, near.b, difference, FINE_SCALE, SMALLEST, one_block)
        self._patch, self._plane = patches(fine.astype(np.int64), plane)
        self._up, self._near = _up(cameras, [each.normal for each in planes]), near
        one, other, _ = borders(surface, self._patch, near, self._up)
        self._agreement = Agreement(_as_points(surface), self._patch, one, other)

    def add(self, look: Look) -> None:
        """Accumulate mask co-occurrence of patches in one view; `look` may be of any points."""
        self._agreement.add(look)
        self.__dict__.pop("_cut", None)

    @cached_property
    def _cut(self) -> _Cut:
        """The pieces, by all views added so far."""
        pairs, same, weight = self._agreement.counts()
        of_patch, is_layout = split(self._patch, self._plane, self.surface.lab, pairs, same, weight)
        piece = of_patch[self._patch]
        one, other, sums = borders(self.surface, piece, self._near, self._up)
        # What the views say of two pieces is what they say of their patches.
        ends = np.sort(of_patch[pairs], axis=1)
        across = ends[:, 0] != ends[:, 1]
        key = ends[across] @ [len(is_layout), 1]
        at = np.searchsorted(one * len(is_layout) + other, key)
        share = shares(*(np.bincount(at, n[across], len(one)) * 1.0 for n in (same, weight)))
        width = np.sqrt(np.minimum(sums[:, OWN], sums[:, OTHERS])) * ~np.isnan(share)
        sums[:, SAME_MASK], sums[:, OBSERVED] = width * np.nan_to_num(share), width
        return _Cut(piece, of_patch, is_layout, (one, other, sums))

    @property
    def piece(self) -> Int64[np.ndarray, " surfels"]:
        """Piece of each surfel, by all views added so far."""
        return self._cut.piece

    def objects(self) -> SurfaceObjects:
        """Objects of the surface; each layout plane is one too."""
        found = self._decided()
        ends, strength = self._between_patches(found.pairs, found.strength)
        tree, place = self._with_patches(found.tree)
        return SurfaceObjects(
            self.of_points(found.object[self.piece]),
            found.confidence,
            self.of_points(self._patch),
            ends,
            strength,
            tree,
            place[found.end][self._cut.of_patch].astype(np.int32),
        )

    def labels(self) -> Objects:
        """The same objects, without the patches and the tree behind them."""
        found = self._decided()
        return Objects(self.of_points(found.object[self.piece]), found.confidence)

    def _decided(self) -> _Decided:
        pieces = self.pieces()
        first = pieces.copy()
        pairs = [(p, q) for p, edge in enumerate(first.edge) for q in edge if p < q]
        strength = first.merge_probability(pairs) if pairs else np.zeros(0)
        tree = build_hierarchy(first)
        worth = joining().node(tree.cues)
        end = tree.cut(tree.chosen(worth))
        pieces.merge_groups(end)
        size = np.where(pieces.alive, pieces.sums[:, SIZE], 0)
        pieces.attach_unsupported()
        root = pieces.roots()
        kept, index = np.unique(root, return_inverse=True)
        # An object has the confidence of its largest part, which need not be the root.
        confidence = np.where(pieces.layout[kept], 1.0, worth[end[largest(root, size)[kept]]])
        ends = np.array(pairs, np.int64).reshape(-1, 2)
        return _Decided(index.astype(np.int64), confidence, ends, strength, tree, end)

    def _with_patches(self, tree: Tree) -> tuple[Tree, Int64[np.ndarray, " nodes"]]:
        patch, lab = self._patch, self.surface.lab
        size = np.bincount(patch)
        colour = np.stack([np.bincount(patch, lab[:, c]) for c in range(3)], axis=1)
        pairs = self._agreement.counts()[0]
        return with_patches(tree, self._cut.of_patch, size, colour / size[:, None], pairs)

    def _between_patches(
        self, pairs: Int64[np.ndarray, "pairs 2"], strength: Float64[np.ndarray, " pairs"]
    ) -> tuple[Int32[np.ndarray, "edges 2"], Float32[np.ndarray, " edges"]]:
        """The patches that touch, with the strength of their pieces, the smaller index first."""
        ends, count = self._agreement.counts()[0], len(self._cut.is_layout)
        of_patch = np.sort(self._cut.of_patch[ends], axis=1)
        key, wanted = pairs @ [count, 1], of_patch @ [count, 1]
        order = np.argsort(key)
        at = np.searchsorted(key, wanted, sorter=order)
        found = np.append(strength[order], 0.0)[at]
        found[of_patch[:, 0] == of_patch[:, 1]] = ONE_PIECE
        return ends.astype(np.int32), found.astype(np.float32)

    def pieces(
        self, kind: type[Pieces] = Pieces, probability: PairProbability = learned_probability
    ) -> Pieces:
        """The pieces before any merge, with the masks of all views added so far."""
        piece, _, is_layout, found = self._cut
        return kind(self.surface, self.cell, piece, is_layout, found, self._up, probability)

    def of_points(self, value: Int64[np.ndarray, " surfels"]) -> Int32[np.ndarray, " points"]:
        """Value of each point's surfel, of the nearest one for noise; -1 where none is near."""
        from scipy.spatial import cKDTree

        surface = self.surface
        if not len(surface):
            return np.full(len(self.points), -1, np.int32)
        of_point = surface.of_point.copy()
        noise = np.flatnonzero(of_point < 0)
        distance, near = cKDTree(surface.xyz).query(
            self.points.xyz[noise], distance_upper_bound=NOISE_REACH * self.cell
        )
        of_point[noise] = np.where(np.isfinite(distance), near, -1)
        return np.where(of_point >= 0, value[of_point], -1).astype(np.int32)


def _taken(
    value: Int32[np.ndarray, " points"], near: Int64[np.ndarray, " others"]
) -> Int32[np.ndarray, " others"]:
    return np.where(near >= 0, value[near], -1).astype(np.int32)


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
    """Unit vector against gravity: the floor's normal, else the cameras' mean up, else zeros."""
    tops = [-each.pose[:3, 1] for each in cameras]
    mean = np.mean(tops, axis=0) if tops else np.zeros(3)
    length = float(np.linalg.norm(mean))
    if length < LEAST_ALIGNED:
        return np.zeros(3)
    return next((each for each in normals if each @ mean > LEAST_COSINE * length), mean / length)
