"""Common part of the ScanNet and ScanNet++ benchmarks: instances with a mask each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lift3d.evaluation.metrics.scannet import Prediction
from lift3d.export.content import Content, Tick
from lift3d.scene.errors import InputError

UNKNOWN_CLASS = 1
"""Label of objects without a class; class-agnostic scripts ignore it."""


def instances(content: Content) -> Iterator[Prediction]:
    """Every id with vertices, in the order of the run's list."""
    ids = content.cloud.instance if content.at_vertices is None else content.at_vertices
    for each, confidence in content.confidence.items():
        mask = ids == each
        if each > 0 and mask.any():
            yield Prediction(mask, _label(content, each), float(confidence))


def _label(content: Content, each: int) -> int:
    """The most frequent class of an object's points."""
    if content.cloud.semantic is None:
        return UNKNOWN_CLASS
    classes = content.cloud.semantic[content.cloud.instance == each]
    found, counts = np.unique(classes[classes > 0], return_counts=True)
    return int(found[counts.argmax()]) if len(found) else UNKNOWN_CLASS


def notes(content: Content, where: str) -> list[str]:
    """Notes for the user about vertices and classes."""
    found = []
    if content.at_vertices is None:
        found.append(
            f"{where}: one entry per point of cloud.ply; benchmarks score the vertices of their "
            "mesh: name it with --vertices unless you lifted with --cloud"
        )
    if content.cloud.semantic is None:
        found.append(
            f"{where}: the run has no classes, every label is {UNKNOWN_CLASS}: score class-agnostic"
        )
    return found


def check(content: Content, where: str) -> None:
    """Raise InputError if there is no instance."""
    if next(instances(content), None) is None:
        raise InputError(f"{where}: no labelled vertex; is --vertices the mesh of this scene?")


def ticking(content: Content, tick: Tick) -> Iterator[tuple[int, Prediction]]:
    """Instances with their number from 0; reports progress."""
    for number, prediction in enumerate(instances(content)):
        yield number, prediction
        tick(number + 1, len(content.confidence))
