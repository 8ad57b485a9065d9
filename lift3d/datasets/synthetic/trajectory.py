"""The camera path: twice round the room, so that objects leave the image and return."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from lift3d.datasets.synthetic.render import Caster
from lift3d.datasets.synthetic.rooms import Room
from lift3d.scene import Transform

CLEARANCE = 0.35
"""Minimum distance in metres between camera and surfaces."""


def look_at(position: Float64[np.ndarray, "3"], heading: float, pitch: float) -> Transform:
    """world_from_camera at `position`, looking along `heading` (about z) and `pitch` (up > 0).

    >>> look_at(np.zeros(3), 0.0, 0.0)[:3, :3].round().astype(int).tolist()
    [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    """
    forward = np.array(
        [np.cos(heading) * np.cos(pitch), np.sin(heading) * np.cos(pitch), np.sin(pitch)]
    )
    right = np.array([np.sin(heading), -np.cos(heading), 0.0])
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2] = right, np.cross(forward, right), forward
    pose[:3, 3] = position
    return pose


def walk(
    rng: np.random.Generator, caster: Caster, rooms: list[Room], views: int
) -> list[Transform]:
    """`views` poses along two loops: high and looking across the room, then low, looking out."""
    room = rooms[0]
    cx, cy = room.centre
    half_x, half_y = (room.x1 - room.x0) / 2 - 0.9, (room.y1 - room.y0) / 2 - 0.9
    time = np.arange(views) / views
    start = rng.uniform(0, 2 * np.pi)
    angle = start + 4 * np.pi * time
    # 0 in the first loop, 1 in the second, with smooth transitions.
    second = 0.5 - 0.5 * np.tanh(12 * np.cos(2 * np.pi * (time - 0.25) + np.pi / 2))
    second = np.clip(second, 0, 1)
    reach = 1 - 0.4 * second
    sway = 0.55 * np.sin(2 * np.pi * 7 * time + rng.uniform(0, 6))
    heading = angle + np.pi * (1 - second) + sway
    pitch = np.radians(-24 + 6 * second + 11 * np.sin(2 * np.pi * 5 * time + rng.uniform(0, 6)))
    height = 1.62 - 0.4 * second + 0.12 * np.sin(2 * np.pi * 9 * time + rng.uniform(0, 6))
    xyz = np.stack(
        [cx + half_x * reach * np.cos(angle), cy + half_y * reach * np.sin(angle), height], axis=1
    )
    xyz = _pushed_free(caster, xyz)
    return [look_at(p, h, t) for p, h, t in zip(xyz, heading, pitch, strict=True)]


def _pushed_free(
    caster: Caster, xyz: Float64[np.ndarray, "views 3"]
) -> Float64[np.ndarray, "views 3"]:
    """Positions moved in small steps away from surfaces that are too near."""
    for _ in range(40):
        distance, nearest = caster.distance(xyz.astype(np.float32))
        close = distance < CLEARANCE
        if not close.any():
            break
        away = (xyz - nearest)[close] / np.maximum(distance[close], 1e-3)[:, None]
        xyz[close] += 0.05 * away + [0, 0, 0.01]
    return xyz
