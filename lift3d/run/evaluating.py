"""Score a run against ground truth, its cloud and its views, and save the scores in its folder."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lift3d.association.votes.classes import vote_classes, with_classes
from lift3d.evaluation.metrics.classes import BENCHMARKS
from lift3d.evaluation.metrics.panoptic import views_quality
from lift3d.evaluation.scores import Found, score
from lift3d.evaluation.truth import Truth, read_truth
from lift3d.geometry.visibility import DepthTolerance
from lift3d.run.correct import read_automatic
from lift3d.run.exporting import unwritten
from lift3d.run.run import Run
from lift3d.scene import Camera, LabelMap
from lift3d.scene.errors import system_words
from lift3d.scene.labelmaps import LabelMaps, derived, true_label_maps
from lift3d.scene.storage import atomic


def evaluate(
    run: Run,
    truth: Path,
    benchmark: str = "scannet",
    classes: Path | None = None,
    views: Path | None = None,
    table: Path | None = None,
    automatic: bool = False,
) -> Found:
    """Scores of a run, also written to `evaluation.json` in its folder.

    Of a corrected run `labels` says so, and `automatic` has the scores before corrections; with
    `automatic` only these are computed. `classes`: a 2D labeller's class maps, voted onto the run's
    points in the ids of `benchmark`. `views`: true ids per picture. `table`: ScanNet's label table.
    """
    edits = run.corrections
    cloud, confidence, maps = run.cloud, run.confidence, run.files.labels
    if automatic:
        cloud, confidence, _ = read_automatic(run.files.automatic, run.points)
        maps = run.files.automatic.labels
    semantic = None
    if classes is not None:
        scene = run.whole_scene
        tolerance = DepthTolerance(**run.settings["tolerance"])
        voted = LabelMaps.found(classes, [view.name for view in scene.views], "class map")
        semantic, _ = vote_classes(cloud.points, scene, voted, tolerance)
        cloud = with_classes(cloud, semantic)
    known = read_truth(truth, cloud, table)
    asked = known, BENCHMARKS.get(benchmark), run.scene.metric
    scores = score(cloud, confidence, *asked)
    pictures, notes = _views(run, maps, known, views)
    before: Found = {}
    if edits and not automatic:
        was, ranking, _ = read_automatic(run.files.automatic, run.points)
        was = was if semantic is None else with_classes(was, semantic)
        before = {"automatic": score(was, ranking, *asked)}
    found = {
        **({"labels": "automatic" if automatic else f"corrected: {edits}"} if edits else {}),
        **before,
        "truth": str(truth),
        **scores,
        "panoptic": [*scores["panoptic"], *pictures],
        "notes": [*([unwritten(run)] if run.unwritten else []), *known.notes, *notes],
        "consistency": run.consistency["printed"],
    }
    run.check_same()
    try:
        with atomic(run.files.evaluation) as part:
            part.write_text(json.dumps(found, indent=1))
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        note = f"the scores are not kept: {system_words(error)}: {run.files.evaluation}"
        found["notes"] = [note, *found["notes"]]
    return found


def _views(run: Run, maps: Path, truth: Truth, views: Path | None) -> tuple[list[Found], list[str]]:
    """PQ of each of the run's pictures and of all together, with notes where there is none."""
    cameras = run.cameras
    known: Mapping[str, LabelMap]
    if views is not None:
        protocol = f"class-agnostic, true ids of {views}"
        known = LabelMaps.found(views, cameras, "true ids")
    elif truth.scene is not None and any(each.load_instances for each in truth.scene.views):
        pictures = {each.name: each.camera for each in truth.scene.views}
        if not all(name in pictures and _same(pictures[name], c) for name, c in cameras.items()):
            return [], ["no PQ of views: the truth's pictures are not those of the run"]
        protocol, void = truth.protocol, _void(truth)
        known = derived(
            true_label_maps(truth.scene), lambda _, ids: np.where(np.isin(ids, void), 0, ids)
        )
    else:
        return [], []
    own = LabelMaps.found(maps, cameras)
    pairs = ((known[name], own[name]) for name in own if name in known)
    return [each.summary() for each in views_quality(pairs, protocol)], []


def _void(truth: Truth) -> list[int]:
    """Ids of the truth that are not scored."""
    if truth.everything is None:
        return []
    return np.setdiff1d(truth.everything, truth.instance).tolist()


def _same(a: Camera, b: Camera) -> bool:
    posed = a.world_from_camera is not None and b.world_from_camera is not None
    size = (a.width, a.height) == (b.width, b.height)
    return size and posed and bool(np.allclose(a.pose, b.pose, atol=1e-6))
