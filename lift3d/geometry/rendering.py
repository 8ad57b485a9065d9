"""Pictures of a cloud without a display: splats, shading by normals and depth, no OpenGL.

A room is looked at from above. What faces away from the camera is left out, and walls and
ceilings are left out whole, so that they do not hide what is inside.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64, UInt8

from lift3d.geometry.visibility import cloud_spacing, front_points
from lift3d.scene import Camera, Image, Points

Direction = Float64[np.ndarray, "3"]
BACKGROUND = 255
FOV = 45.0
"""Degrees, vertical."""
CUBES = 60
"""Cubes along the longest side of the cloud in which surfaces are left out as a whole: 8 cm in
a room of 5 m, more than the noise of a wall and less than the things that stand at it."""
AGREE = 0.75
"""Length of the mean of unit normals from which on they agree; two walls that meet give 0.71."""
AROUND = 0.1
"""Points farther than this share of the scene's size from the box of all but the outermost 2 % on
each side are strays, which a picture need not show."""
MARGIN = 0.96
"""Of the picture, up to which points reach."""
CLEARLY = 0.35
"""Beside a wall that was left out, a point that decides for itself must face the camera by this
cosine: normals along the edge of wall and floor lie between those of both."""
SMALL_PIECE = 30
"""Pieces of fewer cubes than this, beside a wall that was left out, are left out with it; no
picture is made larger for them. A chair has about a hundred."""


def render(
    points: Points,
    colours: UInt8[np.ndarray, "points 3"] | None = None,
    camera: Camera | None = None,
    splat: float | None = None,
    cull: bool = True,
) -> Image:
    """The cloud from `camera` (by default: from above at an angle), on white.

    `colours` take the place of the points' own. Each point is a square of `splat` world units,
    by default 2 times the cloud's spacing. With `cull`, surfaces that face away are left out
    (`hidden_points`); points without a normal stay.
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
    xyz = points.xyz
    if cull:
        # NaN, which no pixel sees: the indices stay those of `points`.
        xyz = np.where(hidden_points(points, eye)[:, None], np.float32(np.nan), xyz)
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
    start: float = 45.0,
) -> list[Camera]:
    """`n` cameras on a circle above the cloud, as near as they see all that is shown of it.

    `elevation` and `start` are degrees above the horizon and around. Surfaces that face away,
    which pictures leave out, need not be seen, and neither points far out (`AROUND`) nor small
    pieces by themselves. `up` is guessed where not given. Angles around count from the way that
    walls face: at 45 degrees none is seen edge-on.
    """
    if not len(points):
        raise ValueError("an empty cloud cannot be looked at")
    up = guess_up(points) if up is None else up / np.linalg.norm(up)
    sample = points.take(np.arange(0, len(points), max(1, len(points) // 100_000)))
    side, ahead = _along_walls(sample, *_across(up))
    low, high = np.percentile(sample.xyz, [2, 98], axis=0)
    middle, reach = 0.5 * (low + high), float(np.linalg.norm(high - low))
    inside = (np.abs(sample.xyz - middle) <= 0.5 * (high - low) + AROUND * reach).all(1)
    sample = sample.take(inside)
    focal = 0.5 * height / np.tan(np.radians(FOV / 2))
    K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    cameras = []
    for turn in np.radians(start + 360 * np.arange(n) / n):
        level = np.cos(turn) * side + np.sin(turn) * ahead
        lift = np.radians(elevation)
        back = np.cos(lift) * level + np.sin(lift) * up
        pose = np.eye(4)
        pose[:3, :3] = _looking(-back, up)
        pose[:3, 3] = middle + 1.5 * reach * back
        shown = ~hidden_points(sample, pose[:3, 3])
        seen = _in_large_pieces(sample.xyz[shown if shown.any() else slice(None)])
        half = 0.5 * MARGIN * np.array([width, height]) / focal
        pose[:3, 3] = pose[:3, :3] @ _nearest_place(seen @ pose[:3, :3], half)
        cameras.append(Camera(K, width, height, pose))
    return cameras


def _nearest_place(
    xyz: Float64[np.ndarray, "points 3"], half: Float64[np.ndarray, "2"]
) -> Float64[np.ndarray, "3"]:
    """Where a camera must be to have all points in its picture, as near to them as that goes.

    Frame of the points and of the place: x right, y down, z forward. `half` is the tangent of
    half the angle of view, across and down. A point is left of the right border where
    x - half z is at most that of the camera; so the largest such numbers of both borders give
    the camera's x and z, and likewise y and z; of the two z the farther one holds.
    """
    sideways, z = xyz[:, :2], xyz[:, 2:]
    right, left = (sideways - half * z).max(0), (-sideways - half * z).max(0)
    at = 0.5 * (right - left)
    # A little back, so that a single point is in front of the camera.
    return np.array([*at, float((-(right + left) / (2 * half)).min()) - 1e-3])


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


def _along_walls(points: Points, side: Direction, ahead: Direction) -> tuple[Direction, Direction]:
    """The two horizontal axes, turned (by 45 degrees at most) to the way that walls face.

    Walls mostly stand at right angles: four times the angles of their normals agree.
    """
    level = points.normal @ np.stack([side, ahead], axis=1)
    turned = (level @ np.array([1, 1j])) ** 4  # upright surfaces count, the level ones are near 0
    mean = complex(turned.mean())
    angle = np.angle(mean) / 4 if abs(mean) > 0.05 else 0.0
    cos, sin = np.cos(angle), np.sin(angle)
    return cos * side + sin * ahead, cos * ahead - sin * side


def _looking(forward: Direction, up: Direction) -> Float64[np.ndarray, "3 3"]:
    """World-from-camera rotation of a level camera (x right, y down, z forward)."""
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward], axis=1)


def hidden_points(points: Points, eye: Float[np.ndarray, "3"]) -> Bool[np.ndarray, " points"]:
    """The points that a picture from `eye` leaves out: surfaces that face away from it.

    Normals are noisy, so a near wall would leave a dust of single points that happen to face
    the camera. Where the normals of a small cube of space agree, their mean decides for the
    whole cube; elsewhere (edges, thin boards) each point decides for itself. Then what remains
    in pieces of a few cubes right beside what was left out, such as the frame of a picture on
    a near wall, is left out too. Points without a normal are never hidden but with such a piece.
    """
    from scipy.ndimage import binary_dilation, label

    if not len(points):
        return np.zeros(0, bool)
    cube, shape = _cubes(points.xyz)
    length = int(np.prod(shape))
    known = (points.normal != 0).any(1)
    toward = eye.astype(np.float32) - points.xyz
    facing = (points.normal * toward).sum(1)
    count = np.bincount(cube, minlength=length)
    mean = np.stack([np.bincount(cube, points.normal[:, c], length) for c in range(3)], 1)
    middle = np.stack([np.bincount(cube, toward[:, c], length) for c in range(3)], 1)
    agree = np.linalg.norm(mean, axis=1) > AGREE * np.maximum(count, 1)
    away = (mean * middle).sum(1) < 0
    around = np.ones((3, 3, 3))
    gone = binary_dilation((agree & away).reshape(shape), around).ravel()
    least = np.where(gone[cube], CLEARLY * np.linalg.norm(toward, axis=1), 0.0)
    slanted = known & (facing < least)
    hidden = np.where(agree[cube], away[cube], slanted)
    left = np.bincount(cube[~hidden], minlength=length).reshape(shape) > 0
    pieces, _ = label(left, around)
    sizes = np.bincount(pieces.ravel())
    beside = np.zeros(len(sizes), bool)
    beside[pieces.ravel()[gone]] = True
    small = beside & (sizes < SMALL_PIECE)
    small[0] = False  # no piece
    return hidden | small[pieces.ravel()[cube]]


def _in_large_pieces(xyz: Float32[np.ndarray, "points 3"]) -> Float64[np.ndarray, "left 3"]:
    """The points but those in pieces of few cubes; all where there are only such."""
    from scipy.ndimage import label

    cube, shape = _cubes(xyz)
    filled = np.bincount(cube, minlength=int(np.prod(shape))).reshape(shape) > 0
    pieces, _ = label(filled, np.ones((3, 3, 3)))
    large = (np.bincount(pieces.ravel()) >= SMALL_PIECE)[pieces.ravel()[cube]]
    return xyz[large if large.any() else slice(None)].astype(np.float64)


def _cubes(
    xyz: Float32[np.ndarray, "points 3"],
) -> tuple[Int64[np.ndarray, " points"], tuple[int, int, int]]:
    """The small cube that each point is in, as a flat index into a grid, and the grid's shape.

    A few points far out are counted to the cubes at the border.
    """
    sample = xyz[:: max(1, len(xyz) // 100_000)]
    low, high = np.percentile(sample, [0.5, 99.5], axis=0)
    size = max(float((high - low).max()) / CUBES, 1e-6)
    nx, ny, nz = ((high - low) / size).astype(int) + 1
    at = np.floor((xyz - low) / size).clip(0, (nx - 1, ny - 1, nz - 1)).astype(np.int64)
    return (at[:, 0] * ny + at[:, 1]) * nz + at[:, 2], (int(nx), int(ny), int(nz))


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
