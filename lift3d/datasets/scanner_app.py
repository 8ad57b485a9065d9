"""Reader for 3D Scanner App's "all data" export.

The layout is that of the samples in hyunJIN7/3dScannerApp_samples: per frame frame_00000.json with
`intrinsics` (3x3 by rows, for the picture) and `cameraPoseARFrame` (4x4 by rows, ARKit's axes),
depth_00000.png in millimetres and conf_00000.png; only some frames have a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from lift3d.datasets.captures import Capture, Shot, from_corner, numbers_of
from lift3d.datasets.images import DepthCode
from lift3d.datasets.intrinsics import pinhole
from lift3d.datasets.patterns import any_match, collect, contents
from lift3d.scene import Scene, Skipped
from lift3d.scene.errors import InputError
from lift3d.scene.guarded.json_file import load_json
from lift3d.scene.protocols import Reader

IMAGES = ("frame_*.jpg", "frame_*.jpeg", "frame_*.png", "frame_*.heic")
POSE, LENS = "cameraPoseARFrame", "intrinsics"


@dataclass(frozen=True)
class ScannerApp(Reader):
    """3D Scanner App, exported as "all data", of a phone with LiDAR."""

    expects: ClassVar[str] = (
        "frame_*.jpg, frame_*.json and depth_*.png in one folder (3D Scanner App, all data)"
    )

    depth_max: float | None = None
    """Depth beyond this many metres is treated as missing. The sensor reaches 5 m."""

    def matches(self, path: Path) -> bool:
        """Whether there are frames with pictures and cameras."""
        return any_match(path, "frame_*.json") and _images(path) is not None

    def read(self, path: Path) -> Scene:
        """The scene; InputError where too few frames can be used."""
        pattern = _images(path)
        if pattern is None:
            raise InputError(f"{path}: expected {self.expects}; found: {contents(path)}")
        images, cameras = collect(path, pattern), collect(path, "frame_*.json")
        depth, confidence = collect(path, "depth_*.png"), collect(path, "conf_*.png")
        shots, skipped = [], []
        for key, found in images.items():
            lacking = [
                what
                for what, files in (("frame_*.json", cameras), ("depth_*.png", depth))
                if files and key not in files
            ]
            if lacking:
                skipped.append(Skipped(found.name, f"nothing for it in {' and '.join(lacking)}"))
                continue
            file = cameras[key].path
            try:
                content = load_json(file, kind=dict)
                K = pinhole(numbers_of(content, LENS, 9, file), str(file))
                pose = numbers_of(content, POSE, 16, file).reshape(4, 4)
            except InputError as error:
                skipped.append(Skipped(found.name, f"its camera cannot be read: {error}"))
                continue
            pose[3] = np.rint(pose[3])  # stored as 0.99999994
            shots.append(
                Shot(
                    found.name,
                    found.path,
                    from_corner(K),
                    pose,
                    depth[key].path if depth else None,
                    confidence[key].path if key in confidence else None,
                )
            )
        capture = Capture(
            path, "3d-scanner-app", opengl=True, code=DepthCode(max_metres=self.depth_max)
        )
        bare = len(cameras) - len(images)
        notes = [
            f"{bare} frames have no picture and are not used" if bare > 0 else None,
            None if depth else "there is no depth: it has to be reconstructed",
        ]
        return capture.scene(shots, skipped, notes)


def _images(path: Path) -> str | None:
    return next((pattern for pattern in IMAGES if any_match(path, pattern)), None)
