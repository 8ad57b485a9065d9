"""Reader for transforms.json of nerfstudio and instant-ngp: posed images, maybe depth and cloud."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lift3d.datasets.frames import finish, posed
from lift3d.datasets.images import DepthCode, image_size, read_color, read_depth
from lift3d.datasets.patterns import contents, natural
from lift3d.datasets.photos import unique_names
from lift3d.datasets.poses import fault
from lift3d.datasets.stored_names import Folders, renamed
from lift3d.geometry import orthonormal, transform
from lift3d.scene import (
    NO_OFFSET,
    Camera,
    Depth,
    Offset,
    Points,
    Scene,
    Skipped,
    Transform,
    View,
    invert,
)
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.guarded.arrays import load_npz
from lift3d.scene.guarded.json_file import finite, load_json, shown
from lift3d.scene.guarded.ply import load_ply
from lift3d.scene.local_origin import local
from lift3d.scene.protocols import Reader

FILE = "transforms.json"
SPLITS = ("train", "val", "test")
"""Parts of a data set: Blender's scenes have a file each, `transforms_train.json`; nerfstudio lists
their names in one file, under `train_filenames`."""
DEPTH_KEYS = ("depth_file_path", "depth_path")
"""The depth of a frame as nerfstudio and as instant-ngp name it."""
UNITS = ("integer_depth_scale", "depth_integer_scale")
"""Metres per stored unit in files of instant-ngp and NeRFCapture."""
PINHOLES = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "perspective")


@dataclass(frozen=True)
class TransformsJson(Reader):
    """transforms.json of nerfstudio, instant-ngp and NeRFCapture; Blender's one file a split."""

    expects: ClassVar[str] = (
        f"{FILE} (nerfstudio, instant-ngp, NeRFCapture) or transforms_train.json (Blender), with "
        "the images it names"
    )

    images: Path | None = None
    """Folder that the names of the images are relative to; unset: that of the file."""
    depth_unit_scale_factor: float | None = None
    """Metres per stored depth unit; unset: the file's `integer_depth_scale`, else 0.001 for whole
    numbers (as in nerfstudio) and 1 for floating-point numbers."""
    undo_applied_transform: bool = False
    """Apply the inverse of the file's `applied_transform` to cameras and cloud, which gives the
    capture's frame before nerfstudio. Both are stored transformed, so they agree either way."""
    metric: bool | None = None
    """Whether one unit is a metre; unset: the file's `metric` (written by `lift3d export`), else
    yes where there is dense depth, which has a unit."""

    def matches(self, path: Path) -> bool:
        """Whether this is such a file, or a folder with one."""
        return bool(_files(path))

    def read(self, path: Path) -> Scene:
        """The scene; InputError where required values are missing."""
        files = _files(path)
        if not files:
            raise InputError(f"{path}: expected {self.expects}; found: {contents(path)}")
        frames, contents_of = [], {}
        for file, split in files.items():
            contents_of[file] = content = _content(file)
            frames += _frames(file, content, split)
        first = next(iter(files))
        content = contents_of[first]
        notes = _located(frames, [self.images or first.parent])
        named = dict(zip(_names(frames), frames, strict=True))
        skipped = [Skipped(n, f.lacking) for n, f in named.items() if f.lacking]
        there = {name: frame for name, frame in named.items() if not frame.lacking}
        poses, unusable = posed(
            {name: frame.pose for name, frame in there.items()},
            {name: name for name in there},
            opengl=True,
        )
        undo = self._undo(content, first)
        views = []
        for name, world_from_camera in poses.items():
            frame = there[name]
            # Cameras are stored scaled, depth and cloud are not.
            world_from_camera[:3, 3] /= _scale(contents_of[frame.file], frame.file)
            try:
                views.append(frame.view(name, undo @ world_from_camera, self._code(frame)))
            except FrameError as error:
                skipped.append(Skipped(name, str(error)))
        metric = self.metric
        if metric is None:
            dense = any(view.load_depth and not view.sparse for view in views)
            metric = bool(content.get("metric", dense))
        source = f"reader nerfstudio at {path}"
        scene = finish(path, views, [*skipped, *unusable], source, notes, metric, _name(first))
        cloud = _text(content, "ply_file_path", str(first))
        if not cloud:
            return scene
        stored = Folders([first.parent]).find(cloud)
        if stored is None:
            return replace(scene, notes=(*scene.notes, f"{cloud} is missing: going without"))
        load = partial(read_cloud, stored, undo, scene.offset)
        return replace(scene, load_points=load)

    def _code(self, frame: _Frame) -> DepthCode:
        """How the depth of a frame is stored."""
        if self.depth_unit_scale_factor is not None:
            return DepthCode(scale=1 / self.depth_unit_scale_factor)
        key = next((key for key in UNITS if frame.values.get(key) is not None), None)
        if key is None:
            return DepthCode()
        metres = frame.number(key, 0.0)
        if not metres > 0:
            raise InputError(f"{frame.where}: {key} is {metres:g}; expected a number above 0")
        return DepthCode(whole=1 / metres)

    def _undo(self, content: Mapping[str, Any], file: Path) -> Transform:
        """The transform to apply to cameras and cloud."""
        rows = content.get("applied_transform")
        if not self.undo_applied_transform or rows is None:
            return _to_world(content, file)
        applied = _matrix(rows, f"{file}: applied_transform")
        reason = fault(applied)
        if reason:
            raise InputError(f"{file}: applied_transform cannot be undone ({reason})")
        return invert(orthonormal(applied))


