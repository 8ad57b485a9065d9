"""Image files to arrays: colour, depth in metres, label maps, confidence.

OpenCV decodes, because it is fast. It and Pillow return half a picture for a truncated file
without an error, so every file is first checked for completeness.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped

from lift3d.datasets.truncation import check_complete
from lift3d.scene import Depth, Image, LabelMap
from lift3d.scene.errors import FrameError
from lift3d.scene.guarded import load_bytes, reading
from lift3d.scene.guarded.arrays import load_npy, npy_shape
from lift3d.scene.guarded.pictures import check_pixels, opened_picture

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".pgm", ".ppm", ".npy")


@dataclass(frozen=True)
class DepthCode:
    """How depth is stored: metres = rotated value / scale."""

    scale: float = 1000.0
    """Stored units per metre."""
    invalid: tuple[float, ...] = ()
    """Stored values that mean missing, besides 0."""
    rotate_right: int = 0
    """Bits to rotate 16-bit values right by, before scaling (RealSense F200 files: 3)."""
    max_metres: float | None = None
    """Depth beyond this is treated as missing."""


def read_color(path: Path) -> Image:
    """A colour image, RGB, as stored: an EXIF orientation is not applied."""
    if path.suffix.lower() == ".npy":
        image = load(path)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise FrameError(f"{path} is {_kind(image)}; expected uint8 (height, width, 3)")
        return image
    return decode_color(load_bytes(path, FrameError), str(path))


def decode_color(data: bytes, where: str) -> Image:
    """An encoded colour image; `where` names it in errors."""
    import cv2

    # K belongs to the stored pixels, so an EXIF orientation must not rotate them.
    image = decode(data, where, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def read_depth(path: Path, code: DepthCode) -> Depth:
    """Depth in metres, 0 = missing (0, NaN, infinite, negative, `code.invalid`, too far).

    Raises FrameError where no pixel has depth.
    """
    return to_metres(load(path), code, str(path))


def to_metres(raw: Shaped[np.ndarray, "..."], code: DepthCode, where: str) -> Depth:
    """Stored depth values to metres; see `read_depth`."""
    if raw.ndim != 2 or raw.dtype.kind not in "uif":
        raise FrameError(f"{where} is {_kind(raw)}; depth has one number per pixel")
    if code.rotate_right:
        if raw.dtype != np.uint16:
            raise FrameError(f"{where} is {_kind(raw)}; only 16-bit depth can be bit-rotated")
        raw = (raw >> code.rotate_right) | (raw << (16 - code.rotate_right))
    depth = raw.astype(np.float32) * np.float32(1.0 / code.scale)
    for value in code.invalid:
        depth[raw == value] = 0
    if raw.dtype.kind != "u":
        depth[~(np.isfinite(depth) & (depth > 0))] = 0
    if code.max_metres is not None:
        depth[depth > code.max_metres] = 0
    if not depth.any():
        raise FrameError(f"{where} has no depth at any pixel")
    return depth


def read_labels(path: Path, divide: int = 1) -> LabelMap:
    """A map of instance ids, 0 = none; stored values are divided by `divide`."""
    from lift3d.scene.labelmaps import read_label_map

    check_complete(load_bytes(path, FrameError), str(path))
    return (read_label_map(path) // divide).astype(np.int32)


def read_confidence(path: Path, full: float) -> Float32[np.ndarray, "height width"]:
    """Confidence 0 to 1; `full` is the stored value that means 1."""
    raw = load(path)
    if raw.ndim != 2 or raw.dtype.kind not in "uif":
        raise FrameError(f"{path} is {_kind(raw)}; confidence has one number per pixel")
    share = np.nan_to_num(raw.astype(np.float32) / np.float32(full), posinf=0.0, neginf=0.0)
    return np.clip(share, 0, 1).astype(np.float32)


def load(path: Path) -> Shaped[np.ndarray, "..."]:
    """An image or .npy file with its own dtype and channels (BGR where it has three)."""
    if path.suffix.lower() == ".npy":
        return load_npy(path, FrameError)
    import cv2

    return decode(load_bytes(path, FrameError), str(path), cv2.IMREAD_UNCHANGED)


def decode(data: bytes, where: str, flags: int) -> Any:
    """An array decoded by OpenCV, after a check that the data is complete and not too large."""
    import cv2

    check_complete(data, where)
    check_pixels(data, where)
    with reading(where, "a picture", FrameError):
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if image is None:
        raise FrameError(f"{where} cannot be decoded as an image (found {len(data)} bytes)")
    return image


def image_size(path: Path) -> tuple[int, int]:
    """Width and height from the header alone."""
    if path.suffix.lower() == ".npy":
        shape = npy_shape(path, FrameError)
        if len(shape) < 2 or 0 in shape:
            raise FrameError(f"{path} is an array of {shape}; expected (height, width, ...)")
        return shape[1], shape[0]
    with opened_picture(path) as image:
        return int(image.width), int(image.height)


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype} {array.shape}"
