"""H of a scene with label maps: points from depth, labels through the colour camera."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32

from lift3d.evaluation.consistency.counts import neighbour_counts
from lift3d.evaluation.consistency.scoring import Consistency, Exclude, score
from lift3d.geometry import project, transform
from lift3d.geometry.lens import inside, nearest, rays_at
from lift3d.scene import LabelMap, Scene, Skipped, View
from lift3d.scene.errors import InputError
from lift3d.scene.labelmaps import check_label_maps, label_map_of
from lift3d.scene.prefetch import THREADS, prefetch
from lift3d.scene.skipping import readable

METRIC_EPSILON = 0.01
"""Default epsilon of metric scenes, in metres; about the noise of a depth sensor at 2 m. Chosen by
hand; not tuned on data."""
FOOTPRINTS = 4.0
"""Default epsilon of other scenes, in median distances between points of neighbouring pixels.
Chosen by hand; not tuned on data."""


@dataclass(frozen=True, eq=False)
class SceneConsistency:
    """The `Consistency` of a scene, the sampled pixels, and maps of disagreement."""

    result: Consistency
    names: tuple[str, ...]
    """Names of the views in scene order, as in `result.view_H`."""
    stride: int
    """Step of the sampled pixels in x and y."""
    unseen: int
    """Number of pixels with depth outside the colour image, which have no label."""
    shapes: tuple[tuple[int, int], ...]
    """Height and width of each view's depth."""
    pixel: Int32[np.ndarray, " pixels"]
    """Row * width + column of each pixel in its view's depth, view after view."""
    first: Int32[np.ndarray, " views_and_one"]
    """View i has the pixels from `first[i]` up to `first[i + 1]`."""
    skipped: tuple[Skipped, ...] = ()
    """Views whose depth cannot be read."""

    @property
    def sampling(self) -> str:
        """The sampled pixels, in words."""
        if self.stride == 1:
            return "every pixel with depth"
        return f"one pixel with depth in {self.stride} in x and in y"

    def heat_map(self, view_index: int) -> Float32[np.ndarray, "height width"]:
        """Disagreement 1 - h at the resolution of the view's depth; NaN without a valid pixel.

        Each sampled pixel fills the `stride` x `stride` square around it.
        """
        if self.result.h is None:
            raise ValueError("computed without return_pixels=True")
        height, width = self.shapes[view_index]
        mine = slice(self.first[view_index], self.first[view_index + 1])
        row, column = np.divmod(self.pixel[mine], width)
        coarse = np.full((-(-height // self.stride), -(-width // self.stride)), np.nan, np.float32)
        coarse[row // self.stride, column // self.stride] = 1 - self.result.h[mine]
        return coarse.repeat(self.stride, 0).repeat(self.stride, 1)[:height, :width]

    def __str__(self) -> str:
        return f"{self.result}; {self.sampling}, {self.unseen:,} outside the colour image"


def scene_consistency(
    scene: Scene,
    label_maps: Mapping[str, LabelMap],
    epsilon: float | None = None,
    exclude: Exclude = "nothing",
    foreground: bool = False,
    max_pixels: int = 10_000_000,
    return_pixels: bool = True,
) -> SceneConsistency:
    """H of the scene's label maps; `consistency` defines H.

    `label_maps` gives each view's label map by its name, at colour resolution. Every pixel with
    depth is lifted to the world and gets its label through the colour camera. `epsilon` defaults
    to 1 cm in a metric scene, else to four times the median distance between points of
    neighbouring pixels. If the views have more than `max_pixels` pixels, the same regular grid is
    sampled in all views; see `sampling`. Views without depth are ignored; views whose depth cannot
    be read are in `skipped`.
    """
    return scene_consistencies(
        scene, label_maps, epsilon, (exclude,), foreground, max_pixels, return_pixels
    )[0]


def scene_consistencies(
    scene: Scene,
    label_maps: Mapping[str, LabelMap],
    epsilon: float | None = None,
    excludes: Sequence[Exclude] = ("nothing", "self", "view"),
    foreground: bool | Sequence[bool] = False,
    max_pixels: int = 10_000_000,
    return_pixels: bool = True,
    also: Callable[[View, LabelMap, Skipped | None], None] | None = None,
) -> list[SceneConsistency]:
    """`scene_consistency` for several values of `exclude` and `foreground`, counting only once.

    Results are in the order of `foreground`, and within each in the order of `excludes`. `also` is
    called, from several threads, with each view and its label map, so that both are decoded once;
    and with the reason where the view's depth cannot be read.
    """
    check_label_maps(label_maps, scene)
    total = sum(
        view.geometry_camera.width * view.geometry_camera.height
        for view in scene.views
        if view.load_depth is not None and not view.sparse  # views with sparse depth have few
    )
    stride = max(1, math.ceil(math.sqrt(total / max_pixels)))
    samples = list(
        prefetch(
            scene.views,
            lambda view: _sample(view, label_maps, stride, also),
            threads=THREADS,
        )
    )
    if not any(len(sample.label) for sample in samples):
        raise InputError(f"{scene.name}: no view has depth; consistency needs points for pixels")
    sizes = [len(sample.label) for sample in samples]
    xyz = np.concatenate([sample.xyz for sample in samples])
    label = np.concatenate([sample.label for sample in samples])
    pixel = np.concatenate([sample.pixel for sample in samples])
    footprint = float(np.median([s.footprint for s in samples if s.footprint > 0] or [0.0]))
    unseen = sum(sample.unseen for sample in samples)
    skipped = tuple(sample.lost for sample in samples if sample.lost is not None)
    del samples
    view = np.repeat(np.arange(len(scene), dtype=np.int32), sizes)
    if epsilon is None:
        epsilon = METRIC_EPSILON if scene.metric else FOOTPRINTS * footprint
    counts = neighbour_counts(xyz, label, view, epsilon)
    del xyz
    return [
        SceneConsistency(
            result=score(counts, label, view, epsilon, exclude, scope, return_pixels, len(scene)),
            names=tuple(view.name for view in scene.views),
            stride=stride,
            unseen=unseen,
            shapes=tuple(
                (view.geometry_camera.height, view.geometry_camera.width) for view in scene.views
            ),
            pixel=pixel,
            first=np.append(0, np.cumsum(sizes)).astype(np.int32),
            skipped=skipped,
        )
        for scope in ((foreground,) if isinstance(foreground, bool) else foreground)
        for exclude in excludes
    ]


@dataclass(frozen=True, eq=False)
class _Sample:
    """Sampled pixels of one view."""

    xyz: Float32[np.ndarray, "pixels 3"]
    label: Int32[np.ndarray, " pixels"]
    pixel: Int32[np.ndarray, " pixels"]
    unseen: int
    footprint: float
    """Median distance between the points of neighbouring pixels; 0 without depth."""
    lost: Skipped | None = None
    """The reason if the depth cannot be read."""


def _sample(
    view: View,
    label_maps: Mapping[str, LabelMap],
    stride: int,
    also: Callable[[View, LabelMap, Skipped | None], None] | None,
) -> _Sample:
    view, depth, lost = readable(view)
    labels = label_map_of(label_maps, view)
    if also is not None:
        also(view, labels, lost)
    camera = view.geometry_camera
    if depth is None or lost is not None or camera.world_from_camera is None:
        nothing = np.zeros(0, np.int32)
        return _Sample(np.zeros((0, 3), np.float32), nothing, nothing, 0, 0.0, lost)
    rows, columns = _middles(depth.shape[0], stride), _middles(depth.shape[1], stride)
    # Sample the middle of each square.
    taken = depth[rows[:, None], columns]
    row, column = np.nonzero(np.isfinite(taken) & (taken > 0))
    row, column = rows[row], columns[column]
    pixel = (row * depth.shape[1] + column).astype(np.int32)
    z = depth[row, column]
    xyz = transform(camera.pose, rays_at(camera, column, row) * z[:, None])
    xyz = xyz.astype(np.float32)
    if view.depth_camera is None:
        label, seen = labels.ravel()[pixel], np.ones(len(pixel), bool)
    else:
        xy, _ = project(view.camera, xyz)
        seen = inside(view.camera, xy)
        column, row = nearest(xy[seen])
        label = labels[row, column]
    footprint = float(np.median(z) / camera.K[0, 0]) if len(pixel) else 0.0
    return _Sample(xyz[seen], label, pixel[seen], int((~seen).sum()), footprint)


def _middles(length: int, stride: int) -> np.ndarray:
    """The middles of consecutive pieces of `stride` of `length` pixels; the last may be shorter."""
    starts = np.arange(0, length, stride)
    return (starts + np.minimum(starts + stride, length) - 1) // 2
