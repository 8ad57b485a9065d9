"""`instances.json`: the objects of a cloud, for programs that do not need the points."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lift3d.scene import LabelledPoints
from lift3d.scene.colours import Palette
from lift3d.scene.palette import distinct_colours
from lift3d.scene.storage import atomic


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
    """Mean of the score of its points, 0 to 1."""
    colour: str
    """As #rrggbb, in every picture of the run."""
    centre: tuple[float, float, float] | None
    """Median of its points in the world; None without points."""
    low: tuple[float, float, float] | None
    """Corner of its box along the axes."""
    high: tuple[float, float, float] | None
    name: str = ""
    """Given by a person, as are the next three."""
    class_name: str = ""
    edited: tuple[int, ...] = ()
    """Numbers of the edits that changed it; none for an object as the machine found it."""
    reviewed: bool = False
    """Whether a person accepted it as it is."""


def write_instances(
    path: Path,
    cloud: LabelledPoints,
    confidence: Mapping[int, float],
    views: Mapping[int, int],
    palette: Palette | None = None,
    given: Mapping[int, Mapping[str, Any]] | None = None,
    edits: Mapping[str, int] | None = None,
) -> None:
    """Write one entry per id above 0, ascending; places are world coordinates.

    `confidence`: confidence of each id, 0 to 1; `views`: number of views that see each id;
    `palette`: colours, by default those of `distinct_colours`; `given`: what a person gave an id,
    added to its entry; `edits`: number of edits, people and doubts, where there are edits.
    """
    content: dict[str, Any] = {
        "points": len(cloud),
        "unlabelled": int(np.count_nonzero(cloud.instance <= 0)),
        "instances": [
            entry | dict((given or {}).get(entry["id"], {}))
            for entry in list_instances(cloud, confidence, views, palette)
        ],
    }
    if edits:
        content["edits"] = dict(edits)
    with atomic(path) as part:
        part.write_text(json.dumps(content, indent=1))


def list_instances(
    cloud: LabelledPoints,
    confidence: Mapping[int, float],
    views: Mapping[int, int],
    palette: Palette | None = None,
) -> list[dict[str, Any]]:
    """id, points, bbox, centre (median), views, score (mean), confidence, colour of each object.

    For an id of `confidence` without points, bbox and centre are None.
    """
    order = np.argsort(cloud.instance, kind="stable")
    found, starts = np.unique(cloud.instance[order], return_index=True)
    members = dict(zip(found.tolist(), np.split(order, starts[1:]), strict=False))
    ids = sorted({each for each in (*members, *confidence) if each > 0})
    palette = distinct_colours(cloud, ids) if palette is None else palette
    entries = []
    for each in ids:
        index = members.get(each, order[:0])
        xyz = cloud.points.xyz[index]
        offset = np.array(cloud.points.offset)
        box, centre = None, None
        if len(index):
            box = {"min": _rounded(xyz.min(0) + offset), "max": _rounded(xyz.max(0) + offset)}
            centre = _rounded(np.median(xyz, axis=0) + offset)
        entries.append(
            {
                "id": each,
                "points": len(index),
                "bbox": box,
                "centre": centre,
                "views": int(views.get(each, 0)),
                "score": round(float(cloud.score[index].mean()), 4) if len(index) else 0.0,
                "confidence": round(float(confidence.get(each, 0.0)), 6),
                "colour": "#{:02x}{:02x}{:02x}".format(*palette[each]),
            }
        )
    return entries


def _rounded(xyz: np.ndarray) -> list[float]:
    """Coordinates rounded to 4 decimals, for readability."""
    return [round(float(value), 4) for value in xyz]
