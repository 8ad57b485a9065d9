"""Every choice of the association."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AssociationConfig:
    """How identities of single views become objects."""

    trust_ids: bool = False
    """Take equal ids in different views as given and only vote; nothing is merged or divided."""
    by_shape: bool | None = None
    """Objects are what the shape of the fused surface shows, masks only tell neighbours apart. By
    default so where masks are of surfaces (segmentation:regions) and depth is dense."""
    threshold: float = 0.6
    """Two pieces are one object when the views put their points into one mask more often."""
    uncovered: float = 1.0
    """What a view counts, against, that masks one of two points and leaves the other out."""
    purity: float = 0.95
    """A superpoint is divided where the views put its points into one mask less often."""
    support: float = 0.1
    """Least mean IoU of an object with the best mask of each view that sees it."""
    views: int = 2
    """Least views in which some mask fits an object with IoU 0.5; of an object that fewer views
    see, all of them."""
    covered: float = 0.2
    """Least share of looks under some mask; less is background, unlabelled."""
    consensus: float = 0.8
    """A point that this share of its looks give one object belongs to it, whatever its surface."""
    anchors: int = 60_000
    """Points on which identities are settled."""
    points: int = 50
    """Objects with fewer points are dropped; in clouds of under 10 000 points, fewer will do."""
