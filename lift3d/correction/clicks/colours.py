"""What colours an object has, by the masks of prompted views."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64
from scipy import ndimage

BINS = (16, 24, 24)
"""Of lightness, a and b."""
LOW, HIGH = np.array([0.0, -100.0, -100.0]), np.array([100.0, 100.0, 100.0])
SMOOTH = 1.0
"""Standard deviation of the smoothing, in bins."""
FEW = 0.002
"""Share of all pixels that a colour needs to say something."""


class Colours:
    """Two histograms of CIELAB: inside and outside of the masks."""

    def __init__(self) -> None:
        self._counts = np.zeros((2, *BINS))

    def add(
        self, lab: Float64[np.ndarray, "colours 3"], inside: Float64[np.ndarray, " colours"],
        size: Float64[np.ndarray, " colours"],
    ) -> None:  # fmt: skip
        """Some colours with their shares inside and their numbers of pixels."""
        place = tuple(_bins(lab).T)
        np.add.at(self._counts[0], place, size * inside)
        np.add.at(self._counts[1], place, size * (1 - inside))

    def inside(self, lab: Float64[np.ndarray, "colours 3"]) -> Float64[np.ndarray, " colours"]:
        """Probability of each colour to be inside, both sides being as large; 0.5 where unknown."""
        smooth = np.stack([ndimage.gaussian_filter(each, SMOOTH) for each in self._counts])
        smooth /= np.maximum(smooth.sum((1, 2, 3), keepdims=True), 1e-9)
        own = smooth[(slice(None), *_bins(lab).T)]
        return (own[0] + FEW / 10) / (own.sum(0) + FEW / 5)


def _bins(lab: Float64[np.ndarray, "colours 3"]) -> np.ndarray:
    share = (lab - LOW) / (HIGH - LOW)
    return np.clip((share * BINS).astype(int), 0, np.array(BINS) - 1)
