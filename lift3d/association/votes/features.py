"""Give each 3D point the mean feature of the views that see it (CLIP, DINO, any per-pixel map)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float32, Int64

from lift3d.association.looks import Look, looks
from lift3d.geometry.visibility import DepthTolerance
from lift3d.scene import Points, Scene
from lift3d.scene.compiled import compiled
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.storage import atomic

log = logging.getLogger(__name__)
FeatureMaps = Callable[[int], Float32[np.ndarray, "rows columns channels"]]
"""From a view's index to its features; a map covers the image at any resolution."""
BUDGET = 2 << 30

log = logging.getLogger(__name__)


def average_features(
    points: Points,
    scene: Scene,
    features: FeatureMaps,
    budget: int = BUDGET,
    out: Path | None = None,
    tolerance: DepthTolerance = DepthTolerance(),
    progress: Callable[[int, int], None] | None = None,
) -> Float32[np.ndarray, "points channels"]:
    """Mean of the unit features under each point, weighted as votes are; zeros where none.

    A view counts by how squarely and surely it sees the point. The mean keeps its length: 1
    where all views say the same, near 0 where they contradict each other. A feature of
    length 0, or one with NaN, is none.

    `budget` bytes are what sums may take. Without `out` a result above that is an InputError.
    With it the means are written to this .npy file, block by block of points that lie
    together, and come back as a read-only map of the file; a view's features are loaded once
    for every block that it sees.
    """
    channels = _channels(scene, features)
    size = 4 * (channels + 1)
    if out is None and len(points) * size > budget:
        raise InputError(
            f"features of {len(points):,} points with {channels} channels take "
            f"{len(points) * size / 2**30:.2f} GiB, above the budget of {budget / 2**30:.2f}; "
            "give a file (out=) to write them to, a larger budget, or fewer points"
        )
    if out is None:
        found = np.zeros((len(points), channels), np.float32)
        _into(found, points, scene, features, tolerance, progress)
        return found
    if budget < size:
        raise InputError(f"a budget of {budget} bytes does not hold one point of {size}")
    with atomic(out) as part:
        stored = np.lib.format.open_memmap(part, "w+", np.float32, (len(points), channels))
        blocks = list(_blocks(points.xyz, budget // size))
        for number, block in enumerate(blocks):
            sums = np.zeros((len(block), channels), np.float32)
            told = None if progress is None else _shifted(progress, number, len(blocks))
            _into(sums, points.take(block), scene, features, tolerance, told)
            stored[block] = sums
        stored.flush()
        del stored
    return np.load(out, mmap_mode="r")


def _shifted(
    progress: Callable[[int, int], None], block: int, blocks: int
) -> Callable[[int, int], None]:
    return lambda done, total: progress(block * total + done, blocks * total)


def _channels(scene: Scene, features: FeatureMaps) -> int:
    why = "it has no views"
    for index in range(len(scene)):
        try:
            return features(index).shape[2]
        except FrameError as error:
            why = str(error)
    raise InputError(f"{scene.name}: no view has features ({why})")


def _into(
    sums: Float32[np.ndarray, "points channels"],
    points: Points,
    scene: Scene,
    features: FeatureMaps,
    tolerance: DepthTolerance,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Fill `sums`, zeros so far, with the means."""
    weight = np.zeros(len(points), np.float32)
    for look in looks(points, scene, tolerance=tolerance):
        if len(look.seen):  # else its features need not be made
            try:
                maps = features(look.index)
            except FrameError as error:
                log.warning("view %s has no features: %s", look.view.name, error)
            else:
                _add_view(sums, weight, look, maps)
        if progress is not None:
            progress(look.index + 1, len(scene))
    for begin in range(0, len(sums), 1 << 16):  # in place: the sums may be all there is room for
        some = slice(begin, begin + (1 << 16))
        sums[some] /= np.where(weight[some] > 0, weight[some], 1)[:, None]


def _add_view(
    sums: Float32[np.ndarray, "points channels"],
    weight: Float32[np.ndarray, " points"],
    look: Look,
    maps: Float32[np.ndarray, "rows columns own_channels"],
) -> None:
    if maps.shape[2] != sums.shape[1]:
        raise InputError(
            f"features with {maps.shape[2]} channels after views with {sums.shape[1]}; "
            "expected the same network for all views"
        )
    length = np.sqrt(np.einsum("rkc,rkc->rk", maps, maps, dtype=np.float64))
    has = np.isfinite(length) & (length > 0)
    scale = np.where(has, 1 / np.where(has, length, 1), 0).astype(np.float32)
    seen, (height, width) = look.seen, look.masks.shape
    _add(sums, weight, seen.point, seen.row, seen.column, look.weight, maps, scale, height, width)


@compiled(parallel=True)
@no_type_check
def _add(sums, weight, point, row, column, look, maps, scale, height, width):
    """A point comes once per view, so no two threads meet."""
    rows, columns, channels = maps.shape
    for i in numba.prange(len(point)):
        r = (2 * row[i] + 1) * rows // (2 * height)
        k = (2 * column[i] + 1) * columns // (2 * width)
        if scale[r, k] > 0.0:
            p, factor = point[i], look[i] * scale[r, k]
            weight[p] += look[i]
            for c in range(channels):
                sums[p, c] += factor * maps[r, k, c]


def _blocks(
    xyz: Float32[np.ndarray, "points 3"], size: int
) -> Iterator[Int64[np.ndarray, " block"]]:
    """Indices of `size` points each that lie together: along a curve through cells (Morton)."""
    if len(xyz) <= size:
        yield np.arange(len(xyz))
        return
    low, high = xyz.min(0), xyz.max(0)
    cell = ((xyz - low) / max(float((high - low).max()), 1e-9) * 1023).astype(np.int64)
    code = np.zeros(len(xyz), np.int64)
    for bit in range(10):
        for axis in range(3):
            code |= ((cell[:, axis] >> bit) & 1) << (3 * bit + axis)
    order = np.argsort(code, kind="stable")
    for begin in range(0, len(order), size):
        yield np.sort(order[begin : begin + size])
