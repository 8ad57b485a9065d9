"""BYOCL: cluster image features within batches, then cluster the means of these clusters.

After the paper (arXiv 2410.15060) and its public scripts, with SAM's image embeddings if the
segmenter has them. A baseline without matches and prompts; an id is a kind of region, not an
object.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from lift3d.geometry import normals
from lift3d.scene import LabelMap, Scene, Skipped, View
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.protocols import (
    Asked,
    HasFeatures,
    Matcher,
    Seeded,
    Segmenter,
    SegmenterConfig,
    TrackerConfig,
)
from lift3d.scene.skipping import unlabelled

Grid: TypeAlias = Float32[np.ndarray, "rows columns channels"]
Rows: TypeAlias = Float64[np.ndarray, "rows channels"]
ROUNDS = 100
"""Maximum number of K-Means iterations."""


@dataclass(frozen=True)
class ByoclConfig(Seeded, TrackerConfig):
    """Cluster features into kinds of regions, without matches or masks; the BYOCL baseline."""

    batch: int = 4
    """Number of neighbouring views clustered together (scripts: 4)."""
    components: int = 16
    """Number of principal components for clustering a batch."""
    clusters: int = 10
    """Clusters per batch; the mean feature of each is a prototype (scripts: 10)."""
    labels: int = 30
    """Clusters of all prototypes; these are the ids (scripts: 30)."""
    grid: int = 64
    """Cells along the longer side for colour features (SAM's embedding: 64)."""
    refine: Literal["guided", "nearest"] = "guided"
    """Upsampling from cells to pixels. nearest: the label of the pixel's cell; guided: the label
    of the most similar in colour of the nine cells around the pixel."""
    seed: int | None = None
    """Seed of the initial K-Means centres; by default the run's."""

    def needs_segmenter(self, segmentation: SegmenterConfig) -> bool:
        """Whether the segmenter has features; colour features need no segmenter."""
        return segmentation.gives_features

    def asks(self, number: int) -> frozenset[Asked]:
        """Features alone."""
        return frozenset(("features",))

    def check(self) -> None:
        """Raise InputError if a number is too small."""
        if min(self.batch, self.components, self.clusters, self.labels) < 1 or self.grid < 2:
            raise InputError(
                "byocl needs batch, components, clusters and labels >= 1 and grid >= 2, got "
                f"{self.batch}, {self.components}, {self.clusters}, {self.labels} and {self.grid}"
            )

    def build(self, segmenter: Segmenter | None = None, matcher: Matcher | None = None) -> Byocl:
        """The tracker; it needs no matcher, and uses only the segmenter's features."""
        self.check()
        return Byocl(self, segmenter)


class Byocl:
    """Reads every view before it labels the first, as all prototypes are clustered together."""

    def __init__(self, config: ByoclConfig, segmenter: Segmenter | None) -> None:
        self.config = config
        self.segmenter = segmenter
        self.skipped: list[Skipped] = []

    def track(self, scene: Scene) -> Iterator[LabelMap]:
        """One label map per view, in view order; a view that cannot be read is unlabelled.

        Ids are 1 to `labels`. Every pixel of the other views gets an id.
        """
        self.skipped = []
        config, rng = self.config, np.random.default_rng(self.config.seed or 0)
        views = list(scene.views)
        cells: list[Int64[np.ndarray, "rows columns"] | None] = []
        prototypes: list[Rows] = []
        for start in range(0, len(views), config.batch):
            grids = [self._features(view) for view in views[start : start + config.batch]]
            known = [grid for grid in grids if grid is not None]
            if not known:
                cells += [None] * len(grids)
                continue
            rows = np.concatenate([grid.reshape(-1, grid.shape[2]) for grid in known])
            rows = rows.astype(np.float64)
            member, means = prototypes_of(rows, config.components, config.clusters, rng)
            member += sum(map(len, prototypes))
            prototypes.append(means)
            cut = iter(np.split(member, np.cumsum([g.shape[0] * g.shape[1] for g in known])[:-1]))
            cells += [None if grid is None else next(cut).reshape(grid.shape[:2]) for grid in grids]
        if not prototypes:
            yield from (_nothing(view) for view in views)
            return
        label = 1 + kmeans(np.concatenate(prototypes), config.labels, rng)
        for view, coarse in zip(views, cells, strict=True):
            yield _nothing(view) if coarse is None else self._painted(view, label[coarse])

    def _features(self, view: View) -> Grid | None:
        """The view's features; None if the view cannot be read."""
        try:
            return features_of(self.segmenter, view, self.config.grid)
        except FrameError as error:
            unlabelled(view, error, self.skipped)
            return None

    def _painted(self, view: View, coarse: Int64[np.ndarray, "rows columns"]) -> LabelMap:
        return enlarge(coarse, view.image(), guided=self.config.refine == "guided")


def features_of(segmenter: Segmenter | None, view: View, grid: int) -> Grid:
    """The segmenter's `features` (image embeddings of SAM), else colour and texture.

    The choice is the same for all views.
    """
    if isinstance(segmenter, HasFeatures):
        return segmenter.features(view)
    return colour_features(view, grid)


def colour_features(view: View, grid: int) -> Grid:
    """Per cell: mean and standard deviation of CIELAB colour, gradients in x and y, and normal.

    For segmenters without a network. The normal is in the world frame, or without a pose in the
    camera's; it is 0 without depth registered to the image. Channels are scaled so that relevant
    differences are about 1.
    """
    import cv2

    image = view.image()
    height, width = image.shape[:2]
    shrink = grid / max(height, width)
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    light = lab[..., 0]
    slopes = [np.abs(cv2.Sobel(light, cv2.CV_32F, *axes, scale=1 / 8)) for axes in ((1, 0), (0, 1))]

    def mean(pixels: np.ndarray) -> np.ndarray:
        small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        return small.reshape(size[1], size[0], -1)

    colour = mean(lab)
    spread = np.sqrt(np.maximum(mean(lab**2) - colour**2, 0))
    parts = [colour / 25, spread / 25, mean(np.stack(slopes, -1)) / 5, _normals(view, size)]
    return np.concatenate(parts, axis=2).astype(np.float32)


def prototypes_of(
    rows: Rows, components: int, clusters: int, rng: np.random.Generator
) -> tuple[Int64[np.ndarray, " rows"], Float64[np.ndarray, "clusters channels"]]:
    """Cluster of each row (K-Means on principal components), and the mean row of each cluster."""
    centred = rows - rows.mean(0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    member = kmeans(centred @ axes[:, ::-1][:, :components], clusters, rng)
    # Empty clusters give no prototype.
    _, member = np.unique(member, return_inverse=True)
    sums = np.zeros((member.max() + 1, rows.shape[1]))
    np.add.at(sums, member, rows)
    return member.astype(np.int64), sums / np.bincount(member)[:, None]


def kmeans(rows: Rows, clusters: int, rng: np.random.Generator) -> Int64[np.ndarray, " rows"]:
    """Lloyd's K-Means from k-means++ centres; a tie goes to the earlier centre.

    Gives fewer clusters if there are fewer distinct rows. Deterministic for a given `rng`.

    >>> kmeans(np.array([[0.0], [9.0], [0.1], [9.1]]), 2, np.random.default_rng(0)).tolist()
    [1, 0, 1, 0]
    """
    squares = (rows**2).sum(1)

    def away(centres: np.ndarray) -> np.ndarray:
        return np.maximum(squares[:, None] - 2 * rows @ centres.T + (centres**2).sum(1), 0)

    chosen = [int(rng.integers(len(rows)))]
    nearest = ((rows - rows[chosen[0]]) ** 2).sum(1)
    while len(chosen) < clusters and nearest.any():
        chosen.append(int(rng.choice(len(rows), p=nearest / nearest.sum())))
        nearest = np.minimum(nearest, ((rows - rows[chosen[-1]]) ** 2).sum(1))
    centres = rows[chosen]
    member = away(centres).argmin(1)
    for _ in range(ROUNDS):
        count = np.bincount(member, minlength=len(centres))
        one_hot = np.zeros((len(centres), len(rows)))
        one_hot[member, np.arange(len(rows))] = 1
        sums = one_hot @ rows
        centres = np.where(count[:, None] > 0, sums / np.maximum(count, 1)[:, None], centres)
        before, member = member, away(centres).argmin(1)
        if np.array_equal(before, member):
            break
    return member.astype(np.int64)


def enlarge(
    coarse: Int64[np.ndarray, "rows columns"],
    image: UInt8[np.ndarray, "height width 3"],
    guided: bool,
) -> LabelMap:
    """Upsample labels from cells to pixels.

    A pixel gets the label of its cell. If `guided`, it gets the label of the cell, among the nine
    around it, with the least CIELAB distance between mean colour and pixel; 0.5 per squared
    cell distance is added.
    """
    import cv2

    rows, columns = coarse.shape
    height, width = image.shape[:2]
    row = (np.arange(height) * rows // height)[:, None]
    column = (np.arange(width) * columns // width)[None]
    labels = coarse[row, column].astype(np.int32)
    if not guided:
        return labels
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    cell = (row * columns + column).ravel()
    count = np.maximum(np.bincount(cell, minlength=rows * columns), 1)
    mean = np.stack(
        [np.bincount(cell, lab[..., c].ravel(), rows * columns) / count for c in range(3)], -1
    ).astype(np.float32)
    mean = mean.reshape(rows, columns, 3)
    best = np.full((height, width), np.inf, np.float32)
    for dy, dx in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)):
        there = np.clip(row + dy, 0, rows - 1), np.clip(column + dx, 0, columns - 1)
        gap = np.sqrt(((lab - mean[there]) ** 2).sum(2)) + np.float32(0.5 * (dy * dy + dx * dx))
        nearer = gap < best
        best[nearer] = gap[nearer]
        labels[nearer] = coarse[there][nearer]
    return labels


def _normals(view: View, size: tuple[int, int]) -> np.ndarray:
    """Normals of cells; 0 where unknown."""
    import cv2

    nothing = np.zeros((size[1], size[0], 3), np.float32)
    if view.load_depth is None or view.depth_camera is not None or view.sparse or min(size) < 2:
        return nothing
    depth = view.depth()
    assert depth is not None
    small = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST)
    camera = view.camera.resized(*size)
    return normals(camera if camera.world_from_camera is not None else camera.at(np.eye(4)), small)


def _nothing(view: View) -> LabelMap:
    return np.zeros((view.camera.height, view.camera.width), np.int32)
