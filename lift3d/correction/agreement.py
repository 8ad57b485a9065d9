"""H before and after edits, quickly and about: on a fixed sample whose neighbours are found once.

No edit changes geometry, so only labels are counted anew. The sample and the nearest neighbours
make it an estimate; `check` is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32, Int64

from lift3d.correction.maps import Fates, read_pixels
from lift3d.correction.state import State
from lift3d.geometry import project, transform
from lift3d.geometry.lens import inside, nearest, rays_at
from lift3d.scene import LabelMap, Scene, View
from lift3d.scene.errors import InputError
from lift3d.scene.labelmaps import label_map_of
from lift3d.scene.prefetch import THREADS, prefetch
from lift3d.scene.skipping import readable

COMPARED = 16
"""Neighbours of a pixel that are compared, the nearest ones."""
DENSER = 8
"""Pixels that may be neighbours, for each pixel of the sample."""


@dataclass(frozen=True)
class Measured:
    """The numbers of one set of labels."""

    H: float
    """Over labelled pixels, those of other views only, as `check` prints it; NaN without any."""
    H_prime: float
    coverage: float
    labels: int


@dataclass(frozen=True)
class Agreement:
    """Before and after the edits."""

    automatic: Measured
    corrected: Measured

    def beside(self, H: float, H_prime: float) -> Agreement:
        """Both moved so that the automatic labels have the numbers of the exact check.

        The sample compares the nearest neighbours only, which agree more than all within epsilon.
        """
        shift = H - self.automatic.H, H_prime - self.automatic.H_prime
        moved = (
            replace(each, H=min(each.H + shift[0], 1.0), H_prime=min(each.H_prime + shift[1], 1.0))
            for each in (self.automatic, self.corrected)
        )
        return Agreement(*moved)


@dataclass(frozen=True, eq=False)
class Sampled:
    """Pixels of all views with the pixels of other views beside them."""

    names: tuple[str, ...]
    view: Int32[np.ndarray, " pixels"]
    pixel: Int32[np.ndarray, " pixels"]
    """Row * width + column in the view's label map."""
    automatic: Int32[np.ndarray, " pixels"]
    point: Int32[np.ndarray, " pixels"]
    """Nearest point of the cloud."""
    one: Int64[np.ndarray, " pairs"]
    other: Int64[np.ndarray, " pairs"]
    """Pairs of pixels within epsilon; `one` is of the sample."""
    _painted: dict[int, np.ndarray] = field(default_factory=dict)

    @staticmethod
    def of(
        scene: Scene,
        automatic: Mapping[str, LabelMap],
        cloud: Float32[np.ndarray, "points 3"],
        epsilon: float,
        pixels: int = 100_000,
    ) -> Sampled:
        """Reads each view's depth once. InputError where no view has depth."""
        from scipy.spatial import cKDTree

        per_view = max(1, DENSER * pixels // max(len(scene), 1))
        found = list(
            prefetch(scene.views, lambda each: _pixels(each, automatic, per_view), threads=THREADS)
        )
        sizes = [len(each[0]) for each in found]
        if not sum(sizes):
            raise InputError(f"{scene.name}: no view has depth, which consistency needs")
        xyz, pixel, label = (np.concatenate(each) for each in zip(*found, strict=True))
        view = np.repeat(np.arange(len(scene), dtype=np.int32), sizes)
        step = max(1, len(xyz) // pixels)
        asked = np.arange(0, len(xyz), step)
        near = min(len(xyz), 2 * COMPARED)
        away, index = cKDTree(xyz).query(
            xyz[asked], k=near, distance_upper_bound=epsilon * (1 + 1e-6), workers=-1
        )
        away, index = away.reshape(len(asked), -1), index.reshape(len(asked), -1)
        fits = np.isfinite(away)
        fits[fits] = view[index[fits]] != np.repeat(view[asked], fits.sum(1))
        fits &= np.cumsum(fits, axis=1) <= COMPARED
        one, other = np.repeat(asked, fits.sum(1)), index[fits]
        used, place = np.unique(np.concatenate([asked, other]), return_inverse=True)
        _, point = cKDTree(cloud).query(xyz[used], workers=-1)
        return Sampled(
            tuple(each.name for each in scene.views),
            view[used],
            pixel[used].astype(np.int32),
            label[used].astype(np.int32),
            point.astype(np.int32),
            np.searchsorted(used, one).astype(np.int64),
            place[len(asked) :].astype(np.int64),
        )

    def measured(self, state: State) -> Agreement:
        """Before and after the edits of `state`."""
        return Agreement(self._count(self.automatic), self._count(self._labels(state)))

    def _labels(self, state: State) -> Int32[np.ndarray, " pixels"]:
        """Labels of the pixels under the edits: as in the label maps, but that the nearest point
        is that in space.
        """
        fates = Fates.of(state)
        ids, index = np.unique(self.automatic, return_inverse=True)
        table = np.array([fates.one.get(int(each), int(each)) for each in ids], np.int32)
        label = table[index]
        divided = np.isin(self.automatic, list(fates.several))
        same = state.cloud.instance[self.point] == self.automatic
        label[divided & same] = state.label[self.point[divided & same]]
        for layer in state.layers:
            if layer.view in self.names:
                at = self._pixels_in(layer.n, self.names.index(layer.view), layer.pixels)
                now = np.unique(state.label[layer.index])
                label[at] = now[0] if len(now) == 1 else layer.id
        return label

    def _pixels_in(self, n: int, view: int, path: Path) -> np.ndarray:
        """The sampled pixels in the painted ones of edit `n`; read once."""
        if n not in self._painted:
            own = np.flatnonzero(self.view == view)
            self._painted[n] = own[read_pixels(path).ravel()[self.pixel[own]]]
        return self._painted[n]

    def _count(self, label: Int32[np.ndarray, " pixels"]) -> Measured:
        """H and H′ over labelled pixels, coverage, labels."""
        one, other = label[self.one], label[self.other]
        labels = int(np.count_nonzero(np.bincount(label, minlength=1)[1:]))
        coverage = float(np.mean(label > 0)) if len(label) else float("nan")
        asked, start = np.unique(self.one, return_index=True)
        if not len(asked):
            return Measured(float("nan"), float("nan"), coverage, labels)
        size = np.diff(np.append(start, len(self.one)))
        same = np.add.reduceat((one == other).astype(np.float64), start) / size
        kind = np.add.reduceat(((one > 0) & (other > 0)).astype(np.float64), start) / size
        counted = label[asked] > 0
        if not counted.any():
            return Measured(float("nan"), float("nan"), coverage, labels)
        H, chance = float(same[counted].mean()), float(kind[counted].mean()) / max(labels, 1)
        corrected = (H - chance) / (1 - chance) if chance < 1 else float("nan")
        return Measured(H, corrected, coverage, labels)


def _pixels(
    view: View, automatic: Mapping[str, LabelMap], count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """World position, pixel and label of about `count` pixels of a view, on an even grid."""
    nothing = np.zeros((0, 3), np.float32), np.zeros(0, np.int64), np.zeros(0, np.int32)
    view, depth, lost = readable(view)
    camera = view.geometry_camera
    if depth is None or lost is not None or camera.world_from_camera is None:
        return nothing
    rows, columns = np.nonzero(np.isfinite(depth) & (depth > 0))
    if not len(rows):
        return nothing
    chosen = np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64)
    rows, columns = rows[chosen], columns[chosen]
    xyz = transform(camera.pose, rays_at(camera, columns, rows) * depth[rows, columns][:, None])
    labels = label_map_of(automatic, view)
    if view.depth_camera is not None:
        xy, _ = project(view.camera, xyz)
        seen = inside(view.camera, xy)
        xyz = xyz[seen]
        columns, rows = nearest(xy[seen])
    pixel = rows * labels.shape[1] + columns
    return xyz.astype(np.float32), pixel.astype(np.int64), labels[rows, columns]
