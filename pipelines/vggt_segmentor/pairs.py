"""Training pairs: one picture and its changed copy, or two pictures of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch

from lift3d.networks.vggt_s.framing import (
    FILL,
    Window,
    around_mask,
    around_points,
    whole,
    zoomed,
)
from lift3d.scene import Image, LabelMap
from lift3d.scene.errors import InputError
from lift3d.segmentation.tracking.representatives import centres
from vggt_segmentor.pictures import Picture

TRIES = 10
"""Other pictures of a run that are tried, as in the authors' code."""


@dataclass(frozen=True)
class Recipe:
    """The single-image recipe. The paper names the two groups and what changes in each.

    It gives no numbers: each default here is our reading.
    """

    together: float = 0.5
    """Share of pairs of the group `VGGT-adaptive`, whose pictures are encoded together; those of
    the other group are encoded apart."""
    scale: tuple[float, float] = (0.6, 1.6)
    """Enlargement of the copy (both groups)."""
    shift: float = 0.25
    """Greatest shift of the copy in both directions, as a share of its side: what leaves the
    picture is cropped (both groups)."""
    small_turn: float = 15.0
    """Greatest rotation in degrees, group `adaptive`."""
    large_turn: float = 180.0
    """Greatest rotation in degrees, group `non-adaptive`."""
    flip: float = 0.5
    """Share of mirrored copies, group `non-adaptive`."""
    tilt: float = 0.0
    """Greatest perspective change of a corner, as a share of the side; not in the paper."""
    noise: float = 0.02
    """Target points are the true ones with noise of at most this standard deviation, a share of
    the side."""
    colour: float = 0.15
    """Standard deviation of the change of contrast and brightness of the copy; not in the paper."""
    zoom: float = 1.0
    """Share of pairs whose source is a square around the mask, as the authors always cut it; else
    the largest square."""
    crop: float = 0.5
    """Share of pairs whose target is cut around the object before it is changed, as the authors cut
    targets around tracked points for one of their two directions."""
    least: float = 0.001
    """Smallest source mask as a share of the picture, as in the authors' code."""
    points: Literal["true", "tracker"] = "true"
    """Target points of the group `adaptive`: from VGGT's track head as in the paper, which needs a
    trained one, or as in the other group."""


class Sample(NamedTuple):
    """One training pair; all pixels are of the network's square."""

    images: torch.Tensor
    """uint8 (2, size, size, 3)."""
    mask: torch.Tensor
    truth: torch.Tensor
    source_xy: torch.Tensor
    target_xy: torch.Tensor
    """(points, 2)."""
    together: torch.Tensor
    """bool (); whether the pictures are encoded together."""


def pair(
    pictures: Sequence[Picture], recipe: Recipe, size: int, count: int, seed: tuple[int, ...],
    supervised: float = 0.0,
) -> Sample:  # fmt: skip
    """A random pair with `count` points per picture; the same for the same seed.

    `supervised`: share of pairs of two pictures of a run; InputError where no picture has masks.
    """
    rng = np.random.default_rng(seed)
    runs = [each for each in pictures if each.agree]
    for _ in range(100):
        if runs and rng.random() < supervised:
            found = _of_run(runs, recipe, size, count, rng)
        else:
            found = _of_one(pictures[rng.integers(len(pictures))], recipe, size, count, rng)
        if found is not None:
            return found
    raise InputError("no masks to train on: pictures have none, or they are below 0.1 % of them")


def _of_one(
    picture: Picture, recipe: Recipe, size: int, count: int, rng: np.random.Generator
) -> Sample | None:
    """A picture and its changed copy; None where no mask is large enough."""
    image, labels = picture.load()
    mask = _some_mask(labels, recipe.least, rng)
    if mask is None:
        return None
    window = around_mask(mask)
    together = bool(rng.random() < recipe.together)
    source, cut = window.cut(image, size), window.cut_mask(mask, size)
    warp = _warp(recipe, together, size, rng)
    base = window
    if rng.random() < recipe.crop:
        base = around_points(_points(mask, 20, rng), *mask.shape)
    warp = warp @ _into(base, size)
    target = _warped(image, warp, size, FILL)
    truth = _warped(mask.astype(np.uint8), warp, size, 0) > 0
    zoom = zoomed(cut) if rng.random() < recipe.zoom else None
    into = _into(window, size)
    if zoom is not None:
        source, cut = zoom.cut(source, size), zoom.cut_mask(cut, size)
        into = _into(zoom, size) @ into
    if not cut.any() or truth.mean() < recipe.least:
        return None
    source_xy = _points(cut, count, rng)
    back = warp @ np.linalg.inv(into)
    moved = cv2.perspectiveTransform(source_xy[None].astype(np.float64), back)[0]
    return _sample(source, target, cut, truth, source_xy, moved, together, recipe, rng)


