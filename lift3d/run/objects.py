"""The objects of a run, as `instances.json` lists them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lift3d.export.instances import Object
from lift3d.scene.errors import InputError


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
        name=str(entry.get("name", "")),
        class_name=str(entry.get("class", "")),
        edited=tuple(int(each) for each in entry.get("edited", ())),
        reviewed=bool(entry.get("reviewed", False)),
    )
