"""Explain the label of a pixel: its mask, the object of the mask, and the 3D point there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lift3d.association.assignments import REASONS, UNSEEN, Assignments
from lift3d.association.surface import Surface
from lift3d.geometry.visibility import sightings
from lift3d.scene import LabelledPoints, LabelMap, View
from lift3d.scene.errors import InputError

NEAR = 4.0
"""A pixel shows a point of the cloud whose image is at most this far away, in pixels. Chosen by
hand."""


@dataclass(frozen=True)
class Point:
    """The point of the cloud that a pixel shows."""

    index: int
    object: int
    """Its object; 0 = none."""
    score: float
    """Share of the votes for that object, 0 to 1."""
    superpoint: int
    """Its superpoint; -1 where it has none or the run has no surface graph."""


@dataclass(frozen=True)
class Why:
    """The explanation of one pixel's label; `str` gives it in sentences."""

    view: str
    xy: tuple[int, int]
    """Column and row of the pixel."""
    label: int
    """Its label in the label map; 0 = none."""
    mask: int
    """Id of its mask from the segmenter; 0 = none."""
    point: Point | None
    """The point of the cloud at the pixel; None where none is near."""
    became: int | None = None
    """The object of the mask, 0 = none; None where masks kept their own ids (`trust_ids`)."""
    reason: str = ""
    """The reason for this outcome, in words."""
    anchors: int = 0
    """Number of points that the decision used."""
    share: float = 0.0
    """Share of these points that belong to the object."""
    second: int = 0
    """The object with the second largest share; 0 = none."""
    second_share: float = 0.0
    divided: bool = False
    """Whether the mask was split among several objects by the cloud's labels."""

    def __str__(self) -> str:
        x, y = self.xy
        now = f"object {self.label}" if self.label else "no label"
        lines = [f"view {self.view}, pixel {x}, {y}: {now}"]
        if not self.mask:
            lines.append("mask: none covers this pixel (masks/ has the segmenter's masks)")
        elif self.became is None:
            lines.append(f"mask: {self.mask}; masks kept their own ids")
        else:
            lines += self._of_mask(self.became)
        if self.point is None:
            lines.append("cloud: no point is seen at this pixel")
        else:
            its = f"object {self.point.object}" if self.point.object else "no object"
            lines.append(
                f"cloud: point {self.point.index} of {its}; {self.point.score:.0%} of the votes "
                f"of the views are for it (superpoint {self.point.superpoint})"
            )
        return "\n".join(lines)

    def _of_mask(self, became: int) -> list[str]:
        outcome = f"became object {became}" if became else f"was dropped: {self.reason}"
        lines = [f"mask: {self.mask} {outcome}"]
        if self.anchors:
            second = ""
            if self.second:
                second = f", {self.second_share:.0%} to object {self.second}"
            first = f"{self.share:.0%} to object {became}" if became else "none to an object"
            lines.append(f"points: {self.anchors} are seen in the mask, {first}{second}")
        if self.divided:
            lines.append(
                "split: it covers several objects, so each pixel took the object of the nearest "
                "point"
            )
        return lines


def explain(
    view: View,
    index: int,
    xy: tuple[float, float],
    mask_map: LabelMap,
    label_map: LabelMap,
    cloud: LabelledPoints,
    assignments: Assignments | None,
    surface: Surface | None,
) -> Why:
    """Explain the label of the pixel `xy` (column, row) of the scene's view number `index`.

    `mask_map` has the view's masks as segmented, `label_map` its labels now. Raises InputError
    where the pixel is outside the view.
    """
    x, y = round(xy[0]), round(xy[1])
    height, width = mask_map.shape
    if not (0 <= x < width and 0 <= y < height):
        raise InputError(
            f"pixel {x}, {y} is outside view {view.name}, which has {width} columns and "
            f"{height} rows, from 0"
        )
    mask = int(mask_map[y, x])
    why = Why(
        view=view.name,
        xy=(x, y),
        label=int(label_map[y, x]),
        mask=mask,
        point=_point(view, x, y, cloud, surface),
    )
    if assignments is None or not mask:
        return why
    row = assignments.row(index, mask)
    if row is None:
        return replace(why, became=0, reason=REASONS[UNSEEN])
    return replace(
        why,
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
    # Visibility is computed from the cloud alone, so that the scan is not needed.
    bare = replace(view, load_depth=None, load_confidence=None, depth_camera=None)
    seen = sightings(cloud.points, bare)
    if not len(seen):
        return None
    distance = np.hypot(seen.column - x, seen.row - y)
    nearest = int(np.argmin(distance))
    if distance[nearest] > NEAR:
        return None
    index = int(seen.point[nearest])
    return Point(
        index,
        int(cloud.instance[index]),
        float(cloud.score[index]),
        -1 if surface is None else int(surface.superpoint[index]),
    )
