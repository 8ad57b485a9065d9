"""Colour pictures of a hand-held camera: exposure, white balance, blur, grain, compression."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float64

from lift3d.datasets.synthetic.render import Exact
from lift3d.scene import Camera, Image

GAMMA = 1 / 1.6


@dataclass(frozen=True)
class ColourCamera:
    """One colour camera; drawn once a room."""

    bright: float
    """Light that reaches the sensor, as a factor; much of it saturates."""
    exposure: float
    """Largest change of brightness from view to view, as a logarithm."""
    balance: float
    """The same of red, green and blue."""
    open: float
    """Share of the time between two views for which the shutter is open: motion blur."""
    longest: float
    """Of the blur, as a share of the picture's width; people move slowly in the dark."""
    soft: float
    """Deviation of the lens's blur, in pixels of a picture 320 wide."""
    grain: float
    vignette: float
    """Light lost in the corners, as a share."""
    quality: int
    """Of JPEG, 1 to 100."""

    def photo(
        self, exact: Exact, gain: Float64[np.ndarray, "4"], moved: Float64[np.ndarray, "2"],
        rng: np.random.Generator,
    ) -> Image:  # fmt: skip
        """The picture.

        gain: logarithms, -1 to 1 in units of the camera's changes: of all, of red, green, blue.
        moved: pixels that the picture moves by until the next view.
        """
        colour = (
            self.bright * exact.colour * np.exp(self.exposure * gain[0] + self.balance * gain[1:])
        )
        height, width = colour.shape[:2]
        colour = cv2.GaussianBlur(colour.astype(np.float32), (0, 0), self.soft * width / 320)
        limit = self.longest * width
        colour = smeared(colour, np.clip(self.open * moved, -limit, limit))
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        colour *= (1 - self.vignette * (x**2 + y**2) / 2)[..., None]
        colour += self.grain * rng.standard_normal(colour.shape, np.float32)
        picture = np.round(255 * np.clip(colour, 0, 1) ** GAMMA).astype(np.uint8)
        _, stored = cv2.imencode(
            ".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, self.quality]
        )
        return np.ascontiguousarray(np.asarray(cv2.imdecode(stored, cv2.IMREAD_COLOR))[..., ::-1])


def smeared(colour: np.ndarray, along: Float64[np.ndarray, "2"]) -> np.ndarray:
    """The picture moved along a line of pixels while the shutter is open."""
    reach = int(np.ceil(np.abs(along).max() / 2))
    if reach < 1:
        return colour
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    for step in np.linspace(-0.5, 0.5, 8 * reach + 1):
        column, row = np.round(step * along).astype(int) + reach
        kernel[row, column] += 1
    return np.asarray(
        cv2.filter2D(colour, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)
    )


def motion(one: Camera, other: Camera, depth: float) -> Float64[np.ndarray, "2"]:
    """Pixels by which the point in the middle of `one`, at `depth`, moves until `other`."""
    point = one.pose @ [0, 0, depth, 1]
    local = other.camera_from_world @ point
    if local[2] < 0.1:
        return np.zeros(2)
    pixel = other.K @ (local[:3] / local[2])
    return np.asarray(pixel[:2] - one.K[:2, 2])
