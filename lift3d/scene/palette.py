"""Colours of a run's objects: neighbours in space get colours that are easy to distinguish.

They depend on the labelled cloud only, so the same cloud gives the same colours. A run stores
them in `instances.json`, and every picture of the run uses these. The constants were chosen by
hand on pictures of rooms; no score depends on them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64

from lift3d.scene import LabelledPoints, distinct
from lift3d.scene.colours import Palette, oklch
from lift3d.scene.errors import InputError
from lift3d.scene.guarded import reading

HEX = re.compile(r"#[0-9a-fA-F]{6}")
HUES, FIRST_HUE = 12, 255.0
"""Number of hues; the first one in degrees, a blue, for the largest object (mostly the floor)."""
LIGHTNESS_CHROMA = ((0.62, 0.20), (0.82, 0.13), (0.45, 0.15), (0.72, 0.07))
"""Lightness and chroma of each row of hues. Pale rows come last, for scenes with many objects."""
LIGHTNESS_WEIGHT = 0.6
"""Weight of a difference in lightness against one in hue; shading changes lightness too."""
FAR = 0.3
"""Weight of all objects of the scene together against one neighbour, so that unused colours are
preferred."""
CELLS = 60
"""Cells along the longest side of the cloud; objects that share a cell are neighbours."""
POINTS_IN_CELL = 8
"""Least mean number of points in a filled cell; sparse clouds get larger cells."""
SOFT = 0.02
"""Squared difference in OKLab at which the similarity of two colours is 1/4."""


def distinct_colours(
    cloud: LabelledPoints,
    ids: Iterable[int] = (),
    kept: Mapping[int, tuple[int, int, int]] | None = None,
) -> Palette:
    """A colour (red, green, blue) for each id above 0 of the cloud and of `ids`.

    Ids in `kept` keep their colour, one that this function has given before.

    Greedy, the largest object first: each takes the colour of a fixed list that is least similar
    to those of its neighbours and, with less weight, to those of all other objects.
    """
    found, counts = np.unique(cloud.instance[cloud.instance > 0], return_counts=True)
    size = dict(zip(found.tolist(), counts.tolist(), strict=True))
    every = sorted({*size, *(each for each in ids if each > 0)})
    kept = kept or {}
    order = sorted(every, key=lambda each: (each not in kept, -size.get(each, 0), each))
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
        if each in kept and kept[each] in colours:
            best = colours.index(kept[each])
        taken[each] = best
        everywhere += alike[best]
    return {each: colours[taken[each]] for each in every}


def neighbours(cloud: LabelledPoints) -> list[tuple[int, int, float]]:
    """Pairs of ids (the smaller first) that are close in space, with a weight from 0.3 to 1.

    Space is divided into cells twice, the second time shifted by half a cell along each axis.
    Two objects that share a cell are neighbours. The weight grows with the share of the smaller
    object's cells that both have.
    """
    labelled = cloud.instance > 0
    xyz, ids = cloud.points.xyz[labelled], cloud.instance[labelled]
    if not len(ids):
        return []
    low = xyz.min(0)
    size = float((xyz.max(0) - low).max()) / CELLS or 1.0
    known = np.flatnonzero(np.bincount(ids))
    which = np.searchsorted(known, ids)
    while len(distinct(_cells((xyz - low) / size))) > max(1, len(ids) // POINTS_IN_CELL):
        size *= 1.5
    touching: dict[tuple[int, int], int] = {}
    cells_of: dict[int, int] = {}
    for shift in (0.0, 0.5):
        _count_pairs(_cells((xyz - low) / size + shift), which, known, touching, cells_of)
    return [
        (a, b, 0.3 + 0.7 * min(1.0, count / min(cells_of[a], cells_of[b])))
        for (a, b), count in sorted(touching.items())
    ]


def _cells(at: Float32[np.ndarray, "points 3"]) -> Int64[np.ndarray, " points"]:
    """One number for each cell; `at` is in units of cells, from 0 to `CELLS` + 1."""
    x, y, z = at.astype(np.int64).T
    side = CELLS + 2
    return x + side * (y + side * z)


def colours_of(listed: Iterable[Mapping[str, Any]], path: Path) -> Palette:
    """The colours of the objects that an `instances.json` at `path` lists."""
    with reading(path, "the objects of a run", advice="remove it and lift again"):
        return {each["id"]: rgb_of(each["colour"]) for each in listed}


def hex_colour(text: str) -> str:
    """`#rrggbb` in small letters; InputError for what is no such colour.

    >>> hex_colour("#2F80ED")
    '#2f80ed'
    """
    if not HEX.fullmatch(text):
        raise InputError(f"{text!r} is no colour; write it as #rrggbb, such as #2f80ed")
    return text.lower()


def rgb_of(colour: str) -> tuple[int, int, int]:
    """Red, green and blue of an HTML colour.

    >>> rgb_of("#0a80ff")
    (10, 128, 255)
    """
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def _count_pairs(
    cell: Int64[np.ndarray, " points"],
    which: Int64[np.ndarray, " points"],
    known: Int64[np.ndarray, " ids"],
    touching: dict[tuple[int, int], int],
    cells_of: dict[int, int],
) -> None:
    """Add the number of cells that each pair of ids shares, and the cells of each id.

    `which` is the place of each point's id in `known`.
    """
    # One row per cell and id in it; the rows of a cell are consecutive, ids ascending.
    place, each = np.divmod(distinct(cell * len(known) + which), len(known))
    for instance, count in zip(known.tolist(), np.bincount(each).tolist(), strict=True):
        cells_of[instance] = cells_of.get(instance, 0) + count
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
    """The list of colours, and the similarity of each two: 1 for the same colour."""
    rows = []
    for row, (lightness, chroma) in enumerate(LIGHTNESS_CHROMA):
        hue = 360 * (np.arange(HUES) + 0.5 * (row % 2)) / HUES + FIRST_HUE
        rows.append(np.stack([np.full(HUES, lightness), np.full(HUES, chroma), hue], 1))
    lightness, chroma, hue = np.concatenate(rows).T
    angle = np.radians(hue)
    lab = np.stack([LIGHTNESS_WEIGHT * lightness, chroma * np.cos(angle), chroma * np.sin(angle)])
    distance = ((lab[:, :, None] - lab[:, None, :]) ** 2).sum(0)
    colours = [(int(r), int(g), int(b)) for r, g, b in oklch(lightness, chroma, hue)]
    return colours, SOFT**2 / (SOFT + distance) ** 2
