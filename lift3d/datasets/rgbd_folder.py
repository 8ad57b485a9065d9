"""Reader for any folder of colour, depth and poses; options describe layout and encoding."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from lift3d.datasets import rgbd_poses
from lift3d.datasets.frames import complete, finish, first_size, posed
from lift3d.datasets.images import DepthCode, read_color, read_confidence, read_depth, read_labels
from lift3d.datasets.intrinsics import Size, fit, pinhole, read_intrinsics
from lift3d.datasets.patterns import Files, any_match, collect, contents, near
from lift3d.datasets.poses import rigid_option
from lift3d.scene import Camera, Scene, View, invert
from lift3d.scene.errors import InputError, option_words
from lift3d.scene.guarded.json_file import load_json
from lift3d.scene.protocols import Reader
from lift3d.scene.typed import checked

OPTIONS = "rgbd.json"
"""A folder with this file is read with the options in it."""
NAMES_FILES = {
    *("images", "depth", "confidence", "instances", "poses", "frame_index", "intrinsics"),
}
"""The options that name files; written on Windows, they have backslashes."""


@dataclass(frozen=True)
class RgbdFolder(Reader):
    """One folder with images, depth maps and poses. Patterns are relative to it.

    The text that the stars of a pattern match is the frame's key: files with the same key belong
    to one frame (numbers by value: 7 is 0007).
    """

    expects: ClassVar[str] = (
        "images, depth and poses laid out as the options say (reader:rgbd --help)"
    )

    guesses: ClassVar[bool] = True
    recipe: ClassVar[str] = ""
    """Name of a known capture, shown as the source."""

    images: str = "color/*"
    """Colour images."""
    depth: str = "depth/*"
    """Depth maps along z: 16-bit PNG, float TIFF, EXR or .npy; empty where there are none."""
    confidence: str = ""
    """Confidence maps of the depth."""
    instances: str = ""
    """True instance ids, at colour resolution."""
    poses: str = "pose/*.txt"
    """One pose file per frame (a pattern), or one file with all poses."""
    pose_format: Literal["files", "rows", "log", "headed", "tum"] = "files"
    """files: a 4x4 each; rows: one flattened 4x4 per line, i-th line for the i-th image;
    log: Open3D's trajectory, a pose's first number is the frame; headed: 4x4 under a line
    `# ... <view name>`; tum: `time tx ty tz qx qy qz qw`, images are named by their time."""
    pose_convention: Literal["world_from_camera", "camera_from_world"] = "world_from_camera"
    """Direction of the stored matrices."""
    pose_axes: Literal["opencv", "opengl"] = "opencv"
    """opencv: x right, y down, z forward; opengl: x right, y up, z backward."""
    frame_index: str = ""
    """For `rows`: a file with `row filename` lines, where some rows have no image."""
    time_tolerance: float = 0.02
    """For `tum`: an image takes the nearest pose and depth within this many seconds."""
    intrinsics: str = "intrinsics.txt"
    """File: fx fy cx cy, a 3x3 or 4x4 matrix, or Open3D's JSON; `file#heading` for a heading."""
    K: tuple[float, float, float, float] | None = None
    """fx fy cx cy instead of the file; pixel (0, 0) is the centre of the top-left pixel."""
    distortion: tuple[float, ...] = ()
    """OpenCV's k1 k2 p1 p2 k3 of the colour images; empty where they are undistorted."""
    depth_K: tuple[float, float, float, float] | None = None
    """fx fy cx cy of a separate depth camera; unset where depth is registered to colour."""
    depth_from_color: tuple[float, ...] = ()
    """4x4, row by row: from the colour to the depth camera's frame. Poses are those of colour."""
    depth_scale: float | None = None
    """Stored units per metre; unset: 1000 for whole numbers, 1 for floating-point numbers."""
    depth_invalid: tuple[float, ...] = ()
    """Stored values that mean missing, besides 0 and NaN."""
    depth_rotate_right: int = 0
    """Bits by which 16-bit depth values are rotated right before scaling."""
    depth_max: float | None = None
    """Depth beyond this many metres is treated as missing."""
    confidence_full: float = 255.0
    """The stored confidence that means 1."""
    instances_divide: int = 1
    """Stored instance values are divided by this."""
    metric: bool = True
    """Whether depth and poses are in metres after scaling."""

    def __post_init__(self) -> None:
        for option in ("depth_scale", "confidence_full", "instances_divide"):
            value = getattr(self, option)
            if value is not None and value <= 0:
                raise InputError(f"option {option} is {value}; expected above 0")

    def matches(self, path: Path) -> bool:
        """Whether the files that these options need exist, except confidence and instances."""
        if not path.is_dir():
            return False
        named = [self.images, self.depth, self.poses, self.frame_index]
        named += ["" if self.K else self.intrinsics.partition("#")[0]]
        return all(any_match(path, pattern) for pattern in named if pattern)

    def read(self, path: Path) -> Scene:
        """The scene; InputError where the folder does not match the options."""
        images = self._collect(path, self.images)
        depth = self._collect(path, self.depth) if self.depth else {}
        if self.pose_format == "tum" and depth:
            depth = rgbd_poses.by_time(images, depth, self.time_tolerance)
        confidence = collect(path, self.confidence) if self.confidence else {}
        instances = collect(path, self.instances) if self.instances else {}
        stored, skipped = rgbd_poses.find(self, path, images)
        wanted: list[tuple[str, Any]] = [(self.poses, stored), (self.depth, depth)]
        unreadable = {frame.name for frame in skipped}
        readable = {key: f for key, f in images.items() if f.name not in unreadable}
        keys, incomplete = complete(path, (self.images, readable), *(w for w in wanted if w[0]))
        poses, unusable = posed(
            {key: stored[key] for key in keys},
            {key: images[key].name for key in keys},
            inverted=self.pose_convention == "camera_from_world",
            opengl=self.pose_axes == "opengl",
        )
        skipped += incomplete + unusable
        color_camera, depth_camera, notes = self._cameras(path, images, depth)
        for pattern, files in ((self.confidence, confidence), (self.instances, instances)):
            if pattern and not files:
                notes.append(f"no {pattern} found: going without")
        color_from_depth = invert(rigid_option(self.depth_from_color, "depth_from_color"))
        code = self.depth_code
        views = []
        for key, pose in poses.items():
            views.append(
                View(
                    name=images[key].name,
                    camera=color_camera.at(pose),
                    load_image=partial(read_color, images[key].path),
                    load_depth=partial(read_depth, depth[key].path, code) if depth else None,
                    depth_camera=depth_camera and depth_camera.at(pose @ color_from_depth),
                    load_confidence=partial(
                        read_confidence, confidence[key].path, self.confidence_full
                    )
                    if key in confidence
                    else None,
                    load_instances=partial(read_labels, instances[key].path, self.instances_divide)
                    if key in instances
                    else None,
                )
            )
        source = f"recipe {self.recipe} (rgbd folder)" if self.recipe else "reader rgbd"
        return finish(path, views, skipped, f"{source} at {path}", notes, self.metric)

    @property
    def depth_code(self) -> DepthCode:
        """How depth is stored."""
        return DepthCode(
            self.depth_scale, self.depth_invalid, self.depth_rotate_right, self.depth_max
        )

    def _collect(self, path: Path, pattern: str) -> Files:
        files = collect(path, pattern)
        if not files:
            raise InputError(
                f"{path} has no {pattern} (found: {contents(path)}){near(path, pattern)}; "
                f"give the names of the files in {path / OPTIONS} or by options such as "
                f"{option_words('rgbd', 'images', repr(pattern))}"
            )
        return files

    def _cameras(
        self, path: Path, images: Files, depth: Files
    ) -> tuple[Camera, Camera | None, list[str | None]]:
        """Colour camera, depth camera where it differs, and notes about them."""
        made_for: Size | None = None
        if self.K:
            K = pinhole(self.K, "option K")
        else:
            K, made_for = read_intrinsics(path, self.intrinsics)
        size = first_size(found.path for found in images.values())
        color, note = fit(K, made_for or size, size, "colour", self.distortion)
        if not depth:
            return color, None, [note, "there is no depth: it has to be reconstructed"]
        depth_size = first_size(found.path for found in depth.values())
        if self.depth_K:
            return color, Camera(pinhole(self.depth_K, "option depth_K"), *depth_size), [note]
        if self.depth_from_color:
            raise InputError("depth_from_color needs depth_K: the depth camera's fx fy cx cy")
        if depth_size == size:
            return color, None, [note]
        if abs(depth_size[0] * size[1] / (depth_size[1] * size[0]) - 1) > 0.02:
            raise InputError(
                f"{path}: colour is {size[0]}x{size[1]} and depth {depth_size[0]}x{depth_size[1]}, "
                "not the same picture at another size; give depth_K (and depth_from_color)"
            )
        assumed = (
            f"depth is {depth_size[0]}x{depth_size[1]}, colour {size[0]}x{size[1]}: depth is "
            "taken as registered to colour at its own size"
        )
        return color, color.resized(*depth_size), [note, assumed]


def from_file(path: Path) -> RgbdFolder:
    """Options from an `rgbd.json`: the fields of `RgbdFolder`, any subset of them."""
    given = load_json(path)
    if isinstance(given, dict):
        for name in NAMES_FILES & given.keys():
            if isinstance(given[name], str):
                given[name] = given[name].replace("\\", "/")
    return checked(RgbdFolder, given, str(path))


@dataclass(frozen=True)
class DescribedFolder(Reader):
    """A folder whose `rgbd.json` describes the layout of its images, depth and poses."""

    expects: ClassVar[str] = f"a folder with {OPTIONS}, in it the options of the reader rgbd"

    def matches(self, path: Path) -> bool:
        """Whether the file exists."""
        return (path / OPTIONS).is_file()

    def read(self, path: Path) -> Scene:
        """The scene; InputError where the file cannot be read or does not match the folder."""
        return from_file(path / OPTIONS).read(path)
