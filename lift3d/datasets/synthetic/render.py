"""Pictures of a world without sensor noise, by ray casting (Open3D's Embree scene)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any, no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float32, Int32

from lift3d import geometry
from lift3d.datasets.synthetic import paint
from lift3d.datasets.synthetic.world import World
from lift3d.scene import Camera, Depth, LabelMap
from lift3d.scene.compiled import compiled
from lift3d.scene.errors import open3d

SKY, NEAR_BY, BOUNCED = 12, 0.25, 0.75
"""Ambient occlusion: rays per point, their length in metres, and the share of ambient light lost
where all are blocked (the blocking surfaces reflect the rest). Chosen by hand."""


@dataclass(frozen=True, eq=False)
class Exact:
    """The picture of a camera without noise."""

    depth: Depth
    instances: LabelMap
    facing: Float32[np.ndarray, "height width"]
    """Cosine between ray and surface normal, 0 to 1."""
    shine: Float32[np.ndarray, "height width"]
    paint: Callable[[], Float32[np.ndarray, "pixels 3"]]

    @cached_property
    def colour(self) -> Float32[np.ndarray, "height width 3"]:
        """Colour from 0 to 1, computed on first access because lighting takes most of the time."""
        return self.paint().reshape(*self.depth.shape, 3)


class Caster:
    """Casts rays into a world."""

    def __init__(self, world: World, lamp: Float32[np.ndarray, "3"]) -> None:
        self.world = world
        self.lamp = lamp
        library = open3d("the ray casting of synthetic scenes")
        self._core = library.core
        self._scene = library.t.geometry.RaycastingScene()
        self._scene.add_triangles(
            self._core.Tensor(world.vertices), self._core.Tensor(world.triangles.astype(np.uint32))
        )

    def depth(self, camera: Camera) -> Depth:
        """Exact z depth; 0 where the ray leaves the world."""
        hits = self._scene.cast_rays(self._rays(camera)[0])["t_hit"].numpy()
        return np.where(np.isfinite(hits), hits, 0).astype(np.float32)

    def render(self, camera: Camera) -> Exact:
        """Depth, instances and the other pictures of a camera."""
        rays, direction = self._rays(camera)
        hits = self._scene.cast_rays(rays)
        z = hits["t_hit"].numpy()
        shape = z.shape
        hit = np.isfinite(z)
        z = np.where(hit, z, 0).astype(np.float32)
        triangle = np.where(hit, hits["primitive_ids"].numpy(), 0).astype(np.int64)
        piece = np.where(hit, self.world.piece[triangle], -1).astype(np.int32)
        # A copy: Open3D fails at exit while its own memory is in use.
        normal = hits["primitive_normals"].numpy().copy()
        direction = direction.reshape(-1, 3)
        position = camera.pose[:3, 3].astype(np.float32)
        xyz = position + direction * z.reshape(-1, 1)
        flat = normal.reshape(-1, 3)
        length = np.sqrt(np.einsum("ij,ij->i", direction, direction))
        facing = np.abs(np.einsum("ij,ij->i", direction, flat)) / length
        seen = piece.clip(0)
        return Exact(
            z,
            np.where(hit, self.world.instance[seen], 0).astype(np.int32),
            facing.reshape(shape).astype(np.float32),
            np.where(hit, self.world.shine[seen], 0).astype(np.float32),
            partial(self._colour, piece.reshape(-1), xyz, flat),
        )

    def _colour(
        self,
        piece: Int32[np.ndarray, " hits"],
        xyz: Float32[np.ndarray, "hits 3"],
        normal: Float32[np.ndarray, "hits 3"],
    ) -> Float32[np.ndarray, "hits 3"]:
        shadowed, open_to = self._shadowed(xyz, normal), self.open_to(xyz, normal)
        colour = paint.albedo(self.world, piece, xyz, normal)
        return paint.lit(colour, xyz, normal, self.lamp, shadowed, open_to)

    def unhidden(
        self, camera: Camera, xyz: Float32[np.ndarray, "points 3"]
    ) -> Bool[np.ndarray, " points"]:
        """Whether nothing is between the camera and each point, except in the last 2 mm."""
        start = camera.pose[:3, 3].astype(np.float32)
        towards = xyz - start
        length = np.linalg.norm(towards, axis=1, keepdims=True)
        towards *= np.maximum(1 - 0.002 / np.maximum(length, 0.002), 0)
        rays = np.concatenate([np.broadcast_to(start, xyz.shape), towards], axis=1)
        blocked = self._scene.test_occlusions(self._core.Tensor(rays.astype(np.float32)), 0.0, 1.0)
        return ~blocked.numpy()

    def distance(
        self, xyz: Float32[np.ndarray, "points 3"]
    ) -> tuple[Float32[np.ndarray, " points"], Float32[np.ndarray, "points 3"]]:
        """Distance to the nearest surface, and the nearest point on it."""
        nearest = self._scene.compute_closest_points(self._core.Tensor(xyz))["points"].numpy()
        return np.linalg.norm(nearest - xyz, axis=1).astype(np.float32), nearest

    def open_to(
        self, xyz: Float32[np.ndarray, "hits 3"], normal: Float32[np.ndarray, "hits 3"]
    ) -> Float32[np.ndarray, " hits"]:
        """Share of the ambient light that reaches each point.

        Ambient occlusion (Zhukov et al. 1998): 1 minus `BOUNCED` times the share of `SKY` rays,
        cosine-weighted about the normal, that hit a surface within `NEAR_BY` metres.
        """
        rays = _about(xyz + 5e-4 * normal, normal, _directions())
        blocked = self._scene.test_occlusions(self._core.Tensor(rays), 0.0, NEAR_BY).numpy()
        return (1 - BOUNCED * blocked.reshape(len(xyz), -1).mean(1)).astype(np.float32)

    def _shadowed(
        self, xyz: Float32[np.ndarray, "hits 3"], normal: Float32[np.ndarray, "hits 3"]
    ) -> Bool[np.ndarray, " hits"]:
        start = xyz + 2e-3 * normal
        rays = np.concatenate([start, self.lamp - start], axis=1).astype(np.float32)
        return self._scene.test_occlusions(self._core.Tensor(rays), 0.0, 1.0).numpy()

    def _rays(self, camera: Camera) -> tuple[Any, Float32[np.ndarray, "height width 3"]]:
        """Rays scaled to z = 1, so that their length parameter is the z depth."""
        direction = geometry.rays(camera) @ camera.pose[:3, :3].T
        origin = np.broadcast_to(camera.pose[:3, 3], direction.shape)
        rays = np.concatenate([origin, direction], axis=-1).astype(np.float32)
        return self._core.Tensor(rays), direction.astype(np.float32)


@lru_cache(maxsize=1)
def _directions() -> Float32[np.ndarray, "turns rays 3"]:
    """Cosine-weighted directions about z (Malley's method), in 64 turns about it."""
    index = np.arange(SKY)
    radius = np.sqrt((index + 0.5) / SKY)
    turn = np.arange(64)[:, None] * (2 * np.pi / 64)
    angle = index * (np.pi * (3 - np.sqrt(5))) + turn
    up = np.broadcast_to(np.sqrt(1 - radius**2), angle.shape)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), up], -1).astype(np.float32)


@compiled(parallel=True)
@no_type_check
def _about(start, normal, directions):
    """Rays from `start` in `directions` about the normal; the turn is a hash of the position."""
    count, (turns, rays, _) = len(start), directions.shape
    out = np.empty((count, rays, 6), np.float32)
    for i in numba.prange(count):
        n = normal[i]
        # A right-handed basis with n as its z axis (Duff et al. 2017).
        sign = np.float32(1.0) if n[2] >= 0 else np.float32(-1.0)
        a = np.float32(-1.0) / (sign + n[2])
        b = n[0] * n[1] * a
        hashed = 0.0
        for c in range(3):
            hashed += abs(start[i, c]) * (12.9898 + 37.719 * c)
        turn = int(hashed * 1e4) % turns
        for k in range(rays):
            x, y, z = directions[turn, k]
            out[i, k, 0], out[i, k, 1], out[i, k, 2] = start[i]
            out[i, k, 3] = x * (1 + sign * n[0] * n[0] * a) + y * b + z * n[0]
            out[i, k, 4] = x * sign * b + y * (sign + n[1] * n[1] * a) + z * n[1]
            out[i, k, 5] = -x * sign * n[0] - y * n[1] + z * n[2]
    return out
