"""H for features (MastSAM, Eq. 5): mean cosine of a network's features of nearby pixels, exact.

For labels the product in Eq. 5 is 1 or 0; for CLIP or DINO features it is the cosine. Neighbours
are found in the same cells, and by the same float64 test, as for labels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, no_type_check

import numba
import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from lift3d.evaluation.consistency.cells import cell_keys
from lift3d.evaluation.consistency.scenes import FOOTPRINTS, METRIC_EPSILON
from lift3d.evaluation.consistency.scoring import Exclude
from lift3d.geometry import project, unproject
from lift3d.geometry.lens import inside, nearest
from lift3d.geometry.radix import sort_keys
from lift3d.scene import Scene, View
from lift3d.scene.compiled import compiled
from lift3d.scene.errors import FrameError, InputError

log = logging.getLogger(__name__)
AXIS_BITS = 20
FeatureMaps = Callable[[int], Float32[np.ndarray, "rows columns channels"]]
"""View index -> feature map, which covers the image at any resolution."""


@dataclass(frozen=True, eq=False)
class FeatureConsistency:
    """H of features. A constant feature has H = 1, so read it with `H_prime`."""

    H: float
    """Mean over pixels of the mean cosine with E, -1 to 1; NaN without valid pixels."""
    H0: float
    """Expected H if neighbours in other views were random pixels of the other views."""
    exclude: Exclude
    epsilon: float
    pixels: int
    """Number of valid pixels."""
    alone: int
    """Number of pixels that are not valid, because their E is empty."""
    view_H: Float64[np.ndarray, " views"]
    """H over the pixels of each view; NaN without valid pixels."""
    h: Float32[np.ndarray, " pixels"]
    """Mean cosine of each pixel; NaN if not valid."""

    @property
    def H_prime(self) -> float:
        """(H - H0) / (1 - H0): 0 is chance, 1 is perfect; NaN if H0 is 1."""
        return (self.H - self.H0) / (1 - self.H0) if self.H0 < 1 - 1e-6 else float("nan")

    def summary(self) -> dict[str, Any]:
        """All values except per-pixel values, for JSON; NaN becomes None."""
        numbers = {"H": self.H, "H0": self.H0, "H_prime": self.H_prime}
        return {
            **{name: None if np.isnan(each) else each for name, each in numbers.items()},
            "exclude": self.exclude,
            "epsilon": self.epsilon,
            "pixels": self.pixels,
            "alone": self.alone,
            "view_H": [None if np.isnan(each) else float(each) for each in self.view_H],
        }


def feature_consistency(
    xyz: Float32[np.ndarray, "pixels 3"],
    feature: Float32[np.ndarray, "pixels channels"],
    view: Int32[np.ndarray, " pixels"],
    epsilon: float,
    exclude: Exclude = "nothing",
) -> FeatureConsistency:
    """H of pixels of many views with a feature each; features need not have unit length.

    E and `exclude` are as in `consistency`. Time grows with pairs of neighbours times channels;
    memory is twice that of the features. InputError for features that are zero, NaN or infinite.
    """
    if not (np.isfinite(epsilon) and epsilon > 0):
        raise InputError(f"epsilon is {epsilon}; expected a distance above 0")
    if not (np.isfinite(xyz).all() and np.isfinite(feature).all()):
        raise InputError("positions or features hold NaN or infinity; leave those pixels out")
    if len(view) and view.min() < 0:
        raise InputError("view indices must be 0 or more")
    unit = _unit(feature)
    own, other = _cosines(xyz, unit, view, float(epsilon))
    views = int(view.max()) + 1 if len(view) else 0
    sums = own[:, 0] * (exclude != "view") + other[:, 0]
    size = own[:, 1] * (exclude != "view") + other[:, 1]
    chance = own[:, 0] * (exclude != "view") + other[:, 1] * _by_chance(unit, view, views)
    if exclude == "self":
        itself = np.einsum("pc,pc->p", unit, unit, dtype=np.float64)
        sums, size, chance = sums - itself, size - 1, chance - itself
    valid = size > 0
    h = np.divide(sums, size, out=np.full(len(size), np.nan), where=valid)
    by_chance = np.divide(chance, size, out=np.full(len(size), np.nan), where=valid)
    members = np.bincount(view[valid], minlength=views)
    totals = np.bincount(view[valid], h[valid], views)
    return FeatureConsistency(
        H=float(h[valid].mean()) if valid.any() else float("nan"),
        H0=float(by_chance[valid].mean()) if valid.any() else float("nan"),
        exclude=exclude,
        epsilon=float(epsilon),
        pixels=int(valid.sum()),
        alone=int((~valid).sum()),
        view_H=np.divide(totals, members, out=np.full(views, np.nan), where=members > 0),
        h=h.astype(np.float32),
    )


def scene_feature_consistency(
    scene: Scene,
    features: FeatureMaps,
    epsilon: float | None = None,
    exclude: Exclude = "nothing",
    stride: int = 4,
) -> FeatureConsistency:
    """H of a scene's feature maps, on every `stride`-th pixel with depth in x and y.

    Each pixel's point is projected into the colour camera and gets the feature of the map cell
    there; pixels with a zero feature are ignored. Views that cannot be read are skipped.
    """
    found = [_sample(view, features, index, stride) for index, view in enumerate(scene.views)]
    taken = [(index, each) for index, each in enumerate(found) if each is not None]
    if not any(len(each[0]) for _, each in taken):
        raise InputError(f"{scene.name}: no view has both depth and features")
    if len({each[1].shape[1] for _, each in taken}) > 1:
        raise InputError("feature maps of different views have different numbers of channels")
    xyz, feature = (np.concatenate([each[part] for _, each in taken]) for part in (0, 1))
    sizes = [len(each[0]) for _, each in taken]
    view = np.repeat(np.array([index for index, _ in taken], np.int32), sizes)
    footprint = float(np.median([each[2] for _, each in taken if each[2] > 0]))
    if epsilon is None:
        epsilon = METRIC_EPSILON if scene.metric else FOOTPRINTS * footprint
    return feature_consistency(xyz, feature, view, epsilon, exclude)


def _sample(
    view: View, features: FeatureMaps, index: int, stride: int
) -> tuple[Float32[np.ndarray, "n 3"], Float32[np.ndarray, "n channels"], float] | None:
    """Points, features and footprint of a view's pixels; None without depth or pose."""
    camera = view.geometry_camera
    try:
        depth = view.depth()
    except FrameError as error:
        log.warning("view %s is skipped in the consistency: %s", view.name, error)
        return None
    if depth is None or camera.world_from_camera is None:
        return None
    grid = np.zeros(depth.shape, bool)
    grid[stride // 2 :: stride, stride // 2 :: stride] = True
    pixel = np.flatnonzero((grid & np.isfinite(depth) & (depth > 0)).ravel())
    xyz = unproject(camera, np.where(np.isfinite(depth), depth, np.float32(0)))
    xyz = xyz.reshape(-1, 3)[pixel].astype(np.float32)
    xy, _ = project(view.camera, xyz)
    width, height = view.camera.width, view.camera.height
    seen = inside(view.camera, xy)
    column, row = nearest(xy[seen])
    maps = features(index)
    at_row = (row * maps.shape[0] / height + 0.5 * maps.shape[0] / height).astype(np.int64)
    at_column = (column * maps.shape[1] / width + 0.5 * maps.shape[1] / width).astype(np.int64)
    feature = maps[at_row, at_column]
    has = feature.any(1)
    footprint = float(np.median(depth[depth > 0]) / camera.K[0, 0]) if len(pixel) else 0.0
    return xyz[seen][has], feature[has], footprint


def _unit(feature: Float32[np.ndarray, "pixels channels"]) -> Float32[np.ndarray, "pixels c"]:
    length = np.sqrt(np.einsum("pc,pc->p", feature, feature, dtype=np.float64))
    if not length.all():
        raise InputError(f"{int((length == 0).sum())} features are zero; leave those pixels out")
    return (feature / length[:, None]).astype(np.float32)


def _by_chance(
    unit: Float32[np.ndarray, "pixels channels"], view: Int32[np.ndarray, " pixels"], views: int
) -> Float64[np.ndarray, " pixels"]:
    """Mean cosine of each pixel with all pixels of the other views; 0 without such pixels."""
    sums = np.zeros((views, unit.shape[1]))
    for each in range(views):
        sums[each] = unit[view == each].sum(0, dtype=np.float64)
    others = len(view) - np.bincount(view, minlength=views)
    mean = (sums.sum(0) - sums) / np.maximum(others, 1)[:, None]
    found = np.zeros(len(view))
    for each in range(views):
        found[view == each] = unit[view == each] @ mean[each]
    return found


def _cosines(
    xyz: Float32[np.ndarray, "pixels 3"],
    unit: Float32[np.ndarray, "pixels channels"],
    view: Int32[np.ndarray, " pixels"],
    epsilon: float,
) -> tuple[Float64[np.ndarray, "pixels 2"], Float64[np.ndarray, "pixels 2"]]:
    """Sum of cosines and number of neighbours, in the own view and in other views."""
    own, other = np.zeros((len(xyz), 2)), np.zeros((len(xyz), 2))
    if len(xyz) == 0:
        return own, other
    low = xyz.min(0).astype(np.float64)
    extent = xyz.max(0) - low
    side = max(epsilon * (1 + 1e-6), float(extent.max()) / (2**AXIS_BITS - 4))
    bits: Int64[np.ndarray, "3"] = np.array(
        [int(each).bit_length() for each in (extent / side).astype(np.int64) + 3], np.int64
    )
    key = cell_keys(xyz, np.zeros(len(xyz), np.int32), low, side, 1, bits)
    key, order = sort_keys(key, int(bits.sum()) + 1)
    start = np.concatenate([[0], np.flatnonzero(key[1:] != key[:-1]) + 1, [len(key)]])
    rows = np.array(
        [((dx << int(bits[1])) + dy) << int(bits[2]) for dx in (-1, 0, 1) for dy in (-1, 0, 1)],
        np.int64,
    )
    # In the order of cells, so that neighbours are adjacent in memory.
    _sum(xyz[order], unit[order], view[order], order, key[start[:-1]], start, rows, epsilon, own, other)  # fmt: skip  # noqa: E501
    return own, other


@compiled(parallel=True, fastmath={"reassoc", "contract"})
@no_type_check
def _sum(xyz, unit, view, order, cell_key, start, rows, epsilon, own, other):
    cells, channels = len(cell_key), unit.shape[1]
    for cell in numba.prange(cells):
        for row in range(len(rows)):
            middle = cell_key[cell] + rows[row]
            first = np.searchsorted(cell_key, middle - 1)
            last = np.searchsorted(cell_key, middle + 2)
            for p in range(start[cell], start[cell + 1]):
                i = order[p]
                for q in range(start[first], start[last]):
                    if not _within(xyz, p, q, epsilon):
                        continue
                    cosine = np.float32(0.0)
                    for c in range(channels):
                        cosine += unit[p, c] * unit[q, c]
                    if view[p] == view[q]:
                        own[i, 0] += cosine
                        own[i, 1] += 1
                    else:
                        other[i, 0] += cosine
                        other[i, 1] += 1


@compiled()
@no_type_check
def _within(xyz, p, q, epsilon):
    """The exact test; without fastmath, as the order of the sums is part of the definition."""
    dx = np.float64(xyz[q, 0]) - np.float64(xyz[p, 0])
    dy = np.float64(xyz[q, 1]) - np.float64(xyz[p, 1])
    dz = np.float64(xyz[q, 2]) - np.float64(xyz[p, 2])
    return (dx * dx + dy * dy) + dz * dz <= epsilon * epsilon
