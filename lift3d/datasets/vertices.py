"""Coordinates and colours of a PLY's vertices, in whatever types programs store them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from lift3d.scene import Offset
from lift3d.scene.colours import eight_bit
from lift3d.scene.errors import InputError
from lift3d.scene.local_origin import local

XYZ = ("x", "y", "z")
COARSEST = 0.001
"""Largest step between float32 coordinates, as a share of a cloud's extent. Chosen by hand."""
HARMONICS, HARMONIC = ("f_dc_0", "f_dc_1", "f_dc_2"), 0.28209479177387814
"""Colour of a splat: the harmonic of degree 0, and its constant."""
COLOURS = (
    ("red", "green", "blue"),
    ("r", "g", "b"),
    ("diffuse_red", "diffuse_green", "diffuse_blue"),
)


def columns(vertex: np.ndarray, names: tuple[str, ...]) -> Float64[np.ndarray, "points columns"]:
    """Properties of the vertices side by side."""
    return np.stack([vertex[name].astype(np.float64) for name in names], axis=1)


def vertex_places(
    path: Path, vertex: np.ndarray, offset: Offset
) -> Float32[np.ndarray, "points 3"]:
    """x, y and z relative to a local origin; InputError where they are stored too coarsely."""
    xyz = columns(vertex, XYZ)
    check_steps(path, vertex, xyz)
    return local(xyz, offset)


def check_steps(path: Path, vertex: np.ndarray, xyz: Float64[np.ndarray, "points 3"]) -> None:
    """InputError where coordinates are too large for the float32 that they are stored in."""
    if vertex.dtype["x"].itemsize > 4 or not np.isfinite(xyz).all() or not len(xyz):
        return
    largest, extent = float(np.abs(xyz).max()), float(np.ptp(xyz, axis=0).max())
    step = float(np.spacing(np.float32(largest)))
    if step > COARSEST * extent > 0:
        raise InputError(
            f"{path} stores coordinates up to {largest:.0f} as float32, in steps of {step:g}, and "
            f"is only {extent:g} wide; save it with coordinates in double precision"
        )


def vertex_colours(vertex: np.ndarray) -> UInt8[np.ndarray, "points 3"]:
    """Red, green and blue, 0 to 255, of 8- or 16-bit or float colours, or of splats; mid grey
    without any.
    """
    known = {name.lower(): name for name in reversed(vertex.dtype.names or ())}
    for names in COLOURS:
        if set(names) <= set(known):
            return eight_bit(np.stack([vertex[known[name]] for name in names], axis=1))
    if set(HARMONICS) <= set(known):
        share = 0.5 + HARMONIC * columns(vertex, HARMONICS)
        return eight_bit(np.clip(share, 0, 1))
    return np.full((len(vertex), 3), 128, np.uint8)
