"""Things by the shape of the fused surface, whatever the masks say: for masks of surfaces.

Floor and walls are taken out (`layout`); what remains is cut into smooth pieces of one colour,
and pieces are joined, the least different first, where they

* look alike: the same colour means the same thing, less so where they meet in a concave edge;
* or go on without an inward bend or a step: a box's own edges are convex, whatever its colours
  (Stein et al. 2014, "Object partitioning using local convexity").

At last what cannot stand alone, because it touches neither floor nor wall and what carries it is
thin beside it, joins what carries it: a seat its legs, leaves their pot.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float64, Int32, Int64

from lift3d.association.layout import layout
from lift3d.association.surfels import Surfels, surfels
from lift3d.graphs import felzenszwalb
from lift3d.scene import Camera, Points

CELLS = 1.93
"""Side of a surfel's cell, in spacings of the points."""
HUE, TINT = 4.9, 21.0
"""Distance in a*b*, and in all of CIELAB, at which two pieces no longer look alike."""
OVERLAP = 0.525
"""Share of two pieces' colour histograms that is the same where they still look alike."""
CONCAVE, STEP, RISE = 0.04, 0.8, 0.21
"""What a border without interruption stays under: mean 1 - cosine of inward bends, mean step in
half cells, and the share of it where one piece rises from the other, which lies flat."""
STRICT = 0.21
"""Added to the difference of two pieces that look alike where they meet in an inward right angle"""
PATCH = 0.28
"""Added per unit of unlikeness where a border goes on: patterns are joined late."""
TOUCH = 0.14
"""A contact narrower than this share of the smaller piece's width is an accident."""
CRUMB = 42
"""Pieces under this many surfels are joined early."""
THIN = 0.56
"""A thing cannot stand on a contact narrower than this share of its width."""


def things(
    points: Points, spacing: float, cameras: Iterable[Camera]
) -> Int32[np.ndarray, " points"]:
    """Thing of each point from 0; -1 where the point is near no surface.

    Each layout plane is one too. `spacing` is the distance between neighbouring points.
    """
    cell = CELLS * spacing
    surface = surfels(points, cell)
    if not len(surface):
        return np.full(len(points), -1, np.int32)
    border = _Border(surface, cell)
    nothing = np.zeros(len(surface), np.int64)
    smooth = felzenszwalb(border.a, border.b, border.difference(cell, 0.0), 0.3, 12, nothing)
    planes, plane = layout(surface, smooth, cell)
    piece = felzenszwalb(border.a, border.b, border.difference(cell, 1 / 60), 0.05, 12, nothing)
    node = np.where(plane >= 0, len(surface) + plane, piece)
    node = np.unique(node, return_inverse=True)[1].astype(np.int64)
    up = _up(cameras, [each.normal for each in planes])
    pieces = _Pieces(surface, node, plane >= 0, border, up, cell)
    pieces.join()
    pieces.carry()
    return _of_points(points, surface, pieces.roots()[node], 3 * cell)


def _of_points(
    points: Points, surface: Surfels, thing: Int64[np.ndarray, " surfels"], reach: float
) -> Int32[np.ndarray, " points"]:
    """Each point's surfel decides, for noise the nearest within `reach`."""
    from scipy.spatial import cKDTree

    of_point = surface.of_point.copy()
    noise = np.flatnonzero(of_point < 0)
    distance, near = cKDTree(surface.xyz).query(points.xyz[noise], distance_upper_bound=reach)
    of_point[noise] = np.where(np.isfinite(distance), near, -1)
    return np.where(of_point >= 0, thing[of_point], -1).astype(np.int32)


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


class _Border:
    """Pairs of neighbouring surfels and how the surface runs between them."""

    def __init__(self, surface: Surfels, cell: float, neighbours: int = 14) -> None:
        from scipy.spatial import cKDTree

        xyz, normal, count = surface.xyz, surface.normal, len(surface)
        nearest = min(neighbours + 1, count)
        _, near = cKDTree(xyz).query(xyz, nearest, distance_upper_bound=2.1 * cell, workers=-1)
        a, b = np.repeat(np.arange(count), nearest), near.ravel()
        inside = (b < count) & (a != b)
        low, high = np.minimum(a, b)[inside], np.maximum(a, b)[inside]
        key = np.unique(low * count + high)
        a, b = key // count, key % count
        cosine = (normal[a] * normal[b]).sum(1)
        # The two sides of a thin board are no neighbours.
        a, b, cosine = a[cosine > -0.3], b[cosine > -0.3], cosine[cosine > -0.3]
        apart = xyz[b] - xyz[a]
        off = np.abs((apart * normal[a]).sum(1)) + np.abs((apart * normal[b]).sum(1))
        self.a, self.b = a.astype(np.int32), b.astype(np.int32)
        self.bend = 1 - cosine
        self.inward = (apart * (normal[b] - normal[a])).sum(1) < 0
        self.off = off / 2
        self.colour = np.linalg.norm(surface.lab[a] - surface.lab[b], axis=1)

    def difference(self, cell: float, colour: float) -> np.ndarray:
        """For graph segmentation: bend, colour and step in cells."""
        step = np.maximum(self.off - 0.15 * cell, 0) / cell
        return (self.bend + colour * self.colour + step).astype(np.float32)


