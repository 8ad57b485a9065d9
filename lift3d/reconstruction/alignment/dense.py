"""Apply the refined corrections of the cells to the dense depth map."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from lift3d.scene import Depth

REACH = 4
"""Radius of the smoothing window, in cells."""
SPREAD = 1.3
"""Standard deviation of the smoothing, in cells. Chosen by hand; not tuned on data."""
STEP = 0.05
"""Standard deviation of the smoothing in log depth, so that corrections do not spread across depth
steps. Chosen by hand; not tuned on data."""


def corrected(
    depth: Depth,
    scale: float,
    correction: Float64[np.ndarray, "rows columns"],
    information: Float64[np.ndarray, "rows columns"],
    cell: int,
) -> Depth:
    """Canonical depth times the image's scale and the smoothed corrections.

    `correction` is in log depth; `information` is its inverse variance. Each correction is
    averaged with those around it on the same surface, weighted by information; without
    information the depth is only scaled.
    """
    import cv2

    height, width = depth.shape
    smooth = _smooth(correction, information, _cell_depth(depth, correction.shape, cell))
    # Cells are centred (cell - 1) / 2 pixels from their first pixel.
    x = (np.arange(width, dtype=np.float32) - (cell - 1) / 2) / cell
    y = (np.arange(height, dtype=np.float32) - (cell - 1) / 2) / cell
    grid_x, grid_y = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    field = cv2.remap(
        smooth.astype(np.float32), grid_x, grid_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return (depth * np.float32(scale) * np.exp(field)).astype(np.float32)


def _cell_depth(
    depth: Depth, shape: tuple[int, int], cell: int
) -> Float64[np.ndarray, "rows columns"]:
    """Log depth in the middle of each cell; NaN where it is unknown."""
    row = np.minimum(np.arange(shape[0]) * cell + cell // 2, depth.shape[0] - 1)
    column = np.minimum(np.arange(shape[1]) * cell + cell // 2, depth.shape[1] - 1)
    middle = depth[np.ix_(row, column)].astype(np.float64)
    return np.log(np.where(middle > 0, middle, np.nan))


def _smooth(
    correction: Float64[np.ndarray, "rows columns"],
    information: Float64[np.ndarray, "rows columns"],
    log_depth: Float64[np.ndarray, "rows columns"],
) -> Float64[np.ndarray, "rows columns"]:
    rows, columns = correction.shape

    def padded(values: np.ndarray, fill: float) -> np.ndarray:
        return np.pad(values, REACH, constant_values=fill)

    far_correction, far_information = padded(correction, 0.0), padded(information, 0.0)
    far_depth = padded(log_depth, np.nan)
    total, weight = np.zeros((rows, columns)), np.zeros((rows, columns))
    for dy in range(-REACH, REACH + 1):
        for dx in range(-REACH, REACH + 1):
            window = np.s_[REACH + dy : REACH + dy + rows, REACH + dx : REACH + dx + columns]
            step = (far_depth[window] - log_depth) / STEP
            near = np.exp(-0.5 * (dx * dx + dy * dy) / SPREAD**2 - 0.5 * step**2)
            share = np.nan_to_num(near) * far_information[window]
            total += share * far_correction[window]
            weight += share
    return np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)
