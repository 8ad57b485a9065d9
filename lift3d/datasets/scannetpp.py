"""Reader for a scene of ScanNet++: the iPhone's frames, or the DSLR's undistorted pictures.

The layout is that of scannetpp/scannetpp (common/scene_release.py). iPhone: rgb/frame_000000.jpg,
depth/frame_000000.png in millimetres, and pose_intrinsic_imu.json, whose `aligned_pose` is
world_from_camera with OpenCV's axes (iphone/arkit_pcl.py). DSLR: the toolkit's
nerfstudio/transforms_undistorted.json; the released pictures are of a fisheye lens.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from lift3d.datasets.captures import Capture, Shot, from_corner, numbers_of
from lift3d.datasets.intrinsics import pinhole
from lift3d.datasets.patterns import any_match, collect, contents
from lift3d.datasets.transforms_json import TransformsJson
from lift3d.scene import Scene, Skipped
from lift3d.scene.errors import InputError, option_words
from lift3d.scene.guarded.json_file import load_json
from lift3d.scene.protocols import Reader

IPHONE, IMU = "iphone", "pose_intrinsic_imu.json"
UNDISTORTED = "dslr/nerfstudio/transforms_undistorted.json"
FISHEYE = "dslr/nerfstudio/transforms.json"
PICTURES = ("undistorted_images", "resized_undistorted_images")


@dataclass(frozen=True)
class ScanNetPP(Reader):
    """A scene of ScanNet++, the folder that has dslr/, iphone/ and scans/."""

    expects: ClassVar[str] = (
        f"iphone/rgb/, iphone/depth/ and iphone/{IMU}, or {UNDISTORTED} (ScanNet++)"
    )

    camera: Literal["auto", "iphone", "dslr"] = "auto"
    """Whose pictures; auto: the iPhone's, which have depth, where they were extracted."""

    def matches(self, path: Path) -> bool:
        """Whether there are cameras of the iPhone or of the DSLR."""
        home = path if (path / IMU).is_file() else path / IPHONE
        return (home / IMU).is_file() or any(
            (path / name).is_file() for name in (UNDISTORTED, FISHEYE)
        )

    def read(self, path: Path) -> Scene:
        """The scene; InputError, with the toolkit's commands, where no picture was extracted."""
        home = path if (path / IMU).is_file() else path / IPHONE
        extracted = any_match(home, "rgb/*.jpg")
        if self.camera == "iphone" or (self.camera == "auto" and extracted):
            if not extracted or not (home / IMU).is_file():
                raise InputError(f"{_lacking(path)}; found: {contents(home)}")
            return _iphone(path, home)
        file = path / UNDISTORTED
        folder = next((file.parents[1] / each for each in PICTURES if _there(file, each)), None)
        if not file.is_file() or folder is None:
            raise InputError(f"{_lacking(path)}; found: {contents(path)}")
        scene = TransformsJson(images=folder, metric=True).read(file)
        source = f"reader scannetpp (DSLR) at {path}"
        return dataclasses.replace(scene, source=source, name=path.resolve().name)


def _there(file: Path, folder: str) -> bool:
    return (file.parents[1] / folder).is_dir()


def _lacking(path: Path) -> str:
    scene = path.resolve().name
    return (
        f"{path} is a scene of ScanNet++ whose pictures lift3d cannot read yet. With its toolkit "
        f"(github.com/scannetpp/scannetpp), {scene} being in the config, one of\n"
        "  python -m iphone.prepare_iphone_data iphone/configs/prepare_iphone_data.yml\n"
        "  python -m dslr.undistort dslr/configs/undistort.yml\n"
        f"extracts the iPhone's frames, or undistorts the DSLR's; then lift {path} again "
        f"({option_words('scannetpp', 'camera', 'dslr')} for the DSLR)"
    )


def _iphone(path: Path, home: Path) -> Scene:
    """The frames of the iPhone."""
    images, depth = collect(home, "rgb/*"), collect(home, "depth/*")
    file = home / IMU
    cameras = load_json(file, kind=dict)
    shots, skipped, raw = [], [], 0
    for key, found in images.items():
        camera = cameras.get(found.name)
        if not isinstance(camera, dict):
            skipped.append(Skipped(found.name, f"{file.name} has no camera of it"))
            continue
        if depth and key not in depth:
            skipped.append(Skipped(found.name, "nothing for it in depth/*"))
            continue
        pose = "aligned_pose" if "aligned_pose" in camera else "pose"
        raw += pose == "pose"
        try:
            shots.append(
                Shot(
                    found.name,
                    found.path,
                    from_corner(pinhole(numbers_of(camera, "intrinsic", 9, file), str(file))),
                    numbers_of(camera, pose, 16, file).reshape(4, 4),
                    depth[key].path if depth else None,
                )
            )
        except InputError as error:
            skipped.append(Skipped(found.name, str(error)))
    notes = [
        f"{raw} frames have no aligned_pose: ARKit's own poses are not those of the laser scan"
        if raw
        else None,
        None if depth else "there is no depth: it has to be reconstructed",
    ]
    scene = Capture(path, "scannetpp", opengl=False).scene(shots, skipped, notes)
    return dataclasses.replace(scene, source=f"reader scannetpp (iPhone) at {path}")
