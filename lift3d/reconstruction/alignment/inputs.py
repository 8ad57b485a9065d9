"""Inputs and result of global alignment: pairwise point maps, known quantities, settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float32, Float64

from lift3d.scene import Depth, Transform

GRID = 8
"""Point maps are compared on every n-th pixel."""


@dataclass(frozen=True, eq=False)
class PairPrediction:
    """Point maps of two images in the camera frame of the first, from one run of the network.

    With a step above 1 a map holds every step-th pixel along rows and columns, the first at
    step // 2: enough for a relative pose, not for dense depth.
    """

    points_a: Float32[np.ndarray, "rows_a columns_a 3"]
    points_b: Float32[np.ndarray, "rows_b columns_b 3"]
    """Of the second image, in the frame (and at the scale) of the first."""
    confidence_a: Float32[np.ndarray, "rows_a columns_a"]
    """Above 0, higher is better; the scale is arbitrary."""
    confidence_b: Float32[np.ndarray, "rows_b columns_b"]
    step_a: int = 1
    step_b: int = 1

    def condensed(self, dense: bool) -> PairPrediction:
        """The prediction for storage: the second map thinned, and the first unless `dense`."""
        points_a, confidence_a, step_a = self.points_a, self.confidence_a, self.step_a
        if not dense:
            points_a, confidence_a, step_a = thinned(points_a, confidence_a, step_a)
        points_b, confidence_b, step_b = thinned(self.points_b, self.confidence_b, self.step_b)
        return PairPrediction(points_a, points_b, confidence_a, confidence_b, step_a, step_b)


def thinned(
    points: Float32[np.ndarray, "rows columns 3"],
    confidence: Float32[np.ndarray, "rows columns"],
    step: int,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Every `GRID`-th pixel of a full map, with the new step; a thinned map is unchanged."""
    if step != 1:
        return points, confidence, step
    grid = np.s_[GRID // 2 :: GRID, GRID // 2 :: GRID]
    return points[grid].copy(), confidence[grid].copy(), GRID


Pair: TypeAlias = tuple[int, int]
"""Two images by their index."""

Predictions: TypeAlias = Mapping[Pair, PairPrediction]
"""(a, b) -> prediction with a as the reference; may load lazily, each is read about twice."""


@dataclass(frozen=True, eq=False)
class Known:
    """Known quantities of one image; None if unknown.

    `sigma` fields are standard deviations; 0 keeps the value fixed.
    """

    K: Float64[np.ndarray, "3 3"] | None = None
    focal_sigma: float = 0.0
    """Relative, 0.01 for one per cent."""
    world_from_camera: Transform | None = None
    rotation_sigma: float = 0.0
    """Radians."""
    position_sigma: float = 0.0
    """World units of the known poses."""
    depth: Depth | None = None
    """Along z, in world units, 0 = unknown; at the image's size."""
    depth_sigma: float = 0.005
    """Relative."""
    ignored: Bool[np.ndarray, "height width"] | None = None
    """Pixels to ignore: people, moving objects, sky."""


UNKNOWN = Known()


@dataclass(frozen=True)
class AlignmentConfig:
    """Align pairwise point maps into consistent cameras and depth."""

    cell: int = 8
    """Edge of the cells on which depth is corrected, in pixels; doubled above 60 images."""
    shared_focal: bool = False
    """All images have the same focal length (in pixels of the aligned images)."""
    min_matches: int = 30
    """Ignore pairs with fewer matches that agree with the pair's geometry."""
    min_share: float = 0.08
    """Ignore pairs of which a smaller share of the matches agrees."""
    iterations: int = 40
    """Maximum number of steps of the second-order refinement."""
    predictions_per_image: int = 16
    """Maximum number of predictions averaged into an image's depth, best pairs first."""


@dataclass(frozen=True, eq=False)
class Aligned:
    """Cameras and depth of the aligned images. Arrays have an entry for every image; entries are
    valid where `used` is True.
    """

    used: Bool[np.ndarray, " images"]
    K: Float64[np.ndarray, "images 3 3"]
    world_from_camera: Float64[np.ndarray, "images 4 4"]
    depth: list[Depth]
    """Along z, at each image's size, 0 where unknown."""
    confidence: list[Float32[np.ndarray, "height width"]]
    """0 to 1, per depth pixel."""
    reason: dict[int, str] = field(default_factory=dict)
    """Image -> why it was left out."""
    dropped_pairs: tuple[tuple[int, int], ...] = ()
    """Pairs that contradict the others."""
    reprojection: float = 0.0
    """Median reprojection error in pixels of the matches of the kept pairs."""