class _Frame:
    """One entry of `frames`; missing values are those of the file."""

    def __init__(
        self, file: Path, content: Mapping[str, Any], frame: Any, index: int, split: str
    ) -> None:
        self.file = file
        self.where = f"{file}: frame {index}"
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise InputError(f"{self.where} has no file_path")
        own = frame.get("split")  # lift3d's export writes it
        self.split = split or (own if own in SPLITS else "")
        self.values = {**content, **frame}
        self.stored = frame["file_path"]
        self.image = file.parent / self.stored
        stored = [_text(frame, key, self.where) for key in DEPTH_KEYS]
        self.depth_name = next(filter(None, stored), "")
        self.depth = file.parent / self.depth_name if self.depth_name else None
        points = _text(frame, "sparse_depth_path", self.where)
        self.sparse = file.parent / points if points and not self.depth else None
        self.pose = _matrix(frame.get("transform_matrix"), f"{self.where}: transform_matrix")

    @property
    def lacking(self) -> str:
        """The missing file of the frame, as a reason; empty where none is missing."""
        for path in (self.image, self.depth, self.sparse):
            if path is not None and not os.path.isfile(path):
                return f"{path} is missing"
        return ""

    def view(self, name: str, world_from_camera: Transform, code: DepthCode) -> View:
        """The view; FrameError where a header cannot be read or sizes differ."""
        size = image_size(self.image)
        camera = self.camera(size).at(world_from_camera)
        depth_size, load_depth = size, None
        if self.sparse is not None:
            load_depth = partial(_sparse_depth, self.sparse)
            depth_size = self.size(size)
        if self.depth is not None:
            load_depth = partial(read_depth, self.depth, code)
            depth_size = image_size(self.depth)
        return View(
            name=name,
            camera=camera,
            load_image=partial(read_color, self.image),
            load_depth=load_depth,
            depth_camera=None if depth_size == size else camera.resized(*depth_size),
            sparse=self.sparse is not None,
            split=self.split,
        )

    def camera(self, size: tuple[int, int]) -> Camera:
        """The camera for an image of this size; stored principal points are from pixel corners."""
        model = self.values.get("camera_model", "OPENCV")
        if model not in PINHOLES or self.values.get("is_fisheye"):
            raise InputError(
                f"{self.where}: camera_model {model!r} is not a pinhole's ({', '.join(PINHOLES)}); "
                "undistort the images first"
            )
        width, height = self.size(size)
        fx = self.focal("fl_x", "camera_angle_x", width)
        fy = self.focal("fl_y", "camera_angle_y", height)
        fx, fy = fy if fx is None else fx, fx if fy is None else fy
        if fx is None or fy is None:
            raise InputError(f"{self.where}: no fl_x (or camera_angle_x), here or at the top")
        cx, cy = self.number("cx", width / 2) - 0.5, self.number("cy", height / 2) - 0.5
        K = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
        if self.number("k4", 0.0):
            raise InputError(
                f"{self.where}: k4 cannot be read, only k1 k2 p1 p2 k3; undistort the images first"
            )
        distortion = tuple(self.number(k, 0.0) for k in ("k1", "k2", "p1", "p2", "k3"))
        camera = Camera(K, width, height, distortion=distortion if any(distortion) else ())
        if (width, height) == size:
            return camera
        if abs(size[0] * height / (size[1] * width) - 1) > 0.01:
            raise FrameError(f"{self.image} is {size[0]}x{size[1]}, {FILE} says {width}x{height}")
        return camera.resized(*size)

    def focal(self, key: str, angle: str, side: int) -> float | None:
        """The focal length in pixels, from `key` or from the field of view; None without both."""
        for name in (key, angle):
            if self.values.get(name) is None:
                continue
            value = self.number(name, 0.0)
            if not value > 0:
                raise InputError(f"{self.where}: {name} is {value:g}; expected a number above 0")
            return value if name == key else float(side / 2 / np.tan(value / 2))
        return None

    def number(self, key: str, otherwise: int | float) -> float:
        """A number of the frame, else of the file, else `otherwise`."""
        return finite(self.values.get(key, otherwise), f"{self.where}: {key}")

    def size(self, of: tuple[int, int]) -> tuple[int, int]:
        """Width and height in the file, else those `of` the picture."""
        width, height = int(self.number("w", of[0])), int(self.number("h", of[1]))
        if min(width, height) < 1:
            raise InputError(f"{self.where}: w and h are {width} and {height}; expected 1 or more")
        return width, height


