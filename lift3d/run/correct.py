"""The stage `correct`: applies a person's corrections to the automatic results.

Automatic results stay unchanged in `automatic/`. This stage writes the public ones: the cloud, the
label maps, the list of objects. Without edits both are the same.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from lift3d.correction.edits import EditFile
from lift3d.correction.history import History, objects_of
from lift3d.correction.maps import Fates, corrected_map, shown_by_cloud
from lift3d.correction.state import Properties, State
from lift3d.correction.stored import StoredSets
from lift3d.export.instances import write_instances
from lift3d.export.ply import coloured_by_label, write_cloud
from lift3d.run.layout import Automatic, Layout
from lift3d.run.scene_file import read_points
from lift3d.run.schema import read_run_file
from lift3d.scene import LabelledPoints, LabelMap, Points, View, ids_in
from lift3d.scene.contents import content
from lift3d.scene.errors import InputError
from lift3d.scene.labelmaps import find_label_map, read_label_map, write_label_map
from lift3d.scene.palette import distinct_colours
from lift3d.scene.prefetch import prefetch
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


def automatic_map(layout: Layout, name: str) -> Path:
    """The file of a view's automatic label map; InputError where there is none."""
    path = find_label_map(layout.automatic.labels, name)
    if path is None:
        raise InputError(
            f"{layout.automatic.labels} has no label map of view {name}; remove "
            f"{layout.automatic.folder} and lift again"
        )
    return path


def open_history(
    layout: Layout, views: Mapping[str, tuple[int, int]], edited: bool = True
) -> History:
    """The automatic labels, ready to follow edits; `edited`: there are some.

    `views` has each view's height and width.
    """
    cloud, confidence, seen = read_automatic(layout.automatic, read_points(layout.points))
    points, labels = content(layout.points, layout.automatic.cloud)
    objects = objects_of(confidence, seen, cloud)
    largest = max(objects, default=0)
    if edited and not layout.automatic.assignments.exists():
        # Masks kept their own ids, and small ones are in the label maps only.
        maps = (read_label_map(automatic_map(layout, name)) for name in views)
        largest = max([largest, *(int(each.max(initial=0)) for each in maps)])
    state = State(
        cloud,
        f"{points} {labels}",
        layout.folder,
        objects,
        StoredSets(layout.folder),
        views,
        largest,
    )
    return History(state)


def correct(folder: Path, views: Sequence[View], tick: Tick) -> dict[str, Any]:
    """Write the public results of `views`; returns the stage's result."""
    layout = Layout(folder)
    edits = EditFile(layout.edits)
    torn = edits.repair()
    sizes = {each.name: (each.camera.height, each.camera.width) for each in views}
    made = edits.read()
    history = open_history(layout, sizes, bool(made))
    history.follow(made)
    write_corrected(layout, history, views, tick)
    warnings = [] if torn is None else [torn]
    warnings += [str(each) for each in history.doubts]
    warnings += [
        f"edit {each.edit.n} ({each.edit}) is applied, but {each}; look at it"
        for each in history.altered
        if not each.put_back
    ]
    if not made:
        return {"warnings": warnings, "edits": 0}
    return {"warnings": warnings, **vars(history.summary), "lines": len(made)}


def write_corrected(
    layout: Layout,
    history: History,
    views: Sequence[View],
    tick: Tick,
) -> None:
    """Write the cloud, the label maps and the list of objects as the edits make them."""
    state = history.state
    automatic = state.cloud
    palette = distinct_colours(automatic, state.whole)
    applied = len(history.doubts) < len(history.counting.active)
    cloud = state.corrected() if applied else automatic
    with fresh_folder(layout.labels) as part:
        if applied:
            seen = _write_maps(part, layout, state, views, tick)
            palette = state.with_chosen(distinct_colours(cloud, state.objects, palette))
        else:
            seen = {each: own.views for each, own in state.objects.items()}
            for number, view in enumerate(views, start=1):
                path = automatic_map(layout, view.name)
                shutil.copyfile(path, part / path.name)
                tick(number, len(views))
    write_cloud(layout.cloud, cloud)
    write_cloud(layout.cloud_labels, replace(cloud, points=coloured_by_label(cloud, palette)))
    write_instances(
        layout.instances,
        cloud,
        {each: own.confidence for each, own in state.objects.items()},
        seen,
        palette,
        {each: given_to(own) for each, own in state.objects.items()},
        history.summary.as_json(),
    )


def _write_maps(
    part: Path,
    layout: Layout,
    state: State,
    views: Sequence[View],
    tick: Tick,
) -> dict[int, int]:
    """Write each view's corrected label map; returns the number of views of each id."""
    fates = Fates.of(state)
    count: dict[int, int] = {}

    def made(view: View) -> tuple[str, LabelMap]:
        @cache
        def seen() -> Any:
            return shown_by_cloud(state.cloud.points, view)

        automatic = read_label_map(automatic_map(layout, view.name))
        return view.name, corrected_map(state, fates, view, automatic, seen)

    for number, (name, labels) in enumerate(prefetch(views, made), start=1):
        write_label_map(part, name, labels)
        for each in ids_in(labels).tolist():
            count[each] = count.get(each, 0) + 1
        tick(number, len(views))
    return count


def given_to(own: Properties) -> dict[str, Any]:
    """What a person gave an object, for its entry in `instances.json`; empty without edits."""
    found = {
        "name": own.name,
        "class": own.class_name,
        "edited": list(own.edited),
        "reviewed": own.reviewed,
    }
    return {name: value for name, value in found.items() if value}
