"""One object as the edits make it, and where it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from lift3d.correction.state import Properties
from lift3d.scene import Offset

Corner = tuple[float, float, float]


@dataclass(frozen=True)
class Extent:
    """How many points an object has, and where they are, in the world."""

    points: int
    centre: Corner | None = None
    low: Corner | None = None
    high: Corner | None = None

    @staticmethod
    def of(xyz: np.ndarray, offset: Offset) -> Extent:
        """Of points relative to a local origin."""
        if not len(xyz):
            return Extent(0)

        def place(at: Callable[..., Any]) -> Corner:
            x, y, z = (round(float(value), 4) for value in at(xyz, axis=0) + np.array(offset))
            return x, y, z

        return Extent(len(xyz), place(np.median), place(np.min), place(np.max))


@dataclass(frozen=True)
class CorrectedObject:
    """One object as the edits make it."""

    id: int
    points: int
    name: str
    class_name: str
    colour: str
    """As #rrggbb, where a person chose one; `Session.palette` has those of all."""
    confidence: float
    edited: tuple[int, ...]
    """Numbers of the edits that changed it."""
    reviewed: bool
    locked: bool
    automatic: bool
    """Whether the machine found it."""
    centre: Corner | None
    """Median of its points in the world, as in `instances.json`; None without points."""
    low: Corner | None
    high: Corner | None
    views: int
    """Number of automatic label maps with it; 0 for a new one."""


def described(each: int, own: Properties, extent: Extent) -> CorrectedObject:
    """An object from its properties and its extent."""
    return CorrectedObject(
        each,
        extent.points,
        own.name,
        own.class_name,
        own.colour,
        own.confidence,
        own.edited,
        own.reviewed,
        own.locked,
        own.automatic,
        extent.centre,
        extent.low,
        extent.high,
        own.views,
    )