def _sparse_depth(path: Path) -> Depth:
    """The sparse depth that `lift3d export` writes."""
    depth = load_npz(path, ["depth"], FrameError).get("depth")
    if depth is None or depth.ndim != 2 or depth.dtype.kind != "f":
        raise FrameError(f"{path} holds no depth, one number per pixel; export the run again")
    return depth.astype(np.float32)


def read_cloud(path: Path, moved: Transform, offset: Offset = NO_OFFSET) -> Points:
    """The points of a PLY file, transformed by `moved`, relative to `offset`, confidence 1.

    Missing colours are grey, missing normals 0.
    """
    ply = load_ply(path)
    xyz, stored = ply.xyz(), ply.normals()
    normal = np.zeros((len(xyz), 3), np.float32)
    if stored is not None:
        normal = (stored.astype(np.float32) @ moved[:3, :3].T).astype(np.float32)
    xyz32 = local(transform(moved, xyz), offset)
    return Points(xyz32, ply.rgb(), normal, np.ones(len(xyz), np.float32), offset)


def _content(file: Path) -> dict[str, Any]:
    content = load_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("frames"), list):
        raise InputError(f"{file} has no list of frames; expected nerfstudio's or instant-ngp's")
    return content


def _to_world(content: Mapping[str, Any], file: Path) -> Transform:
    """The transform that adds the local origin which `lift3d export` took off."""
    moved = np.eye(4)
    offset = content.get("offset")
    if offset is not None:
        if not isinstance(offset, list) or len(offset) != 3:
            raise InputError(f"{file}: offset is {shown(offset)}; expected three numbers")
        moved[:3, 3] = [finite(each, f"{file}: offset") for each in offset]
    return moved


