"""Pictures resized as in training, and the transform back to the original's pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8
from PIL import Image as Pillow

from lift3d.scene import Image
from lift3d.scene.errors import FrameError

Mode: TypeAlias = Literal["crop", "pad"]
SIDE, STEP = 518, 14
"""The published network's input and patch, in pixels; sides are multiples of the patch."""
WHITE = 255


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture resized, cropped and padded for the network."""

    rgb: Image
    original_from_network: Float64[np.ndarray, "3 3"]
    """Maps pixels of `rgb` to pixels of the original; in both, centres are whole numbers."""
    top: int = 0
    """Rows of padding above the picture."""
    left: int = 0
    bottom: int = 0
    right: int = 0

    @property
    def pixels(self) -> Float32[np.ndarray, "3 height width"]:
        """The network's input, values 0 to 1."""
        return self.rgb.transpose(2, 0, 1).astype(np.float32) / np.float32(255)

    @property
    def width(self) -> int:
        """Columns with the padding."""
        return self.rgb.shape[1]

    @property
    def height(self) -> int:
        """Rows with the padding."""
        return self.rgb.shape[0]

    @property
    def inside(self) -> Bool[np.ndarray, "height width"]:
        """Pixels of the picture, not of the padding."""
        found = np.zeros((self.height, self.width), bool)
        found[self.top : self.height - self.bottom, self.left : self.width - self.right] = True
        return found

    @property
    def network_from_original(self) -> Float64[np.ndarray, "3 3"]:
        """Maps pixels of the original to `rgb`; times K of the original, it is the K of `rgb`."""
        return np.linalg.inv(self.original_from_network)

    def padded(self, height: int, width: int) -> Prepared:
        """The picture in the middle of a white one of this size; odd pixels go below and right."""
        down, across = height - self.height, width - self.width
        top, left = down // 2, across // 2
        edges = ((top, down - top), (left, across - left), (0, 0))
        shift = np.array([[1.0, 0, -left], [0, 1, -top], [0, 0, 1]])
        return replace(
            self,
            rgb=np.pad(self.rgb, edges, constant_values=WHITE),
            original_from_network=self.original_from_network @ shift,
            top=self.top + top,
            left=self.left + left,
            bottom=self.bottom + down - top,
            right=self.right + across - left,
        )


def on_white(
    image: UInt8[np.ndarray, "height width 4"],
) -> UInt8[np.ndarray, "height width 3"]:
    """A picture with transparency, laid over white."""
    picture = Pillow.fromarray(image)
    ground = Pillow.new("RGBA", picture.size, (WHITE,) * 4)
    return np.asarray(Pillow.alpha_composite(ground, picture).convert("RGB"))


def prepare(image: Image, mode: Mode = "crop", size: int = SIDE, step: int = STEP) -> Prepared:
    """The picture at the network's size.

    `crop`: `size` wide, and as high as its shape asks for; of more than `size` rows the middle
    ones are kept. `pad`: the longer side is `size`, and white fills up a square.

    >>> small = prepare(np.zeros((480, 640, 3), np.uint8))
    >>> small.height, small.width, prepare(np.zeros((480, 640, 3), np.uint8), "pad").height
    (392, 518, 518)
    """
    height, width = image.shape[:2]
    if min(height, width) == 0:
        raise FrameError(f"image is {width}x{height}; expected at least 1x1")
    if mode == "pad" and height > width:
        high, wide = size, round(width * size / height / step) * step
    else:
        high, wide = round(height * size / width / step) * step, size
    if min(high, wide) == 0:
        raise FrameError(
            f"image is {width}x{height}, too thin: its short side would be under {step} pixels of "
            f"{size}. Crop it, or leave it out"
        )
    picture = np.asarray(Pillow.fromarray(image).resize((wide, high), Pillow.Resampling.BICUBIC))
    top = max(high - size, 0) // 2 if mode == "crop" else 0
    # The image begins at -0.5, so a centre c maps to (c + 0.5) * scale - 0.5.
    scale_x, scale_y = width / wide, height / high
    original_from_network = np.array(
        [
            [scale_x, 0.0, 0.5 * scale_x - 0.5],
            [0.0, scale_y, (top + 0.5) * scale_y - 0.5],
            [0.0, 0.0, 1.0],
        ]
    )
    found = Prepared(picture[top : top + size], original_from_network)
    return found.padded(size, size) if mode == "pad" else found


def together(images: Sequence[Prepared]) -> list[Prepared]:
    """Pictures of several shapes padded to one: the network takes frames of one size."""
    height = max(image.height for image in images)
    width = max(image.width for image in images)
    return [
        image if (image.height, image.width) == (height, width) else image.padded(height, width)
        for image in images
    ]
