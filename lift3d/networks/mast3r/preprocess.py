"""Pictures resized and cropped as in training, and the transform back to the original's pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64
from PIL import Image as Pillow

from lift3d.scene import Image
from lift3d.scene.errors import FrameError, InputError

SIZES = (224, 512)
STEP = 16
"""The network's patch in pixels; sides are multiples of it."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture resized and cropped for the network."""

    rgb: Image
    original_from_network: Float64[np.ndarray, "3 3"]
    """Maps pixels of `rgb` to pixels of the original; in both, centres are whole numbers."""

    @property
    def pixels(self) -> Float32[np.ndarray, "3 height width"]:
        """The network's input, values -1 to 1."""
        values = self.rgb.transpose(2, 0, 1).astype(np.float32)
        return (values / np.float32(255) - np.float32(0.5)) / np.float32(0.5)

    @property
    def width(self) -> int:
        """Columns after the crop."""
        return self.rgb.shape[1]

    @property
    def height(self) -> int:
        """Rows after the crop."""
        return self.rgb.shape[0]

    @property
    def network_from_original(self) -> Float64[np.ndarray, "3 3"]:
        """Maps pixels of the original to `rgb`; times K of the original, it is the K of `rgb`."""
        return np.linalg.inv(self.original_from_network)


def prepare(image: Image, size: int = 512) -> Prepared:
    """Resize, then crop the centre.

    At 512 the long side becomes 512, both sides are cropped to multiples of 16, and a square
    to 4:3. At 224 the short side becomes 224 and the centre square remains.

    >>> small = prepare(np.zeros((480, 640, 3), np.uint8))
    >>> small.height, small.width, small.original_from_network[0].tolist()
    (384, 512, [1.25, 0.0, 0.125])
    """
    if size not in SIZES:
        raise InputError(f"image size is {size}; expected 512 or 224")
    height, width = image.shape[:2]
    if min(height, width) == 0:
        raise FrameError(f"image is {width}x{height}; expected at least 1x1")
    long = max(height, width)
    target = size if size == 512 else round(size * long / min(height, width))
    resized_width, resized_height = round(width * target / long), round(height * target / long)
    centre_x, centre_y = resized_width // 2, resized_height // 2
    if size == 224:
        half_width = half_height = min(centre_x, centre_y)
    else:
        half_width, half_height = (
            centre * 2 // STEP * STEP // 2 for centre in (centre_x, centre_y)
        )
        if resized_width == resized_height:
            half_height = half_width * 3 // 4
    if min(half_width, half_height) == 0:
        raise FrameError(
            f"image is {width}x{height}, too thin: its short side would be under {STEP} pixels "
            f"of {size}. Crop it, or leave it out"
        )
    left, top = centre_x - half_width, centre_y - half_height
    picture = Pillow.fromarray(image).resize(
        (resized_width, resized_height),
        Pillow.Resampling.LANCZOS if long > target else Pillow.Resampling.BICUBIC,
    )
    picture = picture.crop((left, top, centre_x + half_width, centre_y + half_height))
    # The image begins at -0.5, so a centre c maps to (c + 0.5) * scale - 0.5.
    scale_x, scale_y = width / resized_width, height / resized_height
    original_from_network = np.array(
        [
            [scale_x, 0.0, (left + 0.5) * scale_x - 0.5],
            [0.0, scale_y, (top + 0.5) * scale_y - 0.5],
            [0.0, 0.0, 1.0],
        ]
    )
    return Prepared(np.asarray(picture), original_from_network)
