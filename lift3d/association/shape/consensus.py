"""Objects on which cuts of the surface at several resolutions agree.

What one cut finds depends much on chance: with cells a tenth larger other pieces merge, and of six
objects one more or less is found. What several cuts find is more surely an object, and of its
versions the one that is most like the others has the best borders. (Detections of several models
are combined likewise: Solovyev et al., Weighted boxes fusion, 2021.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float64, Int32, Int64
from scipy import sparse

from lift3d.association.looks import Look
from lift3d.association.shape import CELL_SPACINGS, Objects, Shape, SurfaceObjects, side_of_cell
from lift3d.association.shape.hierarchy import Tree
from lift3d.association.surface import majority
from lift3d.geometry.forest import tops
from lift3d.geometry.visibility import cloud_spacing
from lift3d.scene import Camera, Points
from lift3d.scene.prefetch import THREADS, prefetch
from lift3d.scene.threads import kernels_run_together

RESOLUTIONS = (CELL_SPACINGS, 1.4, 2.2)
"""Sides of a cell in spacings of the surface; the first gives the pieces that a person sees. Chosen
of 1.4, 1.55, 1.7, 1.93 and 2.2 on the HoloLens kitchen, the living room and their meshes: all sets
of three with 1.4 and 1.93 gain on the mean of the four (AP 0.45 to between 0.49 and 0.51); this one
costs a synthetic room least."""
DENSE = 1.8
"""Spacing of given points, in spacings of the surface, up to which they are cut too. Cut alone,
vertices of meshes 2.6 to 2.9 cm apart gave an AP of 0.37, their fused surfaces 0.60; vertices of
the HoloLens kitchen, 1.6 cm apart, as one more cut take its AP from 0.22 to 0.25."""
NEAR = 5
"""Spacings of the surface within which a point takes its label. Chosen by hand: fused points are
within 1 to 2 of a mesh of the same scan, and vertices that no view saw must stay unlabelled."""
CLOSE, COVERED = 2, 0.85
"""Share of the points that must have some surface within this many spacings. Fused surfaces of all
views cover 93 to 99 % of a mesh; one of half of the HoloLens kitchen's views 68 %, and its cuts do
harm (AP of the kitchen 0.19 to 0.08)."""
ALIKE = 0.5
"""IoU from which two objects of two cuts are versions of one."""
FREE = 0.5
"""Share of its points that an object must still find free of objects that more cuts agree on."""


class Cuts:
    """Cuts of `surface`, and of `points` where these are dense; `add` views, then get `objects`.

    Dense points that the surface does not cover are cut alone.
    """

    def __init__(
        self,
        points: Points,
        surface: Points,
        cameras: Iterable[Camera],
        metric: bool,
        kind: type[Shape] = Shape,
    ) -> None:
        cameras = list(cameras)
        gap, own = (max(cloud_spacing(each), 1e-9) for each in (surface, points))
        self._points = points
        wanted: list[tuple[Points, float, float]] = []
        covered = True
        if surface is not points:
            self._near, distance = _nearest(points, surface, NEAR * gap)
            if own <= DENSE * gap:
                wanted.append((points, own, CELL_SPACINGS))
                covered = bool((distance < CLOSE * gap).mean() >= COVERED)
        if covered:
            # Of resolutions with the same cells the first is kept.
            sides = {side_of_cell(gap, metric, each): each for each in reversed(RESOLUTIONS)}
            wanted += [(surface, gap, each) for each in RESOLUTIONS if each in sides.values()]

        def cut(each: tuple[Points, float, float]) -> Shape:
            of, spacing, resolution = each
            return kind(of, spacing, cameras, metric, resolution)

        threads = THREADS if kernels_run_together() else 1
        self._shapes = list(prefetch(wanted, cut, threads=threads))

    def __len__(self) -> int:
        return len(self._shapes)

    def add(self, look: Look) -> None:
        """Accumulate mask co-occurrence in one view; `look` may be of any points."""
        for shape in self._shapes:
            shape.add(look)

    def objects(self) -> SurfaceObjects:
        """Objects at the points, with the patches and the tree of the first cut."""
        shape, *others = self._shapes
        first = shape.objects()
        if shape.points is not self._points:
            first = first.at(self._near)
        if not others:
            return first
        found = [Objects(first.object, first.confidence)]
        for shape in others:
            labels = shape.labels()
            found.append(labels if shape.points is self._points else labels.at(self._near))
        agree = agreed(found)
        of_patch = majority(first.patch, agree.object + np.int32(1), len(first.node))
        return replace(
            first,
            object=agree.object,
            confidence=agree.confidence,
            node=whole_nodes(first.tree, of_patch),
        )


def agreed(cuts: Sequence[Objects]) -> Objects:
    """The objects that most cuts agree on, in this order, each where no earlier one is.

    The confidence of an object is the mean over the cuts of the highest product of confidence and
    IoU of an object that is `ALIKE`; one that a single cut of three finds has a third of its own.
    """
    inside = [_members(cut) for cut in cuts]
    sizes = [np.diff(each.indptr) for each in inside]
    score = []
    for one, size in zip(inside, sizes, strict=True):
        total = np.zeros(len(size))
        for other, theirs, cut in zip(inside, sizes, cuts, strict=True):
            shared = (one @ other.T).tocoo()
            row, column = shared.coords
            iou = shared.data / (size[row] + theirs[column] - shared.data)
            best = np.zeros(len(size))
            np.maximum.at(best, row, np.where(iou >= ALIKE, iou * cut.confidence[column], 0))
            total += best
        score.append(total / len(cuts))
    cut_of = np.repeat(np.arange(len(cuts)), [len(each) for each in score])
    index = np.concatenate([np.arange(len(each)) for each in score])
    every = np.concatenate(score)
    taken = np.full(len(cuts[0].object), -1, np.int32)
    confidence: list[float] = []
    for at in np.argsort(-every, kind="stable"):
        which, number = inside[cut_of[at]], index[at]
        members = which.indices[which.indptr[number] : which.indptr[number + 1]]
        free = members[taken[members] < 0]
        if len(free) and len(free) >= FREE * len(members):
            taken[free] = len(confidence)
            confidence.append(float(every[at]))
    return Objects(taken, np.array(confidence))


def _members(cut: Objects) -> sparse.csr_array:
    """(objects, points): 1 where a point is of an object."""
    point = np.flatnonzero(cut.object >= 0)
    entries = (np.ones(len(point), np.float32), (cut.object[point], point))
    return sparse.csr_array(entries, (len(cut.confidence), len(cut.object)))


def whole_nodes(
    tree: Tree, object_of: Int32[np.ndarray, " leaves"]
) -> Int32[np.ndarray, " leaves"]:
    """The largest node around each leaf whose leaves are all of one object; 0 = no object."""
    leaves = len(object_of)
    known = np.append(object_of, np.zeros(len(tree.children), np.int32))
    for node, (one, other) in enumerate(tree.children.tolist(), start=leaves):
        known[node] = known[one] if known[one] == known[other] else 0
    return tops(tree.parent, known > 0)[:leaves].astype(np.int32)


def _nearest(
    points: Points, surface: Points, reach: float
) -> tuple[Int64[np.ndarray, " points"], Float64[np.ndarray, " points"]]:
    """Index of the nearest point of `surface`, -1 where none is within `reach`; its distance."""
    from scipy.spatial import cKDTree

    tree = cKDTree(surface.xyz)
    distance, near = tree.query(points.xyz, distance_upper_bound=reach, workers=-1)
    return np.where(np.isfinite(distance), near, -1), distance
