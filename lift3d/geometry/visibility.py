"""Which points a view really sees, and which point is in front at each pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check
from weakref import WeakKeyDictionary

import numba
import numpy as np
from jaxtyping import Float32, Int32

from lift3d.scene import Camera, Depth, Points, View

CHUNK = 1 << 14
"""Points one thread takes at a time; results do not depend on it."""
BLOCK = 1024
"""Points projected at a time, so that their pixels stay in the nearest cache."""
TILE = 4
"""Pixels along a side of what a splat is passed over by; results do not depend on it."""


METRIC = 0.02
"""Metres; twice the noise of a depth sensor at two metres."""


@dataclass(frozen=True)
class DepthTolerance:
    """How far a point may lie from the measured depth and still count as seen there."""

    absolute: float | None = None
    """In world units; by default 0.02 m where the scene is metric, else 1 % of its median depth."""
    relative: float = 0.01
    """Share of the depth: sensors get worse with distance."""

    @property
    def fixed(self) -> float:
        """The absolute part; `METRIC` where it was left to a scene and none is known.

        `lift3d.geometry.scale.fitted` fits it to a scene.
        """
        return METRIC if self.absolute is None else self.absolute


@dataclass(frozen=True, eq=False)
class Sightings:
    """Points that one view really sees, ascending, and where."""

    point: Int32[np.ndarray, " seen"]
    """Index into the points asked about."""
    column: Int32[np.ndarray, " seen"]
    """Pixel in the colour image."""
    row: Int32[np.ndarray, " seen"]
    weight: Float32[np.ndarray, " seen"]
    """Depth confidence times the cosine of the viewing angle, above 0."""

    def __len__(self) -> int:
        return len(self.point)


def sightings(
    points: Points,
    view: View,
    tolerance: DepthTolerance = DepthTolerance(),
    depth: Depth | None = None,
) -> Sightings:
    """The points that `view` sees: inside both images and where the depth map says.

    Geometry goes through the view's geometry camera, the returned pixel through its colour
    camera. A view without depth sees the points that nothing else of the cloud hides.
    Points whose normal is unknown count as seen head-on; a normal that faces away counts
    by its angle all the same, because the orientation of a foreign mesh cannot be trusted.

    Pass `depth` where it is already decoded.
    """
    camera = view.geometry_camera
    if depth is None:
        depth = view.depth()
    if depth is None:
        depth = hiding_depth(points.xyz, camera, 2 * cloud_spacing(points))
    confidence = view.confidence()
    if confidence is None:
        confidence = np.ones((1, 1), np.float32)
    counts, point, column, row, weight = _see(
        points.xyz,
        points.normal,
        *_projection(camera),
        depth,
        confidence,
        np.float32(tolerance.fixed),
        np.float32(tolerance.relative),
        view.depth_camera is not None,
        *_projection(view.camera),
        view.camera.width,
        view.camera.height,
    )
    return Sightings(*_pack(counts, point, column, row, weight))


def front_points(
    xyz: Float32[np.ndarray, "points 3"], camera: Camera, splat: float
) -> tuple[Int32[np.ndarray, "height width"], Float32[np.ndarray, "height width"]]:
    """The frontmost point at each pixel (-1 = none) and its z in the camera (inf = none).

    Each point covers a square of `splat` world units that faces the camera, one pixel at
    least. Of two points at the same z the one with the smaller index is in front.
    """
    index = np.full((camera.height, camera.width), -1, np.int32)
    z = np.full((camera.height, camera.width), np.inf, np.float32)
    _splat(xyz, *_projection(camera), np.float32(splat), index, z)
    return index, z


def drop_misplaced(
    front: Int32[np.ndarray, "height width"],
    z: Float32[np.ndarray, "height width"],
    xyz: Float32[np.ndarray, "points 3"],
    view: View,
    depth: Depth,
    tolerance: DepthTolerance,
) -> None:
    """Set to -1 what `front_points` found at another depth than the view measured there.

    In front of it is as wrong as behind: splats overhang silhouettes. Where nothing was measured,
    nothing is tested.
    """
    absolute, relative = tolerance.fixed, tolerance.relative
    if view.depth_camera is None:
        _drop_at_pixels(front, z, depth, np.float32(absolute), np.float32(relative))
    else:
        _drop_points(front, xyz, *_projection(view.depth_camera), depth, absolute, relative)


def hiding_depth(
    xyz: Float32[np.ndarray, "points 3"], camera: Camera, splat: float | None = None
) -> Depth:
    """A depth map of the cloud itself, for views that have none; 0 where it has no point.

    The splat defaults to twice the cloud's median spacing.
    """
    _, z = front_points(xyz, camera, 2 * spacing(xyz) if splat is None else splat)
    z[np.isinf(z)] = 0
    return z


def sparse_depth(xyz: Float32[np.ndarray, "points 3"], camera: Camera, splat: float) -> Depth:
    """Depth of a cloud's points that a camera sees, each at its own pixel; 0 elsewhere.

    A point is seen where no other, `splat` world units wide, lies in front of it.
    """
    hidden = hiding_depth(xyz, camera, splat)
    _, z = front_points(xyz, camera, 0.0)
    z[~(z <= hidden + splat + 0.01 * hidden)] = 0
    return z


def spacing(xyz: Float32[np.ndarray, "points 3"], sample: int = 2000) -> float:
    """Median distance from a point to its nearest neighbour, over an even sample."""
    from scipy.spatial import cKDTree

    if len(xyz) < 2:
        return 0.0
    chosen = xyz[:: max(1, len(xyz) // sample)]
    distance, _ = cKDTree(xyz).query(chosen, k=2)
    return float(np.median(distance[:, 1]))


_SPACINGS: WeakKeyDictionary[Points, float] = WeakKeyDictionary()


def cloud_spacing(points: Points) -> float:
    """`spacing` of a cloud, measured once: the tree behind it takes longer than a view."""
    known = _SPACINGS.get(points)
    if known is None:
        known = _SPACINGS[points] = spacing(points.xyz)
    return known


def _projection(camera: Camera) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """3x4 `camera_from_world`, (fx, fy, cx, cy, skew) and (k1, k2, p1, p2, k3), for the kernels."""
    K = camera.K
    lens = np.zeros(5)
    lens[: min(5, len(camera.distortion))] = camera.distortion[:5]
    pinhole = np.array([K[0, 0], K[1, 1], K[0, 2], K[1, 2], K[0, 1]])
    return np.ascontiguousarray(camera.camera_from_world[:3]), pinhole, lens


@numba.njit(cache=True, inline="always")
@no_type_check
def _pixel(pose, pinhole, lens, px, py, pz):
    """Pixel x, y and depth z of a world point; z <= 0 where it is behind."""
    z = pose[2, 0] * px + pose[2, 1] * py + pose[2, 2] * pz + pose[2, 3]
    if z <= 1e-6:
        return -1.0, -1.0, -1.0
    x = (pose[0, 0] * px + pose[0, 1] * py + pose[0, 2] * pz + pose[0, 3]) / z
    y = (pose[1, 0] * px + pose[1, 1] * py + pose[1, 2] * pz + pose[1, 3]) / z
    if lens[0] != 0.0 or lens[1] != 0.0 or lens[2] != 0.0 or lens[3] != 0.0 or lens[4] != 0.0:
        r2 = x * x + y * y
        radial = 1.0 + r2 * (lens[0] + r2 * (lens[1] + r2 * lens[4]))
        bent = x * radial + 2.0 * lens[2] * x * y + lens[3] * (r2 + 2.0 * x * x)
        y = y * radial + lens[2] * (r2 + 2.0 * y * y) + 2.0 * lens[3] * x * y
        x = bent
    return pinhole[0] * x + pinhole[4] * y + pinhole[2], pinhole[1] * y + pinhole[3], z


@numba.njit(cache=True, error_model="numpy", nogil=True)
@no_type_check
def _pixels(xyz, pose, pinhole, lens, out):
    """As `_pixel` for a block of points, x, y, z into the rows of `out`; z <= 1e-6 is behind.

    False where all are behind, with nothing but z. Without branches, which lets the compiler take
    eight points at a time.
    """
    for k in range(5):
        if lens[k] != 0.0:
            for i in range(len(xyz)):
                found = _pixel(pose, pinhole, lens, xyz[i, 0], xyz[i, 1], xyz[i, 2])
                out[0, i], out[1, i], out[2, i] = found
            return True
    r00, r01, r02, tx = pose[0, 0], pose[0, 1], pose[0, 2], pose[0, 3]
    r10, r11, r12, ty = pose[1, 0], pose[1, 1], pose[1, 2], pose[1, 3]
    r20, r21, r22, tz = pose[2, 0], pose[2, 1], pose[2, 2], pose[2, 3]
    fx, fy, cx, cy, skew = pinhole[0], pinhole[1], pinhole[2], pinhole[3], pinhole[4]
    x_out, y_out, z_out = out[0], out[1], out[2]
    ahead = 0
    for i in range(np.uint64(len(xyz))):  # unsigned: no index counts from the end
        px, py, pz = np.float64(xyz[i, 0]), np.float64(xyz[i, 1]), np.float64(xyz[i, 2])
        z_out[i] = r20 * px + r21 * py + r22 * pz + tz
        ahead += z_out[i] > 1e-6
    if ahead == 0:  # in the order of voxels, neighbours are mostly behind together
        return False
    for i in range(np.uint64(len(xyz))):
        px, py, pz = np.float64(xyz[i, 0]), np.float64(xyz[i, 1]), np.float64(xyz[i, 2])
        x = (r00 * px + r01 * py + r02 * pz + tx) / z_out[i]
        y = (r10 * px + r11 * py + r12 * pz + ty) / z_out[i]
        x_out[i] = fx * x + skew * y + cx
        y_out[i] = fy * y + cy
    return True


@numba.njit(cache=True)
@no_type_check
def _inside(pixels, count, width, height, chosen):
    """Those of the first `count` that lie before the camera and in its image. NaN is not.

    Returns how many.
    """
    x, y, z = pixels[0], pixels[1], pixels[2]
    found = 0
    for i in range(np.uint64(count)):
        chosen[found] = i
        found += (
            (z[i] > 1e-6)
            & (x[i] > -0.5)
            & (y[i] > -0.5)
            & (x[i] < width - 0.5)
            & (y[i] < height - 0.5)
        )
    return found


@numba.njit(cache=True, parallel=True)
@no_type_check
def _see(
    xyz,
    normal,
    pose,
    pinhole,
    lens,
    depth,
    confidence,
    absolute,
    relative,
    other_colour,
    colour_pose,
    colour_pinhole,
    colour_lens,
    colour_width,
    colour_height,
):
    """Sightings of each chunk, packed at the chunk's own start; and how many there are."""
    n = len(xyz)
    height, width = depth.shape
    chunks = (n + CHUNK - 1) // CHUNK
    counts = np.zeros(chunks, np.int64)
    point = np.empty(n, np.int32)
    column = np.empty(n, np.int32)
    row = np.empty(n, np.int32)
    weight = np.empty(n, np.float32)
    has_confidence = confidence.shape[0] > 1 or confidence.shape[1] > 1
    # The camera's centre: -R^T t.
    cx = -(pose[0, 0] * pose[0, 3] + pose[1, 0] * pose[1, 3] + pose[2, 0] * pose[2, 3])
    cy = -(pose[0, 1] * pose[0, 3] + pose[1, 1] * pose[1, 3] + pose[2, 1] * pose[2, 3])
    cz = -(pose[0, 2] * pose[0, 3] + pose[1, 2] * pose[1, 3] + pose[2, 2] * pose[2, 3])
    for chunk in numba.prange(chunks):
        start = chunk * CHUNK
        found = start
        pixels, chosen = np.empty((3, BLOCK)), np.empty(BLOCK + 1, np.int32)
        for first in range(start, min(start + CHUNK, n), BLOCK):
            block = xyz[first : min(first + BLOCK, n)]
            if not _pixels(block, pose, pinhole, lens, pixels):
                continue
            for at in range(_inside(pixels, len(block), width, height, chosen)):
                k = chosen[at]
                i = first + k
                px, py, pz = xyz[i, 0], xyz[i, 1], xyz[i, 2]
                x, y, z = pixels[0, k], pixels[1, k], pixels[2, k]
                u, v = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
                measured = depth[v, u]
                if not (measured > 0.0 and abs(z - measured) <= absolute + relative * z):
                    continue
                look = 1.0
                nx, ny, nz = normal[i, 0], normal[i, 1], normal[i, 2]
                if nx != 0.0 or ny != 0.0 or nz != 0.0:
                    dx, dy, dz = px - cx, py - cy, pz - cz
                    length = np.sqrt(dx * dx + dy * dy + dz * dz)
                    look = max(abs(nx * dx + ny * dy + nz * dz) / length, 0.05)
                if has_confidence:
                    look *= confidence[v, u]
                if other_colour:
                    x, y, z = _pixel(colour_pose, colour_pinhole, colour_lens, px, py, pz)
                    if not (
                        z > 0.0
                        and x > -0.5
                        and y > -0.5
                        and x < colour_width - 0.5
                        and y < colour_height - 0.5
                    ):
                        continue
                    u, v = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
                if not look > 0.0:
                    continue
                point[found] = i
                column[found] = u
                row[found] = v
                weight[found] = look
                found += 1
        counts[chunk] = found - start
    return counts, point, column, row, weight


