"""What the views say about pairs of points: seen together, in one mask or in two."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from lift3d.scene import LabelMap, Points, Scene
from lift3d.visibility import DepthTolerance, sightings


@dataclass(frozen=True, eq=False)
class Observations:
    """Which label each view gives each anchor that it sees, view after view."""

    anchors: int
    start: Int64[np.ndarray, " views_plus_one"]
    """View v's observations are start[v]:start[v + 1]."""
    anchor: Int32[np.ndarray, " observations"]
    mask: Int32[np.ndarray, " observations"]
    """Index into the table of masks, one per (view, label); -1 where unlabelled."""
    mask_view: Int32[np.ndarray, " masks"]
    mask_label: Int32[np.ndarray, " masks"]

    @property
    def views(self) -> int:
        """How many views were asked."""
        return len(self.start) - 1

    @property
    def view(self) -> Int32[np.ndarray, " observations"]:
        """The view of each observation."""
        return np.repeat(np.arange(self.views, dtype=np.int32), np.diff(self.start))


def observe(
    anchors: Points,
    scene: Scene,
    label_maps: Iterable[LabelMap],
    tolerance: DepthTolerance,
    progress: Callable[[], None] | None = None,
) -> Observations:
    """Read the label of every anchor in every view that sees it. Streams over the views."""
    starts = [0]
    seen: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    mask_view: list[int] = []
    mask_label: list[int] = []
    for index, (view, labels) in enumerate(zip(scene.views, label_maps, strict=True)):
        sight = sightings(anchors, view, tolerance)
        label = labels[sight.row, sight.column]
        known, inverse = np.unique(label, return_inverse=True)
        first = len(mask_label) - int((known == 0).sum())
        mask = (inverse + first).astype(np.int32)
        mask[label == 0] = -1
        mask_label += [int(each) for each in known if each != 0]
        mask_view += [index] * int((known != 0).sum())
        seen.append(sight.point)
        masks.append(mask)
        starts.append(starts[-1] + len(label))
        if progress:
            progress()
    empty = [np.zeros(0, np.int32)]
    return Observations(
        len(anchors),
        np.array(starts, np.int64),
        np.concatenate(seen or empty),
        np.concatenate(masks or empty),
        np.array(mask_view, np.int32),
        np.array(mask_label, np.int32),
    )


def pair_graph(
    xyz: Float32[np.ndarray, "anchors 3"], neighbours: tuple[int, ...], seed: int
) -> tuple[Int32[np.ndarray, " pairs"], Int32[np.ndarray, " pairs"]]:
    """Pairs (a < b) at growing distances: neighbours in the whole set, in a quarter of it, ...

    `neighbours` says how many on each level.
    The near pairs connect, the far ones tell: across a rough mask border two neighbours
    nearly always fall into one mask, two points a hand's width away on either side do not.
    """
    from scipy.spatial import cKDTree

    rng = np.random.default_rng(seed)
    order = rng.permutation(len(xyz))
    keys = []
    for level, wanted in enumerate(neighbours):
        chosen = np.sort(order[: max(1, len(xyz) >> (2 * level))])
        count = min(wanted + 1, len(chosen))
        _, near = cKDTree(xyz[chosen]).query(xyz, k=count, workers=-1)
        target = chosen[near.reshape(len(xyz), count)]
        source = np.broadcast_to(np.arange(len(xyz))[:, None], target.shape)
        low, high = np.minimum(source, target), np.maximum(source, target)
        keys.append((low * len(xyz) + high)[low != high])
    unique = np.unique(np.concatenate(keys))
    return (unique // len(xyz)).astype(np.int32), (unique % len(xyz)).astype(np.int32)


def pair_agreement(
    seen: Observations,
    a: Int32[np.ndarray, " pairs"],
    b: Int32[np.ndarray, " pairs"],
    half: float,
) -> tuple[Float64[np.ndarray, " pairs"], Float64[np.ndarray, " pairs"]]:
    """For each pair: views that put both in one mask, and views that say anything.

    A view that labels one of the two and not the other counts `half`: a segmenter leaves
    parts of objects out more often than it cuts them. A view that labels neither says nothing.
    """
    return _pair_agreement(seen.start, seen.anchor, seen.mask, seen.anchors, a, b, half)


@numba.njit(cache=True, parallel=True)
@no_type_check
def _pair_agreement(start, anchor, mask, anchors, a, b, half):
    pairs = len(a)
    agree = np.zeros(pairs)
    total = np.zeros(pairs)
    blocks = 8
    for block in numba.prange(blocks):
        low, high = block * pairs // blocks, (block + 1) * pairs // blocks
        current = np.full(anchors, -2, np.int32)  # -2: this view does not see it
        for view in range(len(start) - 1):
            for at in range(start[view], start[view + 1]):
                current[anchor[at]] = mask[at]
            for pair in range(low, high):
                one = current[a[pair]]
                if one == -2:
                    continue
                other = current[b[pair]]
                if other == -2 or (one == -1 and other == -1):
                    continue
                if one == other:
                    agree[pair] += 1.0
                    total[pair] += 1.0
                elif one == -1 or other == -1:
                    total[pair] += half
                else:
                    total[pair] += 1.0
            for at in range(start[view], start[view + 1]):
                current[anchor[at]] = -2
    return agree, total
