"""Pictures of a cloud without a display: splats, shading by normals and depth, no OpenGL.

A room is looked at from above, and points that turn their back on the camera are left out,
so that the near walls and the ceiling do not hide what is inside.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from lift3d.geometry.visibility import cloud_spacing, front_points
from lift3d.scene import Camera, Image, Points

Direction = Float64[np.ndarray, "3"]
BACKGROUND = 255
FOV = 45.0
"""Degrees, vertical."""


def render(
    points: Points,
    colours: UInt8[np.ndarray, "points 3"] | None = None,
    camera: Camera | None = None,
    splat: float | None = None,
    cull: bool = True,
) -> Image:
    """The cloud from `camera` (by default: from above at an angle), on white.

    `colours` take the place of the points' own. Each point is a square of `splat` world units,
    by default 2 times the cloud's spacing. With `cull`, points whose normal faces away are
    left out; those without a normal stay.
    """
    return _picture(points, colours, camera, splat, cull)[0]


def render_rgba(
    points: Points,
    colours: UInt8[np.ndarray, "points 3"] | None = None,
    camera: Camera | None = None,
    splat: float | None = None,
    cull: bool = True,
) -> UInt8[np.ndarray, "height width 4"]:
    """`render` with a transparent background."""
    picture, covered = _picture(points, colours, camera, splat, cull)
    return np.dstack([picture, np.where(covered, np.uint8(255), np.uint8(0))])


def _picture(
    points: Points,
    colours: UInt8[np.ndarray, "points 3"] | None,
    camera: Camera | None,
    splat: float | None,
    cull: bool,
) -> tuple[Image, Bool[np.ndarray, "height width"]]:
    colours = points.rgb if colours is None else colours
    if camera is None:
        camera = orbit_cameras(points, 1)[0]
    if splat is None:
        splat = 2.0 * cloud_spacing(points)
    eye = camera.pose[:3, 3].astype(np.float32)
    # Culled points are kept as NaN, which no pixel sees: the indices stay those of `points`.
    xyz = _facing(points.xyz, points.normal, eye) if cull else points.xyz
    index, z = front_points(xyz, camera, splat)
    picture = np.full((camera.height, camera.width, 3), BACKGROUND, np.uint8)
    covered = index >= 0
    if covered.any():
        _shade(index, z, points.xyz, points.normal, colours, eye, picture)
    return picture, covered


def orbit_cameras(
    points: Points,
    n: int,
    width: int = 960,
    height: int = 720,
    up: Direction | None = None,
    elevation: float = 40.0,
    start: float = 30.0,
) -> list[Camera]:
    """`n` cameras on a circle above the cloud that look at its middle and see all of it.

    `elevation` and `start` are degrees above the horizon and around. A few stray points far
    out (2 % on each side of each axis) are not waited for. `up` is guessed where not given.
    """
    if not len(points):
        raise ValueError("an empty cloud cannot be looked at")
    up = guess_up(points) if up is None else up / np.linalg.norm(up)
    sample = points.xyz[:: max(1, len(points) // 100_000)].astype(np.float64)
    side, ahead = _across(up)
    axes = np.stack([side, ahead, up])
    along = sample @ axes.T
    low, high = np.percentile(along, [2, 98], axis=0)
    target = 0.5 * (low + high) @ axes
    corners = np.array(np.meshgrid(*zip(low, high, strict=True))).reshape(3, -1).T @ axes
    focal = 0.5 * height / np.tan(np.radians(FOV / 2))
    K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    cameras = []
    for turn in np.radians(start + 360 * np.arange(n) / n):
        level = np.cos(turn) * side + np.sin(turn) * ahead
        lift = np.radians(elevation)
        back = np.cos(lift) * level + np.sin(lift) * up
        rotation = _looking(-back, up)
        # As near as it goes while every corner of the box is in the picture.
        x, y, z = rotation.T @ (corners - target).T
        reach = np.maximum(np.abs(x) * 2 / width, np.abs(y) * 2 / height) * focal / 0.97 - z
        pose = np.eye(4)
        pose[:3, :3] = rotation
        pose[:3, 3] = target + back * max(float(reach.max()), 1e-3)
        cameras.append(Camera(K, width, height, pose))
    return cameras


def camera_up(cameras: Iterable[Camera]) -> Direction | None:
    """Where the tops of the pictures point on average: people hold cameras upright.

    None without posed cameras, or where they are turned every which way.
    """
    tops = [-c.world_from_camera[:3, 1] for c in cameras if c.world_from_camera is not None]
    mean = np.mean(tops, axis=0) if tops else np.zeros(3)
    length = float(np.linalg.norm(mean))
    return mean / length if length > 0.3 else None


def guess_up(points: Points, held: Direction | None = None) -> Direction:
    """The direction that most surface lies flat to, pointing to where floors look.

    `held`, where the cameras' tops point, leaves only what is within 45 degrees of it.

    Floors, tables and seats face up and were seen from above, so their normals outnumber
    those of ceilings. Candidates are the axes of the world (data sets tend to be levelled along
    one) and, where these gather clearly less surface, the strongest peak among the normals.
    +z where normals are unknown.
    """
    normal = points.normal[:: max(1, len(points) // 20_000)].astype(np.float64)
    normal = normal[(normal**2).sum(1) > 0.25]
    if len(normal) < 10:
        return np.array([0.0, 0.0, 1.0]) if held is None else held
    axes = np.vstack([np.eye(3), -np.eye(3)])
    # z and -y first among equals: the two ups that are in use.
    liking = np.array([1.0, 1.0, 1.25, 1.0, 1.2, 1.0])
    peaks = normal[:: max(1, len(normal) // 300)]
    if held is not None:
        upright = axes @ held > np.cos(np.radians(45))
        axes, liking = axes[upright], liking[upright]
        peaks = peaks[peaks @ held > np.cos(np.radians(45))]
        if not len(axes) or not len(peaks):
            return held
    support = liking * _support(normal, axes)
    best = axes[int(np.argmax(support))]
    free = _support(normal, peaks)
    if free.max() > 1.5 * support.max():
        peak = peaks[int(np.argmax(free))]
        near = normal[normal @ peak > np.cos(np.radians(15))].mean(0)
        best = near / np.linalg.norm(near)
    return best


def _support(
    normal: Float64[np.ndarray, "normals 3"], directions: Float64[np.ndarray, "directions 3"]
) -> Float64[np.ndarray, " directions"]:
    """Share of the normals within 15 degrees of each direction."""
    return (normal @ directions.T > np.cos(np.radians(15))).mean(0)


def _across(up: Direction) -> tuple[Direction, Direction]:
    """Two horizontal axes; the first follows the world's x (or y where x is up)."""
    nearest = np.eye(3)[int(np.argmin(np.abs(up)))]
    side = nearest - (nearest @ up) * up
    side /= np.linalg.norm(side)
    return side, np.cross(up, side)


