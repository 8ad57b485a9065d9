"""Colours for labels, for scores, and labels painted over a picture.

Colours are chosen in OKLCH (Ottosson 2020), where equal steps look equally large; on a hue circle
in RGB they do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Float64, Int32, UInt8

from lift3d.scene import Image, LabelMap

Palette: TypeAlias = Mapping[int, tuple[int, int, int]]
"""Id to red, green and blue, as `palette.distinct_colours` gives them."""
UNLABELLED = (128, 128, 128)
GOLDEN = 0.6180339887498949
"""Golden ratio: turns of the hue from one id to the next."""
UNIT_LIMIT = 2.0
"""Float colours up to this are stored from 0 to 1: a whole scene of 0 to 255 is not that dark."""
TABLE_LIMIT = 1 << 20
"""Colours of smaller ids are looked up in one table; chosen by hand for memory."""


def label_colours(
    labels: Int32[np.ndarray, "*shape"], palette: Palette | None = None
) -> UInt8[np.ndarray, "*shape 3"]:
    """One colour per id, the same in every picture; 0 (and below) is mid grey.

    Ids in `palette` have the colour given there. For all others the hue turns by the golden
    ratio from id to id, which spreads any number of ids evenly; lightness (period 5) and chroma
    (period 10) separate ids with close hues (8, 13, 21, 34 apart).

    >>> label_colours(np.array([0], np.int32)).tolist()
    [[128, 128, 128]]
    """
    if labels.size == 0:
        return np.zeros((*labels.shape, 3), np.uint8)
    labels = np.maximum(labels, 0)
    largest = int(labels.max())
    if largest < TABLE_LIMIT:
        used = np.flatnonzero(np.bincount(labels.ravel()))
        table = np.zeros((largest + 1, 3), np.uint8)
        table[used] = _table(used, palette or {})
        return np.take(table, labels, axis=0)
    ids, index = np.unique(labels, return_inverse=True)
    return _table(ids, palette or {})[index.reshape(labels.shape)]


def _table(ids: np.ndarray, palette: Palette) -> UInt8[np.ndarray, "ids 3"]:
    """The colours of ascending ids."""
    hue = 360 * ((ids * GOLDEN + 0.05) % 1.0)
    lightness = np.array([0.48, 0.66, 0.84, 0.57, 0.75])[ids % 5]
    chroma = np.array([0.17, 0.07])[(ids // 5) % 2]
    colours = oklch(lightness, chroma, hue)
    chosen = np.array(sorted(palette), dtype=np.int64)
    known = np.isin(ids, chosen)
    if known.any():
        colours[known] = [palette[each] for each in ids[known].tolist()]
    colours[ids == 0] = UNLABELLED
    return colours


def heat_colours(values: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape 3"]:
    """A ramp from dark violet (0) over red to pale yellow (1), lighter with every step.

    Values outside 0 to 1 are clipped; NaN (not measured) is mid grey.
    """
    unknown = np.isnan(values)
    clipped = np.clip(np.where(unknown, 0.0, values), 0.0, 1.0)
    colours = _ramp()[np.rint(clipped * 255).astype(np.intp)]
    colours[unknown] = UNLABELLED
    return colours


@cache
def _ramp() -> UInt8[np.ndarray, "256 3"]:
    steps = np.linspace(0.0, 1.0, 256)
    return oklch(0.20 + 0.75 * steps, 0.05 + 0.52 * steps * (1 - steps), -60 + 160 * steps)


def overlay(
    image: Image,
    labels: LabelMap,
    alpha: float = 0.5,
    edges: bool = True,
    palette: Palette | None = None,
) -> Image:
    """Label colours over a picture; unlabelled pixels keep theirs, a little greyer and darker.

    With `edges`, each object is outlined with its own colour, opaque, and a dark line where
    two objects meet.
    """
    colours = label_colours(labels, palette).astype(np.float32)
    picture = image.astype(np.float32)
    grey = picture.mean(-1, keepdims=True)
    labelled = (labels > 0)[..., None]
    mixed = np.where(labelled, (1 - alpha) * picture + alpha * colours, 0.5 * picture + 0.3 * grey)
    if edges:
        line = _edges(labels)
        mixed[line] = np.where(labels[line, None] > 0, colours[line], mixed[line])
        inner = line & (labels > 0) & _first_side(labels)
        mixed[inner] = 20.0
    return np.rint(mixed).clip(0, 255).astype(np.uint8)


def _edges(labels: LabelMap) -> np.ndarray:
    """Pixels with a neighbour (of 4) of another label."""
    line = np.zeros(labels.shape, bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    line[:, 1:] |= across
    line[:, :-1] |= across
    line[1:] |= down
    line[:-1] |= down
    return line


def _first_side(labels: LabelMap) -> np.ndarray:
    """Pixels whose right or lower neighbour has another label: one side of each edge."""
    side = np.zeros(labels.shape, bool)
    side[:, :-1] |= labels[:, 1:] != labels[:, :-1]
    side[:-1] |= labels[1:] != labels[:-1]
    return side


def eight_bit(colours: np.ndarray) -> np.ndarray:
    """Colours of any type and shape as uint8, by their largest value.

    Floats up to 1 (some programs go a little beyond) are multiplied by 255. Values above 255 are
    taken as 16 bits, above 65 535 as 32 bits, and scaled down. NaN is 0.

    >>> eight_bit(np.array([0, 25700, 65535], np.uint16)).tolist()
    [0, 100, 255]
    >>> eight_bit(np.array([0.0, 0.5, 1.0])).tolist()
    [0, 128, 255]
    """
    if colours.dtype == np.uint8:
        return colours
    if colours.dtype == bool:
        return colours.astype(np.uint8) * np.uint8(255)
    values = np.nan_to_num(colours.astype(np.float64), posinf=0.0, neginf=0.0)
    largest = values.max(initial=0)
    if colours.dtype.kind == "f" and largest <= UNIT_LIMIT:
        values *= 255
    elif largest > 65535:
        values *= 255 / (2**32 - 1)
    elif largest > 255:
        values *= 255 / 65535
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def oklch(
    lightness: Float64[np.ndarray, " colours"],
    chroma: Float64[np.ndarray, " colours"],
    hue: Float64[np.ndarray, " colours"],
) -> UInt8[np.ndarray, "colours 3"]:
    """sRGB of OKLCH colours (hue in degrees); chroma shrinks until the colour fits the gamut."""
    fits = chroma
    for _ in range(24):
        linear = _linear_rgb(lightness, fits, hue)
        outside = ((linear < 0) | (linear > 1)).any(-1)
        fits = np.where(outside, 0.9 * fits, fits)
    linear = _linear_rgb(lightness, fits, hue).clip(0, 1)
    encoded = np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * np.power(linear, 1 / 2.4) - 0.055
    )
    return np.rint(255 * encoded).astype(np.uint8)


def _linear_rgb(lightness: np.ndarray, chroma: np.ndarray, hue: np.ndarray) -> np.ndarray:
    lab = np.stack(
        [lightness, chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))], -1
    )
    return (lab @ LMS_FROM_LAB.T) ** 3 @ RGB_FROM_LMS.T


# https://bottosson.github.io/posts/oklab/
LMS_FROM_LAB = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
RGB_FROM_LMS = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)
