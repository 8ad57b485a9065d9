"""Reader for 3RScan, and for .sens files exported by ScanNet's C++ tool, which are laid out alike.

From WaldJohannaU/3RScan (sequence.cc): `_info.txt` has sizes, intrinsics and the depth shift; poses
are world_from_camera with OpenCV's axes; depth is 16-bit PGM. Its names are almost those of
7-Scenes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from lift3d.datasets.frames import complete, extrinsic, finish, first_size, posed
from lift3d.datasets.images import DepthCode, read_color, read_depth
from lift3d.datasets.intrinsics import Size, fit, pinhole
from lift3d.datasets.patterns import any_match, collect, contents
from lift3d.datasets.poses import matrix4, numbers
from lift3d.datasets.rgbd_poses import read_files
from lift3d.scene import Camera, Scene, Transform, View
from lift3d.scene.errors import InputError
from lift3d.scene.guarded import load_text
from lift3d.scene.protocols import Reader

INFO = ("_info.txt", "info.txt")
INSIDE = ("", "sequence")
COLOR = ("frame-*.color.jpg", "frame-*.color.png")
DEPTH = ("frame-*.depth.pgm", "frame-*.depth.png")
POSE = "frame-*.pose.txt"


@dataclass(frozen=True)
class Rscan(Reader):
    """3RScan: frame-*.color.jpg, .depth.pgm, .pose.txt and _info.txt, here or in sequence/."""

    expects: ClassVar[str] = (
        "frame-*.color.jpg, .depth.pgm, .pose.txt and _info.txt, here or in sequence/ (3RScan)"
    )

    depth_max: float | None = None
    """Depth beyond this many metres is treated as missing."""

    def matches(self, path: Path) -> bool:
        """Whether there are frames beside an _info.txt."""
        return _home(path) is not None

    def read(self, path: Path) -> Scene:
        """The scene; InputError where files are missing for most of the frames."""
        home = _home(path)
        if home is None:
            raise InputError(f"{path}: expected {self.expects}; found: {contents(path)}")
        info = next(home / name for name in INFO if (home / name).is_file())
        facts = _facts(info)
        color, depth = (
            next((each for each in patterns if any_match(home, each)), patterns[0])
            for patterns in (COLOR, DEPTH)
        )
        images, maps, pose_files = (collect(home, each) for each in (color, depth, POSE))
        keys, skipped = complete(home, (color, images), (depth, maps), (POSE, pose_files))
        stored, unreadable = read_files(pose_files, {key: images[key] for key in keys})
        poses, unusable = posed(stored, {key: images[key].name for key in stored})
        color_camera, color_from, color_notes = _camera(
            facts, "Color", first_size(found.path for found in images.values()), info
        )
        depth_camera, depth_from, depth_notes = _camera(
            facts, "Depth", first_size(found.path for found in maps.values()), info
        )
        same = (color_camera.width, color_camera.height) == (
            depth_camera.width,
            depth_camera.height,
        )
        same = same and np.allclose(color_camera.K, depth_camera.K)
        registered = same and np.allclose(color_from, depth_from)
        scale = float(numbers(facts.get("m_depthShift", "1000"), f"{info} m_depthShift")[0])
        if not scale > 0:
            raise InputError(f"{info}: m_depthShift is {scale:g}; expected a number above 0")
        code = DepthCode(scale, max_metres=self.depth_max)
        views = [
            View(
                name=images[key].name,
                camera=color_camera.at(pose @ color_from),
                load_image=partial(read_color, images[key].path),
                load_depth=partial(read_depth, maps[key].path, code),
                depth_camera=None if registered else depth_camera.at(pose @ depth_from),
            )
            for key, pose in poses.items()
        ]
        skipped += unreadable + unusable
        notes = [*color_notes, *depth_notes]
        return finish(path, views, skipped, f"reader 3rscan at {path}", notes)


def _home(path: Path) -> Path | None:
    """The folder of the frames and of _info.txt."""
    for home in (path / place for place in INSIDE):
        frames = any(any_match(home, each) for each in COLOR) and any_match(home, POSE)
        if frames and any((home / name).is_file() for name in INFO):
            return home
    return None


def _facts(path: Path) -> dict[str, str]:
    """The lines `key = value`."""
    pairs = (line.partition("=") for line in load_text(path).splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs if value.strip()}


def _camera(
    facts: dict[str, str], kind: str, size: Size, path: Path
) -> tuple[Camera, Transform, list[str | None]]:
    """A camera, its extrinsic in the rig, and notes. `kind` is Color or Depth."""
    key = f"m_calibration{kind}Intrinsic"
    if key not in facts:
        raise InputError(f"{path} has no {key}; copy the scan again")
    K = pinhole(numbers(facts[key], f"{path} {key}"), f"{path} {key}")
    small = kind.lower()
    sides = [facts.get(f"m_{small}{side}", "").split() for side in ("Width", "Height")]
    made_for = None
    if all(len(side) == 1 and side[0].isdigit() for side in sides):
        made_for = int(sides[0][0]), int(sides[1][0])
    camera, note = fit(K, made_for, size, "colour" if small == "color" else small)
    stored = facts.get(f"m_calibration{kind}Extrinsic")
    matrix = matrix4(numbers(stored, f"{path} {kind}"), f"{path} {kind}") if stored else None
    pose, ignored = extrinsic(matrix, small)
    return camera, pose, [note, ignored]
