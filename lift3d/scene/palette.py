"""Colours of a run's objects: neighbours in space get colours that are easy to tell apart.

They depend on the labelled cloud only, so the same cloud gives the same colours. A run keeps
them in `instances.json`, and every picture of the run takes them from there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from lift3d.scene import LabelledPoints
from lift3d.scene.colours import Palette, oklch

HUES, FIRST_HUE = 12, 255.0
"""Degrees; the largest object, a floor as a rule, gets the first one, a calm blue."""
LIGHTNESS_CHROMA = ((0.62, 0.20), (0.82, 0.13), (0.45, 0.15), (0.72, 0.07))
"""Four rows of hues. Pale colours come last: they are taken when the strong ones are in use."""
LIGHTNESS_WEIGHT = 0.6
"""Of a difference in lightness against one in hue: shading changes the lightness in pictures."""
FAR = 0.3
"""Weight of all objects of the scene together against one neighbour: unused colours first."""
CELLS = 60
"""Cells along the longest side of the cloud; objects that share a cell are neighbours."""
POINTS_IN_CELL = 8
"""Sparse clouds have larger cells, so that a cell holds so many points on average."""
SOFT = 0.02
"""Squared difference in OKLab at which two colours count as a quarter alike."""


def distinct_colours(cloud: LabelledPoints, ids: Iterable[int] = ()) -> Palette:
    """A colour (red, green, blue) for each id above 0 of the cloud and of `ids`.

    Objects take their colours in turn, the largest first. Each takes the colour of a fixed list
    that is the least like those of its neighbours and, less important, of all other objects.
    """
    found, counts = np.unique(cloud.instance[cloud.instance > 0], return_counts=True)
    size = dict(zip(found.tolist(), counts.tolist(), strict=True))
    every = sorted({*size, *(each for each in ids if each > 0)})
    order = sorted(every, key=lambda each: (-size.get(each, 0), each))
    near: dict[int, list[tuple[int, float]]] = {each: [] for each in every}
    for a, b, weight in neighbours(cloud):
        near[a].append((b, weight))
        near[b].append((a, weight))
    colours, alike = _candidates()
    taken: dict[int, int] = {}
    everywhere = np.zeros(len(colours))
    for number, each in enumerate(order):
        cost = FAR * everywhere / max(number, 1)
        for other, weight in near[each]:
            if other in taken:
                cost = cost + weight * alike[taken[other]]
        # Rounded, so that equal costs stay equal whatever the order of the sum was.
        best = int(np.argmin(np.round(cost, 9)))
        taken[each] = best
        everywhere += alike[best]
    return {each: colours[taken[each]] for each in every}


def neighbours(cloud: LabelledPoints) -> list[tuple[int, int, float]]:
    """Pairs of ids (the smaller first) that come close in space, and how much it matters, 0 to 1.

    The space is cut into cells, once as it is and once shifted by half a cell along each axis;
    two objects that share a cell are neighbours. The weight is 1 for a border as large as the
    smaller object, 0.3 for one shared cell.
    """
    labelled = cloud.instance > 0
    xyz, ids = cloud.points.xyz[labelled], cloud.instance[labelled]
    if not len(ids):
        return []
    low = xyz.min(0)
    size = float((xyz.max(0) - low).max()) / CELLS or 1.0
    while len(np.unique(_cells((xyz - low) / size))) > max(1, len(ids) // POINTS_IN_CELL):
        size *= 1.5
    touching: dict[tuple[int, int], int] = {}
    cells_of: dict[int, int] = {}
    for shift in (0.0, 0.5):
        _count_pairs(_cells((xyz - low) / size + shift), ids, touching, cells_of)
    return [
        (a, b, 0.3 + 0.7 * min(1.0, count / min(cells_of[a], cells_of[b])))
        for (a, b), count in sorted(touching.items())
    ]


def _cells(at: Float32[np.ndarray, "points 3"]) -> Int64[np.ndarray, " points"]:
    """One number for each cell; positions are in cells and not negative."""
    return np.floor(at).astype(np.int64) @ np.array([1, 1 << 20, 1 << 40])


def stored_colours(path: Path) -> Palette:
    """The colours in an `instances.json`."""
    listed = json.loads(path.read_text())["instances"]
    return {each["id"]: rgb_of(each["colour"]) for each in listed}


def rgb_of(colour: str) -> tuple[int, int, int]:
    """Red, green and blue of a colour as HTML writes it.

    >>> rgb_of("#0a80ff")
    (10, 128, 255)
    """
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def _count_pairs(
    cell: Int64[np.ndarray, " points"],
    ids: Int32[np.ndarray, " points"],
    touching: dict[tuple[int, int], int],
    cells_of: dict[int, int],
) -> None:
    """Add how many cells each pair of ids shares, and in how many cells each id is."""
    known, which = np.unique(ids, return_inverse=True)
    _, where = np.unique(cell, return_inverse=True)
    # One row per cell and id in it; the rows of a cell lie together, ids ascending.
    place, each = np.divmod(np.unique(where * len(known) + which), len(known))
    for one, count in zip(known.tolist(), np.bincount(each).tolist(), strict=True):
        cells_of[one] = cells_of.get(one, 0) + count
    for step in range(1, len(place)):  # each row with the next, the one after it, ...
        same = place[step:] == place[:-step]
        if not same.any():
            return
        pair = each[:-step][same] * len(known) + each[step:][same]
        for key, count in zip(*np.unique(pair, return_counts=True), strict=True):
            a, b = divmod(int(key), len(known))
            names = int(known[a]), int(known[b])
            touching[names] = touching.get(names, 0) + int(count)


def _candidates() -> tuple[list[tuple[int, int, int]], Float64[np.ndarray, "colours colours"]]:
    """The list of colours, and how alike each two are: 1 for the same, less with distance."""
    rows = []
    for row, (lightness, chroma) in enumerate(LIGHTNESS_CHROMA):
        hue = 360 * (np.arange(HUES) + 0.5 * (row % 2)) / HUES + FIRST_HUE
        rows.append(np.stack([np.full(HUES, lightness), np.full(HUES, chroma), hue], 1))
    lightness, chroma, hue = np.concatenate(rows).T
    angle = np.radians(hue)
    lab = np.stack([LIGHTNESS_WEIGHT * lightness, chroma * np.cos(angle), chroma * np.sin(angle)])
    apart = ((lab[:, :, None] - lab[:, None, :]) ** 2).sum(0)
    colours = [(int(r), int(g), int(b)) for r, g, b in oklch(lightness, chroma, hue)]
    return colours, SOFT**2 / (SOFT + apart) ** 2
