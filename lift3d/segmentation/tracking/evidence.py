"""Matches with labels: warp earlier masks into a view, and measure agreement with new masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from lift3d.scene import LabelMap, Matches
from lift3d.scene.compiled import compiled

DENSE = 0.03
"""Matches are dense up to this spacing, a share of the image's longer side. Chosen by hand; not
tuned on data."""
LEAST_RESIDUAL = 0.01
"""Matches with a smaller residual, as a share of the image's diagonal, are never outliers. Chosen
by hand; not tuned on data."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Matches from an earlier view to the current view, with labels from the earlier view."""

    xy_before: Float64[np.ndarray, "matches 2"]
    xy_now: Float64[np.ndarray, "matches 2"]
    label: Int32[np.ndarray, " matches"]
    """Label at `xy_before`; 0 = unlabelled."""
    pixel: Int64[np.ndarray, " matches"]
    """Flat index of the pixel at `xy_now`."""
    height: int
    """Of the current view."""
    width: int
    cell: int = 0
    """Step in pixels if the points are a grid in the current view, with `xy_before` equal to
    `xy_now`; 0 for matches with another view."""

    def __len__(self) -> int:
        return len(self.label)

    def take(self, index: np.ndarray) -> Evidence:
        """Select matches by `index` (positions or a boolean mask)."""
        return Evidence(
            self.xy_before[index], self.xy_now[index], self.label[index], self.pixel[index],
            self.height, self.width, self.cell,
        )  # fmt: skip

    def agreement(
        self, stack: Bool[np.ndarray, "masks height width"], ids: Int32[np.ndarray, " masks"]
    ) -> Float64[np.ndarray, " masks"]:
        """Agreement of mask i with label `ids[i]` of the earlier view, 0 to 1.

        Intersection over union, counted in matches: matches of the label inside the mask, divided
        by matches of the label plus matches of other labels inside the mask. Unlabelled matches
        are ignored.
        """
        flat = stack.reshape(len(stack), stack.shape[1] * stack.shape[2])
        return _agreement(flat, ids, self.pixel, self.label)

    @property
    def spacing(self) -> int:
        """Average distance of neighbouring matches in pixels, rounded up."""
        return int(np.ceil(self._apart))

    @property
    def dense(self) -> bool:
        """Whether matches are close enough to show the shape of masks."""
        return (self.cell or self._apart) <= DENSE * max(self.height, self.width)

    @property
    def _apart(self) -> float:
        return float(np.sqrt(self.height * self.width / max(len(self), 1)))

    def warped(self) -> LabelMap | None:
        """The earlier labels moved into the current view; None if matches are sparse.

        The resolution is the spacing of the matches: a prompt for a segmenter, not a final mask.
        """
        if not self.dense:
            return None
        cell = self.cell or self.spacing
        rows, columns = -(-self.height // cell), -(-self.width // cell)
        at = (self.pixel // self.width // cell) * columns + (self.pixel % self.width) // cell
        coarse = np.full(rows * columns, -1, np.int32)
        coarse[at] = self.label
        filled = _fill(coarse.reshape(rows, columns))
        full = np.repeat(np.repeat(filled, cell, axis=0), cell, axis=1)
        return np.ascontiguousarray(full[: self.height, : self.width])


def gather(
    matches: Matches, before: LabelMap, height: int, width: int, border: float, confidence: float
) -> Evidence:
    """The matches that are away from the borders of both images and confident enough."""
    inside = _within(matches.xy_in_a, before.shape[0], before.shape[1], border)
    inside &= _within(matches.xy_in_b, height, width, border)
    kept = inside & (matches.confidence >= confidence)
    xy_before = matches.xy_in_a[kept].astype(np.float64)
    xy_now = matches.xy_in_b[kept].astype(np.float64)
    x, y = np.rint(xy_before).astype(np.int64).T
    u, v = np.rint(xy_now).astype(np.int64).T
    return Evidence(xy_before, xy_now, before[y, x], v * width + u, height, width)


def pooled(parts: Sequence[Evidence]) -> Evidence:
    """Majority vote of the matches from several earlier views, per cell of the current view.

    Cells are as large as the spacing of the first part. A tie goes to the smaller, older label;
    a cell is unlabelled only if it has no labelled match.
    """
    first = parts[0]
    cell, width = first.spacing, first.width
    pixel = np.concatenate([part.pixel for part in parts])
    label = np.concatenate([part.label for part in parts])
    place = (pixel // width // cell) * (-(-width // cell)) + pixel % width // cell
    size = int(label.max(initial=0)) + 1
    key, where, votes = np.unique(place * size + label, return_index=True, return_counts=True)
    votes[key % size == 0] = 0
    order = np.lexsort((key % size, -votes, key // size))
    best = order[np.diff(key[order] // size, prepend=-1) != 0]
    chosen = where[best]
    xy = np.stack([pixel[chosen] % width, pixel[chosen] // width], 1).astype(np.float64)
    return Evidence(xy, xy, label[chosen], pixel[chosen], first.height, width, cell)


def steady(evidence: Evidence, factor: float) -> Bool[np.ndarray, " matches"]:
    """Whether each match is consistent with the motion of its label.

    An affine motion is fitted to each label with robust weights. A match is an outlier if its
    residual exceeds `factor` robust standard deviations (from the label's median residual) and
    1 % of the image's diagonal, so that it may be on another object.
    """
    order = np.argsort(evidence.label, kind="stable")
    bounds = np.flatnonzero(np.diff(evidence.label[order], prepend=-1, append=-1))
    keep = np.empty(len(evidence), bool)
    least = LEAST_RESIDUAL * np.hypot(evidence.height, evidence.width)
    motion = evidence.xy_now - evidence.xy_before
    keep[order] = _steady(evidence.xy_before[order], motion[order], bounds, factor, least)
    return keep


@compiled()
@no_type_check
def _agreement(flat, ids, pixel, label):
    """Intersection over union of each mask with its label, in matches."""
    found = np.zeros(len(ids))
    for mask in range(len(ids)):
        own, both, foreign = 0, 0, 0
        for at in range(len(pixel)):
            if label[at] == ids[mask]:
                own += 1
                both += flat[mask, pixel[at]]
            elif label[at] > 0:
                foreign += flat[mask, pixel[at]]
        if own + foreign > 0:
            found[mask] = both / (own + foreign)
    return found


@compiled()
@no_type_check
def _steady(xy, motion, bounds, factor, least):
    """Fit each group of rows between two bounds and mark its inliers."""
    keep = np.ones(len(xy), np.bool_)
    for group in range(len(bounds) - 1):
        low, high = bounds[group], bounds[group + 1]
        n = high - low
        if n < 3:
            continue
        affine = np.ones((n, 3))
        left = np.empty((n, 2))
        for axis in range(2):
            affine[:, 1 + axis] = (xy[low:high, axis] - xy[low:high, axis].mean()) / 100
            left[:, axis] = motion[low:high, axis] - np.median(motion[low:high, axis])
        residual = np.sqrt((left**2).sum(1))
        for _ in range(3):
            scale = max(1.4826 * np.median(residual), 1e-3)
            weighted = affine.copy()
            for row in range(n):
                weighted[row] /= 1 + (residual[row] / scale) ** 2
            # A ridge on the slopes only: few points cannot separate rotation from outliers.
            normal = weighted.T @ affine + np.diag(np.array([1e-9, 1.0, 1.0]))
            fitted = affine @ np.linalg.solve(normal, weighted.T @ left)
            residual = np.sqrt(((left - fitted) ** 2).sum(1))
        scale = 1.4826 * np.median(residual)
        keep[low:high] = residual <= max(factor * scale, least)
    return keep


def split(
    labels: LabelMap, ids: Int32[np.ndarray, " masks"]
) -> Bool[np.ndarray, "masks height width"]:
    """One mask per id, in one pass; empty for ids that do not occur."""
    row = np.full(int(max(labels.max(initial=0), ids.max(initial=0))) + 1, -1)
    row[ids] = np.arange(len(ids))
    stack = np.zeros((len(ids), *labels.shape), bool)
    _split(labels.reshape(-1), row, stack.reshape(len(ids), labels.size))
    return stack


@compiled()
@no_type_check
def _split(labels, row, stack):
    for pixel in range(len(labels)):
        if row[labels[pixel]] >= 0:
            stack[row[labels[pixel]], pixel] = True


def _within(xy: np.ndarray, height: int, width: int, border: float) -> Bool[np.ndarray, " matches"]:
    # At most half a pixel outside, so that rounded coordinates are inside the image.
    low = max(border, 0.0) - 0.5
    return (
        (xy[:, 0] > low) & (xy[:, 1] > low) & (xy[:, 0] < width - 1 - low)
        & (xy[:, 1] < height - 1 - low)
    )  # fmt: skip


def _fill(coarse: Int32[np.ndarray, "rows columns"]) -> Int32[np.ndarray, "rows columns"]:
    """Give cells without a match (-1) a neighbour's label, in one step; the others become 0."""
    padded = np.pad(coarse, 1, constant_values=-1)
    filled = coarse.copy()
    for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2), (0, 0), (0, 2), (2, 0), (2, 2)):
        neighbour = padded[dy : dy + coarse.shape[0], dx : dx + coarse.shape[1]]
        filled = np.where(filled < 0, neighbour, filled)
    return np.maximum(filled, 0)
