"""A scene made ready for prompts: its cloud, its superpoints, and what each view sees of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64, UInt8

from lift3d.association.superpoints import surface_graph
from lift3d.association.surface import Surface, majority
from lift3d.correction.clicks.bilateral import lab8
from lift3d.correction.clicks.filling import Superpixels
from lift3d.correction.clicks.gaps import beside, by_colour, closed
from lift3d.correction.clicks.nearest import Cells
from lift3d.correction.joins import JoinTree
from lift3d.geometry import project, unproject
from lift3d.geometry.forest import tops
from lift3d.geometry.lens import inside as in_image
from lift3d.geometry.visibility import DepthTolerance, Sightings, cloud_spacing, sightings
from lift3d.scene import Depth, Points, View
from lift3d.scene.errors import InputError, did_you_mean

UNKNOWN_EDGE = 0.1
"""Strength of an edge that the association does not have."""
NEIGHBOURS = 6
"""Edges of the graph of points that superpoints touch along."""
REACH = 2.0
"""Spacings within which a pixel takes the nearest point. Chosen by hand; fused points are about one
spacing apart."""
HOLES = 0.3
"""Share of pixels without a point above which superpixels fill a view. Chosen by hand."""
BESIDE = 1 / 80
"""Share of the width up to which a pixel of such a view takes the point of the nearest pixel.
Chosen on the shelf: 0, 4, 8, 16 pixels of 640 give 0.807, 0.828, 0.834, 0.835 with true points."""
ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1, dtype=np.uint8)
"""How many bits of a byte are set."""
BYTES = 1 << 30
"""Memory for what is known of the views; the oldest is computed again when it is needed."""
MOST_COMPARED = 300
"""Views that are compared with each other, evenly spread; a look at one takes 0.1 to 0.3 s. Chosen
by hand: about as many as fit into `BYTES`."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What a view sees of the cloud."""

    points: Sightings
    bits: UInt8[np.ndarray, " bytes"]
    """One bit for each point of the cloud: whether the view sees it."""
    nearest: Int32[np.ndarray, "height width"] | None
    """Point of each pixel; None where the view has no dense depth and superpixels fill it."""
    superpixels: Superpixels | None
    """They fill the pixels without a point, where there are many; else the nearest pixel does."""
    measured: Bool[np.ndarray, "height width"] | None = None
    """Pixels with a point at their own depth; None where superpixels fill the view."""
    colour: UInt8[np.ndarray, "height width 3"] | None = None
    """CIELAB (`lab8`), where there is `nearest`."""

    @property
    def bytes(self) -> int:
        """Memory."""
        arrays = [self.points.point, self.points.row, self.points.column, self.bits]
        arrays += [] if self.nearest is None else [self.nearest]
        arrays += [] if self.superpixels is None else [self.superpixels.leaf]
        arrays += [] if self.measured is None else [self.measured]
        arrays += [] if self.colour is None else [self.colour]
        return sum(each.nbytes for each in arrays)


