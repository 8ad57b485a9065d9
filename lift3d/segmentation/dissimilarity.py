"""Dissimilarity of neighbouring pixels: colour and, with depth, depth steps and bends."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Float64, Int32

from lift3d.geometry import unproject
from lift3d.geometry.lens import rays
from lift3d.geometry.visibility import front_points
from lift3d.scene import Camera, Depth, Image, View
from lift3d.scene.compiled import compiled

NARROW = 0.04
"""Depth holes are filled up to this distance from their border; a share of the picture's longer
side. Chosen by hand; not tuned on data."""
COLOUR_UNIT = 25.0
"""CIELAB distance with colour dissimilarity 1. Chosen by hand; not tuned on data."""
STEP_UNIT, ROUGH_STEP_UNIT = 0.015, 0.03
"""Depth steps with dissimilarity 1, as shares of depth: off the tangent plane, and without
normals. Chosen by hand; not tuned on data."""
STEP_LIMIT = 1.5
"""Upper bound of the dissimilarity of a depth step. Chosen by hand; not tuned on data."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A view at working resolution, in the colour camera."""

    image: Image
    depth: Depth
    """Registered to colour; 0 where unknown."""
    camera: Camera


def working_picture(view: View, longest: int) -> Picture:
    """The view scaled to at most `longest` pixels, with its depth registered to colour."""
    import cv2

    image = view.image()
    scale = min(1.0, longest / max(image.shape[:2]))
    width = max(1, round(view.camera.width * scale))
    height = max(1, round(view.camera.height * scale))
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    camera = view.camera.resized(width, height)
    depth = None if view.sparse else view.depth()
    if depth is None:
        registered = np.zeros((height, width), np.float32)
    elif view.depth_camera is None:
        registered = cv2.resize(depth, (width, height), interpolation=cv2.INTER_NEAREST)
    else:
        xyz = unproject(view.depth_camera, depth)[depth > 0]
        footprint = 1.5 * float(np.median(depth[depth > 0], axis=0)) if len(xyz) else 1.0
        _, registered = front_points(xyz, camera, footprint / view.depth_camera.K[0, 0])
        registered[np.isinf(registered)] = 0
    return Picture(small, registered, camera)


