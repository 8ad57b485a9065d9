"""From the frames of a capture app to a scene: colour, and depth of the same camera, smaller.

What phones with a depth sensor give is alike: a colour picture, a pose and intrinsics per frame
(ARKit moves the lens to focus), a depth map registered to the picture, and its confidence in three
steps. The readers of the apps only find and name the files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64

from lift3d.datasets.frames import finish, first_size, posed
from lift3d.datasets.images import DepthCode, read_color, read_confidence, read_depth
from lift3d.datasets.intrinsics import Size, pinhole
from lift3d.scene import Camera, Depth, Image, Scene, Skipped, Transform, View
from lift3d.scene.errors import InputError

ARKIT_FULL = 2.0
"""ARKit's confidence is 0 (low), 1 (medium) or 2 (high)."""
LONGEST = 100_000
"""No picture has a longer side."""


@dataclass(frozen=True, eq=False)
class Shot:
    """One frame of a capture."""

    name: str
    image: Path
    K: Float64[np.ndarray, "3 3"]
    """Of pictures of `Capture.size`; pixel (0, 0) is the centre of the top-left pixel."""
    pose: Transform
    """world_from_camera as stored, in the capture's axes."""
    depth: Path | None = None
    confidence: Path | None = None
    load_image: Callable[[], Image] | None = None
    """Where the picture is not a file of its own."""
    load_depth: Callable[[], Depth] | None = None
    """Where the depth map is not a picture."""
    load_confidence: Callable[[], Float32[np.ndarray, "height width"]] | None = None


@dataclass(frozen=True)
class Capture:
    """What all frames of a capture have in common."""

    path: Path
    reader: str
    opengl: bool
    """Camera axes: x right, y up, z backward, as in ARKit; else OpenCV's."""
    code: DepthCode = field(default_factory=DepthCode)
    full: float = ARKIT_FULL
    """The stored confidence that means 1."""
    size: Size | None = None
    """Width and height that K belongs to; None: those of the pictures."""
    image_size: Size | None = None
    """Width and height of the pictures; None: as the first file says."""
    depth_size: Size | None = None
    """Width and height of the depth maps; None: as the first file says."""

    def scene(
        self,
        shots: Sequence[Shot],
        skipped: Sequence[Skipped] = (),
        notes: Sequence[str | None] = (),
    ) -> Scene:
        """The scene, in metres; InputError where too few frames can be used."""
        poses, unusable = posed(
            {shot.name: shot.pose for shot in shots},
            {shot.name: shot.name for shot in shots},
            opengl=self.opengl,
        )
        usable = [shot for shot in shots if shot.name in poses]
        where = f"reader {self.reader} at {self.path}"
        if not usable:
            return finish(self.path, [], [*skipped, *unusable], where, notes)
        size = self.image_size or first_size(shot.image for shot in usable)
        maps = [shot.depth for shot in usable if shot.depth is not None]
        depth_size = self.depth_size or (first_size(maps) if maps else size)
        views = [self._view(shot, poses[shot.name], size, depth_size) for shot in usable]
        name = self.path.resolve().name
        return finish(self.path, views, [*skipped, *unusable], where, notes, name=name)

    def _view(self, shot: Shot, pose: Transform, size: Size, depth_size: Size) -> View:
        camera = Camera(shot.K, *(self.size or size)).resized(*size).at(pose)
        load_depth, load_confidence = shot.load_depth, shot.load_confidence
        if load_depth is None and shot.depth is not None:
            load_depth = partial(read_depth, shot.depth, self.code)
        if load_confidence is None and shot.confidence is not None:
            load_confidence = partial(read_confidence, shot.confidence, self.full)
        own = None if depth_size == size or load_depth is None else camera.resized(*depth_size)
        return View(
            name=shot.name,
            camera=camera,
            load_image=shot.load_image or partial(read_color, shot.image),
            load_depth=load_depth,
            depth_camera=own,
            load_confidence=load_confidence if load_depth else None,
        )


def from_corner(K: Float[np.ndarray, "3 3"]) -> Float64[np.ndarray, "3 3"]:
    """K whose principal point is from the corner of the picture, as ARKit's, in our convention."""
    moved = np.array(K, np.float64)
    moved[:2, 2] -= 0.5
    return moved


def numbers_of(
    content: Mapping[str, Any], key: str, count: int, where: Path
) -> Float64[np.ndarray, " count"]:
    """The list of numbers under a key, nested or flat; InputError where it is another."""
    try:
        values = np.array(content[key], np.float64).ravel()
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{where}: expected {count} numbers as {key} ({error!r})") from error
    if len(values) != count:
        raise InputError(f"{where}: {key} has {len(values)} numbers; expected {count}")
    return values


def size_of(content: Mapping[str, Any], keys: tuple[str, str], where: Path) -> Size:
    """Width and height under their keys; InputError where these are not the sides of a picture."""
    width, height = (float(numbers_of(content, key, 1, where)[0]) for key in keys)
    if not (1 <= width <= LONGEST and 1 <= height <= LONGEST):
        raise InputError(f"{where}: {' and '.join(keys)} are {width:g} and {height:g}")
    return int(width), int(height)


def intrinsics_of(
    content: Mapping[str, Any], where: Path, keys: Sequence[str] = ("fx", "fy", "cx", "cy")
) -> Float64[np.ndarray, "3 3"]:
    """K of four numbers under their names, whose principal point is from the corner."""
    values = [float(numbers_of(content, key, 1, where)[0]) for key in keys]
    return from_corner(pinhole(tuple(values), str(where)))
