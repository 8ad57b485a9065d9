"""The label map of a view under edits.

The automatic map decides whose pixel it is; the points decide what became of that object. Pixels of
an object whose points all went to one are a table of ids. Pixels of an object whose points now
belong to several take the id of the point that the cloud shows there, or of the nearest one that it
shows of this object. Painted pixels come last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int32

from lift3d.association.assignments import nearest_known
from lift3d.correction.state import Layer, State
from lift3d.geometry.visibility import (
    DepthTolerance,
    Sightings,
    cloud_spacing,
    front_points,
    sightings,
)
from lift3d.scene import LabelMap, Points, View
from lift3d.scene.errors import InputError
from lift3d.scene.guarded.pictures import opened_picture
from lift3d.scene.storage import atomic

SPLAT = 2.0
"""Edge of a rendered point in spacings, as in the check."""
UNLABELLED_REACH = 0.01
"""Unlabelled pixels take the id of a point that an edit labelled up to this share of the image's
width away. Chosen by hand."""


@dataclass(frozen=True, eq=False)
class Fates:
    """What became of each automatic object."""

    one: Mapping[int, int]
    """Automatic id -> its only id now."""
    several: frozenset[int]
    """Automatic ids whose points now belong to several objects."""

    @staticmethod
    def of(state: State) -> Fates:
        """Of the labels now."""
        before, now = state.cloud.instance, state.label
        one, several = dict(state.whole), set()
        moved = before != now
        stay = np.bincount(before[~moved], minlength=1) if len(before) else np.zeros(1, int)
        span = int(now.max(initial=0)) + 1
        pairs = np.unique(before[moved].astype(np.int64) * span + now[moved])
        targets: dict[int, list[int]] = {}
        for each in pairs.tolist():
            targets.setdefault(each // span, []).append(each % span)
        for each, to in targets.items():
            if len(to) > 1 or (each < len(stay) and stay[each]) or not each:
                several.add(each)
            else:
                one[each] = to[0]
        return Fates(one, frozenset(several))


def seen_by_cloud(points: Points, view: View, tolerance: DepthTolerance) -> Sightings:
    """The points that a view sees, hidden by the cloud alone: the scan is not needed."""
    bare = replace(view, load_depth=None, load_confidence=None, depth_camera=None)
    return sightings(points, bare, tolerance)


def shown_by_cloud(points: Points, view: View) -> Sightings:
    """The frontmost point at each pixel, as the check renders the cloud."""
    front, _ = front_points(points.xyz, view.camera, SPLAT * cloud_spacing(points))
    row, column = np.nonzero(front >= 0)
    point = front[row, column]
    row, column = row.astype(np.int32), column.astype(np.int32)
    return Sightings(point, column, row, np.ones(len(point), np.float32))


def corrected_map(
    state: State,
    fates: Fates,
    view: View,
    automatic: LabelMap,
    seen: Callable[[], Sightings],
) -> LabelMap:
    """The label map of `view`, whose automatic one is `automatic`.

    `seen` gives the points that the view shows (`shown_by_cloud`); it is called where pixels have
    to be divided.
    """
    ids, index = np.unique(automatic, return_inverse=True)
    table = np.array([fates.one.get(int(each), int(each)) for each in ids], np.int32)
    result = table[index.reshape(automatic.shape)]
    divided = [int(each) for each in ids if int(each) in fates.several]
    layers = [each for each in state.layers if each.view == view.name]
    if not divided and not layers:
        return result
    sight = seen() if divided or any(len(each.index) for each in layers) else None
    if sight is not None:
        for each in divided:
            _divide(state, sight, automatic, each, result)
    for layer in layers:
        _painted(state, sight, layer, result)
    return result


def _shown(
    sight: Sightings,
    chosen: Bool[np.ndarray, " seen"],
    label: Int32[np.ndarray, " points"],
    shape: tuple[int, int],
) -> Int32[np.ndarray, "height width"]:
    """Id + 1 of the chosen points at their pixels; 0 elsewhere."""
    shown = np.zeros(shape, np.int32)
    shown[sight.row[chosen], sight.column[chosen]] = label[sight.point[chosen]] + 1
    return shown


def _divide(
    state: State, sight: Sightings, automatic: LabelMap, each: int, result: LabelMap
) -> None:
    """Give the pixels of automatic object `each` the ids of its points, in place."""
    of = state.cloud.instance[sight.point]
    shown = _shown(sight, of == each, state.label, automatic.shape)
    here = automatic == each
    if each:
        shown[~here] = 0
        if shown.any():
            result[here] = nearest_known(shown, here)[0] - 1
        return
    # Most unlabelled pixels stay so: only those near a point that an edit has labelled change.
    reach = max(3.0, UNLABELLED_REACH * automatic.shape[1])
    shown[~here] = 0
    rows, columns = np.nonzero(shown > 1)
    if not len(rows):
        return
    margin = int(reach) + 1
    box = (
        slice(max(rows.min() - margin, 0), rows.max() + margin + 1),
        slice(max(columns.min() - margin, 0), columns.max() + margin + 1),
    )
    value, nearest = nearest_known(shown[box], here[box])
    distance = np.hypot(*(nearest - np.nonzero(here[box])))
    part = result[box]
    part[here[box]] = np.where(distance <= reach, value - 1, 0)


def _painted(state: State, sight: Sightings | None, layer: Layer, result: LabelMap) -> None:
    """Draw painted pixels into the map; they follow what later edits made of their points."""
    here = read_pixels(layer.pixels)
    if here.shape != result.shape:
        raise InputError(
            f"{layer.pixels} is {here.shape[1]}x{here.shape[0]}; view {layer.view} has "
            f"{result.shape[1]}x{result.shape[0]} pixels; undo edit {layer.n}"
        )
    now = np.unique(state.label[layer.index])
    if len(now) == 1:
        result[here] = now[0]
        return
    result[here] = layer.id
    if sight is not None and len(now):
        shown = _shown(sight, np.isin(sight.point, layer.index), state.label, result.shape)
        shown[~here] = 0
        if shown.any():
            result[here] = nearest_known(shown, here)[0] - 1


def write_pixels(path: Path, pixels: Bool[np.ndarray, "height width"]) -> None:
    """Write painted pixels as a black and white PNG."""
    from PIL import Image

    with atomic(path) as part:
        Image.fromarray(pixels).save(part, optimize=True)


def read_pixels(
    path: Path, advice: str = "put it back, or undo the edit that it belongs to"
) -> Bool[np.ndarray, "height width"]:
    """What `write_pixels` wrote; InputError with `advice` where it is missing or damaged."""
    try:
        with opened_picture(path, error=InputError) as image:
            return np.asarray(image.convert("L")) > 0
    except InputError as error:
        raise InputError(f"{error}; {advice}") from error


def mask_of_points(
    sight: Sightings, chosen: Sequence[int] | np.ndarray, shape: tuple[int, int], reach: float = 4.0
) -> Bool[np.ndarray, "height width"]:
    """Pixels nearer to a chosen point than to any other that the view sees, up to `reach`."""
    inside = np.isin(sight.point, np.asarray(chosen))
    shown = np.zeros(shape, np.int32)
    shown[sight.row, sight.column] = np.where(inside, 2, 1)
    if not inside.any():
        return np.zeros(shape, bool)
    everywhere = np.ones(shape, bool)
    value, nearest = nearest_known(shown, everywhere)
    distance = np.hypot(*(nearest - np.nonzero(everywhere)))
    return ((value == 2) & (distance <= reach)).reshape(shape)
