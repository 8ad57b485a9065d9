"""Which part of a picture the network sees, and back to the picture (the code of 2604.13596).

The authors' numbers are for pictures of 960x540; here they are shares of the shorter side, so that
pictures of any size are treated alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from lift3d.scene import Image

SHORT = 540
"""Shorter side of the pictures that the authors' numbers are for."""
SMALLEST, NEAR, FAR, SLOPE = 180, 50, 200, 2.4
"""Crops have 180 pixels for boxes below 50, the shorter side above 200, and grow by 2.4 between."""
FILL = 114
"""Grey level beyond the border of a picture."""
OUTSIDE = -32.0
"""Logit of pixels that the network did not see."""


@dataclass(frozen=True)
class Window:
    """A rectangle of a picture that is resized to the network's square; in whole pixels.

    It may reach beyond the right and bottom border, where the network sees grey.
    """

    left: int
    top: int
    width: int
    height: int

    def cut(self, image: Image, size: int) -> UInt8[np.ndarray, "size size 3"]:
        """The part of a picture, `size` pixels square."""
        return np.asarray(self._resized(image, size, "INTER_AREA", FILL), np.uint8)

    def cut_mask(
        self, mask: Bool[np.ndarray, "height width"], size: int
    ) -> Bool[np.ndarray, "size size"]:
        """The part of a mask, by its nearest pixels."""
        return self._resized(mask.astype(np.uint8), size, "INTER_NEAREST", 0) > 0

    def _resized(self, array: np.ndarray, size: int, how: str, fill: int) -> np.ndarray:
        import cv2

        part = array[self.top : self.top + self.height, self.left : self.left + self.width]
        below, right = self.height - part.shape[0], self.width - part.shape[1]
        if below > 0 or right > 0:
            rest = [(0, 0)] * (array.ndim - 2)
            part = np.pad(part, [(0, below), (0, right), *rest], constant_values=fill)
        return cv2.resize(np.ascontiguousarray(part), (size, size), interpolation=getattr(cv2, how))

    def inward(
        self, xy: Float[np.ndarray, "points 2"], size: int
    ) -> Float32[np.ndarray, "points 2"]:
        """Pixels of the picture as pixels of the network's square, moved inside it.

        As in the authors' code the scale is that of the sides, without half a pixel.
        """
        scale = np.array([size / self.width, size / self.height])
        moved = (xy - np.array([self.left, self.top])) * scale
        return moved.clip(0, size - 1).astype(np.float32)

    def outward(
        self, xy: Float[np.ndarray, "points 2"], size: int
    ) -> Float32[np.ndarray, "points 2"]:
        """Pixels of the network's square as pixels of the picture."""
        scale = np.array([self.width / size, self.height / size])
        return (xy * scale + np.array([self.left, self.top])).astype(np.float32)

    def recovered(
        self, logits: Float32[np.ndarray, "side side"], height: int, width: int
    ) -> Float32[np.ndarray, "height width"]:
        """Logits in the whole picture; -32 where the network did not see it."""
        import torch
        from torch.nn.functional import interpolate

        tensor = torch.from_numpy(np.ascontiguousarray(logits))[None, None]
        large = interpolate(tensor, [self.height, self.width], mode="bilinear")[0, 0].numpy()
        canvas = np.full((height, width), OUTSIDE, np.float32)
        below, right = min(height, self.top + self.height), min(width, self.left + self.width)
        canvas[self.top : below, self.left : right] = large[: below - self.top, : right - self.left]
        return canvas


def whole(height: int, width: int) -> Window:
    """The whole picture, with grey at the right or below where it is not a square."""
    return Window(0, 0, max(height, width), max(height, width))


def around_mask(mask: Bool[np.ndarray, "height width"]) -> Window:
    """The largest square in the picture, as near to the mask's mean as the border lets it be."""
    height, width = mask.shape
    side = min(height, width)
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return Window((width - side) // 2, (height - side) // 2, side, side)
    left = _inside(int(columns.mean()) - side // 2, side, width)
    top = _inside(int(rows.mean()) - side // 2, side, height)
    return Window(left, top, side, side)


def zoomed(mask: Bool[np.ndarray, "size size"], factor: float = 2.0) -> Window | None:
    """A square around the mask in the network's square, at most `factor` times enlarged.

    None for an empty mask.
    """
    size = mask.shape[0]
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    x, y = (int(each[0] + each[-1]) // 2 for each in (columns, rows))
    across, down = (int(each[-1] - each[0]) + 1 for each in (columns, rows))
    side = min(max(int(size / factor), across, down), size)
    left, top = (_inside(at - side // 2, side, size) for at in (x, y))
    return Window(left, top, side, side)


def around_points(xy: Float[np.ndarray, "points 2"], height: int, width: int) -> Window:
    """A square around tracked points, larger where they lie apart; the whole if it is a square.

    The authors show the network whole pictures of the first kind (square, of a camera on the
    head) and crops of the second (960x540, of cameras on tripods).
    """
    short = min(height, width)
    if height == width or not len(xy):
        return (
            whole(height, width)
            if height == width
            else around_mask(np.zeros((height, width), bool))
        )
    low, high = xy.min(0), xy.max(0)
    side = crop_side(float((high - low).max()), short)
    x, y = (round(float(each) - side / 2) for each in (low + high) / 2)
    return Window(_inside(x, side, width), _inside(y, side, height), side, side)


def crop_side(
    box: float, short: int, smallest: int = SMALLEST, near: int = NEAR, slope: float = SLOPE
) -> int:
    """Side of the crop for points whose box has the longer side `box`, in pixels.

    >>> [crop_side(box, 540) for box in (49.9, 79.9, 199.9, 201.0)]
    [180, 251, 539, 540]
    """
    unit = short / SHORT
    if box < near * unit:
        return int(smallest * unit)
    if box > FAR * unit:
        return short
    return min(int(unit * (slope * (box / unit - near) + smallest)), short)


def _inside(start: int, length: int, limit: int) -> int:
    """The start of an interval moved into 0 to `limit`."""
    return max(0, min(start, limit - length))
