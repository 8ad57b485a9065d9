"""Depth as sensors measure it, with the errors that do not average out.

Structured light: the noise of disparity, its quantisation and the sideways shift are those of
Handa et al. (2014, "A Benchmark for RGB-D Visual Odometry, 3D Reconstruction and SLAM", Sec. III),
after Barron and Malik (2013); the projector's shadow is missing. Time of flight: noise and missing
depth by the light that comes back (albedo times the cosine over the squared depth), and an error
that oscillates with depth (Foix et al. 2011, "Lock-in Time-of-Flight Cameras: A Survey"). Both: a
smooth distortion of the image that grows with depth (Teichman et al. 2013, "Unsupervised Intrinsic
Calibration of Depth Sensors via SLAM"), and corners rounded, by the matching window or by light
that takes two paths.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from lift3d.datasets.synthetic.render import Exact
from lift3d.datasets.synthetic.sensor import NEAR, patches, steps
from lift3d.scene import Depth


@dataclass(frozen=True)
class DepthSensor:
    """One sensor; drawn once a room."""

    structured_light: bool
    """Else time of flight."""
    noise: float
    """Factor of the random error; 1 is a Kinect of the respective kind."""
    warp: float
    """Largest error of the distortion at 3 m, as a share of the depth."""
    rounding: float
    """How far corners are rounded, 0 to 1."""
    dark: float
    """Light that has to come back for a measurement: that of a grey of this value, seen straight,
    2 m away."""
    grazing: float
    """Cosine to the surface below which depth is missing, more or less."""
    far: float
    """Metres."""
    seed: int
    """Of the distortion."""

    def measure(self, exact: Exact, rng: np.random.Generator) -> Depth:
        """Depth of one view, 0 where missing."""
        z = exact.depth
        shape = z.shape
        true = np.maximum(z, 1e-3)
        blotches = patches(rng, shape)
        light = exact.colour.mean(axis=2) * exact.facing * (2 / np.maximum(true, 0.5)) ** 2
        depth = self._rounded(true)
        depth = depth * (1 + self.warp * self._distortion(shape) * np.minimum(true / 3, 1.5))
        edge = steps(z)
        if self.structured_light:
            depth = self._disparity(depth, rng)
            missing = edge & (rng.random(shape, np.float32) < 0.7)
            missing |= shadow(true)
        else:
            depth = depth + 0.004 * self.noise * np.sin(4 * np.pi * true / 1.5)
            sigma = 0.004 * self.noise / np.sqrt(np.maximum(light, 0.05))
            depth = depth + np.minimum(sigma, 0.05) * rng.standard_normal(shape, np.float32)
            flying = edge & (rng.random(shape, np.float32) < 0.3)
            depth = np.where(flying, cv2.blur(z, (3, 3)), depth)
            missing = edge & ~flying & (rng.random(shape, np.float32) < 0.7)
        missing |= light < self.dark * (0.6 + 0.8 * blotches)
        missing |= exact.facing < self.grazing * (0.5 + blotches)
        missing |= blotches < 1.1 * exact.shine - 0.05
        missing |= (z < NEAR) | (z > self.far) | (rng.random(shape, np.float32) < 0.003)
        return np.where(missing, 0, depth).astype(np.float32)

    def _rounded(self, z: Depth) -> Depth:
        """Concave and convex corners pulled towards the mean of their surroundings."""
        wide = max(z.shape[1] // 40, 1) * 2 + 1
        mean = cv2.blur(z, (wide, wide))
        # A corner is less than 10 cm off the mean; more is a step to another surface.
        off = mean - z
        return (z + self.rounding * off * np.exp(-((off / 0.06) ** 2))).astype(np.float32)

    def _distortion(self, shape: tuple[int, int]) -> Float32[np.ndarray, "height width"]:
        """Smooth over the image, the same in every view, -1 to 1."""
        coarse = np.random.default_rng(self.seed).uniform(-1, 1, (4, 5)).astype(np.float32)
        return np.asarray(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC))

    def _disparity(self, z: Depth, rng: np.random.Generator) -> Depth:
        """Noise and steps of a disparity of 1/8 pixel (Handa et al. 2014; depth in cm there)."""
        height, width = z.shape
        row, column = np.mgrid[:height, :width].astype(np.float32)
        # Half a pixel of 640, however wide the picture.
        sideways = 0.5 * width / 640 * self.noise
        shift = (sideways * rng.standard_normal((2, height, width))).astype(np.float32)
        seen = cv2.remap(z, column + shift[0], row + shift[1], cv2.INTER_NEAREST,
                         borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
        disparity = 351.3 / seen + self.noise / 6 * rng.standard_normal(z.shape)
        return (351.3 / np.maximum(np.round(disparity), 1)).astype(np.float32)


def shadow(z: Depth, base: float = 0.075) -> Bool[np.ndarray, "height width"]:
    """Pixels that a projector `base` metres to the right of the camera does not reach."""
    focal = 0.9 * z.shape[1]
    column = np.arange(z.shape[1]) - focal * base / z
    # Along a row the projector sees columns in order, but for those that nearer ones hide.
    first = np.minimum.accumulate(column[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(column > first + 0.5)
