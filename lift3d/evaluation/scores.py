"""Score a labelled cloud against the truth: objects and classes, each with its protocol."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, Int64

from lift3d.association.votes.classes import (
    classes_of_objects,
)
from lift3d.evaluation.metrics.classes import Benchmark
from lift3d.evaluation.metrics.panoptic import SharedPixels
from lift3d.evaluation.metrics.scannet import average_precision, class_agnostic
from lift3d.evaluation.metrics.semantic import semantic_score
from lift3d.evaluation.metrics.submission import predictions
from lift3d.evaluation.truth import ProtocolTruth, Truth
from lift3d.geometry.visibility import cloud_spacing
from lift3d.scene import LabelledPoints

REACH = 0.1
"""Vertices further than this from the cloud, in metres, stay unlabelled. Chosen by hand; not tuned
on data."""
SPACINGS = 8.0
"""Replaces `REACH` in scenes that are not metric; in median distances between points (0.1 m in a
fused room). Chosen by hand; not tuned on data."""
Found = dict[str, Any]


def score(
    cloud: LabelledPoints,
    confidence: dict[int, float],
    truth: Truth,
    benchmark: Benchmark | None = None,
    metric: bool = True,
) -> Found:
    """All scores of a labelled cloud, each with its protocol in words.

    `scores` and `panoptic` list all scores; `ap`, `ap50`, `ap25` and `protocol` are those of the
    first entry of `scores`. None where the truth has no objects. Classes are scored if both cloud
    and truth have them; those of the cloud must be ids of `benchmark`. `metric`: coordinates are
    in metres.
    """
    nearest = nearest_points(cloud, truth.points, metric)
    predicted = _taken(cloud.instance, nearest)
    scores, panoptic = [], []
    for expected in truth.protocols():
        protocol = _in_words(expected, truth)
        scores.append(class_agnostic(expected.instance, predicted, confidence, protocol).summary())
        shared = SharedPixels()
        shared.add(expected.instance, predicted)
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
    """AP with classes, semantic IoU, and PQ with things and stuff."""
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
    """Panoptic segments (ids of things, one new id per class of stuff), and the class of each."""
    classes = classes_of_objects(instance, label) if of_object is None else of_object
    classes = {id_: class_ for id_, class_ in classes.items() if class_ in things}
    segment = np.where(np.isin(instance, list(classes)), instance, 0).astype(np.int64)
    first = int(instance.max(initial=0)) + 1
    for number, each in enumerate(stuff, start=first):
        segment[(segment == 0) & (label == each)] = number
        classes[number] = each
    return segment, classes


def _in_words(expected: ProtocolTruth, truth: Truth) -> str:
    objects = len(np.unique(expected.instance[expected.instance > 0]))
    return f"{expected.protocol} ({objects}), on {len(truth.points):,} true points"


def nearest_points(
    cloud: LabelledPoints, xyz: Float32[np.ndarray, "vertices 3"], metric: bool = True
) -> Int64[np.ndarray, " vertices"]:
    """Index of the nearest point of the cloud for each vertex; -1 if it is too far.

    The limit is `REACH` metres or, in scenes that are not metric, `SPACINGS` point spacings.
    """
    from scipy.spatial import cKDTree

    if np.array_equal(cloud.points.xyz, xyz):
        return np.arange(len(xyz))
    reach = REACH if metric else SPACINGS * cloud_spacing(cloud.points)
    distance, nearest = cKDTree(cloud.points.xyz).query(xyz, distance_upper_bound=reach)
    return np.where(np.isfinite(distance), nearest, -1).astype(np.int64)


def at_vertices(
    cloud: LabelledPoints, xyz: Float32[np.ndarray, "vertices 3"], metric: bool = True
) -> Int32[np.ndarray, " vertices"]:
    """Instance of the nearest point of the cloud for each vertex; 0 if it is too far."""
    return _taken(cloud.instance, nearest_points(cloud, xyz, metric))


def _taken(
    label: Int32[np.ndarray, " points"], nearest: Int64[np.ndarray, " vertices"]
) -> Int32[np.ndarray, " vertices"]:
    if not len(label):
        return np.zeros(len(nearest), np.int32)
    return np.where(nearest >= 0, label[nearest], 0).astype(np.int32)
