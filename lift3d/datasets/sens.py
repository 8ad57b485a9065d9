"""Reader for ScanNet's .sens file: reads an index, decodes frames when views load them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from lift3d.datasets.frames import extrinsic, finish, posed
from lift3d.datasets.images import DepthCode
from lift3d.datasets.intrinsics import Size, pinhole
from lift3d.datasets.scannet_surface import STRUCTURE, surface_loader
from lift3d.datasets.sens_file import SensIndex, load_color, load_depth, read_index
from lift3d.scene import Camera, Scene, View
from lift3d.scene.errors import InputError
from lift3d.scene.guarded.pictures import PIXELS
from lift3d.scene.protocols import Reader


@dataclass(frozen=True)
class Sens(Reader):
    """ScanNet's .sens, version 4, or a folder that holds one."""

    expects: ClassVar[str] = "a ScanNet .sens file, or a folder with exactly one"

    depth_max: float | None = None
    """Depth beyond this many metres is treated as missing."""

    def matches(self, path: Path) -> bool:
        """Whether `path` is a .sens file or a folder with exactly one."""
        return _file(path) is not None

    def read(self, path: Path) -> Scene:
        """The scene; InputError for another format, an empty file or depth coded as `occi`."""
        file = _file(path)
        if file is None:
            raise InputError(f"{path}: expected {self.expects}")
        index = read_index(file)
        _check(index)
        color_from, color_note = extrinsic(index.extrinsic_color.astype(float), "colour")
        depth_from, depth_note = extrinsic(index.extrinsic_depth.astype(float), "depth")
        color = _camera(index.intrinsic_color, index.color_size, f"{file} intrinsic_color")
        depth = _camera(index.intrinsic_depth, index.depth_size, f"{file} intrinsic_depth")
        registered = (
            index.color_size == index.depth_size
            and np.allclose(color.K, depth.K)
            and np.allclose(color_from, depth_from)
        )
        units = DepthCode(scale=index.depth_shift, max_metres=self.depth_max)
        stored = {str(i): pose for i, pose in enumerate(index.poses.astype(np.float64))}
        poses, skipped = posed(stored, {name: name for name in stored})
        spans = index.spans.tolist()
        views = []
        for name, world_from_rig in poses.items():
            # Assumed: the stored pose is world_from_rig, an extrinsic is rig_from_camera.
            # ScanNet's extrinsics are nearly identity, so an error would be small.
            frame = int(name)
            offset, color_bytes, depth_bytes = spans[frame]
            image = partial(
                load_color, file, frame, offset, color_bytes, index.color_code, index.color_size
            )
            measured = partial(
                load_depth,
                file,
                frame,
                offset + color_bytes,
                depth_bytes,
                index.depth_code,
                index.depth_size,
                units,
            )
            views.append(
                View(
                    name=name,
                    camera=color.at(world_from_rig @ color_from),
                    load_image=image,
                    load_depth=measured,
                    depth_camera=None if registered else depth.at(world_from_rig @ depth_from),
                )
            )
        scene = finish(
            file,
            views,
            skipped,
            f"reader sens at {path}",
            [_lost(index), color_note, depth_note],
            name=file.stem,
        )
        surface = surface_loader(file.parent, file.stem, scene.offset)
        return dataclasses.replace(scene, load_surface=surface, void_classes=STRUCTURE)


def _file(path: Path) -> Path | None:
    """The .sens file at `path` or in it; None where there is not exactly one."""
    if path.is_file():
        return path if path.suffix == ".sens" else None
    files = [file for file in path.glob("*.sens") if file.is_file()]
    return files[0] if len(files) == 1 else None


def _camera(intrinsic: np.ndarray, size: Size, where: str) -> Camera:
    return Camera(pinhole(intrinsic.astype(np.float64).ravel(), where), *size)


def _check(index: SensIndex) -> None:
    if not len(index):
        raise InputError(
            f"{index.path} holds no complete frame (its header promises {index.promised}); "
            "copy or download it again"
        )
    if index.color_code not in ("raw", "png", "jpeg"):
        raise InputError(f"{index.path}: colour coded as {index.color_code}; known: raw, png, jpeg")
    if index.depth_code not in ("raw", "zlib"):
        raise InputError(
            f"{index.path}: depth coded as {index.depth_code}; known: raw, zlib. Export it with "
            "the tool of its makers to a folder of images, which lift3d reads as well"
        )
    for what, size in (("colour", index.color_size), ("depth", index.depth_size)):
        if min(size) < 1 or size[0] * size[1] > PIXELS:
            raise InputError(f"{index.path}: {what} is {size[0]}x{size[1]}; its header is damaged")
    if not index.depth_shift > 0:
        raise InputError(f"{index.path}: depth shift is {index.depth_shift}, expected above 0")


def _lost(index: SensIndex) -> str | None:
    lost = index.promised - len(index)
    if not lost:
        return None
    return (
        f"the header promises {index.promised} frames, the file holds {len(index)} complete "
        f"ones: {lost} lost (truncated file, or one of ScanNet's miscounted scans)"
    )
