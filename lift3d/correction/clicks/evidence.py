"""What prompts say of the points: inside and outside, as far as a view really sees them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from lift3d.geometry.visibility import Sightings

RIM = 1 / 320
"""Share of the image's width on both sides of a mask's border that is not used, at least one pixel:
masks and depth are not exact there. Chosen by hand."""
PROMPTED, ASKED = 4.0, 0.5
"""Weight of a mask that a person gave, and of one that a segmenter was asked for."""


@dataclass(eq=False)
class Evidence:
    """Weighted looks at each point, and how many of them have it inside."""

    inside: Float64[np.ndarray, " points"]
    looked: Float64[np.ndarray, " points"]
    positive: list[int]
    """Clicked points on the object."""
    negative: list[int]
    """Clicked points that are not on it."""
    meant: Bool[np.ndarray, " superpoints"] | None = None
    """Superpoints that boxes and clicks without a mask mean."""
    rivals: list[int] = field(default_factory=list)
    """Clicked points on other objects; they are among the negative ones too."""
    whole: list[str] = field(default_factory=list)
    """Views that were given a mask that ends within the picture."""

    @staticmethod
    def none(count: int) -> Evidence:
        """Nothing is known of `count` points."""
        return Evidence(np.zeros(count), np.zeros(count), [], [])

    def add(self, seen: Sightings, mask: Bool[np.ndarray, "height width"], weight: float) -> None:
        """One view's mask; what is near its border says nothing."""
        core, clear = rimless(mask)
        sure_in, sure_out = core[seen.row, seen.column], clear[seen.row, seen.column]
        weights = weight * seen.confidence.astype(np.float64)
        self.looked[seen.point] += weights * (sure_in | sure_out)
        self.inside[seen.point] += weights * sure_in

    @property
    def known(self) -> Bool[np.ndarray, " points"]:
        """Points that a mask has decided."""
        return self.looked > 0

    @property
    def share(self) -> Float64[np.ndarray, " points"]:
        """Share of the looks that have a point inside; 0 for unknown points."""
        return self.inside / np.maximum(self.looked, 1e-12)


def rimless(
    mask: Bool[np.ndarray, "height width"],
) -> tuple[Bool[np.ndarray, "height width"], Bool[np.ndarray, "height width"]]:
    """The pixels clearly inside and clearly outside; of a mask that is all rim, all of it."""
    import cv2

    side = 2 * _rim(mask) + 1
    around = np.ones((side, side), np.uint8)
    # The border of the image is no border of the object.
    core = cv2.erode(mask.astype(np.uint8), around, borderValue=1) > 0
    clear = cv2.dilate(mask.astype(np.uint8), around, borderValue=0) == 0
    return (core if core.any() else mask), clear


def _rim(mask: Bool[np.ndarray, "height width"]) -> int:
    return max(1, round(RIM * mask.shape[1]))


def ends_within(mask: Bool[np.ndarray, "height width"]) -> bool:
    """Whether a mask does not reach the border of its picture, with a margin of `RIM`.

    >>> ends_within(np.eye(9, dtype=bool)), ends_within(np.pad(np.ones((4, 4), bool), 2))
    (False, True)
    """
    rim = _rim(mask)
    return bool(mask.sum() == mask[rim:-rim, rim:-rim].sum())


def sides(
    superpoint: Int32[np.ndarray, " points"],
    xyz: np.ndarray,
    evidence: Evidence,
    mixed: tuple[float, float],
) -> tuple[Int32[np.ndarray, " points"], Bool[np.ndarray, " superpoints"]]:
    """Superpoints, those with both sides known divided: nodes 2 s and 2 s + 1; -1 stays -1. And
    which are divided.

    A superpoint is divided where the share of its known points that are inside lies between
    `mixed`, or where clicks say both. Its unknown points go with the nearest known one.
    """
    from scipy.spatial import cKDTree

    count = int(superpoint.max(initial=-1)) + 1
    known = np.flatnonzero((evidence.looked > 0) & (superpoint >= 0))
    inside = evidence.inside[known] > 0.5 * evidence.looked[known]
    total = np.bincount(superpoint[known], minlength=count)
    own = np.bincount(superpoint[known[inside]], minlength=count)
    share = own / np.maximum(total, 1)
    both = (share > mixed[0]) & (share < mixed[1])
    clicked: Int64[np.ndarray, " clicks"] = np.array(
        [*evidence.positive, *evidence.negative], np.int64
    )
    of_click = np.arange(len(clicked)) < len(evidence.positive)
    placed = superpoint[clicked]
    for each in np.unique(placed[placed >= 0]):
        told = of_click[placed == each]
        both[each] |= bool(told.any() and not told.all())
        if total[each]:  # a click against most of what the masks say
            both[each] |= bool((told != (share[each] > 0.5)).any())
    node = np.where(superpoint >= 0, 2 * superpoint, -1).astype(np.int32)
    if both.any():
        side = np.full(len(superpoint), -1, np.int8)
        side[known], side[clicked] = inside, of_click
        divided = np.flatnonzero((superpoint >= 0) & np.append(both, False)[superpoint])
        # Superpoints are far apart along a fourth axis, so all are searched at once.
        own_xyz = xyz[divided].astype(np.float64)
        far = 10 * float(np.ptp(own_xyz, axis=0).max() + 1)
        place = np.c_[own_xyz, far * superpoint[divided]]
        told_here = side[divided] >= 0
        of_here = side[divided]
        if not told_here.all():
            _, near = cKDTree(place[told_here]).query(place[~told_here], workers=2)
            of_here[~told_here] = of_here[told_here][near]
        node[divided] += of_here
    return node, both
