"""The objects of a run, as `instances.json` lists them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lift3d.export.instances import Object
from lift3d.run.schema import read_run_file


def read_objects(content: Mapping[str, Any]) -> tuple[Object, ...]:
    """Objects from the content of `instances.json`."""
    return tuple(_object(each) for each in content["instances"])


def confidences(path: Path) -> dict[int, float]:
    """The confidence of each object, from `instances.json`."""
    return {each.id: each.confidence for each in read_objects(read_run_file(path))}


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
