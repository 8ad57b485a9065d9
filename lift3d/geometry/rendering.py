"""Pictures of a cloud without a display: splats, shading by normals and depth, no OpenGL.

A room is rendered from above. Surfaces that face away from the camera are left out, so that near
walls and the ceiling do not hide the inside. The constants were chosen by hand on pictures of
rooms; no score depends on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int32, Int64, UInt8

from lift3d.geometry.visibility import cloud_spacing, front_points
from lift3d.scene import Camera, Image, Points
from lift3d.scene.compiled import compiled

Direction = Float64[np.ndarray, "3"]
BACKGROUND = 255
FOV = 45.0
"""Vertical field of view, degrees."""
CUBES = 60
"""Cubes along the longest side of the cloud; a cube with one surface is kept or left out as one
unit. 8 cm in a room of 5 m: more than the noise of a wall, less than furniture at it."""
AGREE = 0.75
"""Minimum length of the mean unit normal of a cube with one surface; a corner of two walls has
0.71."""
AROUND = 0.1
"""Points farther than this share of the scene's size from the box of the central 96 % per axis
are outliers, which need not be in the picture."""
MARGIN = 0.96
"""Share of the picture that the points may fill."""
CLEARLY = 0.35
"""Minimum cosine between the normal and the direction to the camera for a point beside a removed
wall: normals at the edge of wall and floor lie between those of both."""
SMALL_PIECE = 30
"""Components of fewer cubes than this are removed with the wall they touch, and the camera need
not show them. A chair has about a hundred."""


def render(
    points: Points,
    colours: UInt8[np.ndarray, "points 3"] | None = None,
    camera: Camera | None = None,
    splat: float | None = None,
    cull: bool = True,
) -> Image:
    """A picture of the cloud from `camera` (by default: from above at an angle), on white.

    `colours` replace the points' own. Each point is a square of `splat` world units, by default
    2 times the cloud's spacing. With `cull`, surfaces that face away are left out
    (`hidden_points`); points without a normal stay.
    """
    camera = orbit_cameras(points, 1)[0] if camera is None else camera
    splat = 2.0 * cloud_spacing(points) if splat is None else splat
    colours = points.rgb if colours is None else colours
    return _shaded(points, colours, camera, *_front(points, camera, splat, cull))


def render_each(
    points: Points,
    colourings: Sequence[UInt8[np.ndarray, "points 3"]],
    camera: Camera,
    splat: float,
) -> list[UInt8[np.ndarray, "height width 4"]]:
    """`render` with each of some colourings of the points, on a transparent background."""
    index, z = _front(points, camera, splat, cull=True)
    covered = np.where(index >= 0, np.uint8(255), np.uint8(0))
    return [
        np.dstack([_shaded(points, colours, camera, index, z), covered]) for colours in colourings
    ]


def _front(
    points: Points, camera: Camera, splat: float, cull: bool
) -> tuple[Int32[np.ndarray, "height width"], Float32[np.ndarray, "height width"]]:
    """`front_points` of those that are not hidden."""
    xyz = points.xyz
    if cull:
        hidden = hidden_points(points, camera.pose[:3, 3].astype(np.float32))
        # NaN is in no pixel, and the indices stay those of `points`.
        xyz = np.where(hidden[:, None], np.float32(np.nan), xyz)
    return front_points(xyz, camera, splat)


def _shaded(
    points: Points,
    colours: UInt8[np.ndarray, "points 3"],
    camera: Camera,
    index: Int32[np.ndarray, "height width"],
    z: Float32[np.ndarray, "height width"],
) -> Image:
    picture = np.full((*index.shape, 3), BACKGROUND, np.uint8)
    if (index >= 0).any():
        eye = camera.pose[:3, 3].astype(np.float32)
        _shade(index, z, points.xyz, points.normal, colours, eye, picture)
    return picture


def orbit_cameras(
    points: Points,
    n: int,
    width: int = 960,
    height: int = 720,
    up: Direction | None = None,
    elevation: float = 40.0,
    start: float = 45.0,
) -> list[Camera]:
    """`n` cameras on a circle above the cloud, each as near as its visible points allow.

    `elevation` and `start` are degrees above the horizon and around the vertical axis. Surfaces
    that face away, outliers (`AROUND`) and small components need not be in the picture. `up` is
    estimated where not given. Angles around the axis count from the normals of the walls: at 45
    degrees no wall is seen edge-on.
    """
    if not len(points):
        raise ValueError("an empty cloud cannot be rendered; expected at least one point")
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
    """The nearest position of a camera with all points in its picture.

    Points and position are in a frame with x right, y down, z forward. `half` is the tangent of
    half the field of view, horizontal and vertical. A point is left of the right border where
    its x - half z is at most that of the camera. So the maxima for the left and right borders
    give x and z of the camera, and those for top and bottom y and z; the smaller z is taken.
    """
    sideways, z = xyz[:, :2], xyz[:, 2:]
    right, left = (sideways - half * z).max(0), (-sideways - half * z).max(0)
    at = 0.5 * (right - left)
    # A little farther back, so that a single point is in front of the camera.
    return np.array([*at, float((-(right + left) / (2 * half)).min()) - 1e-3])


def camera_up(cameras: Iterable[Camera]) -> Direction | None:
    """The mean direction of the images' upper side, because cameras are mostly held upright.

    None without posed cameras, or where the directions differ too much.
    """
    tops = [-c.world_from_camera[:3, 1] for c in cameras if c.world_from_camera is not None]
    mean = np.mean(tops, axis=0) if tops else np.zeros(3)
    length = float(np.linalg.norm(mean))
    return mean / length if length > 0.3 else None


def guess_up(points: Points, held: Direction | None = None) -> Direction:
    """The up direction, estimated from the normals: that of most horizontal surface.

    `held` is the `camera_up`; the result is within 45 degrees of it.

    Floors, tables and seats face up and were seen from above, so their normals outnumber
    those of ceilings. Candidates are the axes of the world (most data sets are levelled along
    one) and, where these have clearly less support, the strongest peak among the normals.
    +z where normals are unknown.
    """
    normal = points.normal[:: max(1, len(points) // 20_000)].astype(np.float64)
    normal = normal[(normal**2).sum(1) > 0.25]
    if len(normal) < 10:
        return np.array([0.0, 0.0, 1.0]) if held is None else held
    axes = np.vstack([np.eye(3), -np.eye(3)])
    # z and -y are the common up directions, so they have larger weights.
    preference = np.array([1.0, 1.0, 1.25, 1.0, 1.2, 1.0])
    peaks = normal[:: max(1, len(normal) // 300)]
    if held is not None:
        upright = axes @ held > np.cos(np.radians(45))
        axes, preference = axes[upright], preference[upright]
        peaks = peaks[peaks @ held > np.cos(np.radians(45))]
        if not len(axes) or not len(peaks):
            return held
    support = preference * _support(normal, axes)
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
    """The two horizontal axes, turned by at most 45 degrees to the normals of the walls.

    Walls are mostly at right angles, so four times the angles of their normals agree.
    """
    level = points.normal @ np.stack([side, ahead], axis=1)
    turned = (level @ np.array([1, 1j])) ** 4  # near 0 for horizontal surfaces
    mean = complex(turned.mean())
    angle = np.angle(mean) / 4 if abs(mean) > 0.05 else 0.0
    cos, sin = np.cos(angle), np.sin(angle)
    return cos * side + sin * ahead, cos * ahead - sin * side


def _looking(forward: Direction, up: Direction) -> Float64[np.ndarray, "3 3"]:
    """world_from_camera rotation of a camera without roll (x right, y down, z forward)."""
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward], axis=1)


def hidden_points(points: Points, eye: Float[np.ndarray, "3"]) -> Bool[np.ndarray, " points"]:
    """The points that a picture from `eye` leaves out: surfaces that face away from it.

    Normals are noisy, so a test per point would leave single points of a near wall. Where the
    normals in a small cube agree, their mean decides for all its points; elsewhere (edges, thin
    boards) each point is tested. Small remaining components beside a removed surface, such as a
    picture frame on a near wall, are removed too. Points without a normal are hidden only as part
    of such a component.
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
    small[0] = False  # empty cubes
    return hidden | small[pieces.ravel()[cube]]


