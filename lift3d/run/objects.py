"""The objects of a run, as `instances.json` lists them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lift3d.scene.errors import InputError


@dataclass(frozen=True)
class Object:
    """One object: points of the scene with one id in all views."""

    id: int
    points: int
    """Number of its points in the cloud."""
    views: int
    """Number of label maps that contain it."""
    confidence: float
    """How well the views support it, 0 to 1; AP ranks the objects by it."""
    score: float
    """Mean over its points of the share of votes for it, 0 to 1."""
    colour: str
    """As #rrggbb, in every picture of the run."""
    centre: tuple[float, float, float] | None
    """Median of its points in the world; None without points."""
    low: tuple[float, float, float] | None
    """Corner of its box along the axes."""
    high: tuple[float, float, float] | None


def read_objects(content: Mapping[str, Any], path: Path) -> tuple[Object, ...]:
    """Objects from the content of `instances.json`; InputError where it has another structure."""
    try:
        return tuple(_object(each) for each in content["instances"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error!r}); remove it and lift again") from error


def confidences(path: Path) -> dict[int, float]:
    """The confidence of each object, from `instances.json`."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); remove it and lift again") from error
    return {each.id: each.confidence for each in read_objects(content, path)}


def _object(entry: Mapping[str, Any]) -> Object:
    box = entry["bbox"]
    return Object(
        id=int(entry["id"]),
        points=int(entry["points"]),
        views=int(entry["views"]),
        confidence=float(entry["confidence"]),
        score=float(entry["score"]),
        colour=str(entry["colour"]),
        centre=None if entry["centre"] is None else tuple(entry["centre"]),
        low=None if box is None else tuple(box["min"]),
        high=None if box is None else tuple(box["max"]),
    )
