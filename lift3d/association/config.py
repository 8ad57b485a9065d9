"""Settings of the association.

`threshold`, `uncovered`, `views`, `covered` and `consensus` were chosen on the HoloLens kitchen
with damaged masks (two or three seeds of three severities) and checked on the living room and on a
mesh of the kitchen; the others were chosen by hand.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AssociationConfig:
    """How masks of single views become objects."""

    trust_ids: bool = False
    """Keep the ids that the masks came with and only vote; objects are not merged or divided."""
    by_shape: bool | None = None
    """Find objects by the shape of the fused surface, and use masks only to separate neighbours. By
    default on where masks are of surfaces (segmentation:regions) and depth is dense."""
    overlaps: bool = True
    """Use masks that overlap, and their scores. Off: only the smallest mask at a pixel counts;
    better where most masks are groups of several objects."""
    threshold: float = 0.5
    """Two pieces merge when more than this share of the views puts their points into one mask."""
    uncovered: float = 0.5
    """Weight, against a merge, of a view that masks only one of two points."""
    purity: float = 0.95
    """A superpoint is divided when a smaller share of the views puts its points into one mask."""
    support: float = 0.1
    """Minimum mean IoU of an object with the best mask of each view that sees it."""
    views: int = 1
    """Minimum number of views with a mask of IoU 0.5 with the object; if fewer views see it, all of
    them."""
    covered: float = 0.35
    """Minimum share of observations under a mask, as a part of the median of the object; a point
    with less is unlabelled background."""
    consensus: float = 0.6
    """A point belongs to an object that at least this share of its observations has, also when its
    superpoint belongs to another."""
    anchors: int = 60_000
    """Maximum number of points (anchors) that are clustered to objects."""
    points: int = 50
    """Objects with fewer points are dropped; the limit is lower in clouds under 10 000 points, and
    in metric ones whose points are more than 1 cm apart."""
