"""Georeferenced scenes: a local origin keeps coordinates small enough for float32.

UTM coordinates such as (512345, 5403210, 312) have steps of 0.5 m in float32. So a scene whose
cameras are far from 0 is moved once, where it is read: `offset` is subtracted in float64 from
cameras and clouds, the scene and its clouds keep it, and what is written has it added again (or
beside it, in formats of float32). Everything between works in the local frame and need not know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from jaxtyping import Float, Float32

from lift3d.scene import NO_OFFSET, Camera, LabelledPoints, Offset, Points, Scene, View

FINEST = 0.001
"""Voxel, in metres, of which float32 must still resolve a tenth: coordinates up to 1 km do."""
FINEST_SHARE = 1 / 2000
"""The same where the unit is unknown, as a share of the extent of the cameras."""


def local(xyz: Float[np.ndarray, "points 3"], offset: Offset) -> Float32[np.ndarray, "points 3"]:
    """World coordinates relative to a local origin.

    >>> local(np.array([[512345.25, 5403210.5, 312.0]]), (512345.0, 5403210.0, 312.0)).tolist()
    [[0.25, 0.5, 0.0]]
    """
    return (xyz.astype(np.float64) - offset).astype(np.float32)


def chosen_offset(views: Sequence[View], metric: bool) -> Offset:
    """The local origin that the positions of the cameras need; zeros where they need none.

    Near the median position, rounded to a power of ten below the extent of the cameras, so that
    the numbers stay short and float64 adds them without loss. A single wrong pose has no weight.
    """
    poses = (view.camera.world_from_camera for view in views)
    placed = [pose[:3, 3] for pose in poses if pose is not None and np.isfinite(pose).all()]
    if not placed:
        return NO_OFFSET
    places = np.stack(placed)
    centre = np.median(places, axis=0)
    extent = float(np.median(np.abs(places - centre).max(1))) * 2
    metric = metric or not extent
    finest = FINEST if metric else extent * FINEST_SHARE
    if np.spacing(np.float32(np.abs(centre).max())) <= finest / 10:
        return NO_OFFSET
    step = 10.0 ** np.floor(np.log10(max(extent, 1.0) if metric else extent))
    x, y, z = (float(each) for each in np.round(centre / step) * step)
    return x, y, z


def localised(scene: Scene) -> Scene:
    """The scene in a local frame where its cameras are far from 0; else the scene itself."""
    by = chosen_offset(scene.views, scene.metric)
    if by == NO_OFFSET:
        return scene
    found = moved(scene, by)
    x, y, z = found.offset
    note = (
        f"positions are far from 0: inside, they are relative to the local origin {x:.12g}, "
        f"{y:.12g}, {z:.12g}, which is added again in the files (`offset` in scene.json)"
    )
    return replace(found, notes=(*found.notes, note))


def at_offset(scene: Scene, offset: Offset) -> Scene:
    """The same scene relative to another local origin."""
    x, y, z = (a - b for a, b in zip(offset, scene.offset, strict=True))
    return moved(scene, (x, y, z))


def moved(scene: Scene, by: Offset) -> Scene:
    """The scene with `by` subtracted from cameras and clouds, and added to its offset."""
    if by == NO_OFFSET:
        return scene
    x, y, z = (a + b for a, b in zip(scene.offset, by, strict=True))
    back = (-by[0], -by[1], -by[2])
    views = tuple(
        replace(
            view,
            camera=camera_at(view.camera, back),
            depth_camera=view.depth_camera and camera_at(view.depth_camera, back),
        )
        for view in scene.views
    )
    points, surface = scene.load_points, scene.load_surface
    return replace(
        scene,
        views=views,
        offset=(x, y, z),
        load_points=points and partial(_moved_points, points, (x, y, z)),
        load_surface=surface and partial(_moved_surface, surface, (x, y, z)),
    )


def camera_at(camera: Camera, offset: Offset) -> Camera:
    """The camera in the world, of one that is relative to the local origin `offset`."""
    if camera.world_from_camera is None or offset == NO_OFFSET:
        return camera
    pose = camera.world_from_camera.copy()
    pose[:3, 3] += offset
    return camera.at(pose)


def relative_to(points: Points, offset: Offset) -> Points:
    """The same points relative to another local origin."""
    if points.offset == offset:
        return points
    return replace(points, xyz=local(points.world, offset), offset=offset)


def _moved_points(load: Callable[[], Points], offset: Offset) -> Points:
    return relative_to(load(), offset)


def _moved_surface(load: Callable[[], LabelledPoints], offset: Offset) -> LabelledPoints:
    surface = load()
    return replace(surface, points=relative_to(surface.points, offset))
