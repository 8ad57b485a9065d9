"""The stage `correct`: applies a person's corrections to the automatic results.

Automatic results stay unchanged in `automatic/`. This stage writes the public ones: the cloud, the
label maps, the list of objects. Without edits both are the same.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from lift3d.export.instances import write_instances
from lift3d.export.ply import coloured_by_label, write_cloud
from lift3d.run.layout import Automatic, Layout
from lift3d.run.scene_file import read_points
from lift3d.run.schema import read_run_file
from lift3d.scene import LabelledPoints, Points
from lift3d.scene.errors import InputError
from lift3d.scene.guarded import load_text
from lift3d.scene.labelmaps import find_label_map
from lift3d.scene.progress import Tick
from lift3d.scene.storage import atomic, fresh_folder, load_arrays, save_arrays


@dataclass(frozen=True, eq=False)
class Labels:
    """The result of the association for each point."""

    instance: Int32[np.ndarray, " points"]
    score: Float32[np.ndarray, " points"]
    semantic: Int32[np.ndarray, " points"] | None = None


def write_automatic(
    automatic: Automatic,
    cloud: LabelledPoints,
    confidence: Mapping[int, float],
    views: Mapping[int, int],
) -> None:
    """Write the labels of the points, and each object's confidence and number of views."""
    save_arrays(automatic.cloud, vars(Labels(cloud.instance, cloud.score, cloud.semantic)))
    content = {
        "objects": [
            {"id": each, "confidence": confidence[each], "views": views.get(each, 0)}
            for each in sorted(confidence)
        ]
    }
    with atomic(automatic.objects) as part:
        part.write_text(json.dumps(content, indent=1))


def read_automatic(
    automatic: Automatic, points: Points
) -> tuple[LabelledPoints, dict[int, float], dict[int, int]]:
    """The automatic cloud, and each object's confidence and number of views, by id."""
    labels = load_arrays(automatic.cloud, Labels)
    objects = read_run_file(automatic.objects)["objects"]
    confidence = {each["id"]: float(each["confidence"]) for each in objects}
    views = {each["id"]: each["views"] for each in objects}
    if len(labels.instance) != len(points):
        raise InputError(
            f"{automatic.cloud} has labels of {len(labels.instance)} points, the cloud has "
            f"{len(points)}; remove {automatic.folder} and lift again"
        )
    cloud = LabelledPoints(points, labels.instance, labels.score, labels.semantic)
    return cloud, confidence, views


def correct(folder: Path, names: Sequence[str], tick: Tick) -> dict[str, Any]:
    """Write the public results of the views `names`; returns the stage's result."""
    layout = Layout(folder)
    if layout.edits.is_file() and load_text(layout.edits).strip():
        raise InputError(
            f"{layout.edits} holds edits, which this version of lift3d cannot apply; move the file "
            "away to see the automatic labels, or use a version that can"
        )
    cloud, confidence, views = read_automatic(layout.automatic, read_points(layout.points))
    with fresh_folder(layout.labels) as part:
        for number, name in enumerate(names, start=1):
            path = find_label_map(layout.automatic.labels, name)
            if path is None:
                raise InputError(
                    f"{layout.automatic.labels} has no label map of view {name}; remove "
                    f"{layout.automatic.folder} and lift again"
                )
            shutil.copyfile(path, part / path.name)
            tick(number, len(names))
    write_cloud(layout.cloud, cloud)
    write_cloud(layout.cloud_labels, replace(cloud, points=coloured_by_label(cloud)))
    write_instances(layout.instances, cloud, confidence, views)
    return {"edits": 0}
