"""Clicks, and the points that they show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from lift3d.correction.clicks.place import Place, Seen


@dataclass(frozen=True, eq=False)
class Click:
    """A click in a view."""

    view: str
    xy: Float64[np.ndarray, "2"]
    """Column and row."""
    positive: bool

    @property
    def pixel(self) -> tuple[int, int]:
        """Row and column of its pixel."""
        column, row = (int(np.floor(each + 0.5)) for each in self.xy)
        return row, column


@dataclass(frozen=True)
class PointClick:
    """A click on a point of the cloud, in no view."""

    point: int
    positive: bool


def in_best_view(place: Place, click: PointClick) -> Click | None:
    """The click as one in the view of those `compared` that sees most of what its point is on; None
    where none sees the point.
    """
    piece, names = place.surface.superpoint[click.point], place.compared
    count = place.pieces_seen[:, piece] if piece >= 0 else np.ones(len(names), int)
    for number in np.argsort(-count, kind="stable"):
        seen = place.seen(names[number]).points
        at = np.flatnonzero(seen.point == click.point)
        if len(at):
            xy = np.array([seen.column[at[0]], seen.row[at[0]]], np.float64)
            return Click(names[number], xy, click.positive)
    return None


def pointed(place: Place, clicks: Sequence[Click]) -> tuple[list[int], list[int]]:
    """The points of positive and of negative clicks beside a mask, in the order of the clicks.

    A correction often lies where nothing was measured: it says nothing of the points there.
    """
    found: tuple[list[int], list[int]] = ([], [])
    for click in clicks:
        point = point_at(place, click.view, click.xy)
        if point is not None and measured_at(place.seen(click.view), click.xy):
            found[0 if click.positive else 1].append(point)
    return found


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
