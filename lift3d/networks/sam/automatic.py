"""Automatic mask generation: the grid of point prompts, and the filters for the masks.

As SAM's automatic mask generator, without the network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from lift3d.scene.errors import InputError

NEAR = 20
"""Pixels; a box this near to the edge of a crop counts as cut off by it. From SAM's generator."""


@dataclass(frozen=True)
class AutomaticConfig:
    """Settings of automatic mask generation; the defaults are those of SAM's authors."""

    points_per_side: int = 32
    """Grid of point prompts along each image side; 8 is reasonable without a GPU."""
    min_score: float = 0.88
    """Minimum predicted IoU of a mask."""
    min_stability: float = 0.95
    """Minimum stability score: IoU of the mask at a higher and a lower threshold."""
    stability_offset: float = 1.0
    """Difference of these thresholds from 0, in logits."""
    max_overlap: float = 0.7
    """Of two masks whose boxes have a larger IoU, only the one with the higher score is kept."""
    crop_layers: int = 0
    """Also segment 4, then 16, ... overlapping crops: finds small objects, needs 5, 21, ...
    embeddings per view."""
    crop_overlap: float = 512 / 1500
    """Overlap of crops in the first layer, as a share of the shorter image side."""
    crop_points_divisor: int = 1
    """The grid of each layer has this many times fewer points per side than the layer before."""
    smallest: float = 0.0
    """Smaller connected parts are removed and smaller holes filled, as a share of the image."""

    def check(self) -> None:
        """Raise InputError where the settings make no sense."""
        if self.points_per_side < 1 or self.crop_layers < 0 or self.crop_points_divisor < 1:
            raise InputError(
                "automatic masks need points_per_side >= 1, crop_layers >= 0 and "
                f"crop_points_divisor >= 1, got {self.points_per_side}, {self.crop_layers} and "
                f"{self.crop_points_divisor}"
            )


class Crop(NamedTuple):
    """A part of the image with its number of point prompts per side."""

    x0: int
    y0: int
    x1: int
    y1: int
    points_per_side: int


def crops(height: int, width: int, config: AutomaticConfig) -> list[Crop]:
    """The full image, then each layer's crops; layer n has 2^n along each side.

    >>> crops(60, 80, AutomaticConfig(points_per_side=8))
    [Crop(x0=0, y0=0, x1=80, y1=60, points_per_side=8)]
    """
    found = [Crop(0, 0, width, height, config.points_per_side)]
    for layer in range(1, config.crop_layers + 1):
        count = 2**layer
        overlap = int(config.crop_overlap * min(height, width) * 2 / count)
        crop_width = math.ceil((overlap * (count - 1) + width) / count)
        crop_height = math.ceil((overlap * (count - 1) + height) / count)
        points = max(1, int(config.points_per_side / config.crop_points_divisor**layer))
        for column in range(count):
            for row in range(count):
                x, y = (crop_width - overlap) * column, (crop_height - overlap) * row
                right, below = min(x + crop_width, width), min(y + crop_height, height)
                found.append(Crop(x, y, right, below, points))
    return found


def point_grid(crop: Crop) -> Float64[np.ndarray, "points 2"]:
    """A regular grid of points (x, y) relative to the crop, row by row.

    >>> point_grid(Crop(0, 0, 4, 2, 2)).tolist()
    [[1.0, 0.5], [3.0, 0.5], [1.0, 1.5], [3.0, 1.5]]
    """
    along = (np.arange(crop.points_per_side) + 0.5) / crop.points_per_side
    y, x = np.meshgrid(along, along, indexing="ij")
    size = (crop.x1 - crop.x0, crop.y1 - crop.y0)
    return np.stack([x, y], -1).reshape(-1, 2) * size


def boxes_of(stack: Bool[np.ndarray, "masks height width"]) -> Int64[np.ndarray, "masks 4"]:
    """x0, y0, x1, y1 of each mask's outermost pixels, inclusive; zeros for an empty mask.

    >>> boxes_of(np.array([[[False, True, True], [False, False, True]]])).tolist()
    [[1, 0, 2, 1]]
    """
    edges = []
    for axis in (1, 2):
        hit = np.asarray(stack.any(axis))  # columns, then rows
        edges += [hit.argmax(1), hit.shape[1] - 1 - hit[:, ::-1].argmax(1)]
    boxes = np.stack([edges[0], edges[2], edges[1], edges[3]], 1).astype(np.int64)
    some = np.asarray(stack.any((1, 2)))
    return np.where(some[:, None], boxes, 0)


def suppressed(
    boxes: Int64[np.ndarray, "masks 4"], scores: Float64[np.ndarray, " masks"], overlap: float
) -> Int64[np.ndarray, " kept"]:
    """Non-maximum suppression: indices to keep, by falling score; a tie goes to the first mask.

    >>> suppressed(np.array([[0, 0, 9, 9], [0, 0, 9, 8], [5, 5, 9, 9]]), np.array([.8, .9, .1]), .7)
    array([1, 2])
    """
    order = np.argsort(-scores, kind="stable")
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[order, :2])
        high = np.minimum(boxes[best, 2:], boxes[order, 2:])
        shared = np.maximum(high - low, 0).prod(1)
        order = order[shared <= overlap * (area[best] + area[order] - shared)]
    return np.array(kept, np.int64)


def cut_off(
    boxes: Int64[np.ndarray, "masks 4"], crop: Crop, height: int, width: int
) -> Bool[np.ndarray, " masks"]:
    """Whether a box ends at an edge of the crop that is not an edge of the image."""
    at_crop = np.abs(boxes - np.array(crop[:4])) <= NEAR
    at_image = np.abs(boxes - np.array([0, 0, width, height])) <= NEAR
    return (at_crop & ~at_image).any(1)


def cleaned(mask: Bool[np.ndarray, "height width"], least: float) -> np.ndarray:
    """The mask without parts and holes of fewer than `least` pixels; the largest part is kept."""
    import cv2

    for filled in (True, False):  # holes are parts of the inverted mask
        part = (mask ^ filled).astype(np.uint8)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(part, connectivity=8)
        area = stats[:, cv2.CC_STAT_AREA]
        small = area < least
        small[0] = False
        if not filled and count > 1 and small[1:].all():
            small[1 + int(area[1:].argmax())] = False
        mask = mask ^ small[labels]
    return mask
