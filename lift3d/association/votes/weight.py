"""How much one view's vote for a point weighs: the only place where that is decided."""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float32

from lift3d.geometry.lens import pinhole
from lift3d.geometry.visibility import Sightings
from lift3d.scene import Camera, Points
from lift3d.scene.compiled import compiled

GRAZING = 0.05
"""Least cosine between the normal of a point and the ray to it (87 degrees and more), so that a
point that only such views see gets a label. Chosen by hand; not tuned on data."""


def vote_weight(points: Points, seen: Sightings, camera: Camera) -> Float32[np.ndarray, " seen"]:
    """The weight, above 0, with which a view votes for each point that it sees.

    weight = confidence * max(|cos(angle)|, GRAZING), where the angle lies between the point's
    normal and the ray from the camera, and the confidence is that of the depth there (1 where
    the view knows none). A point whose normal is unknown counts as seen head-on. The sign of the
    normal does not matter, because the orientation of a foreign mesh cannot be trusted.

    `camera` is the view's geometry camera.
    """
    weight = np.empty(len(seen), np.float32)
    _weigh(points.xyz, points.normal, seen.point, seen.confidence, pinhole(camera).pose, weight)
    return weight


@compiled(parallel=True)
@no_type_check
def _weigh(xyz, normal, point, confidence, pose, weight):
    # The camera's centre: -R^T t.
    cx = -(pose[0, 0] * pose[0, 3] + pose[1, 0] * pose[1, 3] + pose[2, 0] * pose[2, 3])
    cy = -(pose[0, 1] * pose[0, 3] + pose[1, 1] * pose[1, 3] + pose[2, 1] * pose[2, 3])
    cz = -(pose[0, 2] * pose[0, 3] + pose[1, 2] * pose[1, 3] + pose[2, 2] * pose[2, 3])
    for k in numba.prange(len(point)):
        i = point[k]
        cosine = 1.0
        nx, ny, nz = normal[i, 0], normal[i, 1], normal[i, 2]
        if nx != 0.0 or ny != 0.0 or nz != 0.0:
            dx, dy, dz = xyz[i, 0] - cx, xyz[i, 1] - cy, xyz[i, 2] - cz
            length = np.sqrt(dx * dx + dy * dy + dz * dz)
            cosine = max(abs(nx * dx + ny * dy + nz * dz) / length, GRAZING)
        weight[k] = cosine * confidence[k]
