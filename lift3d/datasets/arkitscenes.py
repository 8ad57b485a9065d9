"""Reader for scans of ARKitScenes.

Layout, units and directions are from tenFpsDataLoader.py of apple/ARKitScenes:
pictures, depth and intrinsics are named `<video>_<seconds>`; a line of the trajectory has the time,
a rotation vector and a translation, camera_from_world with OpenCV's axes; depth is in millimetres.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from lift3d.datasets.captures import Capture, Shot, from_corner
from lift3d.datasets.images import DepthCode
from lift3d.datasets.intrinsics import pinhole
from lift3d.datasets.patterns import Files, any_match, collect, contents
from lift3d.datasets.poses import nearest, numbers
from lift3d.scene import Scene, Skipped, invert
from lift3d.scene.errors import InputError
from lift3d.scene.guarded import load_text
from lift3d.scene.protocols import Reader

TRAJECTORY = "lowres_wide.traj"
CAMERAS = ("lowres_wide", "vga_wide", "wide")
"""Folders of pictures of the wide camera, in three sizes; depth is registered to each."""


@dataclass(frozen=True)
class ArkitScenes(Reader):
    """A scan of ARKitScenes: the folder of a video, raw or of 3D object detection."""

    expects: ClassVar[str] = (
        "lowres_wide/, lowres_depth/, lowres_wide_intrinsics/ and lowres_wide.traj (ARKitScenes)"
    )

    time_tolerance: float = 0.01
    """A picture takes the nearest pose, depth and intrinsics within this many seconds."""
    depth_max: float | None = None
    """Depth beyond this many metres is treated as missing. The sensor reaches 5 m."""

    def matches(self, path: Path) -> bool:
        """Whether there are a trajectory and pictures."""
        return _home(path) is not None

    def read(self, path: Path) -> Scene:
        """The scene; InputError where files cannot be read."""
        home = _home(path)
        if home is None:
            raise InputError(f"{path}: expected {self.expects}; found: {contents(path)}")
        camera = next(name for name in CAMERAS if any_match(home, f"{name}/*"))
        times, poses = _trajectory(home / TRAJECTORY)
        images = _timed(collect(home, f"{camera}/*"))
        depth, sure = _timed(collect(home, "lowres_depth/*")), _timed(collect(home, "confidence/*"))
        lenses = _timed(collect(home, f"{camera}_intrinsics/*.pincam"))
        shots, skipped, bare = [], [], 0
        for time, (name, image) in images.items():
            place = nearest(times, time, self.time_tolerance)
            if place is None:
                bare += 1  # pictures are more frequent than poses
                continue
            near = {
                what: self._near(files, time)
                for what, files in (("depth", depth), ("intrinsics", lenses), ("", sure))
            }
            lacking = [what for what in ("depth", "intrinsics") if near[what] is None]
            if lacking:
                skipped.append(Skipped(name, f"no {' and no '.join(lacking)} near its time"))
                continue
            lens = near["intrinsics"]
            assert lens is not None
            try:
                values = numbers(load_text(lens), str(lens))
                K = from_corner(pinhole(values[2:], str(lens)))  # width, height, fx fy cx cy
            except InputError as error:
                skipped.append(Skipped(name, str(error)))
                continue
            shots.append(Shot(name, image, K, poses[place], near["depth"], near[""]))
        capture = Capture(
            path, "arkitscenes", opengl=False, code=DepthCode(max_metres=self.depth_max)
        )
        note = f"{bare} pictures have no pose near their time and are not used" if bare else None
        return capture.scene(shots, skipped, [note])

    def _near(self, files: dict[float, tuple[str, Path]], time: float) -> Path | None:
        times = np.array(list(files))
        found = nearest(times, time, self.time_tolerance) if len(times) else None
        return None if found is None else files[float(times[found])][1]


def _home(path: Path) -> Path | None:
    """The folder with the trajectory: here, or the one called <video>_frames."""
    homes = [path, *sorted(path.glob("*_frames"))] if path.is_dir() else []
    for home in homes:
        there = any(any_match(home, f"{name}/*") for name in CAMERAS)
        if there and (home / TRAJECTORY).is_file():
            return home
    return None


def _timed(files: Files) -> dict[float, tuple[str, Path]]:
    """Time -> name and file, ascending; a name is `<video>_<seconds>`."""
    found = {}
    for each in files.values():
        word = each.path.stem.rpartition("_")[2]
        try:
            found[float(word)] = (each.path.stem, each.path)
        except ValueError as error:
            raise InputError(f"{each.path} is not named <video>_<seconds>") from error
    return dict(sorted(found.items()))


def _trajectory(
    path: Path,
) -> tuple[Float64[np.ndarray, " poses"], Float64[np.ndarray, "poses 4 4"]]:
    """Times, ascending, and world_from_camera."""
    import cv2

    values = numbers(load_text(path), str(path))
    if len(values) % 7 or not len(values):
        raise InputError(f"{path}: found {len(values)} numbers; a trajectory has 7 a line")
    table = values.reshape(-1, 7)
    table = table[np.argsort(table[:, 0], kind="stable")]
    poses = np.tile(np.eye(4), (len(table), 1, 1))
    for pose, row in zip(poses, table, strict=True):
        camera_from_world = np.eye(4)
        camera_from_world[:3, :3] = cv2.Rodrigues(row[1:4])[0]
        camera_from_world[:3, 3] = row[4:]
        pose[:] = invert(camera_from_world)
    return table[:, 0], poses
