"""Fill a view from a few points: random walks on its superpixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int32

from lift3d.association.superpoints import lab
from lift3d.correction.clicks.walker import walk
from lift3d.scene import View

SIGMA = 6.0
"""CIELAB distance of neighbouring superpixels at which a walk crosses with exp(-1/2)."""
LEAST = 1e-3
"""Conductance of a strong border, relative to none."""
SURE = 2.0
"""Conductance of a superpixel's exit per point that it shows, relative to one border pixel."""
CLICK = 100.0
"""Conductance of a clicked superpixel's exit."""
LEAK = 0.01
"""Conductance of each superpixel's exit to outside, per square root of its pixels: sky and leaves
behind an object show no points, and the walk would stay in them. Chosen on the statue, where the
IoU of the worst view rises from 0.66 to 0.89; the shelf is the same with and without."""
LONGEST = 320
"""Longer side, in pixels, at which superpixels are computed."""


@dataclass(frozen=True, eq=False)
class Superpixels:
    """The superpixels of a view, their borders, and the points that they show."""

    leaf: Int32[np.ndarray, "rows columns"]
    shape: tuple[int, int]
    """Of the view."""
    a: Int32[np.ndarray, " edges"]
    b: Int32[np.ndarray, " edges"]
    conductance: Float64[np.ndarray, " edges"]
    colour: Float64[np.ndarray, "superpixels 3"]
    """Mean CIELAB."""
    point: Int32[np.ndarray, " shown"]
    """Points that pixels show, and the superpixel of each."""
    at: Int32[np.ndarray, " shown"]

    @staticmethod
    def of(view: View, nearest: Int32[np.ndarray, "height width"]) -> Superpixels:
        """`nearest` is the point of each pixel, -1 without one."""
        import cv2

        from lift3d.segmentation.regions import Regions, RegionsConfig

        tree = Regions(RegionsConfig(longest=LONGEST)).prepared(view)
        leaf = tree.leaf.astype(np.int32)
        height, width = leaf.shape
        image = cv2.resize(view.image(), (width, height), interpolation=cv2.INTER_AREA)
        of_pixel = lab(image.reshape(-1, 3)).astype(np.float64)
        count, flat = int(leaf.max()) + 1, leaf.ravel()
        size = np.bincount(flat, minlength=count)
        sums = [np.bincount(flat, of_pixel[:, each], count) for each in range(3)]
        colour = np.stack(sums, 1) / np.maximum(size, 1)[:, None]
        pairs = np.concatenate(
            [
                np.stack([leaf[:, 1:].ravel(), leaf[:, :-1].ravel()], 1),
                np.stack([leaf[1:].ravel(), leaf[:-1].ravel()], 1),
            ]
        )
        pairs = np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1).astype(np.int64)
        key, length = np.unique(pairs[:, 0] * count + pairs[:, 1], return_counts=True)
        a, b = (key // count).astype(np.int32), (key % count).astype(np.int32)
        apart = ((colour[a] - colour[b]) ** 2).sum(1)
        conductance = length * (np.exp(-apart / (2 * SIGMA**2)) + LEAST)
        row, column = np.nonzero(nearest >= 0)
        scale = height / nearest.shape[0], width / nearest.shape[1]
        at = leaf[
            np.minimum((row * scale[0]).astype(int), height - 1),
            np.minimum((column * scale[1]).astype(int), width - 1),
        ]
        shape = (nearest.shape[0], nearest.shape[1])
        return Superpixels(leaf, shape, a, b, conductance, colour, nearest[row, column], at)

    def filled(
        self,
        probability: Float64[np.ndarray, " points"] | None,
        clicks: tuple[np.ndarray, np.ndarray] | None = None,
        border: bool = False,
    ) -> Float64[np.ndarray, "height width"]:
        """Probability of each pixel, from that of the points that the view shows.

        `clicks` are pixels (column, row) of this view and whether each is on the object. With
        `border`, what touches the image's border is outside. Without points only these count.
        """
        import cv2

        count = len(self.colour)
        size = np.bincount(self.leaf.ravel(), minlength=count)
        to_in, to_out = np.zeros(count), LEAK * np.sqrt(size)
        if probability is not None:
            value = probability[self.point]
            to_in += SURE * np.bincount(self.at, value, count)
            to_out += SURE * np.bincount(self.at, 1 - value, count)
        if border:
            sides = self.leaf[0], self.leaf[-1], self.leaf[:, 0], self.leaf[:, -1]
            to_out[np.unique(np.concatenate(sides))] += SURE
        if clicks is not None and len(clicks[0]):
            rows, columns = self.leaf.shape
            scale = np.array([columns / self.shape[1], rows / self.shape[0]])
            column, row = ((clicks[0] + 0.5) * scale).astype(int).T
            clicked = self.leaf[np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)]
            np.add.at(to_in, clicked, CLICK * clicks[1])
            np.add.at(to_out, clicked, CLICK * ~clicks[1])
        found = walk(self.a, self.b, self.conductance, to_in, to_out)
        small = found[self.leaf].astype(np.float32)
        size_of_view = (self.shape[1], self.shape[0])
        large = cv2.resize(small, size_of_view, interpolation=cv2.INTER_LINEAR)
        return large.astype(np.float64)