def pixel_edges(
    picture: Picture,
    colour: float,
    colour_alone: float,
    step: float,
    concave: float,
    convex: float,
) -> tuple[Int32[np.ndarray, " edges"], Int32[np.ndarray, " edges"], Float32[np.ndarray, " edges"]]:
    """Edges between 4-neighbours, index row * width + column, and their dissimilarity.

    The sum of `colour` x CIELAB distance / 25 (at most 1), `step` x distance of a pixel from the
    other's tangent plane (in 1.5 % of its depth, at most 1.5), and `concave` or `convex` x
    (1 - cosine of the normals). Concave edges usually separate two objects (Stein et al. 2014);
    convex edges are usually corners of one object. Without depth, only colour is used, with
    weight `colour_alone`.
    """
    import cv2

    smooth = cv2.bilateralFilter(picture.image, 5, 20, 3)
    lab = cv2.cvtColor(smooth.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    depth = _clean(picture.depth)
    camera = picture.camera
    ray = _rays(camera.K.tobytes(), camera.width, camera.height, camera.distortion)
    xyz = (ray * depth[..., None]).astype(np.float32)
    normal = _normals(xyz, depth)
    return _edges(lab, xyz, normal, depth, colour, colour_alone, step, concave, convex)


@lru_cache(maxsize=1)
def _rays(
    K: bytes, width: int, height: int, distortion: tuple[float, ...]
) -> Float64[np.ndarray, "height width 3"]:
    """`rays`; the views of a scan mostly have one camera."""
    return rays(Camera(np.frombuffer(K).reshape(3, 3), width, height, distortion=distortion))


def _clean(depth: Depth) -> Depth:
    """Depth with narrow holes filled (nearest pixel) and noise removed (median, bilateral filter).

    Holes occur along the borders of objects; regions would merge through them.
    """
    import cv2

    if not depth.any():
        return depth
    away, nearest = cv2.distanceTransformWithLabels(
        (depth <= 0).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    of_label = np.zeros(int(nearest.max()) + 1, np.float32)
    of_label[nearest[depth > 0]] = depth[depth > 0]
    known = away <= NARROW * max(depth.shape)
    filled = np.where(known, of_label[nearest], 0).astype(np.float32)
    median = np.where(known, cv2.medianBlur(filled, 5), 0).astype(np.float32)
    if not median.any():
        return median
    sigma = 0.02 * float(np.median(median[median > 0]))
    blurred = cv2.bilateralFilter(median, 7, sigma, 3)
    return np.where(median > 0, blurred, 0).astype(np.float32)


def _normals(
    xyz: Float32[np.ndarray, "height width 3"], depth: Depth, reach: int = 3
) -> Float32[np.ndarray, "height width 3"]:
    """Normals from differences over `reach` pixels on the smoother side; 0 = unknown."""
    horizontal = _difference(xyz, depth, 1, reach)
    vertical = _difference(xyz, depth, 0, reach)
    normal = np.cross(vertical, horizontal)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    return np.divide(normal, length, out=np.zeros_like(normal), where=length > 1e-12)


def _difference(xyz: np.ndarray, depth: np.ndarray, axis: int, reach: int) -> np.ndarray:
    """Tangent along an axis: the forward or backward difference with the smaller change of depth.

    At a depth step, that difference stays on the pixel's own surface.
    """
    ahead = np.roll(xyz, -reach, axis) - xyz
    behind = xyz - np.roll(xyz, reach, axis)
    big = np.float32(1e6)
    there = np.roll(depth, -reach, axis) > 0
    back = np.roll(depth, reach, axis) > 0
    index = np.arange(depth.shape[axis])
    shape = (-1, 1) if axis == 0 else (1, -1)
    there = there & (index < depth.shape[axis] - reach).reshape(shape)
    back = back & (index >= reach).reshape(shape)
    cost_ahead = np.where(there, np.abs(ahead[..., 2]), big)
    cost_behind = np.where(back, np.abs(behind[..., 2]), big)
    tangent = np.where((cost_ahead <= cost_behind)[..., None], ahead, behind)
    tangent[(depth <= 0) | ~(there | back)] = 0
    return tangent


@compiled(nogil=True)
@no_type_check
def _edges(lab, xyz, normal, depth, colour, colour_alone, step, concave, convex):
    height, width = depth.shape
    count = height * (width - 1) + (height - 1) * width
    a = np.empty(count, np.int32)
    b = np.empty(count, np.int32)
    out = np.empty(count, np.float32)
    at = 0
    for row in range(height):
        for column in range(width):
            for axis in range(2):
                other_row, other_column = row + axis, column + 1 - axis
                if other_row >= height or other_column >= width:
                    continue
                # Compare colours one pixel further out on both sides, as borders are blurred.
                before_row, before_column = max(row - axis, 0), max(column - 1 + axis, 0)
                after_row = min(other_row + axis, height - 1)
                after_column = min(other_column + 1 - axis, width - 1)
                tint = 0.0
                for c in range(3):
                    tint += (
                        lab[before_row, before_column, c] - lab[after_row, after_column, c]
                    ) ** 2
                tint = min(np.sqrt(tint) / COLOUR_UNIT, 1.0)
                value = colour_alone * tint
                if depth[row, column] > 0 and depth[other_row, other_column] > 0:
                    value = colour * tint
                    off, cosine, opening, known = 0.0, 0.0, 0.0, 0.0
                    off_other = 0.0
                    for c in range(3):
                        apart = xyz[other_row, other_column, c] - xyz[row, column, c]
                        n = normal[row, column, c]
                        n_other = normal[other_row, other_column, c]
                        off += apart * n
                        off_other += apart * n_other
                        cosine += n * n_other
                        opening += apart * (n_other - n)
                        known += abs(n) * abs(n_other)
                    near = min(depth[row, column], depth[other_row, other_column])
                    if known > 0:
                        gap = min(abs(off), abs(off_other))
                        value += step * min(gap / (STEP_UNIT * near), STEP_LIMIT)
                        bend = 1.0 - min(max(cosine, -1.0), 1.0)
                        value += (convex if opening > 0 else concave) * bend
                    else:
                        gap = abs(depth[row, column] - depth[other_row, other_column])
                        value += step * min(gap / (ROUGH_STEP_UNIT * near), STEP_LIMIT)
                a[at], b[at] = row * width + column, other_row * width + other_column
                out[at] = value
                at += 1
    return a, b, out
