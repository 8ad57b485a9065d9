"""Superpoints: small patches of similar normals and colours.

Borders of masks are rough and differ between views. Evidence is summed per superpoint, so borders
of objects follow bends and colour edges of the surface.
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float32, Int32

from lift3d.geometry.graphs import felzenszwalb
from lift3d.scene import Points
from lift3d.scene.compiled import compiled

BLOCK = 1 << 20
"""Points per block, to bound memory; does not change the result."""
COLOUR = 50.0
"""CIELAB distance that equals a right angle: about black to mid grey. Chosen by hand; not tuned on
data."""


def surface_graph(
    points: Points, neighbours: int
) -> tuple[Int32[np.ndarray, " edges"], Int32[np.ndarray, " edges"], Float32[np.ndarray, " edges"]]:
    """Edges (a < b) to the nearest `neighbours` points, and the difference of their ends.

    Difference = 1 - |cosine of the normals| + CIELAB distance / `COLOUR`: 0 on a plain surface,
    about 1 across a right angle or from black to mid grey. Without a normal only colour counts.
    """
    from scipy.spatial import cKDTree

    count = len(points)
    if count < 2:
        return np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32)
    nearest = min(neighbours + 1, count)
    tree = cKDTree(points.xyz)
    found = []
    for first in range(0, count, BLOCK):
        _, near = tree.query(points.xyz[first : first + BLOCK], k=nearest, workers=-1)
        source = np.repeat(np.arange(first, first + len(near), dtype=np.int64), nearest)
        target = near.ravel().astype(np.int64)
        low, high = np.minimum(source, target), np.maximum(source, target)
        found.append((low * count + high)[low != high])
    key = np.concatenate(found)
    del tree, found
    # Not np.unique, which hashes: 20 times as slow on keys that hardly repeat.
    key.sort()
    key = key[np.append(True, key[1:] != key[:-1])] if len(key) else key
    a, b = (key // count).astype(np.int32), (key % count).astype(np.int32)
    difference = _difference(points.normal, lab(points.rgb), a, b)
    return a, b, difference


def superpoints(
    points: Points,
    a: Int32[np.ndarray, " edges"],
    b: Int32[np.ndarray, " edges"],
    difference: Float32[np.ndarray, " edges"],
    scale: float,
    smallest: int,
    cell: float,
    order: Int32[np.ndarray, " edges"] | None = None,
) -> Int32[np.ndarray, " points"]:
    """Graph-based segmentation (Felzenszwalb and Huttenlocher 2004), index per point from 0.

    `scale` is their k: larger values give larger superpoints. Those under `smallest` points merge
    with their most similar neighbour. None crosses a cell of a grid of side `cell`, which limits
    errors between objects of equal normal and colour. `order` is as for `felzenszwalb`.
    """
    low = points.xyz.min(0) if len(points) else np.zeros(3, np.float32)
    index = np.floor((points.xyz - low) / np.float32(cell)).astype(np.int64)
    side = index.max(0, initial=0) + 1
    block = (index[:, 0] * side[1] + index[:, 1]) * side[2] + index[:, 2]
    return felzenszwalb(a, b, difference, scale, smallest, block, order)


def lab(rgb: np.ndarray) -> Float32[np.ndarray, "points 3"]:
    """CIELAB of 8-bit RGB."""
    import cv2

    if not len(rgb):
        return np.zeros((0, 3), np.float32)
    return cv2.cvtColor(rgb[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]


@compiled(parallel=True)
@no_type_check
def _difference(normal, lab, a, b):
    out = np.empty(len(a), np.float32)
    for e in numba.prange(len(a)):
        i, j = a[e], b[e]
        cosine, known_i, known_j, colour = 0.0, False, False, 0.0
        for c in range(3):
            cosine += normal[i, c] * normal[j, c]
            known_i |= normal[i, c] != 0.0
            known_j |= normal[j, c] != 0.0
            colour += (lab[i, c] - lab[j, c]) ** 2
        bend = 1.0 - min(abs(cosine), 1.0) if known_i and known_j else 0.0
        out[e] = bend + np.sqrt(colour) / COLOUR
    return out