@dataclass(eq=False)
class Place:
    """The cloud and the views that prompts are about."""

    points: Points
    surface: Surface
    views: Mapping[str, View]
    tolerance: DepthTolerance = field(default_factory=DepthTolerance)
    label: Int32[np.ndarray, " points"] | None = None
    """Object of each point in a run, with corrections; 0 = none."""

    def __post_init__(self) -> None:
        self._held: OrderedDict[str, Seen] = OrderedDict()
        self._counted: tuple[np.ndarray, np.ndarray] | None = None
        self.edges = lru_cache(1)(self._edges)
        self.pieces_in = lru_cache(16)(self._pieces_in)

    def view(self, name: str) -> View:
        """A view by name; InputError for an unknown one."""
        if name not in self.views:
            raise InputError(did_you_mean(name, list(self.views), "view"))
        return self.views[name]

    @cached_property
    def sparse(self) -> bool:
        """Whether no view has dense depth."""
        return all(each.sparse or each.load_depth is None for each in self.views.values())

    @cached_property
    def tree(self) -> JoinTree:
        """The tree of joins over the superpoints."""
        return JoinTree(self.surface)

    @property
    def object_of_piece(self) -> Int32[np.ndarray, " superpoints"]:
        """The object with most points of each superpoint; 0 = none."""
        if self.label is None:
            return self.surface.object
        if self._counted is None or not np.array_equal(self._counted[0], self.label):
            found = majority(self.surface.superpoint, self.label, len(self.surface.object))
            self._counted = self.label.copy(), found  # edits change labels in place
        return self._counted[1]

    @cached_property
    def spacing(self) -> float:
        """Median distance of neighbouring points."""
        return max(cloud_spacing(self.points), 1e-9)

    @cached_property
    def cells(self) -> Cells:
        """The points by cells, for `Seen.nearest`."""
        return Cells(self.points.xyz, REACH * self.spacing)

    @cached_property
    def compared(self) -> list[str]:
        """The views that are compared with each other: at most `MOST_COMPARED`."""
        names = list(self.views)
        chosen = np.linspace(0, len(names) - 1, min(len(names), MOST_COMPARED)).round().astype(int)
        return [names[each] for each in chosen]

    def prepare(self) -> None:
        """Compute what is independent of prompts; views that are not `compared` are looked at when
        they are needed.
        """
        _ = self.tree, self.strength, self.sizes, self._of_piece, self._pairs_of_piece
        for name in self.compared:
            self.seen(name)
        _ = self.pieces_seen

    def seen(self, name: str) -> Seen:
        """What a view sees; kept while there is memory."""
        if name in self._held:
            self._held.move_to_end(name)
            return self._held[name]
        self._held[name] = found = self._look(self.view(name))
        total = sum(each.bytes for each in self._held.values())
        while total > BYTES and len(self._held) > 1:
            total -= self._held.popitem(last=False)[1].bytes
        return found

    def sees(
        self, inside: Bool[np.ndarray, " points"], views: Iterable[str] | None = None
    ) -> dict[str, int]:
        """How many of some points each of some views sees, by default of all."""
        own = np.packbits(inside)
        some = np.flatnonzero(own)  # of most objects few bytes
        own = own[some]
        return {
            name: int(ONES[self.seen(name).bits[some] & own].sum(dtype=np.int64))
            for name in (self.views if views is None else views)
        }

    @cached_property
    def pieces_seen(self) -> Int32[np.ndarray, "compared superpoints"]:
        """How many points of each superpoint each of the views in `compared` sees."""
        rows = [self._pieces_in(name) for name in self.compared]
        return np.array(rows, np.int32).reshape(len(rows), -1)

    def _pieces_in(self, name: str) -> Int64[np.ndarray, " superpoints"]:
        """How many points of each superpoint a view sees."""
        piece = self.surface.superpoint[self.seen(name).points.point]
        return np.bincount(piece[piece >= 0], minlength=len(self.surface.object))

    def _look(self, view: View) -> Seen:
        depth = None if view.sparse or view.depth_camera is not None else view.depth()
        points = self._visible(view, depth)
        visible = np.zeros(len(self.points), bool)
        visible[points.point] = True
        bits = np.packbits(visible)
        shape = (view.camera.height, view.camera.width)
        nearest = np.full(shape, -1, np.int32)
        if depth is not None:
            nearest = self.cells.nearest(unproject(view.camera, closed(depth)))
        free = nearest[points.row, points.column] < 0
        nearest[points.row[free], points.column[free]] = points.point[free]
        many = float((nearest < 0).mean()) > HOLES
        superpixels = Superpixels.of(view, nearest) if many else None
        measured = None
        if many and depth is None:
            return Seen(points, bits, None, superpixels)
        image = view.image()
        if not many and depth is not None:
            measured = nearest >= 0
            nearest = by_colour(nearest, image)
        reach = BESIDE * view.camera.width if many else np.inf
        return Seen(points, bits, beside(nearest, reach), superpixels, measured, lab8(image))

    def _visible(self, view: View, depth: Depth | None) -> Sightings:
        """The points at the measured depth; in holes of the depth those that no other hides."""
        points = sightings(self.points, view, self.tolerance)
        if depth is None or float((depth <= 0).mean()) <= HOLES:
            return points
        bare = replace(view, load_depth=None, load_confidence=None)
        more = sightings(self.points, bare, self.tolerance)
        hole = depth[more.row, more.column] <= 0
        joined = [
            np.concatenate([getattr(points, each), getattr(more, each)[hole]])
            for each in ("point", "column", "row", "confidence")
        ]
        order = np.argsort(joined[0], kind="stable")
        return Sightings(*(each[order] for each in joined))

    @cached_property
    def contacts(self) -> tuple[Int32[np.ndarray, " pairs"], Int32[np.ndarray, " pairs"]]:
        """Neighbouring points."""
        a, b, _ = surface_graph(self.points, NEIGHBOURS)
        return a, b

    def _edges(self) -> tuple[Int32[np.ndarray, "edges 2"], Float64[np.ndarray, " edges"]]:
        """Pairs of superpoints that touch, and the number of neighbouring points along each."""
        return edges_of(self.surface.superpoint, *self.contacts)

    @cached_property
    def strength(self) -> Float64[np.ndarray, " edges"]:
        """Of each of `edges`."""
        return self.strength_of(self.edges()[0])

    def strength_of(self, pairs: Int32[np.ndarray, "pairs 2"]) -> Float64[np.ndarray, " pairs"]:
        """Probability of each pair of superpoints to be one object; `UNKNOWN_EDGE` for the halves
        of one, and for edges that the association does not have. 0 where it joined all that it
        would join and these two not, as two walls.
        """
        span = len(self.surface.object)
        own = self.surface.edges.astype(np.int64)
        key = own[:, 0] * span + own[:, 1]
        order = np.argsort(key, kind="stable")
        wanted = pairs[:, 0].astype(np.int64) * span + pairs[:, 1]
        found = np.full(len(pairs), UNKNOWN_EDGE)
        if len(key):
            at = np.minimum(np.searchsorted(key[order], wanted), len(key) - 1)
            hit = key[order][at] == wanted
            found[hit] = self.surface.strength[order][at][hit]
        if len(self.surface.joins):
            found[self._root[pairs[:, 0]] != self._root[pairs[:, 1]]] = 0.0
        found[pairs[:, 0] == pairs[:, 1]] = UNKNOWN_EDGE
        return found

    @cached_property
    def _root(self) -> Int64[np.ndarray, " nodes"]:
        """The last node of the tree that holds each node."""
        return tops(self.tree.parent)

    @cached_property
    def sizes(self) -> Int64[np.ndarray, " superpoints"]:
        """Number of points of each superpoint."""
        own = self.surface.superpoint
        return np.bincount(own[own >= 0], minlength=len(self.surface.object))

    @cached_property
    def centres(self) -> Float32[np.ndarray, "superpoints 3"]:
        """Mean position of the points of each superpoint; 0 of one without points."""
        own, count = self.surface.superpoint, len(self.surface.object)
        there = own >= 0
        sums = [np.bincount(own[there], self.points.xyz[there, axis], count) for axis in range(3)]
        return (np.stack(sums, 1) / np.maximum(self.sizes, 1)[:, None]).astype(np.float32)

    def beyond(
        self, views: Iterable[str], goes_on: Bool[np.ndarray, " superpoints"]
    ) -> Bool[np.ndarray, " superpoints"]:
        """Superpoints outside of the pictures of `views`, in each of which an object ends.

        The object does not go on there. A view says nothing if some of `goes_on`, superpoints that
        are known to be of the object, are outside of its picture too. Where the centre of a
        superpoint is decides, hidden or not.
        """
        found = np.zeros(len(goes_on), bool)
        for name in views:
            camera = self.view(name).camera
            xy, z = project(camera, self.centres)
            out = (z <= 0) | ~in_image(camera, xy)
            if not (out & goes_on).any():
                found |= out
        return found

    def points_in(self, pieces: Int64[np.ndarray, " some"]) -> Int64[np.ndarray, " points"]:
        """The points of some superpoints."""
        return _rows(*self._of_piece, pieces)

    def pairs_at(self, pieces: Int64[np.ndarray, " some"]) -> Int64[np.ndarray, " pairs"]:
        """Indices of the `contacts` with a point in some superpoints, each once."""
        return np.unique(_rows(*self._pairs_of_piece, pieces) % len(self.contacts[0]))

    @cached_property
    def _of_piece(self) -> tuple[np.ndarray, np.ndarray]:
        return _sorted(self.surface.superpoint, len(self.surface.object))

    @cached_property
    def _pairs_of_piece(self) -> tuple[np.ndarray, np.ndarray]:
        own = self.surface.superpoint
        both = np.concatenate([own[each] for each in self.contacts])
        return _sorted(both, len(self.surface.object))


