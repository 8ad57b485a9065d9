"""Visibility: the points that a view observes, and the frontmost point at each pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check
from weakref import WeakKeyDictionary

import numba
import numpy as np
from jaxtyping import Float, Float32, Int32

from lift3d.geometry import project
from lift3d.geometry.lens import NEAR, cell, inside, nearest, pinhole, pixel, pixels, within
from lift3d.scene import Camera, Depth, Points, View
from lift3d.scene.compiled import compiled

CHUNK = 1 << 14
"""Points per task of a thread; results do not depend on it."""
BLOCK = 1024
"""Points projected at a time, so that their pixels stay in the L1 cache."""
TILE = 4
"""Side in pixels of the tiles used to skip hidden splats; results do not depend on it."""


METRIC = 0.02
"""Default tolerance in metres: about three times the noise of a Kinect at two metres (Nguyen et al.
2012)."""


UNSURE = 0.012
"""Share of the depth added to the tolerance in views with estimated depth, times 2 less its
confidence. Of the depths that stereo finds in the HoloLens kitchen 80 % are within 2.2 % of the
sensor where their confidence is 1, and within 3.8 % where it is 0.5."""


@dataclass(frozen=True)
class DepthTolerance:
    """Largest distance of a visible point from the measured depth: absolute + relative * depth.

    In views whose depth was estimated it is larger, the more the less sure the depth is.
    """

    absolute: float | None = None
    """In world units; by default 0.02 m where the scene is metric, else 1 % of its median depth."""
    relative: float = 0.01
    """Share of the depth, because sensor noise grows with distance."""

    @property
    def fixed(self) -> float:
        """The absolute part; `METRIC` where it is None.

        `lift3d.geometry.scale.fitted` fits it to a scene.
        """
        return METRIC if self.absolute is None else self.absolute


@dataclass(frozen=True, eq=False)
class Sightings:
    """The visible points of one view, ascending, with their pixels."""

    point: Int32[np.ndarray, " seen"]
    """Index into the given points."""
    column: Int32[np.ndarray, " seen"]
    """Pixel in the colour image."""
    row: Int32[np.ndarray, " seen"]
    confidence: Float32[np.ndarray, " seen"]
    """Confidence of the depth at the point, above 0; 1 where the view has none."""

    def __len__(self) -> int:
        return len(self.point)


def sightings(
    points: Points,
    view: View,
    tolerance: DepthTolerance = DepthTolerance(),
) -> Sightings:
    """The points visible in `view`: inside both images and at the measured depth.

    Depth is compared in the view's geometry camera; the returned pixel is in its colour camera.
    In a view without depth, the points that no other point hides are visible. Where the
    confidence of the depth is 0, none is.
    """
    camera = view.geometry_camera
    depth = view.depth()
    if depth is None:
        depth = hiding_depth(points.xyz, camera, 2 * cloud_spacing(points))
    confidence = view.confidence()
    if confidence is None:
        confidence = np.ones((1, 1), np.float32)
    colour = view.camera
    counts, point, column, row, weight = _see(
        points.xyz,
        pinhole(camera),
        depth,
        confidence,
        (np.float32(tolerance.fixed), np.float32(tolerance.relative), np.float32(_unsure(view))),
        view.depth_camera is not None,
        pinhole(colour),
        (colour.width, colour.height),
    )
    return Sightings(*_pack(counts, point, column, row, weight))


def _unsure(view: View) -> float:
    return UNSURE if view.estimated else 0.0


def front_points(
    xyz: Float32[np.ndarray, "points 3"], camera: Camera, splat: float
) -> tuple[Int32[np.ndarray, "height width"], Float32[np.ndarray, "height width"]]:
    """The frontmost point at each pixel (-1 = none) and its z in the camera (inf = none).

    Each point covers a square of `splat` world units that faces the camera, one pixel at
    least. Of two points at the same z the one with the smaller index is in front.
    """
    index = np.full((camera.height, camera.width), -1, np.int32)
    z = np.full((camera.height, camera.width), np.inf, np.float32)
    _splat(xyz, pinhole(camera), np.float32(splat), index, z)
    return index, z


def drop_misplaced(
    front: Int32[np.ndarray, "height width"],
    z: Float32[np.ndarray, "height width"],
    xyz: Float32[np.ndarray, "points 3"],
    view: View,
    depth: Float32[np.ndarray, "depth_height depth_width"],
    tolerance: DepthTolerance,
) -> None:
    """Set to -1 the points of `front_points` whose depth differs from the view's measurement.

    Points in front of it are dropped too, because splats reach over silhouettes. Pixels without a
    measurement are not tested.
    """
    absolute, relative = tolerance.fixed, tolerance.relative + 2 * _unsure(view)
    if view.depth_camera is None:
        _drop_at_pixels(front, z, depth, np.float32(absolute), np.float32(relative))
    else:
        _drop_points(front, xyz, pinhole(view.depth_camera), depth, absolute, relative)


def hiding_depth(
    xyz: Float32[np.ndarray, "points 3"], camera: Camera, splat: float | None = None
) -> Depth:
    """A depth map rendered from the cloud, for views without depth; 0 where it has no point.

    The splat defaults to twice the cloud's median spacing.
    """
    _, z = front_points(xyz, camera, 2 * spacing(xyz) if splat is None else splat)
    z[np.isinf(z)] = 0
    return z


def projected_depth(xyz: Float[np.ndarray, "points 3"], camera: Camera) -> Depth:
    """z of world points at the nearest pixels of a camera; the smallest z per pixel, 0 elsewhere.

    Hidden points are included; `unhidden_depth` excludes them.
    """
    xy, z = project(camera, xyz)
    seen = inside(camera, xy)
    depth = np.full((camera.height, camera.width), np.inf, np.float32)
    column, row = nearest(xy[seen])
    np.minimum.at(depth, (row, column), z[seen].astype(np.float32))
    depth[~np.isfinite(depth)] = 0
    return depth


def unhidden_depth(xyz: Float32[np.ndarray, "points 3"], camera: Camera, splat: float) -> Depth:
    """Depth of a cloud's visible points, each at its own pixel; 0 elsewhere.

    A point is visible where no other point, `splat` world units wide, is in front of it.
    """
    hidden = hiding_depth(xyz, camera, splat)
    _, z = front_points(xyz, camera, 0.0)
    z[~(z <= hidden + splat + 0.01 * hidden)] = 0
    return z


def spacing(xyz: Float32[np.ndarray, "points 3"], sample: int = 2000) -> float:
    """Median distance from a point to its nearest neighbour, over a regular sample."""
    from scipy.spatial import cKDTree

    if len(xyz) < 2:
        return 0.0
    chosen = xyz[:: max(1, len(xyz) // sample)]
    distance, _ = cKDTree(xyz).query(chosen, k=2)
    return float(np.median(distance[:, 1]))


_SPACINGS: WeakKeyDictionary[Points, float] = WeakKeyDictionary()


def cloud_spacing(points: Points) -> float:
    """`spacing` of a cloud, cached because its search tree takes longer to build than a view."""
    known = _SPACINGS.get(points)
    if known is None:
        known = _SPACINGS[points] = spacing(points.xyz)
    return known


@compiled()
@no_type_check
def _inside(pixels, count, width, height, chosen):
    """Write to `chosen` which of the first `count` positions are in the image; return how many."""
    x, y, z = pixels[0], pixels[1], pixels[2]
    found = 0
    for i in range(np.uint64(count)):
        chosen[found] = i
        found += within(x[i], y[i], z[i], width, height)
    return found


@compiled(parallel=True)
@no_type_check
def _see(
    xyz,
    camera,
    depth,
    confidence,
    tolerance,
    other_colour,
    colour,
    colour_size,
):
    """The visible points of each chunk, from the chunk's start on, and their number per chunk.

    `camera` and `colour` are `Pinhole`s, `tolerance` is (absolute, relative, unsure).
    """
    n = len(xyz)
    height, width = depth.shape
    chunks = (n + CHUNK - 1) // CHUNK
    counts = np.zeros(chunks, np.int64)
    point = np.empty(n, np.int32)
    column = np.empty(n, np.int32)
    row = np.empty(n, np.int32)
    weight = np.empty(n, np.float32)
    has_confidence = confidence.shape[0] > 1 or confidence.shape[1] > 1
    absolute, relative, unsure = tolerance
    for chunk in numba.prange(chunks):
        start = chunk * CHUNK
        found = start
        found_at, chosen = np.empty((3, BLOCK)), np.empty(BLOCK + 1, np.int32)
        for first in range(start, min(start + CHUNK, n), BLOCK):
            block = xyz[first : min(first + BLOCK, n)]
            if not pixels(camera, block, found_at):
                continue
            for at in range(_inside(found_at, len(block), width, height, chosen)):
                k = chosen[at]
                i = first + k
                x, y, z = found_at[0, k], found_at[1, k], found_at[2, k]
                v, u = cell(x, y)
                measured = depth[v, u]
                own = confidence[v, u] if has_confidence else np.float32(1.0)
                allowed = absolute + (relative + unsure * (2 - min(own, np.float32(1.0)))) * z
                if not (measured > 0.0 and own > 0.0 and abs(z - measured) <= allowed):
                    continue
                if other_colour:
                    x, y, z = pixel(colour, xyz[i, 0], xyz[i, 1], xyz[i, 2])
                    if not within(x, y, z, colour_size[0], colour_size[1]):
                        continue
                    v, u = cell(x, y)
                point[found] = i
                column[found] = u
                row[found] = v
                weight[found] = own
                found += 1
        counts[chunk] = found - start
    return counts, point, column, row, weight


@compiled()
@no_type_check
def _pack(counts, point, column, row, weight):
    """The visible points of all chunks without the gaps between them."""
    total = counts.sum()
    points = np.empty(total, np.int32)
    columns = np.empty(total, np.int32)
    rows = np.empty(total, np.int32)
    weights = np.empty(total, np.float32)
    at = 0
    for chunk in range(len(counts)):
        start, n = chunk * CHUNK, counts[chunk]
        points[at : at + n] = point[start : start + n]
        columns[at : at + n] = column[start : start + n]
        rows[at : at + n] = row[start : start + n]
        weights[at : at + n] = weight[start : start + n]
        at += n
    return points, columns, rows, weights


@compiled(nogil=True)
@no_type_check
def _splat(xyz, camera, splat, index, depth):
    """Draw every point into `index` and `depth`; the nearest is kept.

    Points behind a splat that covers a complete tile are hidden there, so the tile is skipped
    for them: most of a room is.
    """
    height, width = depth.shape
    limit = np.full(((height + TILE - 1) // TILE, (width + TILE - 1) // TILE), np.float32(np.inf))
    point = np.empty(len(xyz), np.int32)
    box = np.empty((len(xyz), 4), np.int32)
    z_of = np.empty(len(xyz), np.float32)
    projected = np.empty((3, BLOCK))
    found = 0
    for i in range(len(xyz)):
        at = i % BLOCK
        if at == 0:
            pixels(camera, xyz[i : i + BLOCK], projected)
        x, y, z = projected[0, at], projected[1, at], projected[2, at]
        if not z > NEAR:
            continue
        half_x = max(0.5, 0.5 * splat * camera.k[0] / z)
        half_y = max(0.5, 0.5 * splat * camera.k[1] / z)
        if not (
            x + half_x > -0.5
            and y + half_y > -0.5
            and x - half_x < width - 0.5
            and y - half_y < height - 0.5
        ):
            continue
        # Pixel centres inside the half-open square [x - half, x + half).
        left, right = max(0, int(np.ceil(x - half_x))), min(width, int(np.ceil(x + half_x)))
        top, bottom = max(0, int(np.ceil(y - half_y))), min(height, int(np.ceil(y + half_y)))
        near = np.float32(z)
        for v in range((top + TILE - 1) // TILE, bottom // TILE):
            for u in range((left + TILE - 1) // TILE, right // TILE):
                limit[v, u] = min(limit[v, u], near)
        point[found], z_of[found] = i, near
        box[found, 0], box[found, 1], box[found, 2], box[found, 3] = top, bottom, left, right
        found += 1
    for k in range(found):
        near, i = z_of[k], point[k]
        top, bottom, left, right = box[k, 0], box[k, 1], box[k, 2], box[k, 3]
        for tile_v in range(top // TILE, (bottom + TILE - 1) // TILE):
            for tile_u in range(left // TILE, (right + TILE - 1) // TILE):
                if near > limit[tile_v, tile_u]:
                    continue
                for v in range(max(top, tile_v * TILE), min(bottom, (tile_v + 1) * TILE)):
                    for u in range(max(left, tile_u * TILE), min(right, (tile_u + 1) * TILE)):
                        if near < depth[v, u]:
                            depth[v, u] = near
                            index[v, u] = i


@compiled(nogil=True)
@no_type_check
def _drop_at_pixels(front, z, depth, absolute, relative):
    for v in range(front.shape[0]):
        for u in range(front.shape[1]):
            apart = abs(z[v, u] - depth[v, u])  # inf where nothing is in front: -1 stays -1
            if depth[v, u] > 0.0 and apart > absolute + relative * z[v, u]:
                front[v, u] = -1


@compiled(nogil=True)
@no_type_check
def _drop_points(front, xyz, camera, depth, absolute, relative):
    """`drop_misplaced` with a separate depth camera: tested once per point, not per pixel."""
    height, width = depth.shape
    known = np.zeros(len(xyz), np.int8)  # 1: keep, 2: drop
    for v in range(front.shape[0]):
        for u in range(front.shape[1]):
            i = front[v, u]
            if i < 0:
                continue
            if known[i] == 0:
                known[i] = 1
                x, y, z = pixel(camera, xyz[i, 0], xyz[i, 1], xyz[i, 2])
                if within(x, y, z, width, height):
                    measured = depth[cell(x, y)]
                    if measured > 0.0 and abs(z - measured) > absolute + relative * z:
                        known[i] = 2
            if known[i] == 2:
                front[v, u] = -1
