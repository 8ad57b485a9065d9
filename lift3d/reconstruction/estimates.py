"""What a network estimates of a view, at the size of its input, as a view of the scene."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from jaxtyping import Float32, Float64

from lift3d.scene import Camera, Transform, View, held


def with_estimate(
    view: View,
    original_from_network: Float64[np.ndarray, "3 3"],
    K: Float64[np.ndarray, "3 3"],
    pose: Transform,
    depth: Float32[np.ndarray, "height width"],
    confidence: Float32[np.ndarray, "height width"],
) -> View:
    """The view with an estimated camera, depth and confidence.

    `K`, depth and confidence are of the network's input, whose pixels `original_from_network` maps
    to those of the picture.
    """
    colour, (height, width) = view.camera, depth.shape
    return replace(
        view,
        camera=Camera(original_from_network @ K, colour.width, colour.height, pose),
        depth_camera=Camera(K, width, height, pose),
        load_depth=partial(held, depth),
        load_confidence=partial(held, confidence),
        sparse=False,
    )