def edges_of(
    node: Int32[np.ndarray, " points"],
    a: Int32[np.ndarray, " pairs"],
    b: Int32[np.ndarray, " pairs"],
) -> tuple[Int32[np.ndarray, "edges 2"], Float64[np.ndarray, " edges"]]:
    """Pairs of nodes with neighbouring points, the smaller first, and how many pairs of points each
    has.

    >>> edges, count = edges_of(np.int32([0, 0, 2, -1]), np.int32([1, 2, 0]), np.int32([2, 0, 3]))
    >>> edges.tolist(), count.tolist()
    ([[0, 2]], [2.0])
    """
    one, other = node[a].astype(np.int64), node[b].astype(np.int64)
    across = (one != other) & (one >= 0) & (other >= 0)
    one, other = one[across], other[across]
    span = int(node.max(initial=-1)) + 1
    key, count = np.unique(
        np.minimum(one, other) * span + np.maximum(one, other), return_counts=True
    )
    return np.stack([key // span, key % span], 1).astype(np.int32), count.astype(np.float64)


def _sorted(
    group: Int32[np.ndarray, " items"], count: int
) -> tuple[Int32[np.ndarray, " items"], Int64[np.ndarray, " starts"]]:
    """Items in the order of their groups, and where each group starts; those in none come first."""
    order = np.argsort(group, kind="stable")
    return order.astype(np.int32), np.searchsorted(group[order], np.arange(count + 1))


def _rows(order: np.ndarray, start: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The items of some groups."""
    parts = [order[start[each] : start[each + 1]] for each in groups]
    return np.concatenate([np.zeros(0, np.int64), *parts])