def _scale(content: Mapping[str, Any], file: Path) -> float:
    """The factor that nerfstudio applied to the camera positions; 1 without one."""
    scale = finite(content.get("applied_scale", 1.0), f"{file}: applied_scale")
    if scale <= 0:
        raise InputError(f"{file}: applied_scale is {scale:g}; expected a number above 0")
    return scale


def _matrix(rows: Any, where: str) -> Transform:
    try:
        matrix = np.array(rows, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{where} is not a matrix of numbers") from error
    if matrix.shape == (3, 4):
        matrix = np.vstack([matrix, [0, 0, 0, 1]])
    if matrix.shape != (4, 4):
        raise InputError(f"{where} has shape {matrix.shape}; expected 4x4 or 3x4")
    return matrix


def _text(values: Mapping[str, Any], key: str, where: str) -> str:
    """A path that the file names; empty where the key is absent."""
    stored = values.get(key)
    if stored is None:
        return ""
    if not isinstance(stored, str):
        raise InputError(f"{where}: {key} is {shown(stored)}; expected a path")
    return stored


def _list(content: Mapping[str, Any], key: str) -> list[Any]:
    """A list of the file; empty where it is absent or something else."""
    stored = content.get(key)
    return stored if isinstance(stored, list) else []


def _files(path: Path) -> dict[Path, str]:
    """The file at `path` or in it, or the files of a data set's splits, each with its split."""
    if path.is_file():
        named = path.name.startswith("transforms") and path.suffix == ".json"
        return {path: next((s for s in SPLITS if path.stem.endswith(f"_{s}")), "")} if named else {}
    if (path / FILE).is_file():
        return {path / FILE: ""}
    files = {path / f"transforms_{split}.json": split for split in SPLITS}
    return {file: split for file, split in files.items() if file.is_file()}


def _frames(file: Path, content: Mapping[str, Any], split: str) -> list[_Frame]:
    """The frames of a file, by name, which is the order that nerfstudio gives them too."""
    listed = {
        name: part
        for part in SPLITS
        for name in _list(content, f"{part}_filenames")
        if isinstance(name, str)
    }
    tests = _list(content, "test_frames")  # ScanNet++ keeps them apart
    part = split or ("train" if tests else "")
    frames = [_Frame(file, content, each, i, part) for i, each in enumerate(content["frames"])]
    frames += [_Frame(file, content, each, i, "test") for i, each in enumerate(tests, len(frames))]
    for frame in frames:
        frame.split = frame.split or listed.get(frame.stored, "")
    return sorted(frames, key=lambda frame: natural(frame.stored))


def _located(frames: Sequence[_Frame], homes: Sequence[Path]) -> list[str | None]:
    """Find the files of all frames, whose names may lack a suffix, and notes about them."""
    folders = Folders(homes)
    pictures = folders.all(frame.stored for frame in frames)
    for frame in frames:
        frame.image = pictures.get(frame.stored, frame.image)
        if frame.depth is not None:
            frame.depth = folders.find(frame.depth_name) or frame.depth
    notes = [renamed(pictures)]
    with_depth = [frame for frame in frames if frame.depth is not None]
    if with_depth and not any(os.path.isfile(frame.depth or "") for frame in with_depth):
        for frame in with_depth:
            frame.depth = None
        notes.append(f"no depth map that {frames[0].file.name} names is there: going without")
    return notes


def _names(frames: Sequence[_Frame]) -> list[str]:
    """Names of the views; where parts of the data set use the same names, the part is in front."""
    stems = [Path(frame.stored.replace("\\", "/")).name for frame in frames]
    parts = {frame.split for frame in frames}
    if len(parts) > 1 and len(set(stems)) < len(stems):
        return unique_names(
            f"{frame.split}-{stem}" for frame, stem in zip(frames, stems, strict=True)
        )
    return unique_names(frame.stored.replace("\\", "/") for frame in frames)


def _name(file: Path) -> str:
    return file.resolve().parent.name