class _Pieces:
    """A graph of pieces that are joined; sums are kept, so that a join costs its neighbours."""

    def __init__(
        self,
        surface: Surfels,
        node: Int64[np.ndarray, " surfels"],
        is_layout: np.ndarray,
        border: _Border,
        up: Float64[np.ndarray, "3"],
        cell: float,
    ) -> None:
        count = int(node.max()) + 1
        self.size = np.bincount(node, minlength=count).astype(np.float64)
        self.layout = np.bincount(node, is_layout, count) > 0
        self.lab = np.stack([np.bincount(node, surface.lab[:, c], count) for c in range(3)], 1)
        self.histogram = _histograms(surface.lab, node, count)
        self.parent = np.arange(count)
        self.alive = np.ones(count, bool)
        self.version = np.zeros(count, np.int64)
        self.edge: list[dict[int, np.ndarray]] = [{} for _ in range(count)]
        for one, other, sums in _sums(surface, node, border, up, cell):
            self.edge[one][other] = sums
            self.edge[other][one] = sums[_TURNED]
        self.around = np.array([sum(e[_OWN] for e in each.values()) for each in self.edge])

    def difference(self, pairs: list[tuple[int, int]]) -> Float64[np.ndarray, " pairs"]:
        """How different two neighbours are; under 1 they are one thing."""
        one, other = np.array(pairs, np.int64).T
        sums = np.array([self.edge[p][q] for p, q in pairs])
        turn = self.size[one] > self.size[other]
        small, large = np.where(turn, other, one), np.where(turn, one, other)
        sums = np.where(turn[:, None], sums[:, _TURNED], sums)
        border = sums[:, _PAIRS]
        size = self.size[small]
        colour = self.lab[small] / size[:, None] - self.lab[large] / self.size[large][:, None]
        hue = np.linalg.norm(colour[:, 1:], axis=1)
        unlike = np.maximum(hue / HUE, np.linalg.norm(colour, axis=1) / TINT)
        shared = np.minimum(self._share(small), self._share(large)).sum(1)
        unlike = np.minimum(unlike, np.maximum((1 - shared) / (1 - OVERLAP), hue / 10))
        inward = sums[:, _INWARD] / border
        rise = np.maximum(sums[:, _RISE], sums[:, _RISE_BACK]) / border
        broken = np.maximum(inward / CONCAVE, sums[:, _STEP] / border / STEP)
        broken = np.maximum(broken, rise / RISE)
        enclosed = sums[:, _OWN] / np.maximum(self.around[small], 1)
        going_on = broken + PATCH * np.minimum(unlike, 3) * np.maximum(1 - enclosed, 0.4)
        found = np.minimum(unlike + STRICT * np.minimum(2 * inward, 1), going_on)
        crumb = size < CRUMB
        accident = (sums[:, _OWN] < 3) | (sums[:, _OWN] < TOUCH * np.sqrt(size))
        found = found + (accident & ~crumb)
        found = np.where(crumb, 0.6 * found, found)
        at_layout = self.layout[small] | self.layout[large]
        with_layout = np.where(crumb, np.maximum(going_on, unlike) + 0.2, np.inf)
        return np.where(at_layout, with_layout, found)

    def join(self) -> None:
        """The least different neighbours first, until none differ by less than 1."""
        heap: list[tuple[float, int, int, int, int]] = []
        self._offer(heap, [(p, q) for p, each in enumerate(self.edge) for q in each if p < q])
        while heap:
            _, one, other, *versions = heapq.heappop(heap)
            if not (self.alive[one] and self.alive[other]):
                continue
            if versions != [self.version[one], self.version[other]]:
                continue
            kept = self._merge(one, other)
            self._offer(heap, [(min(kept, q), max(kept, q)) for q in self.edge[kept]])

    def carry(self) -> None:
        """What cannot stand alone joins what carries it; crumbs join what holds them."""
        changed = True
        while changed:
            changed = False
            for one in np.argsort(self.size, kind="stable").tolist():
                if not self.alive[one] or self.layout[one] or self._stands(one):
                    continue
                held = [(e[_OWN], q) for q, e in self.edge[one].items() if not self.layout[q]]
                if not held:
                    continue
                contact, other = max(held)
                size = self.size[one]
                crumb = size < 60 and contact > 0.3 * self.around[one]
                carried = size < 3000 and 3 <= contact < THIN * np.sqrt(size)
                if crumb or (carried and contact > 0.6 * sum(each for each, _ in held)):
                    self._merge(one, other)
                    changed = True

    def roots(self) -> Int64[np.ndarray, " pieces"]:
        """What each piece became part of."""
        root = self.parent.copy()
        while (root[root] != root).any():
            root = root[root]
        return root

    def _share(self, index: np.ndarray) -> np.ndarray:
        histogram = self.histogram[index]
        return np.asarray(histogram / np.maximum(histogram.sum(1, keepdims=True), 1e-9))

    def _stands(self, one: int) -> bool:
        on_layout = sum(e[_OWN] for q, e in self.edge[one].items() if self.layout[q])
        return bool(on_layout >= 0.15 * np.sqrt(self.size[one]))

    def _offer(
        self, heap: list[tuple[float, int, int, int, int]], pairs: list[tuple[int, int]]
    ) -> None:
        pairs = [(p, q) for p, q in pairs if not (self.layout[p] and self.layout[q])]
        if not pairs:
            return
        for (p, q), each in zip(pairs, self.difference(pairs).tolist(), strict=True):
            if each < 1:
                heapq.heappush(heap, (each, p, q, int(self.version[p]), int(self.version[q])))

    def _merge(self, one: int, other: int) -> int:
        """Make two one; the one with more neighbours stays. Returns which."""
        if len(self.edge[one]) < len(self.edge[other]):
            one, other = other, one
        self.around[one] += self.around[other]
        self.around[one] -= self.edge[one][other][_OWN] + self.edge[other][one][_OWN]
        for sums in (self.size, self.lab, self.histogram):
            sums[one] += sums[other]
        self.layout[one] |= self.layout[other]
        self.alive[other] = False
        self.parent[other] = one
        self.version[one] += 1
        del self.edge[one][other]
        for third, sums in self.edge[other].items():
            if third == one:
                continue
            back = self.edge[third].pop(other)
            if third in self.edge[one]:
                sums = sums + self.edge[one][third]
                back = back + self.edge[third][one]
            self.edge[one][third] = sums
            self.edge[third][one] = back
        self.edge[other] = {}
        return one


