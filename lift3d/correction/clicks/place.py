"""A scene made ready for prompts: its cloud, its superpoints, and what each view sees of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Float64, Int32

from lift3d.association.superpoints import surface_graph
from lift3d.association.surface import Surface, majority, touching
from lift3d.correction.clicks.filling import Superpixels
from lift3d.correction.clicks.nearest import Cells
from lift3d.correction.joins import JoinTree
from lift3d.geometry import unproject
from lift3d.geometry.visibility import DepthTolerance, Sightings, cloud_spacing, sightings
from lift3d.scene import Points, View
from lift3d.scene.errors import InputError, did_you_mean

NEIGHBOURS = 6
"""Edges of the graph of points that superpoints touch along."""
REACH = 2.0
"""Spacings within which a pixel takes the nearest point. Chosen by hand; fused points are about one
spacing apart."""
HOLES = 0.3
"""Share of pixels without a point above which superpixels fill a view. Chosen by hand."""
BYTES = 1 << 30
"""Memory for what is known of the views; the oldest is computed again when it is needed."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What a view sees of the cloud."""

    points: Sightings
    nearest: Int32[np.ndarray, "height width"] | None
    """Point of each pixel, all filled; None where superpixels fill the view."""
    superpixels: Superpixels | None

    @property
    def bytes(self) -> int:
        """Memory."""
        arrays = [self.points.point, self.points.row, self.points.column]
        arrays += [] if self.nearest is None else [self.nearest]
        arrays += [] if self.superpixels is None else [self.superpixels.leaf]
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
        self.edges = lru_cache(1)(self._edges)

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
        return majority(self.surface.superpoint, self.label, len(self.surface.object))

    @cached_property
    def spacing(self) -> float:
        """Median distance of neighbouring points."""
        return max(cloud_spacing(self.points), 1e-9)

    @cached_property
    def cells(self) -> Cells:
        """The points by cells, for `Seen.nearest`."""
        return Cells(self.points.xyz, REACH * self.spacing)

    def prepare(self) -> None:
        """Compute what is independent of prompts, as far as memory allows."""
        _ = self.tree, self.contacts
        for name in self.views:
            self.seen(name)

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

    def _look(self, view: View) -> Seen:
        points = self._visible(view)
        shape = (view.camera.height, view.camera.width)
        nearest = np.full(shape, -1, np.int32)
        depth = None if view.sparse or view.depth_camera is not None else view.depth()
        if depth is not None:
            nearest = self.cells.nearest(unproject(view.camera, depth))
        free = nearest[points.row, points.column] < 0
        nearest[points.row[free], points.column[free]] = points.point[free]
        if float((nearest < 0).mean()) > HOLES:
            return Seen(points, None, Superpixels.of(view, nearest))
        return Seen(points, _filled(nearest), None)

    def _visible(self, view: View) -> Sightings:
        """The points at the measured depth; in holes of the depth those that no other hides."""
        points = sightings(self.points, view, self.tolerance)
        depth = None if view.sparse or view.depth_camera is not None else view.depth()
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

    def _edges(self) -> tuple[np.ndarray, Float64[np.ndarray, " edges"]]:
        """Pairs of superpoints that touch, and the number of neighbouring points along each."""
        return edges_of(self.surface.superpoint, *self.contacts)


def edges_of(
    node: Int32[np.ndarray, " points"],
    a: Int32[np.ndarray, " pairs"],
    b: Int32[np.ndarray, " pairs"],
) -> tuple[np.ndarray, Float64[np.ndarray, " edges"]]:
    """Pairs of nodes with neighbouring points, and how many such pairs of points each has."""
    across = (node[a] != node[b]) & (node[a] >= 0) & (node[b] >= 0)
    a, b = a[across], b[across]
    edges, _ = touching(node, a, b, np.ones(len(a), np.float32))
    span = int(node.max(initial=-1)) + 1
    low, high = np.minimum(node[a], node[b]), np.maximum(node[a], node[b])
    key = np.sort(low.astype(np.int64) * span + high)
    wanted = edges[:, 0].astype(np.int64) * span + edges[:, 1]
    count = np.searchsorted(key, wanted, "right") - np.searchsorted(key, wanted, "left")
    return edges, count.astype(np.float64)


def _filled(nearest: Int32[np.ndarray, "height width"]) -> Int32[np.ndarray, "height width"]:
    """Pixels without a point take that of the nearest pixel with one; -1 where none has."""
    from scipy import ndimage

    empty = nearest < 0
    if not empty.any() or empty.all():
        return nearest
    index = ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True)
    return nearest[tuple(index)]