def _of_run(
    pictures: Sequence[Picture], recipe: Recipe, size: int, count: int, rng: np.random.Generator
) -> Sample | None:
    """Two pictures of a run that show one object; None where that object is in one alone."""
    first = pictures[rng.integers(len(pictures))]
    others = [each for each in pictures if each.scene == first.scene and each is not first]
    if not others:
        return None
    image, labels = first.load()
    for _ in range(TRIES):
        second = others[rng.integers(len(others))]
        image_b, labels_b = second.load()
        shared = np.where(np.isin(labels, np.unique(labels_b)), labels, 0)
        mask = _some_mask(shared, recipe.least, rng)
        if mask is None:
            continue
        truth = labels_b == labels[mask][0]
        window, window_b = around_mask(mask), whole(*truth.shape)
        if rng.random() < recipe.crop:
            window_b = around_points(_points(truth, 20, rng), *truth.shape)
        cut, truth = window.cut_mask(mask, size), window_b.cut_mask(truth, size)
        if not cut.any() or not truth.any():
            continue
        source, target = window.cut(image, size), window_b.cut(image_b, size)
        zoom = zoomed(cut) if rng.random() < recipe.zoom else None
        if zoom is not None:
            source, cut = zoom.cut(source, size), zoom.cut_mask(cut, size)
        source_xy, moved = (_points(each, count, rng) for each in (cut, truth))
        return _sample(source, target, cut, truth, source_xy, moved, True, recipe, rng)
    return None


def _sample(
    source: Image, target: Image, cut: np.ndarray, truth: np.ndarray, source_xy: np.ndarray,
    target_xy: np.ndarray, together: bool, recipe: Recipe, rng: np.random.Generator,
) -> Sample:  # fmt: skip
    size = len(cut)
    gain, shift = rng.normal(0, recipe.colour, (2, 3))
    target = (target * (1 + gain) + 128 * shift).clip(0, 255).astype(np.uint8)
    away = rng.uniform(0, recipe.noise) * size
    target_xy = (target_xy + rng.normal(0, 1, target_xy.shape) * away).clip(0, size - 1)
    return Sample(
        torch.from_numpy(np.stack([source, target])),
        torch.from_numpy(cut.astype(np.float32)),
        torch.from_numpy(truth.astype(np.float32)),
        torch.from_numpy(source_xy.astype(np.float32)),
        torch.from_numpy(target_xy.astype(np.float32)),
        torch.tensor(together),
    )


def _into(window: Window, size: int) -> np.ndarray:
    """The network's pixels from the picture's, for a window of it (3x3)."""
    scale = size / window.width
    return np.array([[scale, 0, -window.left * scale], [0, scale, -window.top * scale], [0, 0, 1]])


def _some_mask(labels: LabelMap, least: float, rng: np.random.Generator) -> np.ndarray | None:
    """The mask of a random id, large ones as often as small ones."""
    ids, size = np.unique(labels, return_counts=True)
    ids = ids[(ids > 0) & (size >= least * labels.size)]
    return labels == rng.choice(ids) if len(ids) else None


def _warp(recipe: Recipe, together: bool, size: int, rng: np.random.Generator) -> np.ndarray:
    """The copy's pixels from the picture's, both in the network's square (3x3)."""
    low, high = np.log(recipe.scale)
    scale = np.exp(rng.uniform(low, high))
    most = recipe.small_turn if together else recipe.large_turn
    angle = np.radians(rng.uniform(-most, most))
    flip = -1 if not together and rng.random() < recipe.flip else 1
    shift = rng.uniform(-recipe.shift, recipe.shift, 2) * size
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    turn = np.array([[cos * flip, -sin, 0], [sin * flip, cos, 0], [0, 0, 1]])
    middle = np.array([[1, 0, -(size - 1) / 2], [0, 1, -(size - 1) / 2], [0, 0, 1]])
    back = np.array(
        [[1, 0, (size - 1) / 2 + shift[0]], [0, 1, (size - 1) / 2 + shift[1]], [0, 0, 1]]
    )
    corners = np.float32([[0, 0], [size, 0], [size, size], [0, size]])
    moved = corners + rng.uniform(-recipe.tilt, recipe.tilt, (4, 2)).astype(np.float32) * size
    return back @ turn @ middle @ cv2.getPerspectiveTransform(corners, moved)


def _warped(array: np.ndarray, matrix: np.ndarray, size: int, fill: int) -> np.ndarray:
    """The array in a square of `size`; pixels beyond its border are `fill`."""
    linear = array.ndim == 3
    return cv2.warpPerspective(
        array, matrix, (size, size),
        flags=cv2.INTER_LINEAR if linear else cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT, borderValue=(fill,) * 3,
    )  # fmt: skip


def _points(mask: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """K-Means points as `points.of_mask` gives them, by a K-Means that is a hundred times as fast
    on small masks and whose first centres are random.
    """
    rows, columns = np.nonzero(mask)
    pixels = np.stack([columns, rows], 1)
    found, _ = centres(
        mask.astype(np.int32),
        np.array([1], np.int32),
        np.array([count]),
        int(rng.integers(1 << 30)),
    )
    near = ((pixels[None] - found[:, None]) ** 2).sum(2).argmin(1)
    chosen = pixels[near].astype(np.float32)
    return np.concatenate([chosen, np.repeat(chosen[:1], count - len(chosen), axis=0)])


def batch(
    pictures: Sequence[Picture], recipe: Recipe, size: int, count: int, seed: int, step: int,
    indices: Sequence[int], supervised: float = 0.0,
) -> Sample:  # fmt: skip
    """The pairs with these numbers of a step, stacked."""
    samples = [
        pair(pictures, recipe, size, count, (seed, step, index), supervised) for index in indices
    ]
    return Sample(*(torch.stack(each) for each in zip(*samples, strict=True)))
