"""Why a pixel has its label: from the mask to the object to the point behind it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lift3d.association.assignments import REASONS, UNSEEN, Assignments
from lift3d.association.surface import Surface
from lift3d.geometry.visibility import sightings
from lift3d.scene import LabelledPoints, LabelMap, View
from lift3d.scene.errors import InputError
from lift3d.scene.mask_sets import MaskSet, ViewMasks

NEAR = 4.0
"""A point of the cloud counts as shown by a pixel when it is this near, in pixels."""


@dataclass(frozen=True)
class Point:
    """The point of the cloud that a pixel shows."""

    index: int
    object: int
    """Its object; 0 = none."""
    score: float
    """Share of the votes for that object, 0 to 1."""
    superpoint: int
    """Its superpoint; -1 where it is in none, or not known."""


@dataclass(frozen=True)
class MaskAt:
    """One mask over a pixel, and what became of it."""

    id: int
    score: float = 1.0
    """Quality by the segmenter's own estimate, 0 to 1."""
    became: int | None = None
    """The object that the mask became, 0 = none; None where masks kept the ids they came with."""
    reason: str = ""
    """Why the mask became that, in words."""
    anchors: int = 0
    """Points that the decision rests on."""
    share: float = 0.0
    """Share of these that belong to the object."""
    second: int = 0
    """The object with the second most of them; 0 = none."""
    second_share: float = 0.0
    divided: bool = False
    """Whether the mask was divided among several objects along the cloud's labels."""

    def lines(self) -> list[str]:
        """The same in sentences."""
        name = f"mask: {self.id}" + (f" (score {self.score:.2f})" if self.score != 1 else "")
        if self.became is None:
            return [f"{name}; masks keep the ids that they came with"]
        became = self.became
        outcome = f"became object {became}" if became else f"was dropped: {self.reason}"
        lines = [f"{name} {outcome}"]
        if self.anchors:
            second = ""
            if self.second:
                second = f", {self.second_share:.0%} to object {self.second}"
            first = f"{self.share:.0%} to object {became}" if became else "none to an object"
            lines.append(f"points: {self.anchors} are seen in the mask, {first}{second}")
        if self.divided:
            lines.append(
                "divided: it covers several objects, so each pixel took the object of the nearest "
                "point"
            )
        return lines


@dataclass(frozen=True)
class Why:
    """The chain behind one pixel's label. `str` tells it in sentences."""

    view: str
    xy: tuple[int, int]
    """Column and row of the pixel."""
    label: int
    """Its label now; 0 = none."""
    masks: tuple[MaskAt, ...]
    """The masks that the segmenter put it in, the topmost (smallest) first."""
    point: Point | None
    """The point of the cloud at the pixel; None where none is near."""

    def __str__(self) -> str:
        x, y = self.xy
        now = f"object {self.label}" if self.label else "no label"
        lines = [f"view {self.view}, pixel {x}, {y}: {now}"]
        if not self.masks:
            lines.append("mask: none covers this pixel (masks/ has what the segmenter found)")
        for mask in self.masks:
            lines += mask.lines()
        if self.point is None:
            lines.append("cloud: no point is seen at this pixel")
        else:
            its = f"object {self.point.object}" if self.point.object else "no object"
            lines.append(
                f"cloud: point {self.point.index} of {its}; {self.point.score:.0%} of the votes "
                f"of the views are for it (superpoint {self.point.superpoint})"
            )
        return "\n".join(lines)


def explain(
    view: View,
    index: int,
    xy: tuple[float, float],
    masks: ViewMasks,
    label_map: LabelMap,
    cloud: LabelledPoints,
    assignments: Assignments | None,
    surface: Surface | None,
) -> Why:
    """The chain behind the pixel `xy` (column, row) of the scene's view number `index`.

    `masks` are its masks as segmented, `label_map` its labels now. Raises InputError where the
    pixel is outside the view.
    """
    x, y = round(xy[0]), round(xy[1])
    height, width = masks.shape
    if not (0 <= x < width and 0 <= y < height):
        raise InputError(
            f"pixel {x}, {y} is outside view {view.name}, which has {width} columns and "
            f"{height} rows, from 0"
        )
    if isinstance(masks, MaskSet):
        score = dict(zip(masks.ids.tolist(), masks.scores.tolist(), strict=True))
        found = [MaskAt(each, score[each]) for each in masks.ids_at(y, x)]
    else:
        found = [MaskAt(each) for each in (int(masks[y, x]),) if each]
    return Why(
        view.name,
        (x, y),
        int(label_map[y, x]),
        tuple(_with_outcome(mask, index, assignments) for mask in found),
        _point(view, x, y, cloud, surface),
    )


def _with_outcome(mask: MaskAt, index: int, assignments: Assignments | None) -> MaskAt:
    """The mask of view number `index` with what became of it."""
    if assignments is None:
        return mask
    row = assignments.row(index, mask.id)
    if row is None:
        return replace(mask, became=0, reason=REASONS[UNSEEN])
    return replace(
        mask,
        became=int(assignments.object[row]),
        reason=REASONS[int(assignments.reason[row])],
        anchors=int(assignments.points[row]),
        share=float(assignments.share[row]),
        second=int(assignments.second[row]),
        second_share=float(assignments.second_share[row]),
        divided=bool(assignments.divided[row]),
    )


def _point(
    view: View, x: int, y: int, cloud: LabelledPoints, surface: Surface | None
) -> Point | None:
    """The point of the cloud nearest to the pixel, among those that the view sees."""
    # What hides what is judged by the cloud alone, so that no picture of the scan is needed.
    bare = replace(view, load_depth=None, load_confidence=None, depth_camera=None)
    sight = sightings(cloud.points, bare)
    if not len(sight):
        return None
    distance = np.hypot(sight.column - x, sight.row - y)
    nearest = int(np.argmin(distance))
    if distance[nearest] > NEAR:
        return None
    index = int(sight.point[nearest])
    return Point(
        index,
        int(cloud.instance[index]),
        float(cloud.score[index]),
        -1 if surface is None else int(surface.superpoint[index]),
    )
