"""Segmentation without a network: a hierarchy of regions from colour, depth and normals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from lift3d.scene import LabelMap, Masks, Prompt, View
from lift3d.scene.mask_sets import PackedMasks
from lift3d.scene.prefetch import THREADS
from lift3d.scene.protocols import Segmenter, SegmenterConfig
from lift3d.segmentation.dissimilarity import pixel_edges, working_picture
from lift3d.segmentation.hierarchy import Hierarchy, build_hierarchy

SUPERPIXELS = 8000
"""Superpixels have at least this fraction (1 / n) of the picture's pixels. Chosen by hand; not
tuned on data."""
SHARPNESS, ABOVE_LEVEL = 0.1, 0.3
"""Weights in a node's fit to a prompt: bonus for a sharp border, penalty for altitude above
`level`. Chosen by hand; not tuned on data."""


@dataclass(frozen=True)
class RegionsConfig(SegmenterConfig):
    """Regions of similar colour, depth and normals: no weights, no GPU; the default."""

    masks_are_surfaces: ClassVar[bool] = True

    longest: int = 320
    """Longer side, in pixels, at which pictures are segmented; masks are scaled up."""
    level: float = 0.45
    """Merge regions while the mean dissimilarity along their border is below this."""
    colour: float = 0.5
    """Weight of colour differences at pixels with depth."""
    step: float = 0.7
    """Weight of depth steps."""
    concave: float = 2.5
    """Weight of concave bends, as between an object and the table below it."""
    convex: float = 0.3
    """Weight of convex bends, as at the edges of a box."""
    colour_alone: float = 1.2
    """Weight of colour differences at pixels without depth."""
    smallest: float = 0.001
    """Smallest automatic mask, as a share of the image."""
    level_alone: float = 0.75
    """As `level`, in pictures without any depth, where borders are of colour alone."""
    smallest_alone: float = 0.005
    """As `smallest`, in pictures without any depth: few large masks rather than texture."""

    def build(self) -> Regions:
        """The segmenter."""
        return Regions(self)


class Regions(Segmenter):
    """Automatic masks are a cut of the hierarchy; the answer to a prompt is its best node."""

    threads = THREADS

    def __init__(self, config: RegionsConfig) -> None:
        self._config = config
        self._cached: tuple[View, Hierarchy] | None = None

    def segment(self, view: View) -> Masks:
        """Disjoint masks of the view's regions; all scores are 1."""
        hierarchy, config = self._hierarchy(view), self._config
        level, smallest = config.level, config.smallest
        if view.load_depth is None or view.sparse:
            level, smallest = config.level_alone, config.smallest_alone
        labels = _absorb_small(hierarchy.cut(level), smallest * hierarchy.leaf.size)
        masks = PackedMasks.of_label_map(self._full_size(labels, view))
        return PackedMasks(masks.regions, masks.scores, ids=None)

    def prompt(self, view: View, prompts: Sequence[Prompt]) -> Masks:
        """The best node for each prompt; an empty mask if it has no positive point."""
        hierarchy = self._hierarchy(view)
        shape = (len(prompts), view.camera.height, view.camera.width)
        stack, scores = np.zeros(shape, bool), np.zeros(len(prompts), np.float32)
        for index, prompt in enumerate(prompts):
            nodes, fit = self._candidates(hierarchy, view, prompt)
            if len(nodes):
                best = int(np.argmax(fit))
                stack[index] = self._mask(hierarchy, int(nodes[best]), view)
                scores[index] = np.clip(fit[best], 0, 1)
        return Masks(stack, scores)

    def alternatives(self, view: View, prompt: Prompt) -> Masks:
        """The best node, the best of at most half its area, and the best of at least twice."""
        hierarchy = self._hierarchy(view)
        nodes, fit = self._candidates(hierarchy, view, prompt)
        chosen: list[int] = []
        if len(nodes):
            area = hierarchy.area[nodes]
            middle = int(np.argmax(fit))
            for group in (area <= area[middle] / 2, area == area[middle], area >= 2 * area[middle]):
                if group.any():
                    chosen.append(int(np.argmax(np.where(group, fit, -np.inf))))
        shape = (0, view.camera.height, view.camera.width)
        stack = [self._mask(hierarchy, int(nodes[each]), view) for each in chosen]
        scores = np.array([np.clip(fit[each], 0, 1) for each in chosen], np.float32)
        return Masks(np.stack(stack) if stack else np.zeros(shape, bool), scores)

    def prepared(self, view: View) -> Hierarchy:
        """The view's tree."""
        return self._hierarchy(view)

    def use_prepared(self, view: View, prepared: Hierarchy) -> None:
        """Keep the view's tree for prompts."""
        self._cached = (view, prepared)

    def _hierarchy(self, view: View) -> Hierarchy:
        """The view's tree; the last tree is cached for prompts after `segment`."""
        cached = self._cached  # another thread may replace it
        if cached is None or cached[0] is not view:
            config = self._config
            picture = working_picture(view, config.longest)
            edges = pixel_edges(
                picture,
                config.colour,
                config.colour_alone,
                config.step,
                config.concave,
                config.convex,
            )
            shape = picture.depth.shape
            smallest = max(4, picture.depth.size // SUPERPIXELS)
            tree = build_hierarchy(shape, *edges, scale=1.0, smallest=smallest)
            cached = self._cached = (view, tree)
        return cached[1]

    def _candidates(
        self, hierarchy: Hierarchy, view: View, prompt: Prompt
    ) -> tuple[np.ndarray, Float64[np.ndarray, " nodes"]]:
        """Nodes that contain a positive point, and their fit to the prompt.

        The fit is the share of positive points inside minus the share of negative points inside,
        averaged with the IoU with the prompt's mask (if it has a mask), plus small terms for a
        sharp border and for altitudes above `level`.
        """
        height, width = hierarchy.leaf.shape
        scale = np.array([width / view.camera.width, height / view.camera.height])
        pixel = np.round((prompt.xy + 0.5) * scale - 0.5).astype(int)
        column, row = np.clip(pixel[:, 0], 0, width - 1), np.clip(pixel[:, 1], 0, height - 1)
        leaf = hierarchy.leaf[row, column]
        if not prompt.positive.any():
            return np.zeros(0, np.int64), np.zeros(0)
        touched = np.unique(leaf[prompt.positive])
        above = {node for each in touched for node in hierarchy.chain(int(each))}
        nodes = np.array(sorted(above), np.int64)
        nodes = nodes[hierarchy.area[nodes] >= self._smallest(hierarchy) / 2]
        if not len(nodes):
            nodes = np.array([len(hierarchy.parent) - 1])
        fit = self._share(hierarchy, leaf[prompt.positive])[nodes]
        if (~prompt.positive).any():
            fit = fit - self._share(hierarchy, leaf[~prompt.positive])[nodes]
        if prompt.mask is not None and prompt.mask.any():
            rows = ((np.arange(height) + 0.5) * view.camera.height / height).astype(int)
            columns = ((np.arange(width) + 0.5) * view.camera.width / width).astype(int)
            wanted = prompt.mask[rows][:, columns]
            leaves = hierarchy.leaves
            hit = hierarchy.sum_up(np.bincount(hierarchy.leaf[wanted], minlength=leaves) * 1.0)
            union = hierarchy.area + wanted.sum() - hit
            fit = 0.5 * fit + 0.5 * (hit / np.maximum(union, 1))[nodes]
        top = hierarchy.altitude[hierarchy.parent[nodes]]
        own = hierarchy.altitude[nodes]
        sharp = (top - own) / np.maximum(top, 1e-9)
        beyond = np.maximum(own - self._config.level, 0) / self._config.level
        return nodes, fit + SHARPNESS * sharp - ABOVE_LEVEL * np.minimum(beyond, 2)

    def _share(self, hierarchy: Hierarchy, leaf: np.ndarray) -> Float64[np.ndarray, " nodes"]:
        counts = np.bincount(leaf, minlength=hierarchy.leaves).astype(np.float64)
        return hierarchy.sum_up(counts / len(leaf))

    def _smallest(self, hierarchy: Hierarchy) -> float:
        return self._config.smallest * hierarchy.leaf.size

    def _mask(self, hierarchy: Hierarchy, node: int, view: View) -> np.ndarray:
        return self._full_size(hierarchy.pixels(node).astype(np.int32), view) > 0

    def _full_size(self, labels: LabelMap, view: View) -> LabelMap:
        """The label map resized to the image by nearest neighbour."""
        import cv2

        size = (view.camera.width, view.camera.height)
        return cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT)


def _absorb_small(labels: LabelMap, smallest: float, reach: float = 4.0) -> LabelMap:
    """Give pixels of small or thin regions the nearest label within `reach` pixels, else 0.

    A blurred border forms a thin region of its own; an erosion by one pixel removes it.
    """
    import cv2

    inner = cv2.erode(labels.astype(np.float32), np.ones((3, 3)))
    inner = (inner == cv2.dilate(labels.astype(np.float32), np.ones((3, 3)))) & (inner > 0)
    area = np.bincount(labels.ravel())
    core = np.bincount(labels[inner], minlength=len(area))
    kept = ((area >= smallest) & (core > 0))[labels]
    if not kept.any():
        return np.zeros_like(labels)
    away, nearest = cv2.distanceTransformWithLabels(
        (~kept).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    of_label = np.zeros(int(nearest.max()) + 1, np.int32)
    of_label[nearest[kept]] = labels[kept]
    return np.where(away <= reach, of_label[nearest], 0).astype(np.int32)
