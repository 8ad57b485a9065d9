"""Colour of surface points: procedural textures and a simple lighting model."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float32, Int32

from lift3d.datasets.synthetic.world import (
    CHECKER,
    CLOUDS,
    GRADIENT,
    GRAIN,
    PRINT,
    SPECKLE,
    STAINS,
    STRIPES,
    World,
)
from lift3d.scene.compiled import compiled


def albedo(
    world: World,
    piece: Int32[np.ndarray, " hits"],
    xyz: Float32[np.ndarray, "hits 3"],
    normal: Float32[np.ndarray, "hits 3"],
) -> Float32[np.ndarray, "hits 3"]:
    """Colour (0 to 1) of the material at each surface point; black where `piece` is -1."""
    return _albedo(
        piece, xyz, normal, world.piece_from_world, world.colours, world.pattern, world.size
    )


def lit(
    colour: Float32[np.ndarray, "hits 3"],
    xyz: Float32[np.ndarray, "hits 3"],
    normal: Float32[np.ndarray, "hits 3"],
    lamp: Float32[np.ndarray, "3"],
    shadowed: Bool[np.ndarray, " hits"] | None = None,
    open_to: Float32[np.ndarray, " hits"] | None = None,
) -> Float32[np.ndarray, "hits 3"]:
    """`colour` under ambient light from above and one lamp; 0 to 1.

    `open_to`: share of the ambient light that reaches a point, 1 by default.
    """
    to_lamp = lamp - xyz
    distance = np.sqrt(np.einsum("ij,ij->i", to_lamp, to_lamp))
    facing = np.einsum("ij,ij->i", to_lamp, normal) / np.maximum(distance, 1e-6)
    direct = np.maximum(facing, 0) / (0.6 + 0.14 * distance**2)
    if shadowed is not None:
        direct[shadowed] *= 0.15
    ambient = 0.42 + 0.08 * normal[:, 2] + 0.03 * normal[:, 0]
    if open_to is not None:
        ambient *= open_to
    return np.clip(colour * (ambient + 0.55 * direct)[:, None], 0, 1).astype(np.float32)


@compiled()
@no_type_check
def _lattice(i, j, k):
    """A repeatable random number in 0..1 for a lattice corner."""
    h = (i * 374761393 + j * 668265263 + k * 1274126177) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1103515245) & 0xFFFFFFFF
    return ((h ^ (h >> 16)) & 0xFFFF) / 65535.0


@compiled()
@no_type_check
def _noise(u, v, seed):
    """Smooth value noise with one value per unit square."""
    i, j = int(np.floor(u)), int(np.floor(v))
    a, b = u - i, v - j
    a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
    low = _lattice(i, j, seed) * (1 - a) + _lattice(i + 1, j, seed) * a
    high = _lattice(i, j + 1, seed) * (1 - a) + _lattice(i + 1, j + 1, seed) * a
    return low * (1 - b) + high * b


@compiled()
@no_type_check
def _albedo(piece, xyz, normal, piece_from_world, colours, pattern, size):
    out = np.zeros((len(piece), 3), np.float32)
    local, turned = np.empty(3), np.empty(3)
    for index in range(len(piece)):
        p = piece[index]
        if p < 0:
            continue
        for row in range(3):
            m = piece_from_world[p, row]
            x, n = xyz[index], normal[index]
            local[row] = m[0] * x[0] + m[1] * x[1] + m[2] * x[2] + m[3]
            turned[row] = abs(m[0] * n[0] + m[1] * n[1] + m[2] * n[2])
        # Texture coordinates are the two axes most parallel to the surface.
        if turned[2] >= turned[0] and turned[2] >= turned[1]:
            u, v = local[0], local[1]
        elif turned[0] >= turned[1]:
            u, v = local[1], local[2]
        else:
            u, v = local[0], local[2]
        # An offset, so that no pattern edge is in a symmetry plane of the mesh.
        s, t = u / size[p] + 0.37, v / size[p] + 0.29
        kind, mix = pattern[p], 0.0
        if kind == CHECKER:
            mix = float((int(np.floor(s)) + int(np.floor(t))) & 1)
        elif kind == STRIPES:
            mix = float(int(np.floor(s)) & 1)
        elif kind == CLOUDS:
            mix = 0.65 * _noise(s, t, p) + 0.35 * _noise(2.7 * s, 2.7 * t, p + 1)
        elif kind == GRADIENT:
            mix = min(max(0.5 + s, 0.0), 1.0)
        elif kind == GRAIN:
            mix = _noise(0.15 * s, 2.0 * t, p)
        elif kind == SPECKLE:
            mix = 1.0 if _noise(3.0 * s, 3.0 * t, p) > 0.6 else 0.0
        elif kind == STAINS:
            mix = min(
                max(3.0 * _noise(s, t, p) + 0.8 * _noise(5.0 * s, 5.0 * t, p) - 2.2, 0.0), 1.0
            )
        elif kind == PRINT:
            mix = _lattice(int(np.floor(s)), int(np.floor(1.7 * t)), p)
        # Fine mottling, because no real surface has exactly one colour.
        mottle = 0.96 + 0.08 * _noise(u * 90, v * 90, p)
        for c in range(3):
            out[index, c] = (colours[p, 0, c] * (1 - mix) + colours[p, 1, c] * mix) * mottle
    return out
