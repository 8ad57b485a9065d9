"""Known captures: the RGB-D folder reader with other defaults. A new one is a class here and a line
in `READERS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from lift3d.datasets.rgbd_folder import RgbdFolder

Numbers = tuple[float, float, float, float]


@dataclass(frozen=True)
class Hololens(RgbdFolder):
    """HoloLens captures of deep-video-mvs."""

    recipe: ClassVar[str] = "hololens"
    expects: ClassVar[str] = (
        "images/*.png, depth/*.png, poses.txt (one flattened 4x4 a line) and K.txt"
    )
    guesses: ClassVar[bool] = False

    images: str = "images/*.png"
    depth: str = "depth/*.png"
    poses: str = "poses.txt"
    pose_format: Literal["files", "rows", "log", "headed", "tum"] = "rows"
    intrinsics: str = "K.txt"


@dataclass(frozen=True)
class HololensSubset(Hololens):
    """The same with only some of the images; an index has the row in poses.txt of each image."""

    recipe: ClassVar[str] = "hololens-subset"
    expects: ClassVar[str] = (
        "the files of hololens, and frame_index.txt with the row in poses.txt of each image"
    )

    frame_index: str = "frame_index.txt"


@dataclass(frozen=True)
class ApcShelf(RgbdFolder):
    """Amazon Picking Challenge, Princeton: a RealSense F200 on a robot arm.

    Depth in 0.1 mm is stored rotated by three bits; beyond 2 m the sensor gives only errors.
    """

    recipe: ClassVar[str] = "apc-shelf"
    expects: ClassVar[str] = "frame-*.color.png, frame-*.depth.png and cam.info.txt"
    guesses: ClassVar[bool] = False

    images: str = "frame-*.color.png"
    depth: str = "frame-*.depth.png"
    instances: str = "segm/frame-*.segm.png"
    instances_divide: int = 6
    poses: str = "cam.info.txt"
    pose_format: Literal["files", "rows", "log", "headed", "tum"] = "headed"
    intrinsics: str = "cam.info.txt#Color camera intrinsic matrix"
    depth_scale: float | None = 10000.0
    depth_rotate_right: int = 3
    depth_max: float | None = 2.0


@dataclass(frozen=True)
class Open3dTrajectory(RgbdFolder):
    """Open3D's reconstruction system: its input beside its output trajectory."""

    recipe: ClassVar[str] = "open3d-trajectory"
    expects: ClassVar[str] = "image/*.jpg, depth/*.png, trajectory.log and camera_primesense.json"
    guesses: ClassVar[bool] = False

    images: str = "image/*.jpg"
    depth: str = "depth/*.png"
    poses: str = "trajectory.log"
    pose_format: Literal["files", "rows", "log", "headed", "tum"] = "log"
    intrinsics: str = "camera_primesense.json"


@dataclass(frozen=True)
class Tum(RgbdFolder):
    """TUM RGB-D, with the driver's default K, which depth was registered with, as advised there."""

    recipe: ClassVar[str] = "tum"
    expects: ClassVar[str] = (
        "rgb/*.png, depth/*.png and groundtruth.txt (time tx ty tz qx qy qz qw)"
    )
    guesses: ClassVar[bool] = False

    images: str = "rgb/*.png"
    depth: str = "depth/*.png"
    poses: str = "groundtruth.txt"
    pose_format: Literal["files", "rows", "log", "headed", "tum"] = "tum"
    K: Numbers | None = (525.0, 525.0, 319.5, 239.5)
    depth_scale: float | None = 5000.0


@dataclass(frozen=True)
class Replica(RgbdFolder):
    """Replica as rendered for iMAP and NICE-SLAM: 1200x680, 90 degrees horizontally."""

    recipe: ClassVar[str] = "replica"
    expects: ClassVar[str] = (
        "results/frame*.jpg, results/depth*.png and traj.txt (one flattened 4x4 a line)"
    )
    guesses: ClassVar[bool] = False

    images: str = "results/frame*.jpg"
    depth: str = "results/depth*.png"
    poses: str = "traj.txt"
    pose_format: Literal["files", "rows", "log", "headed", "tum"] = "rows"
    K: Numbers | None = (600.0, 600.0, 599.5, 339.5)
    depth_scale: float | None = 6553.5