def _in_large_pieces(xyz: Float32[np.ndarray, "points 3"]) -> Float64[np.ndarray, "left 3"]:
    """The points without small components; all points where there are only small ones."""
    from scipy.ndimage import label

    cube, shape = _cubes(xyz)
    filled = np.bincount(cube, minlength=int(np.prod(shape))).reshape(shape) > 0
    pieces, _ = label(filled, np.ones((3, 3, 3)))
    large = (np.bincount(pieces.ravel()) >= SMALL_PIECE)[pieces.ravel()[cube]]
    return xyz[large if large.any() else slice(None)].astype(np.float64)


def _cubes(
    xyz: Float32[np.ndarray, "points 3"],
) -> tuple[Int64[np.ndarray, " points"], tuple[int, int, int]]:
    """The cube of each point, as a flat index into a grid, and the grid's shape.

    Outliers beyond the grid get the nearest cube at its border.
    """
    sample = xyz[:: max(1, len(xyz) // 100_000)]
    low, high = np.percentile(sample, [0.5, 99.5], axis=0)
    size = max(float((high - low).max()) / CUBES, 1e-6)
    nx, ny, nz = ((high - low) / size).astype(int) + 1
    at = np.floor((xyz - low) / size).clip(0, (nx - 1, ny - 1, nz - 1)).astype(np.int64)
    return (at[:, 0] * ny + at[:, 1]) * nz + at[:, 2], (int(nx), int(ny), int(nz))


@compiled(nogil=True)
@no_type_check
def _shade(index, z, xyz, normal, colours, eye, picture):
    """Colour times light: by the angle to the eye, and by eye-dome lighting (Boucheny 2009).

    In the second a pixel is darker the more its neighbours are in front of it, in log depth, so
    that edges show at every scale.
    """
    height, width = index.shape
    for v in range(height):
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
