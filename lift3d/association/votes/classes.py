"""Classes of points by votes of 2D class maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Float32, Int32

from lift3d.association.votes.ballot import vote_labels
from lift3d.geometry.visibility import DepthTolerance
from lift3d.scene import LabelledPoints, LabelMap, Points, Scene
from lift3d.scene.errors import InputError
from lift3d.scene.labelmaps import derived, renumber, resized_label_map


def vote_classes(
    points: Points,
    scene: Scene,
    class_maps: Mapping[str, LabelMap],
    tolerance: DepthTolerance = DepthTolerance(),
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Int32[np.ndarray, " points"], Float32[np.ndarray, " points"]]:
    """The class with most weight of votes at each point, and its share; 0 without a vote.

    `class_maps` by name of the view, 0 = no class: `LabelMaps.found(folder, names, "class map")`.
    A view without one does not vote; one of another size is resized to the image.
    """
    voting = scene.with_views([view for view in scene.views if view.name in class_maps])
    size = {view.name: (view.camera.height, view.camera.width) for view in voting.views}
    maps = derived(class_maps, lambda name, labels: resized_label_map(labels, *size[name]))
    return vote_labels(points, voting, maps, progress, tolerance).result(background=0.0)


def with_classes(
    cloud: LabelledPoints, semantic: Int32[np.ndarray, " points"], whole_objects: bool = True
) -> LabelledPoints:
    """The cloud with classes; with `whole_objects`, each object gets its most frequent class.

    Raises InputError if `semantic` has another length than the cloud.
    """
    if len(semantic) != len(cloud):
        raise InputError(f"{len(semantic)} classes for {len(cloud)} points")
    if whole_objects:
        found = classes_of_objects(cloud.instance, semantic)
        of_object = renumber(cloud.instance, found)
        semantic = np.where(of_object > 0, of_object, semantic)
    return replace(cloud, semantic=semantic)


def classes_of_objects(
    instance: Int32[np.ndarray, " points"], semantic: Int32[np.ndarray, " points"]
) -> dict[int, int]:
    """The most frequent class of each object, the smaller of equals.

    Objects without a class are left out.
    """
    both = (instance > 0) & (semantic > 0)
    pair = (instance[both].astype(np.int64) << 32) | semantic[both]
    known, count = np.unique(pair, return_counts=True)
    winner: dict[int, int] = {}
    for each in np.lexsort((-known, count)).tolist():  # the last written has the most points
        winner[int(known[each] >> 32)] = int(known[each] & (2**32 - 1))
    return dict(sorted(winner.items()))
