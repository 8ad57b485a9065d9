"""Objects flush with floor or wall: posters, doors, rugs.

A layout plane (`layout`) takes all surfels on it. Its patches of one colour that the views put into
one mask are one thing; floor or wall is the largest thing on the plane, with those of its colour.
The others are objects. On the HoloLens kitchen AP50 rises from 0.32 to 0.41 by this, on the living
room it stays.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from lift3d.geometry.linkage import agglomerate

TOGETHER = 0.5
"""Two patches are one thing if more than this share of the views puts them into one mask. Of 0.5
and 0.7 the better on the HoloLens kitchen and the living room."""
FEWEST = 60
"""Surfels of the smallest object. 100 is as good on these scans."""
TINT = 4.0
"""Minimum CIELAB distance, lightness counted half, of an object's mean colour from floor or wall:
shadows are no objects. Of 4, 8 and 12 the best on these scans."""
SCALE = np.array([0.5, 1, 1])
"""Of lightness and the two colours, for this distance."""


def patches(
    piece: Int64[np.ndarray, " surfels"], plane: Int64[np.ndarray, " surfels"]
) -> tuple[Int64[np.ndarray, " surfels"], Int64[np.ndarray, " patches"]]:
    """Index of each patch, a piece on one plane or on none, and the plane of each patch, -1 none.

    >>> patches(np.array([0, 0, 1]), np.array([-1, 0, 0]))
    (array([0, 1, 2]), array([-1,  0,  0]))
    """
    key = (plane + 1) * (int(piece.max(initial=0)) + 1) + piece
    _, first, patch = np.unique(key, return_index=True, return_inverse=True)
    return patch.astype(np.int64), plane[first]


def split(
    patch: Int64[np.ndarray, " surfels"],
    plane: Int64[np.ndarray, " patches"],
    lab: Float32[np.ndarray, "surfels 3"],
    pairs: Int64[np.ndarray, "pairs 2"],
    same: Float64[np.ndarray, " pairs"],
    weight: Float64[np.ndarray, " pairs"],
) -> tuple[Int64[np.ndarray, " patches"], Bool[np.ndarray, " pieces"]]:
    """The piece of each patch, and which pieces are floor or wall: one for each plane.

    `same` of `weight` views put the two patches of each of `pairs`, neighbours, into one mask.
    """
    count = len(plane)
    on_one = (plane[pairs[:, 0]] >= 0) & (plane[pairs[:, 0]] == plane[pairs[:, 1]])
    a, b = pairs[on_one].astype(np.int32).T
    thing = agglomerate(count, a, b, same[on_one], weight[on_one], TOGETHER)
    things = int(thing.max(initial=-1)) + 1
    of_surfel = thing[patch]
    size = np.bincount(of_surfel, minlength=things)
    total = np.stack([np.bincount(of_surfel, lab[:, c], things) for c in range(3)], axis=1)
    colour = total / np.maximum(size, 1)[:, None]
    on = np.zeros(things, np.int64)
    on[thing] = plane
    name, is_layout = np.arange(things), np.zeros(things, bool)
    for each in range(int(plane.max(initial=-1)) + 1):
        here = np.flatnonzero(on == each)
        main = here[size[here].argmax()]
        is_layout[main] = True
        apart = np.linalg.norm((colour[here] - colour[main]) * SCALE, axis=1)
        name[here[(apart < TINT) | (size[here] < FEWEST)]] = main
    kept, piece = np.unique(name[thing], return_inverse=True)
    return piece.astype(np.int64), is_layout[kept]
