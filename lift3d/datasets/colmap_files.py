"""Check the counts in COLMAP's binary files before pycolmap believes them.

pycolmap reads as many entries as a file declares, also past its end: a file of 4 bytes costs
minutes and all memory, and C++ cannot be interrupted. The formats are those of COLMAP's
documentation (doc/format.rst) and its readers of rigs and frames.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from lift3d.scene.guarded import load_bytes, reading

ADVICE = "copy cameras, images and points3D (all .bin or all .txt) again"

PARAMETERS = (3, 4, 4, 5, 8, 8, 12, 5, 4, 5, 12, 16, 4, 5, 3, 4, 6, 2)
"""Numbers of parameters of the camera models, by their id."""


def check_model(folder: Path) -> None:
    """InputError where a binary file in `folder` has fewer entries than it declares."""
    for name, walk in _WALKS.items():
        path = folder / f"{name}.bin"
        if path.is_file():
            data = load_bytes(path)
            with reading(path, "a file of a COLMAP model", advice=ADVICE):
                _check(data, walk)


def _check(data: bytes, walk: Callable[[bytes, int], int]) -> None:
    if len(data) < 8:
        raise ValueError(f"it has {len(data)} bytes")
    (count,) = struct.unpack_from("<Q", data)
    at = 8
    for number in range(count):
        if at >= len(data):
            raise ValueError(f"it declares {count} entries and ends after {number}")
        at = walk(data, at)
    if at > len(data):
        raise ValueError(f"its last entry ends at byte {at}, the file at {len(data)}")


def _camera(data: bytes, at: int) -> int:
    (model,) = struct.unpack_from("<i", data, at + 4)
    if not 0 <= model < len(PARAMETERS):
        raise ValueError(f"camera model {model} is unknown")
    return at + 24 + 8 * PARAMETERS[model]


def _image(data: bytes, at: int) -> int:
    end = data.index(0, at + 64)  # the name ends with a zero byte
    (points,) = struct.unpack_from("<Q", data, end + 1)
    return int(end + 9 + 24 * points)


def _point(data: bytes, at: int) -> int:
    (length,) = struct.unpack_from("<Q", data, at + 43)
    return int(at + 51 + 8 * length)


def _rig(data: bytes, at: int) -> int:
    (sensors,) = struct.unpack_from("<I", data, at + 4)
    at += 8 + 8 * min(sensors, 1)  # the reference sensor has no pose
    for _ in range(1, sensors):
        has_pose = data[at + 8]
        at += 9 + 56 * bool(has_pose)
    return at


def _frame(data: bytes, at: int) -> int:
    (count,) = struct.unpack_from("<I", data, at + 64)
    return int(at + 68 + 16 * count)


_WALKS: dict[str, Callable[[bytes, int], int]] = {
    "cameras": _camera,
    "images": _image,
    "points3D": _point,
    "rigs": _rig,
    "frames": _frame,
}
