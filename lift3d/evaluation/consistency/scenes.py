"""H of a scene with label maps: point maps from depth, labels through the colour camera."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
"""Metres; about the noise of a depth sensor at two metres."""
FOOTPRINTS = 4.0
"""Without metres, epsilon is this many times the median distance between pixels' points."""


@dataclass(frozen=True, eq=False)
class SceneConsistency:
    """The `Consistency` of a scene, what it was computed from, and where views disagree."""

    result: Consistency
    names: tuple[str, ...]
    """The views, in scene order: the order of `result.view_H`."""
    stride: int
    """Every `stride`-th pixel was taken in x and y."""
    unseen: int
    """Pixels with depth that the colour camera does not see: they can have no label."""
    shapes: tuple[tuple[int, int], ...]
    """Height and width of each view's depth."""
    pixel: Int32[np.ndarray, " pixels"]
    """Row * width + column of each pixel in its view's depth; views one after the other."""
    first: Int32[np.ndarray, " views_and_one"]
    """View i holds the pixels `first[i]` up to `first[i + 1]`."""
    skipped: tuple[Skipped, ...] = ()
    """Views without pixels because their depth cannot be read."""

    @property
    def sampling(self) -> str:
        """Which pixels were taken, in words."""
        if self.stride == 1:
            return "every pixel with depth"
        return f"one pixel with depth in {self.stride} in x and in y"

    def heat_map(self, view_index: int) -> Float32[np.ndarray, "height width"]:
        """Disagreement 1 - h at the resolution of the view's depth; NaN where no pixel counts.

        A pixel stands for the `stride` x `stride` square around it.
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
    """H of the scene's label maps; see `consistency` for what it is.

    `label_maps` gives the ids of each view by its name, at colour resolution. Every pixel with
    depth is placed in the world and looks its label up through the colour camera. `epsilon`
    defaults to 1 cm in a metric scene, else to four times the median distance between neighbouring
    pixels' points. If the views have more than `max_pixels` pixels, a regular grid is taken, the
    same in all views, and `sampling` says so. Views without depth contribute nothing, and those
    whose depth cannot be read are in `skipped`.
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
) -> list[SceneConsistency]:
    """As `scene_consistency`, for several `exclude` (and `foreground`) at the cost of one.

    All of `excludes` for the first of `foreground`, then all for the next.
    """
    check_label_maps(label_maps, scene)
    total = sum(
        view.geometry_camera.width * view.geometry_camera.height
        for view in scene.views
        if view.load_depth is not None and not view.sparse  # sparse pixels are few: all count
    )
    stride = max(1, math.ceil(math.sqrt(total / max_pixels)))
    samples = list(
        prefetch(
            scene.views,
            lambda view: _sample(view, label_maps, stride),
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
    """Pixels of one view."""

    xyz: Float32[np.ndarray, "pixels 3"]
    label: Int32[np.ndarray, " pixels"]
    pixel: Int32[np.ndarray, " pixels"]
    unseen: int
    footprint: float
    """Median distance between the points of neighbouring pixels; 0 without depth."""
    lost: Skipped | None = None
    """Why the depth cannot be read."""


def _sample(view: View, label_maps: Mapping[str, LabelMap], stride: int) -> _Sample:
    view, depth, lost = readable(view)
    camera = view.geometry_camera
    if depth is None or lost is not None or camera.world_from_camera is None:
        nothing = np.zeros(0, np.int32)
        return _Sample(np.zeros((0, 3), np.float32), nothing, nothing, 0, 0.0, lost)
    rows, columns = _middles(depth.shape[0], stride), _middles(depth.shape[1], stride)
    # The middle of each square, so that a sample stands for what is around it.
    taken = depth[rows[:, None], columns]
    row, column = np.nonzero(np.isfinite(taken) & (taken > 0))
    row, column = rows[row], columns[column]
    pixel = (row * depth.shape[1] + column).astype(np.int32)
    z = depth[row, column]
    xyz = transform(camera.pose, rays_at(camera, column, row) * z[:, None])
    xyz = xyz.astype(np.float32)
    labels = label_map_of(label_maps, view)
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
    """The middle of every `stride` of `length` pixels; the last piece may be shorter."""
    starts = np.arange(0, length, stride)
    return (starts + np.minimum(starts + stride, length) - 1) // 2
