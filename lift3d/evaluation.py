"""A run against the truth: objects, classes and views, each number with its protocol."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, Int64

from lift3d.errors import InputError
from lift3d.export.ply import read_cloud
from lift3d.export.scene_json import read_cameras
from lift3d.labelmaps import find_label_map, read_label_map
from lift3d.metrics.classes import BENCHMARKS, Benchmark
from lift3d.metrics.panoptic import SharedPixels, views_quality
from lift3d.metrics.scannet import average_precision, class_agnostic
from lift3d.metrics.semantic import semantic_score
from lift3d.metrics.submission import predictions
from lift3d.reconstructed import CAMERAS, reopened
from lift3d.runs import read_json
from lift3d.scene import Camera, LabelledPoints, LabelMap
from lift3d.semantics import class_maps, classes_of_objects, vote_classes, with_classes
from lift3d.storage import atomic
from lift3d.truth import Asked, Truth, read_truth

REACH = 0.1
"""A vertex further than this from every point of the cloud (in metres) stays unlabelled."""
EVALUATION = "evaluation.json"
Found = dict[str, Any]


def evaluate(
    folder: Path,
    truth: Path,
    benchmark: str = "scannet",
    classes: Path | None = None,
    views: Path | None = None,
    table: Path | None = None,
) -> Found:
    """Scores of the run in `folder`, also written to `evaluation.json` there.

    `classes`: a 2D labeller's class maps, voted onto the run's points in the ids of
    `benchmark`. `views`: true ids per picture. `table`: ScanNet's label table.
    """
    consistency = read_json(folder, "consistency.json")
    cloud = read_cloud(folder / "cloud.ply")
    if classes is not None:
        scene = reopened(folder)
        semantic, _ = vote_classes(cloud.points, scene, class_maps(classes, scene))
        cloud = with_classes(cloud, semantic)
    known = read_truth(truth, cloud, table)
    scores = score(cloud, confidences(folder / "instances.json"), known, BENCHMARKS.get(benchmark))
    pictures, notes = _views(folder, known, views)
    found = {
        "truth": str(truth),
        **scores,
        "panoptic": [*scores["panoptic"], *pictures],
        "notes": [*known.notes, *notes],
        "consistency": consistency["printed"],
    }
    with atomic(folder / EVALUATION) as part:
        part.write_text(json.dumps(found, indent=1))
    return found


def score(
    cloud: LabelledPoints,
    confidence: dict[int, float],
    truth: Truth,
    benchmark: Benchmark | None = None,
) -> Found:
    """Every score of a labelled cloud, each with its protocol in words.

    `scores` and `panoptic` list them all; `ap`, `ap50`, `ap25` and `protocol` are those of the
    first of `scores`. None where there is nothing to find. Classes are scored where both
    cloud and truth have them; the cloud's are taken to be ids of `benchmark`.
    """
    nearest = nearest_points(cloud, truth.points)
    predicted = _taken(cloud.instance, nearest)
    scores, panoptic = [], []
    for asked in truth.asked():
        protocol = _in_words(asked, truth)
        scores.append(class_agnostic(asked.instance, predicted, confidence, protocol).summary())
        shared = SharedPixels()
        shared.add(asked.instance, predicted)
        panoptic.append(shared.quality(f"PQ of points, {protocol}").summary())
    found: Found = {**scores[0], "scores": scores, "panoptic": panoptic}
    if cloud.semantic is None:
        return found
    with_class = _classes(cloud, confidence, truth, benchmark, nearest)
    scores += with_class.pop("scores", [])
    panoptic += with_class.pop("panoptic", [])
    return {**found, **with_class}


def _classes(
    cloud: LabelledPoints,
    confidence: dict[int, float],
    truth: Truth,
    benchmark: Benchmark | None,
    nearest: Int64[np.ndarray, " vertices"],
) -> Found:
    """AP with classes, IoU of classes, PQ with things and stuff."""
    assert cloud.semantic is not None
    objects, semantic = _taken(cloud.instance, nearest), _taken(cloud.semantic, nearest)
    of_object = classes_of_objects(cloud.instance, cloud.semantic)
    known = truth.annotation
    label = truth.semantic
    things: tuple[int, ...] = ()
    stuff: tuple[int, ...] = ()
    names: dict[int, str] = {}
    if known is not None and benchmark is not None:
        label = known.classes(benchmark)
        things, stuff, names = benchmark.things, benchmark.stuff, benchmark.names
        name = benchmark.name
    elif label is not None:
        name = "the truth's own classes"
        things = tuple(each for each in np.unique(label).tolist() if each > 0)
    if label is None:
        return {}
    ids = (*things, *stuff) if not names else tuple(names)
    found: Found = {
        "semantic": semantic_score(
            [(label, semantic)], ids, f"{name}: {len(ids)} classes"
        ).summary()
    }
    if known is not None and benchmark is not None:
        listed = predictions(objects, confidence, of_object)
        ap = average_precision([(known.truth(benchmark), listed)], things, benchmark.semantic)
        found["scores"] = [{**ap.summary(), "classes": ap.by_class(benchmark.names)}]
    truth_ids = truth.instance if known is None else known.instance
    own = _segments(truth_ids, label, things, stuff)
    guess = _segments(objects, semantic, things, stuff, of_object)
    shared = SharedPixels()
    shared.add(own[0], guess[0])
    protocol = f"PQ of points, {name}: {len(things)} things and {len(stuff)} stuff"
    found["panoptic"] = [shared.quality(protocol, own[1], guess[1]).summary()]
    return found


def _segments(
    instance: Int32[np.ndarray, " vertices"],
    label: Int32[np.ndarray, " vertices"],
    things: tuple[int, ...],
    stuff: tuple[int, ...],
    of_object: dict[int, int] | None = None,
) -> tuple[Int64[np.ndarray, " vertices"], dict[int, int]]:
    """Ids of things, and one id for all of each class of stuff; the class of each id."""
    classes = classes_of_objects(instance, label) if of_object is None else of_object
    classes = {each: one for each, one in classes.items() if one in things}
    segment = np.where(np.isin(instance, list(classes)), instance, 0).astype(np.int64)
    first = int(instance.max(initial=0)) + 1
    for number, each in enumerate(stuff, start=first):
        segment[(segment == 0) & (label == each)] = number
        classes[number] = each
    return segment, classes


def _in_words(asked: Asked, truth: Truth) -> str:
    objects = len(np.unique(asked.instance[asked.instance > 0]))
    return f"{asked.protocol} ({objects}), on {len(truth.points):,} true points"


def confidences(path: Path) -> dict[int, float]:
    """How well the views support each instance, from `instances.json`."""
    listed = read_json(path.parent, path.name)
    return {int(each["id"]): float(each["confidence"]) for each in listed["instances"]}


def _views(folder: Path, truth: Truth, views: Path | None) -> tuple[list[Found], list[str]]:
    """PQ of the run's pictures and of all together; why not, where there is none."""
    cameras = read_cameras(folder / CAMERAS) if (folder / CAMERAS).is_file() else {}
    load: Callable[[str], LabelMap | None]
    if views is not None:
        protocol = f"class-agnostic, true ids of {views}"
        load = _files(views)
        if not any(find_label_map(views, name) for name in cameras):
            raise InputError(
                f"{views} has no true ids of any picture of {folder}; expected "
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
            own, path = load(name), find_label_map(folder / "labels", name)
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


def nearest_points(
    cloud: LabelledPoints, xyz: Float32[np.ndarray, "vertices 3"]
) -> Int64[np.ndarray, " vertices"]:
    """The nearest point of the cloud at each vertex; -1 where none is near."""
    from scipy.spatial import cKDTree

    if np.array_equal(cloud.points.xyz, xyz):
        return np.arange(len(xyz))
    distance, nearest = cKDTree(cloud.points.xyz).query(xyz, distance_upper_bound=REACH)
    return np.where(np.isfinite(distance), nearest, -1).astype(np.int64)


def at_vertices(
    cloud: LabelledPoints, xyz: Float32[np.ndarray, "vertices 3"]
) -> Int32[np.ndarray, " vertices"]:
    """The instance of the nearest point of the cloud at each vertex; 0 where none is near."""
    return _taken(cloud.instance, nearest_points(cloud, xyz))


def _taken(
    label: Int32[np.ndarray, " points"], nearest: Int64[np.ndarray, " vertices"]
) -> Int32[np.ndarray, " vertices"]:
    if not len(label):
        return np.zeros(len(nearest), np.int32)
    return np.where(nearest >= 0, label[nearest], 0).astype(np.int32)
