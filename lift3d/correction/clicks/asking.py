"""Carry, prompt, vote: what is known of a view becomes prompts, and the answer is checked."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64
from scipy import ndimage

from lift3d.correction.clicks.evidence import rimless
from lift3d.scene import Masks, Prompt, View
from lift3d.scene.protocols import Segmenter

POSITIVES, NEGATIVES = 3, 3
"""Prompts per view. Chosen by hand."""
AGREES = 0.7
"""Least IoU of an accepted answer with the coarse map, where that is sure. Chosen by hand."""
SURE = 0.2
"""Pixels with a probability up to this, or from 1 minus this, are sure."""
BOX = 0.1
"""The box reaches this share of its size beyond the coarse mask. Chosen by hand."""


def coarse_prompt(probability: Float64[np.ndarray, "height width"]) -> Prompt | None:
    """The prompt for a view with this probability per pixel; None where nothing is inside.

    Positive clicks at the maxima of the distance to the edge, each away from the ones before;
    negative ones at sure outside near the object; a box; and the coarse mask.
    """
    mask = probability > 0.5
    if not mask.any():
        return None
    height, width = mask.shape
    positive = inner_points(mask, POSITIVES)
    rows, columns = np.nonzero(mask)
    low, high = np.array([columns.min(), rows.min()]), np.array([columns.max(), rows.max()])
    margin = np.maximum(BOX * (high - low), 2)
    near = np.zeros_like(mask)
    x0, y0 = np.maximum(low - 2 * margin, 0).astype(int)
    x1, y1 = (high + 2 * margin + 1).astype(int)
    near[y0:y1, x0:x1] = True
    beside = near & (probability < SURE) & rimless(mask)[1]
    negative = inner_points(beside, NEGATIVES)
    box = np.concatenate([np.maximum(low - margin, 0), np.minimum(high + margin, [width, height])])
    return Prompt(
        np.concatenate([positive, negative]).astype(np.float64),
        np.arange(len(positive) + len(negative)) < len(positive),
        mask,
        box.astype(np.float64),
    )


def inner_points(mask: Bool[np.ndarray, "height width"], most: int) -> np.ndarray:
    """Up to `most` pixels (column, row) far from the mask's edge and from each other."""
    found = []
    left = np.pad(mask, 1)
    for _ in range(most):
        away = ndimage.distance_transform_edt(left)
        row, column = np.unravel_index(int(np.argmax(away)), away.shape)
        if away[row, column] < 1:
            break
        found.append((column - 1, row - 1))
        reach = int(max(away[row, column] / 2, 3))
        left[max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1] = 0
    return np.array(found, np.float64).reshape(-1, 2)


def ask(
    segmenter: Segmenter, view: View, probability: Float64[np.ndarray, "height width"]
) -> tuple[Bool[np.ndarray, "height width"], float] | None:
    """The segmenter's mask and score; None where nothing is asked or the answer is another thing.

    The answer has to agree with the coarse map where that is sure.
    """
    prompt = coarse_prompt(probability)
    if prompt is None:
        return None
    answer = segmenter.prompt(view, [prompt])
    mask, score = answer.stack[0], float(answer.scores[0])
    sure = (probability < SURE) | (probability > 1 - SURE)
    wanted = probability > 0.5
    union = ((mask | wanted) & sure).sum()
    if not union or (mask & wanted & sure).sum() < AGREES * union:
        return None
    return mask, score


def first_mask(segmenter: Segmenter, view: View, prompt: Prompt) -> Masks:
    """The masks that a segmenter offers for a person's prompt, small to large.

    Several for a single click. A box for a segmenter that takes only points is asked as its middle
    and the filled box.
    """
    if len(prompt.xy) == 1 and prompt.box is None:
        return segmenter.alternatives(view, prompt)
    answer = segmenter.prompt(view, [prompt])
    if answer.stack.any() or prompt.box is None:
        return answer
    x0, y0, x1, y1 = prompt.box
    rough = np.zeros((view.camera.height, view.camera.width), bool)
    rough[max(int(y0), 0) : int(y1) + 1, max(int(x0), 0) : int(x1) + 1] = True
    middle = np.array([[(x0 + x1) / 2, (y0 + y1) / 2]])
    xy, positive = np.concatenate([prompt.xy, middle]), np.append(prompt.positive, True)
    return segmenter.prompt(view, [Prompt(xy, positive, rough, prompt.box)])
