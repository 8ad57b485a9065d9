"""The inner loop of voxel fusion: one pass over the pixels of a frame.

The voxels are in two tables, like the squares of a chessboard with squares of `BLOCK` voxels. A
thread fills each, so each voxel's sums have the order of the pixels, and the result's bytes are
always the same.
"""

from __future__ import annotations

from typing import NamedTuple, no_type_check

import numpy as np
from jaxtyping import Float32, Int32, Int64

from lift3d.geometry.lens import cell, pixel, within
from lift3d.scene.compiled import compiled

SUMS = 12
"""Per voxel: offset xyz, rgb, normal xyz, weight, weight with colour, confidence."""
BLOCK = 3
"""Logarithm to base 2 of the voxels along a square. Chosen by hand for time."""
HALF = 1 << 20
"""Voxels reach this far from the origin along each axis (21 bits of the key each)."""
REACH = 2
"""Half width in pixels of the central difference for normals; 1 is noisy on quantised depth.
Chosen by hand; not tuned on data."""
GRAZING = 0.05
"""Lower bound of the cosine of the viewing angle. Chosen by hand; not tuned on data."""
UNKNOWN = 0.5
"""Cosine assumed for pixels without a normal. Chosen by hand; not tuned on data."""
RIM = 0.25
"""Weight factor of pixels next to a depth step, where sensors smear depth. Chosen by hand; not
tuned on data."""
NORMAL_EDGE = 0.05
"""Relative depth step for normals if `Rules.edge` is infinite. Chosen by hand; not tuned on
data."""


class Table(NamedTuple):
    """Hash table of the occupied voxels; the voxel arrays are in the order of first use."""

    table: Int64[np.ndarray, " places"]
    """Key at each place of the hash table, -1 if free; twice as long as the voxel arrays."""
    slot: Int32[np.ndarray, " places"]
    """Index of that voxel in the voxel arrays."""
    keys: Int64[np.ndarray, " room"]
    sums: Float32[np.ndarray, "room 12"]
    views: Int32[np.ndarray, "room 2"]
    """Number of views that saw the voxel, and the last of them."""
    used: int
    """Number of voxels in use."""


class Rules(NamedTuple):
    """Which pixels of a frame are used, and their weight."""

    voxel: float
    edge: float
    """Neighbouring depths that differ by more than this share are on two surfaces; inf: off."""
    max_depth: float
    clear_depth: float
    """Depth at which an observation's weight is halved; inf: off."""
    stride: int


@compiled(inline="always")
@no_type_check
def _same_surface(a, b, edge, steps):
    """Whether two depths, `steps` pixels apart, may be on one surface; False for NaN and 0."""
    return a > 0.0 and b > 0.0 and abs(a - b) <= edge * steps * min(a, b)


@compiled(inline="always")
@no_type_check
def _difference(depth, ray_x, ray_y, v, u, down, right, edge):
    """Difference of the surface point along a pixel axis; (0, 0, 0) if unknown.

    Central if both sides are on the same surface, else one-sided.
    """
    height, width = depth.shape
    z = depth[v, u]
    v0, u0, v1, u1 = v, u, v, u
    a, b = v - down * REACH, u - right * REACH
    if a >= 0 and b >= 0 and _same_surface(depth[a, b], z, edge, REACH):
        v0, u0 = a, b
    a, b = v + down * REACH, u + right * REACH
    if a < height and b < width and _same_surface(depth[a, b], z, edge, REACH):
        v1, u1 = a, b
    z0, z1 = depth[v0, u0], depth[v1, u1]
    x = ray_x[v1, u1] * z1 - ray_x[v0, u0] * z0
    y = ray_y[v1, u1] * z1 - ray_y[v0, u0] * z0
    return x, y, z1 - z0


@compiled(inline="always")
@no_type_check
def _find(table, key):
    """Position of `key` in the table, or of the free place where it belongs."""
    mask = len(table) - 1
    # Fibonacci hashing of the mixed key; linear probing.
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    at = np.int64(mixed >> np.uint64(20)) & mask
    while table[at] != -1 and table[at] != key:
        at = (at + 1) & mask
    return at


@compiled()
@no_type_check
def _grow(full):
    """The table with doubled capacity, rehashed."""
    keys, count = full.keys, full.used
    room = 2 * len(full.sums)
    new_table = np.full(2 * room, -1, np.int64)
    new_slot = np.zeros(2 * room, np.int32)
    new_keys = np.zeros(room, np.int64)
    new_sums = np.zeros((room, SUMS), np.float32)
    new_views = np.zeros((room, 2), np.int32)
    new_keys[:count] = keys[:count]
    new_sums[:count] = full.sums[:count]
    new_views[:count] = full.views[:count]
    for i in range(count):
        at = _find(new_table, keys[i])
        new_table[at] = keys[i]
        new_slot[at] = i
    return Table(new_table, new_slot, new_keys, new_sums, new_views, count)


