"""The superpoints that clicks mean, where no mask is given: nested nodes of the tree of joins.

The first click means the object of its point. A further one says that something is missing, or too
much: of the nested nodes that hold it, that one is added or taken away which fits best to how a
person corrects; or all is taken away but a node around the first click. The click is in the middle
of what is wrong, of the largest part of it, in the view that shows it well; and the first click is
in the middle of the object. Where no node fits, the click says nothing of the points: it often lies
on what is behind or beside the object. A box (`boxing.py`) may stand for the first click.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int32

from lift3d.correction.clicks.asking import inner_points
from lift3d.correction.clicks.boxing import NO_BOXES, Boxes, boxed, shown
from lift3d.correction.clicks.gaps import beside
from lift3d.correction.clicks.nodes import objects_of
from lift3d.correction.clicks.place import Place
from lift3d.correction.clicks.pointing import (
    Click,
    PointClick,
    in_best_view,
    measured_at,
    point_at,
)
from lift3d.scene.errors import InputError

FITS = 0.3
"""Least fit of a node. After 3 clicks the mean IoU on rooms 0 and 2, shelf and kitchen is 0.761,
with 0.2 it is 0.763; but a click at the rim of a thing in room 3 takes it from 0.97 to 0.06."""
AWAY, FITS_AWAY = 0.03, 0.1
"""The same for what is missing this share of the width, or more, away from what is meant: such a
click is on no border. After 3 and 5 clicks the mean IoU on kitchen, living room, shelf, rooms 0, 2
and 3 is 0.804 and 0.836, without this rule 0.798 and 0.819 (living room 0.915 and 0.892)."""
GROWN = 1.05
"""A node is looked at if it changes more points than the last one by this factor."""
LEEWAY = 0.05
"""Added to how much in the middle the first click is, before and after."""

OWN = 2
"""Value of the pixels of the part that a pixel is in."""


@dataclass(eq=False)
class Meant:
    """What the clicks on one object mean, one click after the other."""

    place: Place
    pieces: Bool[np.ndarray, " superpoints"]
    """The superpoints that are meant."""
    positive: list[int] = field(default_factory=list)
    negative: list[int] = field(default_factory=list)
    """Points of the clicks that say something of the points."""
    first: Click | None = None
    _points: dict[str, Int32[np.ndarray, "height width"] | None] = field(default_factory=dict)
    _superpoint: dict[str, Int32[np.ndarray, "height width"]] = field(default_factory=dict)

    def add(self, click: Click) -> None:
        """One more click."""
        if click.positive and self.first is None:
            self._add_first(click)
            return
        seen, told = self._shown(click.view), self._told(click.positive)
        if seen is None:
            point = point_at(self.place, click.view, click.xy)
            if point is not None:
                told.append(point)
                if click.positive:
                    self.pieces |= self._object(point)
            return
        point = int(seen[click.pixel])
        if point < 0 or not measured_at(self.place.seen(click.view), click.xy):
            return
        own = self.place.surface.superpoint[point]
        if self.pieces[own] == click.positive:
            told.append(point)
            return
        change = self._best(click, point, FITS_AWAY if self._away(click) else FITS)
        if change is not None:
            self.pieces[change] = click.positive
            told.append(point)

    def add_boxes(self, boxes: Boxes) -> None:
        """Boxes around the object. The middle of what they hold stands for the first click."""
        self.pieces |= boxed(self.place, boxes)
        for view, box in boxes.items():
            inner = inner_points(shown(self.place, view, self.pieces, box), 1)
            if self.first is None and len(inner):
                self.begin(Click(view, inner[0], True))

    def _add_first(self, click: Click) -> None:
        point = self.begin(click)
        if point is not None:
            self.pieces |= self._object(point)

    def begin(self, click: Click | PointClick) -> int | None:
        """Take a click as the first one, if a point is near; its point."""
        if isinstance(click, PointClick):
            self.first = in_best_view(self.place, click)
            self.positive.append(click.point)
            return click.point
        seen = self._shown(click.view)
        if seen is None:
            found = point_at(self.place, click.view, click.xy)
        else:
            found = int(beside(seen)[click.pixel])
        if found is None or found < 0:
            return None
        self.first = click
        self.positive.append(found)
        return found

    def _told(self, positive: bool) -> list[int]:
        return self.positive if positive else self.negative

    def _contrary(self, click: Click) -> set[int]:
        """The pieces of clicks of the other kind."""
        of_points = self.place.surface.superpoint[self._told(not click.positive)]
        return set(of_points[of_points >= 0].tolist())

    def _object(self, point: int) -> Bool[np.ndarray, " superpoints"]:
        place = self.place
        return objects_of(place.tree, [point], place.object_of_piece, place.label)

    def _best(
        self, click: Click, point: int, least: float
    ) -> Bool[np.ndarray, " superpoints"] | None:
        """The superpoints that a correction adds or takes away; None where none fit."""
        contrary = list(self._contrary(click))
        other = self.pieces != click.positive
        before = 1.0 if self.first is None else self._middle(self.first, self.pieces)
        highest = (1 + LEEWAY) / (before + LEEWAY)
        best, most = None, least
        for leaves in self._candidates(point, click.positive, other):
            if other[contrary][leaves[contrary]].any():
                continue  # another click says that some of it is right
            change = leaves & other
            fit = self._shows(click.view, change)
            if fit * highest > most:
                fit *= self._middle(click, change, of_all=True)
            if fit * highest > most and self.first is not None:
                after = self._middle(self.first, np.where(change, click.positive, self.pieces))
                fit *= (after + LEEWAY) / (before + LEEWAY)
            if fit > most:
                best, most = change, fit
        return best

    def _candidates(
        self, point: int, positive: bool, other: Bool[np.ndarray, " superpoints"]
    ) -> Iterator[Bool[np.ndarray, " superpoints"]]:
        """What a correction may mean: nodes that hold its point, and the object there in a run; of
        what is too much, also all that is outside of a node with the first click.
        """
        place, tree = self.place, self.place.tree
        sizes = tree.sums(place.sizes * other.astype(np.float64))
        large = 0.0
        for node in tree.path(point):
            if sizes[node] > GROWN * large:
                yield tree.leaves_of(node)
                large = sizes[node]
        if place.label is not None and place.label[point] > 0:
            yield self._object(point)
        if positive or not self.positive:
            return
        sizes = tree.sums(place.sizes * self.pieces.astype(np.float64))
        large = 0.0
        for node in tree.path(self.positive[0]):
            if tree.holds(node, point):
                return
            if sizes[node] > GROWN * large:
                yield ~tree.leaves_of(node)
                large = sizes[node]

    def _away(self, click: Click) -> bool:
        """Whether a click on something that is missing is well away from what is meant."""
        import cv2

        if self._shown(click.view) is None or not click.positive:
            return False
        free = ~np.append(self.pieces, False)[self._superpoint[click.view]]
        away = cv2.distanceTransform(free.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return bool(away[click.pixel] >= AWAY * free.shape[1])

    def _middle(
        self, click: Click, pieces: Bool[np.ndarray, " superpoints"], of_all: bool = False
    ) -> float:
        if self._shown(click.view) is None:
            return 1.0
        region = np.append(pieces, False)[self._superpoint[click.view]]
        return middle(region, click.pixel, of_all)

    def _shows(self, view: str, pieces: Bool[np.ndarray, " superpoints"]) -> float:
        """How many points of some pieces a view sees, relative to the view that sees most of those
        that are compared.
        """
        place = self.place
        count = place.pieces_seen[:, pieces].sum(1)
        if view in place.compared:
            own = count[place.compared.index(view)]
        else:
            own = place.pieces_in(view)[pieces].sum()
        return float(own / max(*count, own, 1))

    def _shown(self, view: str) -> Int32[np.ndarray, "height width"] | None:
        """The point of each pixel, of those in superpoints; -1 where superpixels fill the view.
        None in a view without depth.
        """
        if view not in self._points:
            seen = self.place.seen(view)
            found = seen.nearest
            if found is not None:
                in_piece = np.append(self.place.surface.superpoint, np.int32(-1)) >= 0
                found = np.where(in_piece[found], found, np.int32(-1))
                found = beside(found) if seen.superpixels is None else found
                self._superpoint[view] = np.append(self.place.surface.superpoint, np.int32(-1))[
                    found
                ]
            self._points[view] = found
        return self._points[view]


def meant(place: Place, clicks: Sequence[Click], boxes: Boxes = NO_BOXES) -> Meant:
    """What boxes and then clicks mean; without boxes the first click on the object comes first."""
    found = Meant(place, np.zeros(len(place.surface.object), bool))
    if boxes:
        found.add_boxes(boxes)
    first = [each for each in clicks if each.positive and not boxes][:1]
    for click in [*first, *(each for each in clicks if each not in first)]:
        found.add(click)
    return found


def corrected(
    place: Place,
    clicks: Sequence[Click | PointClick],
    level: int | None = None,
    boxes: Boxes = NO_BOXES,
) -> tuple[Meant, int, int]:
    """What clicks mean, in their order, where the first one chose a node of the tree; the node's
    level, and how many there are. Where there are boxes, all clicks correct these, and the one
    level is 0.

    `level` counts from the superpoint of the first click up; None is the node that became its
    object. Clicks in the cloud are taken as clicks in the view that sees most of what they are on.
    InputError where the first click is on no point or is negative, or the boxes hold nothing.
    """
    found = Meant(place, np.zeros(len(place.surface.object), bool))
    if boxes:
        found.add_boxes(boxes)
        if not found.pieces.any():
            raise InputError("nothing was measured in this box, or only what goes on beyond it")
        level, levels, others = 0, 1, clicks
    elif not clicks:
        raise InputError("a click on the object is needed, or a box around it")
    else:
        first, *others = clicks
        point = found.begin(first)
        if point is None or not first.positive:
            raise InputError("the first click has to be on a point of the object")
        level, path = place.tree.level(point, level)
        found.pieces |= place.tree.leaves_of(path[level])
        levels = len(path)
    for each in others:
        in_view = in_best_view(place, each) if isinstance(each, PointClick) else each
        if in_view is not None:
            found.add(in_view)
    return found, level, levels


def middle(
    region: Bool[np.ndarray, "height width"], pixel: tuple[int, int], of_all: bool = False
) -> float:
    """How far a pixel (row, column) is from the border of its part of a region, relative to the
    pixel of that part that is farthest; 0 outside of the region. The image's border is a border.
    `of_all`: times the size of the part, relative to the largest one.

    >>> middle(np.ones((1, 5), bool), (0, 2)), middle(np.ones((5, 5), bool), (2, 1))
    (1.0, 0.67)
    >>> middle(np.array([[True, False, True, True]]), (0, 0), of_all=True)
    0.5
    """
    import cv2

    inside = np.pad(region.astype(np.uint8), 1)
    row, column = pixel[0] + 1, pixel[1] + 1
    if not inside[row, column]:
        return 0.0
    total = np.count_nonzero(inside)
    size, _, _, (x, y, wide, high) = cv2.floodFill(inside, None, (column, row), OWN, flags=4)
    own = inside[y - 1 : y + high + 1, x - 1 : x + wide + 1] == OWN
    away = cv2.distanceTransform(own.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    share = 1.0
    if of_all and 2 * size < total:  # else it is the largest
        parts = cv2.connectedComponentsWithStats(inside, connectivity=4)[2]
        share = size / parts[1:, cv2.CC_STAT_AREA].max()
    return round(float(share * away[row - y + 1, column - x + 1] / away.max()), 2)
