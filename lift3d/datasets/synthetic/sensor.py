"""Model of a real sensor: noise, missing depth, flying pixels, blur.

Noise of depth along z: sigma = 0.0012 + 0.0019 (z - 0.4)^2 metres (Nguyen, Izadi, Lovell:
Modeling Kinect Sensor Noise, 2012, Eq. 3).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32

from lift3d.datasets.synthetic.render import Exact
from lift3d.scene import Depth, Image

NEAR, FAR = 0.3, 5.0
"""Range of the depth sensor, metres."""


def photo(exact: Exact, rng: np.random.Generator, noise: bool) -> Image:
    """The colour picture; with noise: exposure, slight blur, grain."""
    colour = exact.colour
    if noise:
        import cv2

        colour = cv2.GaussianBlur(colour, (0, 0), 0.6)
        colour = colour * rng.uniform(0.92, 1.06)
        colour = colour + 0.012 * rng.standard_normal(colour.shape, np.float32)
    # Display gamma, so that shadows are not too dark.
    return np.round(255 * np.clip(colour, 0, 1) ** (1 / 1.6)).astype(np.uint8)


def measured(exact: Exact, rng: np.random.Generator) -> Depth:
    """The depth of the simulated sensor: rounded to millimetres, 0 = missing."""
    z = exact.depth
    shape = z.shape
    grain = rng.standard_normal(shape, np.float32)
    sigma = 0.0012 + 0.0019 * (z - 0.4) ** 2
    depth = z + sigma * grain
    edge = steps(z)
    flying = edge & (rng.random(shape, np.float32) < 0.15)
    depth[flying] = (_blurred(z))[flying]
    missing = edge & ~flying & (rng.random(shape, np.float32) < 0.6)
    # On grazing, shiny or dark surfaces, depth is missing in patches.
    blotches = patches(rng, shape)
    missing |= exact.facing < 0.08 + 0.17 * blotches
    missing |= blotches < 1.1 * exact.shine - 0.05
    missing |= (z < NEAR) | (z > FAR) | (rng.random(shape, np.float32) < 0.002)
    depth[missing] = 0
    return (np.round(depth * 1000) / 1000).astype(np.float32)


def steps(z: Depth) -> Bool[np.ndarray, "height width"]:
    """Pixels beside a depth step of more than 5 %."""
    edge = np.zeros(z.shape, bool)
    for axis in (0, 1):
        a = z[:-1] if axis == 0 else z[:, :-1]
        b = z[1:] if axis == 0 else z[:, 1:]
        jump = np.abs(a - b) > 0.05 * np.minimum(a, b)
        if axis == 0:
            edge[:-1] |= jump
            edge[1:] |= jump
        else:
            edge[:, :-1] |= jump
            edge[:, 1:] |= jump
    return edge


def _blurred(z: Depth) -> Depth:
    """Mean of 3 x 3 pixels: the depth of a flying pixel."""
    import cv2

    return np.asarray(cv2.blur(z, (3, 3)), np.float32)


def patches(
    rng: np.random.Generator, shape: tuple[int, int]
) -> Float32[np.ndarray, "height width"]:
    """Smooth noise from 0 to 1, with blobs of 1/30 of the image width."""
    import cv2

    height, width = shape
    coarse = rng.random((max(height * 30 // width, 2), 30), np.float32)
    return np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)
