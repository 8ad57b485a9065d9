"""The correspondence measures of Ego-Exo4D (Grauman et al., CVPR 2024): masks carried to a view."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from lift3d.evaluation.metrics.boundary import boundary_f
from lift3d.scene.errors import InputError

SIDE = 480
"""Longer side at which masks are compared, in pixels."""
PRESENT = 0.5
"""Confidence above which an object counts as predicted to be there."""
PROTOCOL = (
    "Ego-Exo4D correspondence: masks at 480 pixels of the longer side (nearest); IoU, location "
    "error (distance of centres / diagonal of 480x480) and contour accuracy (DAVIS' F after the "
    "centres are aligned) are means over pictures where the object is, an empty prediction counts "
    "0, 1 and 0; existence is the balanced accuracy of confidence > 0.5 over all pictures"
)
"""What our reading adds: the alignment of centres is from the paper, the tolerance of F and the
values of empty predictions are ours."""


@dataclass(frozen=True)
class Correspondence:
    """Scores of masks carried into other pictures; 0 to 1, NaN without pictures of the kind."""

    iou: float
    location_error: float
    contour_accuracy: float
    existence: float
    there: int
    """Pictures where the object is."""
    absent: int
    protocol: str = PROTOCOL

    def summary(self) -> dict[str, Any]:
        """Values for JSON; NaN becomes None."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(self).items()
        }


def correspondence(
    pairs: Iterable[tuple[Bool[np.ndarray, "..."], Bool[np.ndarray, "..."], float]],
) -> Correspondence:
    """Scores from (predicted, true, confidence) of each picture; an absent object has no pixels.

    InputError where two masks differ in size.
    """
    scores: list[tuple[float, float, float]] = []
    answers: dict[bool, list[bool]] = {True: [], False: []}
    for predicted, truth, confidence in pairs:
        if predicted.shape != truth.shape:
            raise InputError(f"a mask is {predicted.shape} and its truth {truth.shape}")
        ours, true = small(predicted), small(truth)
        answers[bool(truth.any())].append((confidence > PRESENT) == bool(truth.any()))
        if true.any():
            scores.append((iou(ours, true), location_error(ours, true), contour(ours, true)))
    overlap, error, outline = np.mean(scores, 0).tolist() if scores else [math.nan] * 3
    kinds = [float(np.mean(each)) for each in answers.values() if each]
    balanced = sum(kinds) / len(kinds) if kinds else math.nan
    there, absent = len(answers[True]), len(answers[False])
    return Correspondence(overlap, error, outline, balanced, there, absent)


def iou(
    predicted: Bool[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"], epsilon: float = 1e-7
) -> float:
    """Intersection over union; 0 where both are empty. VGGT-Segmentor's own has epsilon 1e-6."""
    return float((predicted & truth).sum() / ((predicted | truth).sum() + epsilon))


def location_error(predicted: Bool[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"]) -> float:
    """The distance of the centres by the diagonal of a square of 480 pixels; 1 without a mask."""
    if not predicted.any():
        return 1.0
    return float(np.linalg.norm(_centre(predicted) - _centre(truth)) / (SIDE * math.sqrt(2)))


def contour(predicted: Bool[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"]) -> float:
    """DAVIS' F after the predicted mask is moved, by whole pixels, to the true centre."""
    if not predicted.any():
        return 0.0
    down, right = (round(each) for each in (_centre(truth) - _centre(predicted)).tolist())
    return boundary_f(_moved(predicted, down, right), truth)


def small(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "rows columns"]:
    """The mask with 480 pixels along its longer side, by its nearest pixels."""
    import cv2

    height, width = mask.shape
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)) > 0


def _centre(mask: np.ndarray) -> np.ndarray:
    return np.array([each.mean() for each in np.nonzero(mask)])


def _moved(mask: np.ndarray, down: int, right: int) -> np.ndarray:
    """The mask moved; what leaves the picture is lost."""
    out = np.zeros_like(mask)
    rows, columns = np.nonzero(mask)
    rows, columns = rows + down, columns + right
    inside = (rows >= 0) & (rows < mask.shape[0]) & (columns >= 0) & (columns < mask.shape[1])
    out[rows[inside], columns[inside]] = True
    return out