_PAIRS, _INWARD, _STEP, _OWN, _OTHERS, _RISE, _RISE_BACK = range(7)
"""Sums over a border: pairs of surfels, inward bends, steps in half cells, surfels on either side,
pairs where the one lies flat and the other is above it, and the other way round."""
_TURNED = [_PAIRS, _INWARD, _STEP, _OTHERS, _OWN, _RISE_BACK, _RISE]


def _sums(
    surface: Surfels,
    node: Int64[np.ndarray, " surfels"],
    border: _Border,
    up: Float64[np.ndarray, "3"],
    cell: float,
) -> list[tuple[int, int, np.ndarray]]:
    """Every pair of touching pieces with the sums over their border."""
    across = node[border.a] != node[border.b]
    a, b = border.a[across].astype(np.int64), border.b[across].astype(np.int64)
    bend, inward, off = border.bend[across], border.inward[across], border.off[across]
    turn = node[a] > node[b]
    a, b = np.where(turn, b, a), np.where(turn, a, b)
    nodes = int(node.max()) + 1
    key, group = np.unique(node[a] * nodes + node[b], return_inverse=True)
    level = surface.normal @ up > 0.8
    height = surface.xyz @ up
    smooth = bend < 0.15
    of = [
        np.ones(len(a)),
        bend * inward,
        np.maximum(off / cell - 0.15, 0) * 2 * smooth,
        _first(group, a, len(surface)),
        _first(group, b, len(surface)),
        level[a] & (height[b] > height[a] + 0.25 * cell),
        level[b] & (height[a] > height[b] + 0.25 * cell),
    ]
    sums = np.stack([np.bincount(group, each.astype(np.float64), len(key)) for each in of], 1)
    return list(zip((key // nodes).tolist(), (key % nodes).tolist(), sums, strict=True))


def _first(group: np.ndarray, surfel: np.ndarray, count: int) -> np.ndarray:
    """1 where a surfel appears in a group for the first time, else 0."""
    first = np.zeros(len(group))
    first[np.unique(group * count + surfel, return_index=True)[1]] = 1
    return first


def _histograms(
    lab: np.ndarray, node: Int64[np.ndarray, " surfels"], count: int
) -> Float64[np.ndarray, "pieces bins"]:
    """Half of each surfel to one of 8 bins of lightness, half to 12 of hue where it has one."""
    light = np.clip((lab[:, 0] / 12.5).astype(int), 0, 7)
    hue = (np.degrees(np.arctan2(lab[:, 2], lab[:, 1])) % 360 / 30).astype(int) % 12
    sure = np.minimum(np.hypot(lab[:, 1], lab[:, 2]) / 15, 1)
    histogram = np.zeros((count, 20))
    np.add.at(histogram, (node, light), 0.5)
    np.add.at(histogram, (node, 8 + hue), 0.5 * sure)
    return histogram
