"""Reader for the layout of 7-Scenes, tsdf-fusion and 3DMatch: frame-000000.{color,depth,pose}."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from lift3d.datasets.frames import complete, finish, first_size, posed
from lift3d.datasets.images import DepthCode, read_color, read_depth
from lift3d.datasets.intrinsics import pinhole, read_intrinsics
from lift3d.datasets.patterns import any_match, collect, contents
from lift3d.datasets.poses import rigid_option
from lift3d.datasets.rgbd_poses import read_files
from lift3d.scene import Camera, Scene, View
from lift3d.scene.errors import InputError
from lift3d.scene.protocols import Reader

FOLDERS = ("", "seq-*/", "rgbd-frames/")
"""Possible folders of the frames; tsdf-fusion uses the last."""
INTRINSICS = "camera-intrinsics.txt"
NOMINAL_COLOR = (525.0, 525.0, 320.0, 240.0)
NOMINAL_DEPTH = (585.0, 585.0, 320.0, 240.0)
"""fx fy cx cy of a Kinect, as 7-Scenes gives them; used where none are stored."""


@dataclass(frozen=True)
class SevenScenes(Reader):
    """7-Scenes, tsdf-fusion, 3DMatch: frame-XXXXXX.color, .depth, .pose, one or many seq-XX.

    Poses are the depth camera's (KinectFusion tracked it), camera to world.
    """

    expects: ClassVar[str] = (
        "frame-000000.color.png|jpg, .depth.png and .pose.txt, here or in seq-XX/, "
        f"with {INTRINSICS}"
    )

    color_K: tuple[float, float, float, float] | None = None
    """fx fy cx cy of the colour camera; unset: camera-intrinsics.txt, else 525 525 320 240."""
    depth_K: tuple[float, float, float, float] | None = None
    """fx fy cx cy of the depth camera; unset: camera-intrinsics.txt, else 585 585 320 240."""
    depth_from_color: tuple[float, ...] = ()
    """4x4, row by row: from the colour to the depth camera's frame; unset: identity."""
    depth_scale: float = 1000.0
    """Stored depth units per metre."""
    depth_max: float | None = None
    """Depth beyond this many metres is treated as missing."""

    def matches(self, path: Path) -> bool:
        """Whether there are frames of this layout, poses included."""
        return path.is_dir() and _folder(path) is not None

    def read(self, path: Path) -> Scene:
        """The scene; InputError where files are missing for most of the frames."""
        folder = _folder(path)
        if folder is None:
            raise InputError(f"{path}: expected {self.expects}; found: {contents(path)}")
        pattern = f"{folder}frame-*"
        suffix = next(s for s in ("png", "jpg") if any_match(path, f"{pattern}.color.{s}"))
        patterns = [f"{pattern}.{kind}" for kind in (f"color.{suffix}", "depth.png", "pose.txt")]
        images, depth, pose_files = (collect(path, each) for each in patterns)
        keys, skipped = complete(
            path, (patterns[0], images), (patterns[1], depth), (patterns[2], pose_files)
        )
        stored, unreadable = read_files(pose_files, {key: images[key] for key in keys})
        poses, unusable = posed(stored, {key: images[key].name for key in stored})
        skipped += unreadable + unusable
        color_size = first_size(found.path for found in images.values())
        depth_size = first_size(found.path for found in depth.values())
        color_K, depth_K, note = self._intrinsics(path)
        color, measured = Camera(color_K, *color_size), Camera(depth_K, *depth_size)
        depth_from_color = rigid_option(self.depth_from_color, "depth_from_color")
        registered = (
            color_size == depth_size
            and np.allclose(color_K, depth_K)
            and np.allclose(depth_from_color, np.eye(4))
        )
        code = DepthCode(self.depth_scale, invalid=(65535.0,), max_metres=self.depth_max)
        views = []
        for key, world_from_depth in poses.items():
            views.append(
                View(
                    name=images[key].name,
                    camera=color.at(world_from_depth @ depth_from_color),
                    load_image=partial(read_color, images[key].path),
                    load_depth=partial(read_depth, depth[key].path, code),
                    depth_camera=None if registered else measured.at(world_from_depth),
                )
            )
        return finish(path, views, skipped, f"reader seven-scenes at {path}", [note])

    def _intrinsics(self, path: Path) -> tuple[np.ndarray, np.ndarray, str | None]:
        """K of colour and of depth, and a note where they are assumed."""
        # One sequence of a scan uses the file of the complete scan, one folder up.
        homes = [home for home in (path, path.parent) if (home / INTRINSICS).is_file()]
        shared = read_intrinsics(homes[0], INTRINSICS)[0] if homes else None
        color = pinhole(self.color_K, "color_K") if self.color_K else shared
        depth = pinhole(self.depth_K, "depth_K") if self.depth_K else shared
        assumed = []
        if color is None:
            color = pinhole(NOMINAL_COLOR, "nominal")
            assumed.append("525 px for colour")
        if depth is None:
            depth = pinhole(NOMINAL_DEPTH, "nominal")
            assumed.append("585 px for depth")
        if not assumed:
            return color, depth, None
        return (
            color,
            depth,
            f"no {INTRINSICS}: assumed the Kinect's nominal {' and '.join(assumed)}; labels may "
            "be some pixels off; set color_K, depth_K and depth_from_color",
        )


def _folder(path: Path) -> str | None:
    """The first of `FOLDERS` that contains frames with poses."""
    for folder in FOLDERS:
        if any_match(path, f"{folder}frame-*.color.*") and any_match(
            path, f"{folder}frame-*.pose.txt"
        ):
            return folder
    return None
