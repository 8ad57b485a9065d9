"""The points that clicks mean, and clicks that mean none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int32

from lift3d.correction.clicks.place import Place, Seen

EDGE = 0.01
"""Share of the width up to which a click is at the edge of two things. Chosen by hand."""


@dataclass(frozen=True, eq=False)
class Click:
    """A click in a view."""

    view: str
    xy: Float64[np.ndarray, "2"]
    """Column and row."""
    positive: bool


def pointed(place: Place, clicks: Sequence[Click], masks: bool) -> tuple[list[int], list[int]]:
    """The points of positive and of negative clicks, in the order in which they were made.

    A correction often lies where the point of a pixel is wrong: where nothing was measured, or at
    the edge of two things. It says nothing of the points there, if others do: `masks`, or a
    positive click that was measured.
    """
    points = [point_at(place, each.view, each.xy) for each in clicks]
    sure = [measured_at(place.seen(each.view), each.xy) for each in clicks]
    first = [on.positive and point is not None for on, point in zip(clicks, points, strict=True)]
    enough = masks or any(a and b for a, b in zip(sure, first, strict=True))
    meant: set[int] = set()
    found: tuple[list[int], list[int]] = ([], [])
    for click, point, measured in zip(clicks, points, sure, strict=True):
        if point is None or (enough and not measured):
            continue
        own = int(_objects(place, np.array([point], np.int32))[0])
        if not masks and meant and _at_edge(place, click, own, meant):
            continue
        if click.positive:
            meant.add(own)
        found[0 if click.positive else 1].append(point)
    return found


def _at_edge(place: Place, click: Click, own: int, meant: set[int]) -> bool:
    """Whether the other side of what is meant so far is beside a click."""
    seen = place.seen(click.view)
    if seen.measured is None or seen.nearest is None or (own in meant) == click.positive:
        return False
    column, row = (int(np.floor(each + 0.5)) for each in click.xy)
    reach = max(1, round(EDGE * seen.nearest.shape[1]))
    low = max(row - reach, 0), max(column - reach, 0)
    around = seen.nearest[low[0] : row + reach + 1, low[1] : column + reach + 1]
    beside = _objects(place, around[around >= 0])
    return bool((np.isin(beside, list(meant)) == click.positive).any())


def _objects(place: Place, points: Int32[np.ndarray, " some"]) -> Int32[np.ndarray, " some"]:
    """The object of each point in the run; 0 none."""
    if place.label is not None:
        return place.label[points]
    return np.append(place.surface.object, np.int32(0))[place.surface.superpoint[points]]


def point_at(place: Place, name: str, xy: np.ndarray, near: float = 8.0) -> int | None:
    """The point that a pixel (column, row) shows; None where none is within `near` pixels."""
    seen = place.seen(name)
    column, row = (int(np.floor(each + 0.5)) for each in xy)
    if seen.nearest is not None and (seen.nearest[row, column] >= 0 or seen.superpixels is None):
        point = int(seen.nearest[row, column])
        return point if point >= 0 else None
    away = np.hypot(seen.points.column - xy[0], seen.points.row - xy[1])
    best = int(np.argmin(away)) if len(away) else -1
    return int(seen.points.point[best]) if best >= 0 and away[best] <= near else None


def measured_at(seen: Seen, xy: Float64[np.ndarray, "2"]) -> bool:
    """Whether a pixel (column, row) is measured; all are where superpixels fill the view."""
    column, row = (int(np.floor(each + 0.5)) for each in xy)
    return seen.measured is None or bool(seen.measured[row, column])
