"""The true surface as labelled points, limited to points that are visible in a view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float32, Int64

from lift3d.datasets.synthetic import paint
from lift3d.datasets.synthetic.render import Caster
from lift3d.datasets.synthetic.world import World
from lift3d.scene import Camera, LabelledPoints, Points
from lift3d.scene.compiled import compiled


def visible_surface(
    caster: Caster, cameras: Sequence[Camera], spacing: float, rng: np.random.Generator
) -> LabelledPoints:
    """Points about `spacing` metres apart on all surfaces that are visible from a camera.

    `semantic` is the category (see `world.CATEGORIES`), 1 to 3 being structure.
    """
    world = caster.world
    xyz, triangle, normal = _sample(world, spacing, rng)
    seen = np.zeros(len(xyz), bool)
    for camera in cameras:
        rigid = camera.camera_from_world.astype(np.float32)
        likely = seen.copy()
        _mark_seen(xyz, normal, rigid, camera.K, caster.depth(camera), likely)
        likely = np.flatnonzero(likely & ~seen)
        # The depth map gives candidates; a ray also excludes hidden points near visible ones.
        seen[likely[caster.unhidden(camera, xyz[likely])]] = True
    xyz, triangle, normal = xyz[seen], triangle[seen], normal[seen]
    piece = world.piece[triangle]
    colour = paint.lit(paint.albedo(world, piece, xyz, normal), xyz, normal, caster.lamp)
    count = np.ones(len(xyz), np.float32)
    rgb = np.round(255 * colour ** (1 / 1.6)).astype(np.uint8)
    return LabelledPoints(
        Points(xyz, rgb, normal, count),
        world.instance[piece],
        count.copy(),
        semantic=world.semantic[piece],
    )


def _sample(
    world: World, spacing: float, rng: np.random.Generator
) -> tuple[
    Float32[np.ndarray, "points 3"], Int64[np.ndarray, " points"], Float32[np.ndarray, "points 3"]
]:
    """Points of uniform density, with their triangle and normal."""
    corner = world.vertices[world.triangles].astype(np.float64)
    side_a, side_b = corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]
    cross = np.cross(side_a, side_b)
    twice_area = np.linalg.norm(cross, axis=1)
    count = rng.poisson(twice_area / 2 / spacing**2)
    triangle = np.repeat(np.arange(len(count)), count)
    a, b = rng.random((2, len(triangle)))
    flip = a + b > 1
    a[flip], b[flip] = 1 - a[flip], 1 - b[flip]
    xyz = corner[triangle, 0] + a[:, None] * side_a[triangle] + b[:, None] * side_b[triangle]
    unit = cross / np.maximum(twice_area, 1e-12)[:, None]
    return xyz.astype(np.float32), triangle, unit[triangle].astype(np.float32)


def _mark_seen(
    xyz: Float32[np.ndarray, "points 3"],
    normal: Float32[np.ndarray, "points 3"],
    camera_from_world: Float32[np.ndarray, "4 4"],
    K: np.ndarray,
    depth: Float32[np.ndarray, "height width"],
    seen: Bool[np.ndarray, " points"],
) -> None:
    """Set `seen` where a point faces the camera and is at its exact depth."""
    _mark(xyz, normal, camera_from_world, K.astype(np.float32), depth, seen)


@compiled()
@no_type_check
def _mark(xyz, normal, rigid, K, depth, seen):
    height, width = depth.shape
    for i in range(len(xyz)):
        if seen[i]:
            continue
        z = rigid[2, 3]
        for c in range(3):
            z += rigid[2, c] * xyz[i, c]
        if z <= 0.05:
            continue
        x, y = rigid[0, 3], rigid[1, 3]
        for c in range(3):
            x += rigid[0, c] * xyz[i, c]
            y += rigid[1, c] * xyz[i, c]
        column = int(np.floor(K[0, 0] * x / z + K[0, 2] + 0.5))
        row = int(np.floor(K[1, 1] * y / z + K[1, 2] + 0.5))
        if column < 0 or row < 0 or column >= width or row >= height:
            continue
        facing = 0.0
        for c in range(3):
            towards = rigid[0, c] * x + rigid[1, c] * y + rigid[2, c] * z
            facing -= normal[i, c] * towards
        facing /= np.sqrt(x * x + y * y + z * z)
        if facing < 0.1:
            continue
        # The point is up to half a pixel from the pixel's centre, more depth on slanted surfaces.
        slack = 0.004 + 0.7 * z / K[0, 0] / facing
        seen[i] = abs(depth[row, column] - z) < slack
