"""Growing hash table of occupied voxels and their sums, for voxel fusion."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from jaxtyping import Int32

from lift3d.geometry.lens import pinhole, rays
from lift3d.reconstruction.fusion.frames import Frame
from lift3d.reconstruction.fusion.kernels import SUMS, Rules, Table, integrate
from lift3d.scene import Camera, Points

INITIAL_ROOM = 1 << 16
"""Initial capacity of a table in voxels (4 MB); doubled when needed."""
EMPTY = -1


class Grid:
    """Voxels of equal size around an origin; accumulates frames and returns points."""

    def __init__(self, voxel: float, near: np.ndarray) -> None:
        """`near` is a position in the scene; the grid reaches 2^20 voxels from it."""
        self.voxel = voxel
        # A multiple of the voxel size, so that the lattice does not depend on the first camera.
        self.origin = np.round(np.asarray(near, np.float64) / voxel) * voxel
        self._halves = [_empty(), _empty()]
        self._pool = ThreadPoolExecutor(len(self._halves))
        self._added = 0
        self._rays: tuple[Camera, np.ndarray] | None = None

    def __len__(self) -> int:
        return sum(half.used for half in self._halves)

    @property
    def room(self) -> int:
        """Allocated capacity in voxels."""
        return sum(len(half.sums) for half in self._halves)

    def add(
        self,
        frame: Frame,
        depth_edge: float = 0.05,
        max_depth: float | None = None,
        clear_depth: float = np.inf,
        stride: int = 1,
    ) -> None:
        """Add every pixel of a frame to its voxel."""
        view = frame.view
        camera = view.geometry_camera
        grid_from_camera = camera.pose.copy()
        grid_from_camera[:3, 3] -= self.origin
        self._added += 1
        differs = view.depth_camera is not None
        colour_from_depth = view.camera.camera_from_world @ camera.pose if differs else np.eye(4)
        given = (
            frame.depth,
            np.ones((1, 1), np.float32) if frame.confidence is None else frame.confidence,
            frame.image,
            self._rays_of(camera),
            np.ascontiguousarray(grid_from_camera[:3]),
            (camera.K[0, 0] + camera.K[1, 1]) / 2,
            differs,
            pinhole(view.camera, colour_from_depth),
            Rules(
                self.voxel,
                np.inf if depth_edge <= 0 else depth_edge,
                np.inf if max_depth is None else max_depth,
                clear_depth,
                stride,
            ),
            self._added,
        )
        self._halves = list(self._pool.map(partial(integrate, *given), (0, 1), self._halves))

    def points(self) -> tuple[Points, Int32[np.ndarray, " points"]]:
        """One point per voxel in the order of the keys, and the number of views that saw it."""
        keys, sums, views = (
            np.concatenate([getattr(half, name)[: half.used] for half in self._halves])
            for name in ("keys", "sums", "views")
        )
        order = np.argsort(keys)
        key, sums = keys[order], sums[order].astype(np.float64)
        cell = np.stack([key >> 42, (key >> 21) & 0x1FFFFF, key & 0x1FFFFF], axis=1) - (1 << 20)
        weight = sums[:, 9]
        xyz = self.origin + self.voxel * (cell + 0.5) + sums[:, 0:3] / weight[:, None]
        coloured = sums[:, 10] > 0
        rgb = np.full((len(key), 3), 128, np.uint8)  # mid grey where no colour camera sees it
        rgb[coloured] = np.rint(sums[coloured, 3:6] / sums[coloured, 10:11])
        normal = sums[:, 6:9]
        length = np.linalg.norm(normal, axis=1, keepdims=True)
        normal = np.divide(normal, length, out=np.zeros_like(normal), where=length > 1e-6)
        points = Points(
            xyz.astype(np.float32),
            rgb,
            normal.astype(np.float32),
            sums[:, 11].astype(np.float32),
        )
        return points, views[order, 0]

    def _rays_of(self, camera: Camera) -> np.ndarray:
        """Ray x and y of each pixel (2, H, W) float32; cached while the intrinsics are equal."""
        if self._rays is None or not _same_lens(self._rays[0], camera):
            xy = rays(camera)[..., :2].astype(np.float32)
            self._rays = camera, np.ascontiguousarray(np.moveaxis(xy, -1, 0))
        return self._rays[1]


def _empty() -> Table:
    return Table(
        np.full(2 * INITIAL_ROOM, EMPTY, np.int64),
        np.zeros(2 * INITIAL_ROOM, np.int32),
        np.zeros(INITIAL_ROOM, np.int64),
        np.zeros((INITIAL_ROOM, SUMS), np.float32),
        np.zeros((INITIAL_ROOM, 2), np.int32),
        0,
    )


def _same_lens(a: Camera, b: Camera) -> bool:
    return (
        (a.width, a.height, a.distortion) == (b.width, b.height, b.distortion)
        and np.array_equal(a.K, b.K)
    )  # fmt: skip
