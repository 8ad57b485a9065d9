"""Reader for Polycam's raw data: keyframes with depth, confidence and poses.

Layout and units are from the data specification in the README of PolyCam/polyform.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from lift3d.datasets.captures import Capture, Shot, intrinsics_of, numbers_of, size_of
from lift3d.datasets.frames import complete
from lift3d.datasets.images import DepthCode
from lift3d.datasets.patterns import any_match, collect, contents
from lift3d.scene import Scene, Skipped, Transform
from lift3d.scene.errors import InputError
from lift3d.scene.guarded.json_file import load_json
from lift3d.scene.protocols import Reader

KEYS = [f"t_{row}{column}" for row in range(3) for column in range(4)]


@dataclass(frozen=True)
class Polycam(Reader):
    """Polycam's raw export ("raw data", developer mode), of a phone with LiDAR.

    Optimized poses and undistorted pictures (corrected_cameras/, corrected_images/) are used where
    they are there.
    """

    expects: ClassVar[str] = "keyframes/ with images/, cameras/ and depth/ (Polycam's raw data)"

    depth_max: float | None = None
    """Depth beyond this many metres is treated as missing. The sensor reaches 5 m."""
    corrected: bool = True
    """Use the optimized poses and undistorted pictures where they are there."""

    def matches(self, path: Path) -> bool:
        """Whether there are keyframes with cameras."""
        return _home(path) is not None

    def read(self, path: Path) -> Scene:
        """The scene; InputError where most frames are incomplete."""
        home = _home(path)
        if home is None:
            raise InputError(f"{path}: expected {self.expects}; found: {contents(path)}")
        better = self.corrected and all(
            any_match(home, pattern) for pattern in ("corrected_images/*", "corrected_cameras/*")
        )
        start = "corrected_" if better else ""
        images = collect(home, f"{start}images/*")
        cameras = collect(home, f"{start}cameras/*.json")
        depth, confidence = collect(home, "depth/*"), collect(home, "confidence/*")
        others = [(f"{start}cameras/*.json", cameras)] + ([("depth/*", depth)] if depth else [])
        keys, skipped = complete(home, (f"{start}images/*", images), *others)
        shots, size = [], None
        for key in keys:
            file = cameras[key].path
            try:
                content = load_json(file, kind=dict)
                shots.append(
                    Shot(
                        images[key].name,
                        images[key].path,
                        intrinsics_of(content, file),
                        _pose(content, file),
                        depth[key].path if depth else None,
                        confidence[key].path if key in confidence else None,
                    )
                )
                size = size_of(content, ("width", "height"), file)
            except InputError as error:
                skipped.append(Skipped(images[key].name, f"its camera cannot be read: {error}"))
        code = DepthCode(max_metres=self.depth_max)
        capture = Capture(path, "polycam", opengl=True, code=code, full=255.0, size=size)
        notes = [
            None
            if better or not self.corrected
            else "no corrected_cameras: poses are those of "
            "ARKit, which drift; process the capture in Polycam with Loop Closure for better ones",
            None if depth else "there is no depth: it has to be reconstructed",
        ]
        return capture.scene(shots, skipped, notes)


def _home(path: Path) -> Path | None:
    """The folder of keyframes: `path/keyframes` or `path` itself."""
    for home in (path / "keyframes", path):
        for start in ("", "corrected_"):
            patterns = (f"{start}images/*", f"{start}cameras/*.json")
            if all(any_match(home, pattern) for pattern in patterns):
                return home
    return None


def _pose(content: dict[str, object], where: Path) -> Transform:
    """The matrix stored as t_00 to t_23, by rows."""
    pose = np.eye(4)
    pose[:3] = np.array([numbers_of(content, key, 1, where)[0] for key in KEYS]).reshape(3, 4)
    return pose
