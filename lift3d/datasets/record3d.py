"""Reader for Record3D: the EXR export, and an unzipped .r3d file.

EXR export: rgb/0.jpg, depth/0.exr (metres) and metadata.json. .r3d: a ZIP file with `metadata` and
rgbd/0.jpg, rgbd/0.depth (float32 metres) and rgbd/0.conf (uint8), both compressed by LZFSE. The
metadata has w and h of the pictures, K by columns, `poses` as qx qy qz qw x y z with ARKit's axes,
and maybe `perFrameIntrinsicCoeffs` as fx fy cx cy. This is as nerfstudio's record3d_utils.py and
the README of BernieZhu/RGBD-Video-iPhone12Pro have it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32, Float64

from lift3d.datasets.captures import Capture, Shot, from_corner, numbers_of, size_of
from lift3d.datasets.images import DepthCode, to_metres
from lift3d.datasets.intrinsics import Size, pinhole
from lift3d.datasets.patterns import any_match, collect, contents
from lift3d.datasets.poses import rotations_from_quaternions
from lift3d.scene import Depth, Scene, Skipped
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.guarded import load_bytes, reading
from lift3d.scene.guarded.json_file import load_json
from lift3d.scene.protocols import Reader

METADATA = ("metadata.json", "metadata")
INSIDE = ("", "EXR_RGBD")
DEPTH_SIZES: tuple[Size, ...] = ((192, 256), (256, 192), (480, 640), (640, 480))
"""Of the rear and of the front sensor, for files whose metadata does not say."""


@dataclass(frozen=True)
class Record3d(Reader):
    """Record3D: "EXR + JPG sequence", or an .r3d file that was unzipped."""

    expects: ClassVar[str] = (
        "rgb/, depth/*.exr and metadata.json (Record3D, EXR), or rgbd/ and metadata (unzipped .r3d)"
    )

    depth_max: float | None = None
    """Depth beyond this many metres is treated as missing."""

    def matches(self, path: Path) -> bool:
        """Whether there is the metadata of a recording beside its frames."""
        return _home(path) is not None

    def read(self, path: Path) -> Scene:
        """The scene; InputError where the metadata is not a recording's."""
        home = _home(path)
        if home is None:
            raise InputError(f"{path}: expected {self.expects}; found: {contents(path)}")
        file = next(home / name for name in METADATA if (home / name).is_file())
        content = load_json(file, kind=dict)
        poses, lenses = _poses(content, file), _lenses(content, file)
        size = size_of(content, ("w", "h"), file)
        own = any_match(home, "rgbd/*.jpg")
        images = collect(home, "rgbd/*.jpg" if own else "rgb/*")
        depth = {} if own else collect(home, "depth/*")
        code = DepthCode(max_metres=self.depth_max)
        depth_size = _depth_size(home, content, file, size) if own else None
        shots, skipped = [], []
        for key, found in images.items():
            if not key.isdecimal() or int(key) >= len(poses):
                skipped.append(Skipped(found.name, f"{file.name} has no pose for it"))
                continue
            if depth and key not in depth:
                skipped.append(Skipped(found.name, "nothing for it in depth/*"))
                continue
            shot = Shot(
                found.name,
                found.path,
                lenses[min(int(key), len(lenses) - 1)],
                poses[int(key)],
                depth[key].path if depth else None,
            )
            if depth_size is not None:
                maps, sure = (home / f"rgbd/{key}{suffix}" for suffix in (".depth", ".conf"))
                shot = Shot(
                    shot.name,
                    shot.image,
                    shot.K,
                    shot.pose,
                    load_depth=partial(read_lzfse_depth, maps, depth_size, code),
                    load_confidence=partial(read_lzfse_confidence, sure, depth_size)
                    if sure.is_file()
                    else None,
                )
            shots.append(shot)
        there = depth or depth_size is not None
        note = None if there else "there is no depth: it has to be reconstructed"
        capture = Capture(
            path,
            "record3d",
            opengl=True,
            code=code,
            size=size,
            depth_size=depth_size,
        )
        return capture.scene(shots, skipped, [note])


def _home(path: Path) -> Path | None:
    """The folder of the metadata and the frames."""
    for home in (path / place for place in INSIDE):
        frames = any_match(home, "rgb/*") or any_match(home, "rgbd/*.jpg")
        if frames and any((home / name).is_file() for name in METADATA):
            return home
    return None


def _poses(content: dict[str, Any], file: Path) -> Float64[np.ndarray, "frames 4 4"]:
    try:
        rows = np.array(content["poses"], np.float64).reshape(-1, 7)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{file}: expected poses with 7 numbers each ({error!r})") from error
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3, :3] = rotations_from_quaternions(rows[:, :4])
    poses[:, :3, 3] = rows[:, 4:]
    return poses


def _lenses(content: dict[str, Any], file: Path) -> list[Float64[np.ndarray, "3 3"]]:
    """K of each frame, or one for all."""
    each = content.get("perFrameIntrinsicCoeffs")
    if each:
        try:
            rows = np.array(each, np.float64).reshape(-1, 4)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{file}: perFrameIntrinsicCoeffs has not 4 numbers each") from error
        return [from_corner(pinhole(row, str(file))) for row in rows]
    K = numbers_of(content, "K", 9, file).reshape(3, 3)
    return [from_corner(pinhole(K.T.ravel(), str(file)))]


def _depth_size(home: Path, content: dict[str, Any], file: Path, size: Size) -> Size | None:
    """Width and height of the depth maps of an .r3d file; None where it has none."""
    first = next(iter(sorted(home.glob("rgbd/*.depth"))), None)
    if first is None:
        return None
    if "dw" in content and "dh" in content:
        return size_of(content, ("dw", "dh"), file)
    values = len(_lzfse(first)) // 4
    upright = size[1] > size[0]
    sizes = [s for s in DEPTH_SIZES if s[0] * s[1] == values and (s[1] > s[0]) == upright]
    if not sizes:
        raise InputError(f"{first} holds {values} numbers, and the metadata has no dw and dh")
    return sizes[0]


def read_lzfse_depth(path: Path, size: Size, code: DepthCode) -> Depth:
    """Depth of an .r3d file: float32 metres of width and height `size`, compressed by LZFSE."""
    data = _lzfse(path)
    if len(data) != 4 * size[0] * size[1]:
        raise FrameError(f"{path} holds {len(data)} bytes; expected {size[0]}x{size[1]} depths")
    raw = np.frombuffer(data, np.float32)
    return to_metres(raw.reshape(size[1], size[0]), code, str(path))


def read_lzfse_confidence(path: Path, size: Size) -> Float32[np.ndarray, "height width"]:
    """Confidence of an .r3d file, uint8 0 to 2, as 0 to 1."""
    raw = np.frombuffer(_lzfse(path), np.uint8)
    if len(raw) != size[0] * size[1]:
        raise FrameError(f"{path} holds {len(raw)} values; expected {size[0]}x{size[1]}")
    return (raw.reshape(size[1], size[0]) / np.float32(2)).clip(0, 1).astype(np.float32)


def _lzfse(path: Path) -> bytes:
    try:
        import lzfse
    except ImportError as error:
        raise FrameError(
            f"{path} is compressed by LZFSE, which needs a library: pip install lzfse (or "
            "'lift3d[record3d]'), or export the recording as EXR"
        ) from error
    data = load_bytes(path, FrameError)
    with reading(path, "data compressed by LZFSE", FrameError):
        return bytes(lzfse.decompress(data))
