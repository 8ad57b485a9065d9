"""Reader for folders of Open3D's reconstruction system, and recordings exported for it.

Its sensor examples write color/, depth/ and camera_intrinsic.json (realsense_recorder.py) or
intrinsic.json (azure_kinect_mkv_reader.py, save_frames of a .bag or .mkv); the system adds the
poses in scene/trajectory.log (integrate_scene.py), one for each picture in their order.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lift3d.datasets.captures import numbers_of
from lift3d.datasets.patterns import any_match, contents
from lift3d.datasets.rgbd_folder import RgbdFolder
from lift3d.scene import Scene
from lift3d.scene.errors import InputError
from lift3d.scene.guarded.json_file import load_json
from lift3d.scene.protocols import Reader

COLOR = ("color", "image", "rgb")
INTRINSICS = ("camera_intrinsic.json", "intrinsic.json", "camera_primesense.json")
POSES = ("scene/trajectory.log", "trajectory.log")


@dataclass(frozen=True)
class Open3dSystem(Reader):
    """A recording of a RealSense, an Azure Kinect or another sensor, with Open3D's trajectory."""

    expects: ClassVar[str] = (
        "color/, depth/, camera_intrinsic.json or intrinsic.json, and scene/trajectory.log (Open3D)"
    )

    depth_scale: float | None = None
    """Stored depth units per metre; unset: `depth_scale` of the intrinsics' file, else 1000 for
    whole numbers and 1 for floating-point numbers."""
    depth_max: float | None = None
    """Depth beyond this many metres is treated as missing."""

    def matches(self, path: Path) -> bool:
        """Whether there are colour, depth and intrinsics; poses may be missing, which is told."""
        return _first(path, INTRINSICS) is not None and _color(path) is not None

    def read(self, path: Path) -> Scene:
        """The scene; InputError, with the commands that make them, where there are no poses."""
        color, intrinsics = _color(path), _first(path, INTRINSICS)
        if color is None or intrinsics is None:
            raise InputError(f"{path}: expected {self.expects}; found: {contents(path)}")
        poses = _first(path, POSES)
        if poses is None:
            raise InputError(_without_poses(path, color, intrinsics))
        folder = RgbdFolder(
            images=f"{color}/*",
            poses=poses,
            pose_format="log",
            intrinsics=intrinsics,
            depth_scale=self.depth_scale or _depth_scale(path / intrinsics),
            depth_max=self.depth_max,
        )
        return dataclasses.replace(folder.read(path), source=f"reader open3d-system at {path}")


def _depth_scale(path: Path) -> float | None:
    """The units per metre that Open3D writes when it unpacks a recording; an L515 has 4000."""
    content = load_json(path, kind=dict)
    if content.get("depth_scale") is None:
        return None
    scale = float(numbers_of(content, "depth_scale", 1, path)[0])
    if not scale > 0:
        raise InputError(f"{path}: depth_scale is {scale:g}; expected a number above 0")
    return scale


def _first(path: Path, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if (path / name).is_file()), None)


def _color(path: Path) -> str | None:
    """The folder of colour images, beside depth/."""
    if not any_match(path, "depth/*"):
        return None
    return next((name for name in COLOR if any_match(path, f"{name}/*")), None)


def _without_poses(path: Path, color: str, intrinsics: str) -> str:
    config = f'{{"path_dataset": "{path}", "path_intrinsic": "{path / intrinsics}"}}'
    return (
        f"{path} has colour and depth, but no poses ({POSES[0]}). Open3D's reconstruction system "
        "(examples/python/reconstruction_system in its source) makes them:\n"
        f"  echo '{config}' > config.json\n"
        "  python run_system.py --config config.json --make --register --refine --integrate\n"
        f"Then lift {path} again; or lift the pictures alone, without depth: {path / color}"
    )
