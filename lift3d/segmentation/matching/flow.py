"""Correspondences from dense optical flow with a forward-backward check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Float32, UInt8

from lift3d.scene import Camera, Matches, View
from lift3d.scene.errors import InputError
from lift3d.scene.protocols import MatcherConfig

Grey: TypeAlias = UInt8[np.ndarray, "height width"]
Flow: TypeAlias = Float32[np.ndarray, "height width 2"]

LEAST_SIDE = 16
"""Minimum side in pixels. OpenCV's flow uses patches of 8 pixels and fails on smaller images."""


@dataclass(frozen=True)
class FlowMatcherConfig(MatcherConfig):
    """Move a grid of pixels along the optical flow; needs neither depth nor poses.

    For neighbouring frames of a video. The flow is OpenCV's DIS (Kroeger et al. 2016).
    """

    side: int = 512
    """Longer side of the scaled-down images on which flow is computed, in pixels."""
    stride: int = 4
    """Step of the grid in pixels of the scaled-down image."""
    tolerance: float = 1.0
    """Maximum forward-backward error in pixels of the scaled-down image."""
    border: int = 2
    """Drop matches within this many pixels of a border of the scaled-down images."""
    flat_confidence: float = 0.25
    """Factor on a match's confidence in images without texture, where flow is unreliable."""
    texture: float = 4.0
    """Change of brightness per pixel (0 to 255) at which half of the reduction remains."""

    def build(self) -> FlowMatcher:
        """The matcher with these settings."""
        if self.stride < 1:
            raise InputError(f"matching stride is {self.stride}; it must be 1 or more")
        if self.side < LEAST_SIDE:
            raise InputError(f"matching side is {self.side}; it must be {LEAST_SIDE} or more")
        if not self.tolerance > 0:
            raise InputError(f"matching tolerance is {self.tolerance}; it must be above 0")
        return FlowMatcher(self)


class FlowMatcher:
    """Flow from a to b and from b to a, on grey images of bounded size."""

    def __init__(self, config: FlowMatcherConfig) -> None:
        self.config = config
        self._recent: list[tuple[View, Grey]] = []

    def match(self, a: View, b: View) -> Matches:
        """Pixels of `a` and `b` that show the same point, in colour coordinates.

        A match is kept if the flow to b and back ends within the tolerance of its start, which
        excludes most occluded points. Confidence falls from 1 to 0 as this error grows to the
        tolerance, and is reduced where `a` lacks texture in some direction.
        """
        import cv2

        grey_a, grey_b = self._grey(a), self._grey(b)
        height, width = grey_a.shape
        if grey_b.shape != grey_a.shape:
            grey_b = np.asarray(cv2.resize(grey_b, (width, height)), np.uint8)
        stride, border = self.config.stride, self.config.border
        row, column = np.mgrid[stride // 2 : height : stride, stride // 2 : width : stride]
        row, column = row.ravel(), column.ravel()
        here = np.stack([column, row], axis=1).astype(np.float32)

        there = here + _flow(grey_a, grey_b)[row, column]
        limit = np.array([width - 1 - border, height - 1 - border])
        inside = ((np.minimum(here, there) >= border) & (np.maximum(here, there) <= limit)).all(1)
        here, there = here[inside], there[inside]
        gap = np.linalg.norm(there + _sample(_flow(grey_b, grey_a), there) - here, axis=1)
        agrees = gap <= self.config.tolerance
        here, there, gap = here[agrees], there[agrees], gap[agrees]

        row, column = here[:, 1].astype(np.int64), here[:, 0].astype(np.int64)
        slope = _texture(grey_a)[row, column]
        textured = slope / (slope + self.config.texture)
        flat = self.config.flat_confidence
        confidence = (1 - (gap / self.config.tolerance) ** 2) * (flat + (1 - flat) * textured)
        return Matches(
            _enlarge(here, width, height, a.camera),
            _enlarge(there, width, height, b.camera),
            confidence.astype(np.float32),
        )

    def _grey(self, view: View) -> Grey:
        """The scaled-down grey image; the last two are cached, as a tracker uses each twice."""
        import cv2

        for known, grey in self._recent:
            if known is view:
                return grey
        image = view.image()
        height, width = image.shape[:2]
        shrink = min(1.0, self.config.side / max(height, width))
        size = round(width * shrink), round(height * shrink)
        if min(size) < LEAST_SIDE:
            raise InputError(
                f"matching 'flow' needs images of {LEAST_SIDE} pixels or more along each side, "
                f"view {view.name} has {size[0]}x{size[1]} after shrinking to side "
                f"{self.config.side}; use larger images or a larger side"
            )
        # INTER_AREA averages the covered pixels: no aliasing, and pixel centres are kept.
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        grey = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)
        self._recent = [*self._recent[-1:], (view, grey)]
        return grey


def _flow(source: Grey, target: Grey) -> Flow:
    """(Column, row) offset from each pixel of `source` to its position in `target`."""
    import cv2

    # A new object for each call: it starts from its last result, so results depended on order.
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return np.asarray(dis.calc(source, target, None), np.float32)  # type: ignore[call-overload]


def _sample(flow: Flow, xy: Float32[np.ndarray, "points 2"]) -> Float32[np.ndarray, "points 2"]:
    """Bilinear interpolation of the flow at `xy`, which must be inside the image."""
    height, width = flow.shape[:2]
    left = np.clip(np.floor(xy[:, 0]).astype(np.int64), 0, width - 2)
    top = np.clip(np.floor(xy[:, 1]).astype(np.int64), 0, height - 2)
    right = (xy[:, 0] - left)[:, None]
    down = (xy[:, 1] - top)[:, None]
    above = flow[top, left] * (1 - right) + flow[top, left + 1] * right
    below = flow[top + 1, left] * (1 - right) + flow[top + 1, left + 1] * right
    return (above * (1 - down) + below * down).astype(np.float32)


def _texture(grey: Grey) -> Float32[np.ndarray, "height width"]:
    """Smallest directional change of brightness per pixel (Shi and Tomasi)."""
    import cv2

    least = np.asarray(cv2.cornerMinEigenVal(grey, blockSize=7, ksize=3), np.float32)
    # OpenCV divides slopes by 4 * 7 * 255, Sobel's 3x3 counts them 8 times, and 7x7 are summed.
    return np.sqrt(np.maximum(least, 0)) * np.float32(127.5)


def _enlarge(
    xy: Float[np.ndarray, "points 2"], width: int, height: int, camera: Camera
) -> Float32[np.ndarray, "points 2"]:
    """Scale coordinates from the scaled-down image to the camera's; integers are pixel centres."""
    scale = np.array([camera.width / width, camera.height / height])
    return ((xy + 0.5) * scale - 0.5).astype(np.float32)
