"""Coordinates and colours of a PLY's vertices, in whatever types programs store them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, UInt8

from lift3d.scene.colours import eight_bit

COLOURS = (
    ("red", "green", "blue"),
    ("r", "g", "b"),
    ("diffuse_red", "diffuse_green", "diffuse_blue"),
)


def columns(vertex: np.ndarray, names: tuple[str, ...]) -> Float64[np.ndarray, "points columns"]:
    """Properties of the vertices side by side."""
    return np.stack([vertex[name].astype(np.float64) for name in names], axis=1)


def vertex_colours(vertex: np.ndarray) -> UInt8[np.ndarray, "points 3"]:
    """Red, green and blue, 0 to 255, of 8- or 16-bit or float colours; mid grey without any."""
    for names in COLOURS:
        if set(names) <= set(vertex.dtype.names or ()):
            return eight_bit(np.stack([vertex[name] for name in names], axis=1))
    return np.full((len(vertex), 3), 128, np.uint8)
