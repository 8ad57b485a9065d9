"""Which points each view sees, and with them which views show an object or a place best.

Computed once in the background, since no edit changes what is visible; labels are looked up when
they are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from lift3d.geometry.visibility import Sightings
from lift3d.run.report.best_views import CUT, Box
from lift3d.run.run import Run

MOST = 60_000_000
"""Points of all views together that are kept: 700 MB. Of views that see more, an even part."""
NEAR = 32
"""Points around a place that stand for it in a view that does not see the very point."""
BORDER = 3
"""An object with points this near to the border of a picture may be cut by it, in pixels."""


@dataclass(frozen=True)
class Best:
    """The view that shows an object best, and the box around its points there."""

    view: int
    box: Box


class Seen:
    """Points by view. Views that are not done yet do not count."""

    def __init__(self, run: Run) -> None:
        self._run, self._edits = run, run.edits
        self.names = list(run.cameras)
        self._sightings: list[Sightings | None] = [None] * len(self.names)
        self._counts: list[tuple[int, dict[int, int]]] = [(-1, {})] * len(self.names)
        self._stopped = False

    @property
    def ready(self) -> bool:
        """Whether every view is done."""
        return all(each is not None for each in self._sightings)

    def fill(self) -> None:
        """Look at every view; takes seconds."""
        for number, name in enumerate(self.names):
            if self._stopped:
                return
            if self._sightings[number] is None:
                self._sightings[number] = _part(self._edits.seen(name), MOST // len(self.names))

    def stop(self) -> None:
        """Look at no further view."""
        self._stopped = True

    def changed(self, which: int) -> int:
        """The number of the last edit that changed an object; 0 where none did."""
        return max(self._edits.object(which).edited, default=0)

    def counts(self, view: int) -> dict[int, int]:
        """Number of points of each object that a view sees, at the present revision."""
        sightings, revision = self._sightings[view], self._edits.revision
        if sightings is None:
            return {}
        if self._counts[view][0] != revision:
            label = np.maximum(self._edits.label[sightings.point], 0)
            ids, number = np.unique(label, return_counts=True)
            self._counts[view] = revision, dict(zip(ids.tolist(), number.tolist(), strict=True))
        return self._counts[view][1]

    def views_of_objects(self, ids: list[int]) -> list[tuple[int, int]]:
        """Views that show any of the objects, and the number of their points; most first."""
        found = []
        for view in range(len(self.names)):
            counts = self.counts(view)
            number = sum(counts.get(each, 0) for each in ids)
            if number:
                found.append((view, number))
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))

    def views_of_points(self, index: Int64[np.ndarray, " points"]) -> int | None:
        """How many views see any of the points; None until every view is done."""
        if not self.ready:
            return None
        wanted = np.zeros(len(self._run.points), bool)
        wanted[index] = True
        return sum(bool(wanted[each.point].any()) for each in self._sightings if each is not None)

    def best(self, which: int) -> Best | None:
        """The view with most points of an object; fewer count where the border may cut it."""
        best, value = None, 0.0
        for view, number in self.views_of_objects([which]):
            if number <= value:
                break
            box, whole = self._box(view, which)
            worth = number * (1.0 if whole else CUT)
            if worth > value:
                best, value = Best(view, box), worth
        return best

    def _box(self, view: int, which: int) -> tuple[Box, bool]:
        sightings = self._sightings[view]
        assert sightings is not None
        camera = self._run.cameras[self.names[view]]
        own = self._edits.label[sightings.point] == which
        rows, columns = sightings.row[own], sightings.column[own]
        box = int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1
        whole = (
            box[0] >= BORDER
            and box[2] >= BORDER
            and box[1] <= camera.height - BORDER
            and box[3] <= camera.width - BORDER
        )
        return box, whole

    def views_of_point(self, point: int) -> list[tuple[int, int, int]]:
        """Views that see a point, with its column and row; the largest and squarest first."""
        xyz = self._run.points.xyz
        away = ((xyz - xyz[point]) ** 2).sum(1)
        near = np.argpartition(away, min(NEAR, len(away) - 1))[:NEAR]
        near = near[np.argsort(away[near], kind="stable")]
        found = []
        for view, sightings in enumerate(self._sightings):
            if sightings is None or not len(sightings):
                continue
            places = np.minimum(np.searchsorted(sightings.point, near), len(sightings) - 1)
            seen = np.flatnonzero(sightings.point[places] == near)
            if len(seen):
                place = places[seen[0]]
                column, row = int(sightings.column[place]), int(sightings.row[place])
                found.append((self._worth(view, point, column, row), view, column, row))
        found.sort(key=lambda each: (-each[0], each[1]))
        return [(view, column, row) for _, view, column, row in found]

    def _worth(self, view: int, point: int, column: int, row: int) -> float:
        """How well a view shows a point: near, from the front, away from the picture's border."""
        camera = self._run.cameras[self.names[view]]
        normal = self._run.points.normal[point].astype(np.float64)
        ray = camera.pose[:3, 3] - self._run.points.xyz[point]
        far = max(float(np.linalg.norm(ray)), 1e-9)
        facing = float(normal @ ray) / far if normal.any() else 1.0
        across, down = (column + 0.5) / camera.width, (row + 0.5) / camera.height
        inside = 2 * min(across, down, 1 - across, 1 - down)
        focal = float(camera.K[0, 0]) / camera.width
        return max(facing, 0.05) * (focal / far) ** 2 * min(1.0, 0.2 + 1.6 * inside)


def _part(sightings: Sightings, most: int) -> Sightings:
    """At most so many points of a view, evenly chosen."""
    step = -(-len(sightings) // max(most, 1))
    if step <= 1:
        return sightings
    return Sightings(*(value[::step] for value in vars(sightings).values()))
