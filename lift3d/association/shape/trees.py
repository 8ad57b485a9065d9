"""Gradient-boosted trees stored as arrays; inference with numba."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Float64, Int8, Int16, Int32

from lift3d.scene.compiled import compiled

LEAF, LEFT = 2, 1
"""Flags of a node: it is a leaf; rows with an unknown feature go left."""
BLOCK = 64
"""Rows that go through one tree in turn; results do not depend on it."""


@dataclass(frozen=True, eq=False)
class Trees:
    """Boosted trees of a binary classifier (Friedman 2001)."""

    feature: Int16[np.ndarray, " nodes"]
    threshold: Float64[np.ndarray, " nodes"]
    """Rows with a feature up to it go left."""
    left: Int32[np.ndarray, " nodes"]
    right: Int32[np.ndarray, " nodes"]
    value: Float32[np.ndarray, " nodes"]
    """Log-odds that a leaf adds."""
    flags: Int8[np.ndarray, " nodes"]
    root: Int32[np.ndarray, " trees"]
    base: Float32[np.ndarray, ""]
    """Log-odds before any tree."""

    @staticmethod
    def of_arrays(arrays: Mapping[str, np.ndarray], name: str) -> Trees:
        """Trees that `as_arrays` stored under `name`."""
        return Trees(**{each.name: arrays[f"{name}_{each.name}"] for each in fields(Trees)})

    def as_arrays(self, name: str) -> dict[str, np.ndarray]:
        """Arrays for `numpy.savez`, each as `name_field`."""
        return {f"{name}_{each.name}": getattr(self, each.name) for each in fields(Trees)}

    def __call__(
        self, features: Float64[np.ndarray, "rows features"]
    ) -> Float64[np.ndarray, " rows"]:
        """Probability of each row; NaN = unknown feature."""
        total = _predict(
            np.ascontiguousarray(features),
            self.feature,
            self.threshold,
            self.left,
            self.right,
            self.value,
            self.flags,
            self.root,
        )
        return np.asarray(1 / (1 + np.exp(-total - self.base)))


@compiled(nogil=True)
@no_type_check
def _predict(features, feature, threshold, left, right, value, flags, root):
    """By blocks of rows, so that a tree stays in the nearest cache."""
    rows = len(features)
    out = np.zeros(rows)
    for first in range(0, rows, BLOCK):
        for tree in range(len(root)):
            for row in range(first, min(first + BLOCK, rows)):
                at = root[tree]
                while flags[at] < LEAF:
                    value_of = features[row, feature[at]]
                    goes = flags[at] == LEFT if np.isnan(value_of) else value_of <= threshold[at]
                    at = left[at] if goes else right[at]
                out[row] += value[at]
    return out