def _looking(forward: Direction, up: Direction) -> Float64[np.ndarray, "3 3"]:
    """World-from-camera rotation of a level camera (x right, y down, z forward)."""
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward], axis=1)


def _facing(
    xyz: Float32[np.ndarray, "points 3"],
    normal: Float32[np.ndarray, "points 3"],
    eye: Float32[np.ndarray, "3"],
) -> Float32[np.ndarray, "points 3"]:
    """The points, those that face away from `eye` replaced by NaN."""
    return _hide_backs(xyz, normal, eye)


@numba.njit(cache=True, parallel=True)
@no_type_check
def _hide_backs(xyz, normal, eye):
    shown = xyz.copy()
    for i in numba.prange(len(xyz)):
        toward = (
            normal[i, 0] * (eye[0] - xyz[i, 0])
            + normal[i, 1] * (eye[1] - xyz[i, 1])
            + normal[i, 2] * (eye[2] - xyz[i, 2])
        )
        if toward < 0.0:
            shown[i] = np.nan
    return shown


@numba.njit(cache=True, parallel=True)
@no_type_check
def _shade(index, z, xyz, normal, colours, eye, picture):
    """Colour times light: half from the angle to the eye, and darkness where depth falls off.

    The second is eye-dome lighting (Boucheny 2009): a pixel is darker the more its neighbours
    are in front of it, in log depth, so that edges show at every scale.
    """
    height, width = index.shape
    for v in numba.prange(height):
        for u in range(width):
            i = index[v, u]
            if i < 0:
                continue
            dx, dy, dz = eye[0] - xyz[i, 0], eye[1] - xyz[i, 1], eye[2] - xyz[i, 2]
            nx, ny, nz = normal[i, 0], normal[i, 1], normal[i, 2]
            light = 1.0
            if nx != 0.0 or ny != 0.0 or nz != 0.0:
                facing = (nx * dx + ny * dy + nz * dz) / np.sqrt(dx * dx + dy * dy + dz * dz)
                light = 0.72 + 0.28 * min(abs(facing), 1.0)
            here = np.log(z[v, u])
            hidden, around = 0.0, 0
            for step in (1, 3):
                for side in range(4):
                    y = v + step * ((side == 0) - (side == 1))
                    x = u + step * ((side == 2) - (side == 3))
                    if 0 <= y < height and 0 <= x < width:
                        around += 1
                        if index[y, x] >= 0:
                            hidden += min(max(here - np.log(z[y, x]), 0.0), 0.05)
            if around:
                light *= np.exp(-12.0 * hidden / around)
            for c in range(3):
                picture[v, u, c] = np.uint8(min(255.0, colours[i, c] * light + 0.5))
