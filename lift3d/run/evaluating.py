"""A run against the truth: the cloud's scores and those of its views, kept in the run folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from lift3d.association.votes.classes import class_maps, vote_classes, with_classes
from lift3d.evaluation.metrics.classes import BENCHMARKS
from lift3d.evaluation.metrics.panoptic import views_quality
from lift3d.evaluation.scores import Found, score
from lift3d.evaluation.truth import Truth, read_truth
from lift3d.geometry.visibility import DepthTolerance
from lift3d.run.run import Run
from lift3d.scene import Camera, LabelMap
from lift3d.scene.errors import InputError
from lift3d.scene.labelmaps import find_label_map, read_label_map
from lift3d.scene.storage import atomic


def evaluate(
    run: Run,
    truth: Path,
    benchmark: str = "scannet",
    classes: Path | None = None,
    views: Path | None = None,
    table: Path | None = None,
) -> Found:
    """Scores of a run, also written to `evaluation.json` in its folder.

    `classes`: a 2D labeller's class maps, voted onto the run's points in the ids of
    `benchmark`. `views`: true ids per picture. `table`: ScanNet's label table.
    """
    cloud = run.cloud
    if classes is not None:
        scene = run.whole_scene
        tolerance = DepthTolerance(**run.settings["tolerance"])
        semantic, _ = vote_classes(cloud.points, scene, class_maps(classes, scene), tolerance)
        cloud = with_classes(cloud, semantic)
    known = read_truth(truth, cloud, table)
    scores = score(cloud, run.confidence, known, BENCHMARKS.get(benchmark), run.scene.metric)
    pictures, notes = _views(run, known, views)
    found = {
        "truth": str(truth),
        **scores,
        "panoptic": [*scores["panoptic"], *pictures],
        "notes": [*known.notes, *notes],
        "consistency": run.consistency["printed"],
    }
    with atomic(run.files.evaluation) as part:
        part.write_text(json.dumps(found, indent=1))
    return found


def _views(run: Run, truth: Truth, views: Path | None) -> tuple[list[Found], list[str]]:
    """PQ of the run's pictures and of all together; why not, where there is none."""
    cameras = run.cameras
    load: Callable[[str], LabelMap | None]
    if views is not None:
        protocol = f"class-agnostic, true ids of {views}"
        load = _files(views)
        if not any(find_label_map(views, name) for name in cameras):
            raise InputError(
                f"{views} has no true ids of any picture of {run.folder}; expected "
                f"{next(iter(cameras), 'VIEW')}.png with an id per pixel"
            )
    elif truth.scene is not None and any(each.load_instances for each in truth.scene.views):
        known = {each.name: each for each in truth.scene.views}
        if not all(name in known and _same(known[name].camera, c) for name, c in cameras.items()):
            return [], ["no PQ of views: the truth's pictures are not those of the run"]
        protocol, void = truth.protocol, _void(truth)

        def load(name: str) -> LabelMap | None:
            labels = known[name].instances()
            return None if labels is None else np.where(np.isin(labels, void), 0, labels)
    else:
        return [], []

    def pairs() -> Iterator[tuple[LabelMap, LabelMap]]:
        for name in cameras:
            own, path = load(name), find_label_map(run.files.labels, name)
            if own is not None and path is not None:
                yield own, read_label_map(path)

    return [each.summary() for each in views_quality(pairs(), protocol)], []


def _files(folder: Path) -> Callable[[str], LabelMap | None]:
    def load(name: str) -> LabelMap | None:
        path = find_label_map(folder, name)
        return None if path is None else read_label_map(path)

    return load


def _void(truth: Truth) -> list[int]:
    """Ids that the truth knows and does not ask for."""
    if truth.everything is None:
        return []
    return np.setdiff1d(truth.everything, truth.instance).tolist()


def _same(a: Camera, b: Camera) -> bool:
    posed = a.world_from_camera is not None and b.world_from_camera is not None
    size = (a.width, a.height) == (b.width, b.height)
    return size and posed and bool(np.allclose(a.pose, b.pose, atol=1e-6))
