"""Explain the label of a pixel: its masks, their objects, and the 3D point there."""

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
"""A pixel shows a point of the cloud whose image is at most this far away, in pixels. Chosen by
hand."""


@dataclass(frozen=True)
class Point:
    """The point of the cloud that a pixel shows."""

    index: int
    object: int
    """Its object; 0 = none."""
    score: float
    """The point's score in the cloud, 0 to 1."""
    superpoint: int
    """Its superpoint; -1 where it has none or the run has no surface graph."""
    distance: float
    """Distance of its image from the pixel, in pixels."""
    place: tuple[float, float, float]
    """World coordinates."""


@dataclass(frozen=True)
class MaskAt:
    """One mask over a pixel, and what became of it."""

    id: int
    score: float = 1.0
    """Quality by the segmenter's own estimate, 0 to 1."""
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
    """Whether the mask was divided among several objects by the cloud's labels."""

    def lines(self) -> list[str]:
        """The same in sentences."""
        name = f"mask: {self.id}" + (f" (score {self.score:.2f})" if self.score != 1 else "")
        if self.became is None:
            return [f"{name}; masks kept their own ids"]
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
    """The explanation of one pixel's label; `str` gives it in sentences."""

    view: str
    xy: tuple[int, int]
    """Column and row of the pixel."""
    label: int
    """Its label in the label map; 0 = none."""
    masks: tuple[MaskAt, ...]
    """The masks over the pixel from the segmenter, the topmost (smallest) first."""
    point: Point | None
    """The point of the cloud at the pixel; None where none is near."""
    automatic: int | None = None
    """The pixel's label before edits by hand; None where it is not stored."""
    has_depth: bool | None = None
    """Whether the depth map has a value there; None where that cannot be read at this pixel."""

    @property
    def mask(self) -> int:
        """Id of the topmost mask; 0 = none."""
        return self.masks[0].id if self.masks else 0

    def __str__(self) -> str:
        x, y = self.xy
        now = f"object {self.label}" if self.label else "no label"
        if self.automatic is not None and self.automatic != self.label:
            was = f"object {self.automatic}" if self.automatic else "no label"
            now += f", edited by hand; it was {was}"
        lines = [f"view {self.view}, pixel {x}, {y}: {now}"]
        if not self.masks:
            lines.append("mask: none covers this pixel (masks/ has the segmenter's masks)")
        for mask in self.masks:
            lines += mask.lines()
        if self.has_depth is not None:
            lines.append(f"depth: {'measured' if self.has_depth else 'none'} at this pixel")
        lines.append(self._of_point())
        if self.point is not None:
            lines.append("place: {:.3f} {:.3f} {:.3f}".format(*self.point.place))
        return "\n".join(lines)

    def _of_point(self) -> str:
        point = self.point
        if point is None:
            return f"cloud: no point is seen within {NEAR:.0f} px of this pixel"
        its = f"object {point.object}" if point.object else "no object"
        return (
            f"cloud: point {point.index} of {its}, score {point.score:.2f} "
            f"(superpoint {point.superpoint}); nearest visible point, "
            f"{point.distance:.0f} px away, by the cloud alone without the depth map"
        )


def explain(
    view: View,
    index: int,
    xy: tuple[float, float],
    masks: ViewMasks,
    label_map: LabelMap,
    cloud: LabelledPoints,
    assignments: Assignments | None,
    surface: Surface | None,
    automatic_map: LabelMap | None = None,
) -> Why:
    """Explain the label of the pixel `xy` (column, row) of the scene's view number `index`.

    `masks` has the view's masks as segmented, `label_map` its labels now, `automatic_map` its
    labels before edits by hand. The depth map is read if the scan is there. Raises InputError
    where the pixel is outside the view.
    """
    if not np.isfinite(xy).all():
        raise InputError(f"pixel {xy[0]}, {xy[1]} is no place; expected a column and a row, from 0")
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
        None if automatic_map is None else int(automatic_map[y, x]),
        _has_depth(view, x, y),
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


def _has_depth(view: View, x: int, y: int) -> bool | None:
    """Whether the depth map has a value at the pixel; None where this is unknown."""
    if view.depth_camera is not None or view.sparse:
        return None  # the depth has other pixels, or is missing at most of them
    try:
        depth = view.depth()
    except InputError:  # the scan was moved, or the frame is damaged: the rest is still known
        return None
    return None if depth is None else bool(depth[y, x] > 0)


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
    x, y, z = cloud.points.xyz[index].astype(np.float64) + cloud.points.offset
    return Point(
        index,
        int(cloud.instance[index]),
        float(cloud.score[index]),
        -1 if surface is None else int(surface.superpoint[index]),
        float(distance[nearest]),
        (float(x), float(y), float(z)),
    )
