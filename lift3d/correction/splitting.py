"""Divide an object: by clicks over its surface, by a plane, or into connected parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsFloat

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64
from numpy.typing import ArrayLike

from lift3d.association.superpoints import surface_graph
from lift3d.scene import Points
from lift3d.scene.errors import InputError

NEIGHBOURS = 10
"""Edges of the surface graph per point, as in the association."""
STEP = 0.02
"""Cost of one spacing of way on an even surface, where a right angle costs 1: clicks on one plain
surface divide it half way. Chosen by hand; not tuned on data."""
APART = 4.0
"""Points further than this many spacings from each other do not hang together. Chosen by hand."""
CRUMB = 0.01
"""Parts with a smaller share of the points stay with the nearest larger part. Chosen by hand."""
BESIDE = 0.5
"""Clicks further than this from all points of the object, as a share of its box's diagonal, are not
meant for it: the middle of a hollow thing is nearer. Chosen by hand."""


@dataclass(frozen=True, eq=False)
class Parts:
    """The points of an object, divided."""

    index: Int64[np.ndarray, " members"]
    part: Int32[np.ndarray, " members"]
    """From 0; part 0 keeps the id of the object: the largest, except in a cut."""

    @staticmethod
    def largest_first(
        index: Int64[np.ndarray, " members"], owner: Int64[np.ndarray, " members"]
    ) -> Parts:
        """Parts of points of the same owner, numbered by size."""
        kept, part = np.unique(owner, return_inverse=True)
        sizes = np.bincount(part, minlength=len(kept))
        rank = np.zeros(len(kept), np.int32)
        rank[np.argsort(-sizes, kind="stable")] = np.arange(len(kept))
        return Parts(index, rank[part])

    @property
    def count(self) -> int:
        """Number of parts."""
        return int(self.part.max(initial=-1)) + 1


class SurfaceOf:
    """The surface graph of one object; made once for several sets of clicks.

    Clicks and planes are in the world.
    """

    def __init__(self, points: Points, index: Int64[np.ndarray, " members"], spacing: float):
        from scipy.spatial import cKDTree

        self.index, self.spacing = index, max(spacing, 1e-9)
        own = points.take(index)
        self.xyz, self.offset = own.xyz.astype(np.float64), points.offset
        self._a, self._b, difference = surface_graph(own, NEIGHBOURS)
        self._length = np.linalg.norm(self.xyz[self._a] - self.xyz[self._b], axis=1)
        self._cost = difference.astype(np.float64) + STEP * self._length / self.spacing
        self._tree = cKDTree(self.xyz) if len(index) else None

    def by_clicks(self, clicks: ArrayLike, groups: Sequence[int] | None = None) -> Parts:
        """Every point goes to the click, of (clicks, 3), that is nearest over the surface.

        The cost of a way is the difference of normals and colours along it. Clicks of one group
        make one part. InputError for fewer than two groups, and for a click far from the object.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import dijkstra

        clicks = np.asarray(clicks, np.float64).reshape(-1, 3)
        of_click = np.arange(len(clicks)) if groups is None else np.asarray(groups, np.int64)
        if len(of_click) != len(clicks):
            raise InputError(f"{len(clicks)} clicks and {len(of_click)} groups; give one each")
        if not np.isfinite(clicks).all():
            raise InputError("a click is no place; expected x, y and z in the scene's world")
        if self._tree is None or len(np.unique(of_click)) < 2:
            raise InputError(
                "one click gives one part; click each thing once, so that there are two or more"
            )
        away, seeds = self._tree.query(clicks - self.offset)
        self._refuse_far(clicks, away)
        seeds, first = np.unique(seeds, return_index=True)
        of_click = of_click[first]
        if len(np.unique(of_click)) < 2:
            raise InputError("all clicks are on one point of the object; click further apart")
        count = len(self.index)
        graph = coo_array((self._cost, (self._a, self._b)), (count, count)).tocsr()
        away, _, source = dijkstra(
            graph, directed=False, indices=seeds, min_only=True, return_predecessors=True
        )
        owner = np.full(count, -1, np.int64)
        reached = np.isfinite(away)
        place = np.zeros(count, np.int64)
        place[seeds] = np.arange(len(seeds))
        owner[reached] = of_click[place[source[reached]]]
        return self._largest_first(self._filled(owner))

    def by_plane(self, plane: Sequence[SupportsFloat]) -> Parts:
        """Points with a x + b y + c z + d >= 0 are split off; the others keep the id."""
        try:
            a, b, c, d = (float(each) for each in plane)
        except (TypeError, ValueError) as error:
            raise InputError(f"plane is {plane!r}; expected four numbers a, b, c, d") from error
        if not np.isfinite([a, b, c, d]).all() or not (a or b or c):
            raise InputError(f"{plane} is no plane; expected a x + b y + c z + d = 0")
        d += float(np.dot([a, b, c], self.offset))
        side = (self.xyz @ [a, b, c] + d >= 0).astype(np.int32)
        return Parts(self.index, side)

    def _refuse_far(
        self, clicks: Float64[np.ndarray, "clicks 3"], away: Float64[np.ndarray, " clicks"]
    ) -> None:
        """InputError where a click cannot be meant for this object."""
        low, high = self.xyz.min(0), self.xyz.max(0)
        worst = int(np.argmax(away))
        if away[worst] > BESIDE * np.linalg.norm(high - low) + APART * self.spacing:
            place, first, last = (
                ", ".join(f"{value:.10g}" for value in np.round(each, 3))
                for each in (clicks[worst], low + self.offset, high + self.offset)
            )
            raise InputError(
                f"the click {place} is {away[worst]:.3g} from the object, which lies between "
                f"{first} and {last}; click places on it"
            )

    def connected(self) -> Parts:
        """What hangs together over less than `APART` spacings; crumbs go to the nearest part."""
        count, owner = len(self.index), self.components()
        sizes = np.bincount(owner, minlength=1)
        owner[(sizes < CRUMB * count)[owner] & (sizes < sizes.max())[owner]] = -1
        return self._largest_first(self._filled(owner))

    def components(self) -> Int64[np.ndarray, " members"]:
        """The connected part of each point, from 0 in no particular order."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        count = len(self.index)
        near = self._length <= APART * self.spacing
        graph = coo_array((np.ones(near.sum()), (self._a[near], self._b[near])), (count, count))
        return connected_components(graph, directed=False)[1].astype(np.int64)

    def _filled(self, owner: Int64[np.ndarray, " members"]) -> Int64[np.ndarray, " members"]:
        """-1 replaced by the owner of the nearest point that has one."""
        from scipy.spatial import cKDTree

        lost: Bool[np.ndarray, " members"] = owner < 0
        if lost.any() and not lost.all():
            known = np.flatnonzero(~lost)
            _, near = cKDTree(self.xyz[known]).query(self.xyz[lost])
            owner[lost] = owner[known[near]]
        return owner

    def _largest_first(self, owner: Int64[np.ndarray, " members"]) -> Parts:
        return Parts.largest_first(self.index, owner)


def touched_most(
    xyz: np.ndarray, label: Int32[np.ndarray, " points"], ids: Sequence[int], spacing: float
) -> int:
    """The object that objects `ids` touch with most points; 0 where they touch none."""
    from scipy.spatial import cKDTree

    reach = APART * spacing
    inside = np.isin(label, list(ids))
    if not inside.any():
        return 0
    low, high = xyz[inside].min(0) - reach, xyz[inside].max(0) + reach
    beside = np.flatnonzero(~inside & (label > 0) & ((xyz >= low) & (xyz <= high)).all(1))
    if not len(beside):
        return 0
    away, near = cKDTree(xyz[beside]).query(xyz[inside], distance_upper_bound=reach)
    touched = label[beside[near[np.isfinite(away)]]]
    return int(np.bincount(touched).argmax()) if len(touched) else 0
