"""Classes of points from a 2D labeller's pictures, voted as instances are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32

from lift3d.association.votes.ballot import vote_labels
from lift3d.geometry.visibility import DepthTolerance
from lift3d.scene import LabelledPoints, LabelMap, Points, Scene
from lift3d.scene.errors import InputError
from lift3d.scene.labelmaps import find_label_map, read_label_map


def class_maps(folder: Path, scene: Scene) -> Iterator[LabelMap]:
    """FOLDER/<view>.png of every view, at image size; 0 is no class.

    Maps of another size are taken to cover the image (nearest pixel). A view without a file
    has no vote; InputError where none has one.
    """
    found = {view.name: find_label_map(folder, view.name) for view in scene.views}
    if not any(found.values()):
        raise InputError(
            f"{folder} has no class map of any of {len(scene)} views; expected one grey PNG per "
            f"view with a class id per pixel, such as {scene.views[0].name}.png"
        )
    for view in scene.views:
        path = found[view.name]
        shape = view.camera.height, view.camera.width
        yield np.zeros(shape, np.int32) if path is None else _fitted(read_label_map(path), shape)


def vote_classes(
    points: Points,
    scene: Scene,
    maps: Iterable[LabelMap],
    tolerance: DepthTolerance = DepthTolerance(),
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Int32[np.ndarray, " points"], Float32[np.ndarray, " points"]]:
    """The class most views give each point, and its share of their weight; 0 where none does."""
    return vote_labels(points, scene, maps, progress, tolerance).result(background=0.0)


def with_classes(
    cloud: LabelledPoints, semantic: Int32[np.ndarray, " points"], whole_objects: bool = True
) -> LabelledPoints:
    """The cloud with classes; an object gets the class of most of its points that have one."""
    if len(semantic) != len(cloud):
        raise InputError(f"{len(semantic)} classes for {len(cloud)} points")
    if whole_objects:
        found = classes_of_objects(cloud.instance, semantic)
        table = np.zeros(int(cloud.instance.max(initial=0)) + 1, np.int32)
        table[list(found)] = list(found.values())
        of_object = table[cloud.instance]
        semantic = np.where(of_object > 0, of_object, semantic)
    return replace(cloud, semantic=semantic)


def classes_of_objects(
    instance: Int32[np.ndarray, " points"], semantic: Int32[np.ndarray, " points"]
) -> dict[int, int]:
    """The class most points of each object have; objects without any are left out.

    A tie goes to the smaller class.
    """
    both = (instance > 0) & (semantic > 0)
    pair = (instance[both].astype(np.int64) << 32) | semantic[both]
    known, count = np.unique(pair, return_counts=True)
    winner: dict[int, int] = {}
    for each in np.lexsort((-known, count)).tolist():  # the last written has the most points
        winner[int(known[each] >> 32)] = int(known[each] & (2**32 - 1))
    return dict(sorted(winner.items()))


def _fitted(
    labels: LabelMap, shape: tuple[int, int]
) -> Int32[np.ndarray, "image_height image_width"]:
    """Nearest pixel, so that ids stay ids."""
    if labels.shape == shape:
        return labels
    row, column = (
        ((np.arange(to) + 0.5) * of / to).astype(np.int64)
        for of, to in zip(labels.shape, shape, strict=True)
    )
    return labels[row][:, column]