@numba.njit(cache=True)
@no_type_check
def _pack(counts, point, column, row, weight):
    """The chunks' sightings without the gaps between them."""
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


@numba.njit(cache=True, nogil=True)
@no_type_check
def _splat(xyz, pose, pinhole, lens, splat, index, depth):
    """Paint every point into `index` and `depth`, nearest wins.

    What lies behind a splat that covers a whole tile cannot show there: most of a room is hidden
    so, and is passed over a tile at a time.
    """
    height, width = depth.shape
    limit = np.full(((height + TILE - 1) // TILE, (width + TILE - 1) // TILE), np.float32(np.inf))
    point = np.empty(len(xyz), np.int32)
    box = np.empty((len(xyz), 4), np.int32)
    z_of = np.empty(len(xyz), np.float32)
    pixels = np.empty((3, BLOCK))
    found = 0
    for i in range(len(xyz)):
        at = i % BLOCK
        if at == 0:
            _pixels(xyz[i : i + BLOCK], pose, pinhole, lens, pixels)
        x, y, z = pixels[0, at], pixels[1, at], pixels[2, at]
        if not z > 1e-6:
            continue
        half_x = max(0.5, 0.5 * splat * pinhole[0] / z)
        half_y = max(0.5, 0.5 * splat * pinhole[1] / z)
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


@numba.njit(cache=True, nogil=True)
@no_type_check
def _drop_at_pixels(front, z, depth, absolute, relative):
    for v in range(front.shape[0]):
        for u in range(front.shape[1]):
            apart = abs(z[v, u] - depth[v, u])  # inf where nothing is in front: -1 stays -1
            if depth[v, u] > 0.0 and apart > absolute + relative * z[v, u]:
                front[v, u] = -1


@numba.njit(cache=True, nogil=True)
@no_type_check
def _drop_points(front, xyz, pose, pinhole, lens, depth, absolute, relative):
    """The other camera's answer is of the point, not of the pixel: asked once for each point."""
    height, width = depth.shape
    known = np.zeros(len(xyz), np.int8)  # 1 stays, 2 goes
    for v in range(front.shape[0]):
        for u in range(front.shape[1]):
            i = front[v, u]
            if i < 0:
                continue
            if known[i] == 0:
                known[i] = 1
                x, y, z = _pixel(pose, pinhole, lens, xyz[i, 0], xyz[i, 1], xyz[i, 2])
                if z > 0.0 and x >= -0.5 and y >= -0.5 and x < width - 0.5 and y < height - 0.5:
                    measured = depth[int(np.floor(y + 0.5)), int(np.floor(x + 0.5))]
                    if measured > 0.0 and abs(z - measured) > absolute + relative * z:
                        known[i] = 2
            if known[i] == 2:
                front[v, u] = -1
