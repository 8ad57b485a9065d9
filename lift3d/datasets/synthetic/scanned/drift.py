"""Smooth random curves over the views, and poses that drift by them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from lift3d.scene import Transform

EVERY = 12
"""Views between the random values that a curve goes through."""
ARM = 2.5
"""Metres at which the drift of the direction moves a point as far as that of the position."""


def smooth(
    rng: np.random.Generator, views: int, columns: int
) -> Float64[np.ndarray, "views columns"]:
    """Smooth curves over the views with mean 0, as rows; the longest row has length 1."""
    from scipy.interpolate import CubicSpline

    knots = np.arange(0, views + 2 * EVERY, EVERY)
    curve = CubicSpline(knots, rng.standard_normal((len(knots), columns)))(np.arange(views))
    curve -= curve.mean(0) if views > 1 else 0
    return np.asarray(curve / max(np.linalg.norm(curve, axis=1).max(), 1e-12))


def drifted(
    poses: Sequence[Transform], largest: float, rng: np.random.Generator
) -> list[Transform]:
    """The poses with a smooth error; the largest of position is `largest` metres.

    The largest error of direction is `largest / ARM` radians.
    """
    from scipy.spatial.transform import Rotation

    moved, turned = (largest * smooth(rng, len(poses), 3) for _ in range(2))
    found = []
    for pose, move, turn in zip(poses, moved, turned / ARM, strict=True):
        wrong = pose.copy()
        wrong[:3, :3] = Rotation.from_rotvec(turn).as_matrix() @ pose[:3, :3]
        wrong[:3, 3] += move
        found.append(wrong)
    return found