@compiled(nogil=True)
@no_type_check
def integrate(
    depth, confidence, image, ray, pose, focal, other_colour, colour, rules, number, half, full
):
    """Add the pixels of frame `number` to their voxels; returns the `Table`, grown if needed.

    Pixels of the other table, `half` being 0 or 1, are left out.

    `pose` is grid_from_camera, `ray` holds x and y of each pixel's ray, `focal` is in pixels;
    `colour` is the `Pinhole` of the colour camera for points in the depth camera's frame.
    """
    voxel, edge, max_depth, clear_depth, stride = rules
    table, slot, keys, sums, views, count = full
    height, width = depth.shape
    ray_x, ray_y = ray[0], ray[1]
    has_confidence = confidence.shape[0] > 1 or confidence.shape[1] > 1
    checked = not np.isinf(edge)
    if not checked:
        edge = NORMAL_EDGE
    last_key, i = np.int64(-1), 0
    for v in range(0, height, stride):
        if count + width > len(sums):
            larger = _grow(Table(table, slot, keys, sums, views, count))
            table, slot, keys, sums, views, count = larger
        for u in range(0, width, stride):
            z = depth[v, u]
            if not (z > 0.0 and z <= max_depth and z < np.inf):  # also skips NaN
                continue
            cx, cy = ray_x[v, u] * z, ray_y[v, u] * z
            wx = pose[0, 0] * cx + pose[0, 1] * cy + pose[0, 2] * z + pose[0, 3]
            wy = pose[1, 0] * cx + pose[1, 1] * cy + pose[1, 2] * z + pose[1, 3]
            wz = pose[2, 0] * cx + pose[2, 1] * cy + pose[2, 2] * z + pose[2, 3]
            fx, fy, fz = np.floor(wx / voxel), np.floor(wy / voxel), np.floor(wz / voxel)
            if not (abs(fx) < HALF - 1 and abs(fy) < HALF - 1 and abs(fz) < HALF - 1):
                continue
            ix, iy, iz = np.int64(fx) + HALF, np.int64(fy) + HALF, np.int64(fz) + HALF
            if ((ix >> BLOCK) + (iy >> BLOCK) + (iz >> BLOCK)) & 1 != half:
                continue
            quality = 1.0
            if has_confidence:
                quality = confidence[v, u]
                if not quality > 0.0:
                    continue
            if checked:
                left = u == 0 or _same_surface(depth[v, u - 1], z, edge, 1)
                right = u == width - 1 or _same_surface(depth[v, u + 1], z, edge, 1)
                above = v == 0 or _same_surface(depth[v - 1, u], z, edge, 1)
                below = v == height - 1 or _same_surface(depth[v + 1, u], z, edge, 1)
                if not ((left or right) and (above or below)):
                    continue
                if not (left and right and above and below):
                    quality *= RIM
            # Normal in the camera's frame: down x right points towards the camera.
            rx, ry, rz = _difference(depth, ray_x, ray_y, v, u, 0, 1, edge)
            dx, dy, dz = _difference(depth, ray_x, ray_y, v, u, 1, 0, edge)
            nx, ny, nz = dy * rz - dz * ry, dz * rx - dx * rz, dx * ry - dy * rx
            length = np.sqrt(nx * nx + ny * ny + nz * nz)
            cosine = UNKNOWN
            if length > 0.0:
                nx, ny, nz = nx / length, ny / length, nz / length
                range_ = np.sqrt(cx * cx + cy * cy + z * z)
                cosine = max(-(nx * cx + ny * cy + nz * z) / range_, GRAZING)
            quality *= cosine / (1.0 + (z / clear_depth) ** 2)
            # Normalised so that a fully visible voxel sums to confidence 1 per view.
            edge_length = stride * z / (focal * voxel)
            share = min(1.0, edge_length * edge_length / cosine)
            key = (ix << 42) | (iy << 21) | iz
            if key != last_key:  # neighbours mostly share a voxel
                at = _find(table, key)
                if table[at] == -1:
                    table[at] = key
                    slot[at] = count
                    keys[count] = key
                    count += 1
                i = slot[at]
                last_key = key
                if views[i, 1] != number:
                    views[i, 1] = number
                    views[i, 0] += 1

            sums[i, 0] += quality * (wx - (fx + 0.5) * voxel)
            sums[i, 1] += quality * (wy - (fy + 0.5) * voxel)
            sums[i, 2] += quality * (wz - (fz + 0.5) * voxel)
            sums[i, 6] += quality * (pose[0, 0] * nx + pose[0, 1] * ny + pose[0, 2] * nz)
            sums[i, 7] += quality * (pose[1, 0] * nx + pose[1, 1] * ny + pose[1, 2] * nz)
            sums[i, 8] += quality * (pose[2, 0] * nx + pose[2, 1] * ny + pose[2, 2] * nz)
            sums[i, 9] += quality
            sums[i, 11] += quality * share

            row, column = v, u
            if other_colour:
                x, y, ahead = pixel(colour, cx, cy, z)
                if not within(x, y, ahead, image.shape[1], image.shape[0]):
                    continue
                row, column = cell(x, y)
            sums[i, 3] += quality * image[row, column, 0]
            sums[i, 4] += quality * image[row, column, 1]
            sums[i, 5] += quality * image[row, column, 2]
            sums[i, 10] += quality
    return Table(table, slot, keys, sums, views, count)
