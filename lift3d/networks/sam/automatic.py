"""Masks of everything from a grid of points: which points to ask, which answers to keep.

As SAM's automatic mask generator does it, without the network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from lift3d.scene.errors import InputError

NEAR = 20
"""A box nearer than this to the edge of a crop, in pixels, is cut off by it."""


@dataclass(frozen=True)
class AutomaticConfig:
    """Which masks count as everything in the view; the defaults are SAM's authors'."""

    points_per_side: int = 32
    """Grid of prompts along each image side; without a GPU 8 is enough to wait for."""
    min_score: float = 0.88
    """Masks that the network thinks worse of than this are left out."""
    min_stability: float = 0.95
    """So are masks that change more than this with the threshold: IoU of the mask cut a little
    higher and a little lower."""
    stability_offset: float = 1.0
    """That little, in logits."""
    max_overlap: float = 0.7
    """Of two masks whose boxes have a larger IoU only the better stays."""
    crop_layers: int = 0
    """Look again at 4, then 16, ... overlapping crops: finds small objects, takes 5, 21, ...
    embeddings a view."""
    crop_overlap: float = 512 / 1500
    """How far crops of the first layer overlap, as a share of the shorter side."""
    crop_points_divisor: int = 1
    """Each layer's grid has this many times fewer points along a side than the one before."""
    smallest: float = 0.0
    """Smaller islands are cut off and smaller holes filled, as a share of the image."""

    def check(self) -> None:
        """Raise InputError where the settings make no sense."""
        if self.points_per_side < 1 or self.crop_layers < 0 or self.crop_points_divisor < 1:
            raise InputError(
                "automatic masks need points_per_side >= 1, crop_layers >= 0 and "
                f"crop_points_divisor >= 1, got {self.points_per_side}, {self.crop_layers} and "
                f"{self.crop_points_divisor}"
            )


class Crop(NamedTuple):
    """A part of the image to look at, and how densely."""

    x0: int
    y0: int
    x1: int
    y1: int
    points_per_side: int


def crops(height: int, width: int, config: AutomaticConfig) -> list[Crop]:
    """The whole image, then each layer's crops; layer n has 2^n along each side.

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
    """Evenly spaced points of the crop, x and y within it, row by row.

    >>> point_grid(Crop(0, 0, 4, 2, 2)).tolist()
    [[1.0, 0.5], [3.0, 0.5], [1.0, 1.5], [3.0, 1.5]]
    """
    along = (np.arange(crop.points_per_side) + 0.5) / crop.points_per_side
    y, x = np.meshgrid(along, along, indexing="ij")
    size = (crop.x1 - crop.x0, crop.y1 - crop.y0)
    return np.stack([x, y], -1).reshape(-1, 2) * size


def boxes_of(stack: Bool[np.ndarray, "masks height width"]) -> Int64[np.ndarray, "masks 4"]:
    """x0, y0, x1, y1 of each mask's outermost pixels; zeros for an empty mask.

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
    """Non-maximum suppression: the masks to keep, best first; of equals the earlier.

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
    """Whether a box ends at an edge of the crop that is no edge of the image."""
    at_crop = np.abs(boxes - np.array(crop[:4])) <= NEAR
    at_image = np.abs(boxes - np.array([0, 0, width, height])) <= NEAR
    return (at_crop & ~at_image).any(1)


def cleaned(mask: Bool[np.ndarray, "height width"], least: float) -> np.ndarray:
    """The mask without islands and holes of fewer than `least` pixels; it keeps its largest."""
    import cv2

    for filled in (True, False):  # holes are islands of the outside
        part = (mask ^ filled).astype(np.uint8)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(part, connectivity=8)
        area = stats[:, cv2.CC_STAT_AREA]
        small = area < least
        small[0] = False
        if not filled and count > 1 and small[1:].all():
            small[1 + int(area[1:].argmax())] = False
        mask = mask ^ small[labels]
    return mask
