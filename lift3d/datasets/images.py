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

from lift3d.datasets import optional_formats
from lift3d.datasets.truncation import check_complete
from lift3d.scene import Depth, Image, LabelMap
from lift3d.scene.colours import eight_bit
from lift3d.scene.errors import FrameError
from lift3d.scene.guarded import load_bytes, reading
from lift3d.scene.guarded.arrays import load_npy, npy_shape
from lift3d.scene.guarded.pictures import check_pixels, opened_picture

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".pgm", ".ppm", ".npy"),
    *optional_formats.SUFFIXES,
)
TIFF = (b"II*\0", b"MM\0*")
"""First bytes of a TIFF."""


@dataclass(frozen=True)
class DepthCode:
    """How depth is stored: metres = rotated value / scale."""

    scale: float | None = None
    """Stored units per metre; None: `whole` for whole numbers, 1 for floating-point numbers,
    because millimetres are stored as integers and metres as floats."""
    invalid: tuple[float, ...] = ()
    """Stored values that mean missing, besides 0."""
    rotate_right: int = 0
    """Bits to rotate 16-bit values right by, before scaling (RealSense F200 files: 3)."""
    max_metres: float | None = None
    """Depth beyond this is treated as missing."""
    whole: float = 1000.0
    """Stored units per metre of whole numbers, where `scale` is None."""

    def units(self, floating: bool) -> float:
        """Stored units per metre, for floating-point or for whole numbers."""
        if self.scale is not None:
            return self.scale
        return 1.0 if floating else self.whole


def read_color(path: Path) -> Image:
    """A colour image, RGB, as stored: an EXIF orientation is not applied."""
    if path.suffix.lower() == ".npy":
        image = load(path)
        if image.dtype.kind not in "uif" or image.ndim != 3 or image.shape[2] not in (3, 4):
            raise FrameError(f"{path} is {_kind(image)}; expected colours, (height, width, 3)")
        return np.ascontiguousarray(eight_bit(image[..., :3]))
    if path.suffix.lower() in optional_formats.SUFFIXES:
        return optional_formats.color(path)
    return decode_color(load_bytes(path, FrameError), str(path))


def decode_color(data: bytes, where: str) -> Image:
    """An encoded colour image; `where` names it in errors."""
    import cv2

    if data[:4] in TIFF:  # OpenCV makes no 8-bit colour of float samples
        stored = decode(data, where, cv2.IMREAD_UNCHANGED)
        if stored.dtype.kind == "f":
            if stored.ndim == 2:
                stored = np.repeat(stored[..., None], 3, axis=2)
            return np.ascontiguousarray(eight_bit(stored[..., 2::-1]))
    # K belongs to the stored pixels, so an EXIF orientation must not rotate them.
    image = decode(data, where, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def read_depth(path: Path, code: DepthCode) -> Depth:
    """Depth in metres, 0 = missing (0, NaN, infinite, negative, `code.invalid`, too far).

    Raises FrameError where no pixel has depth.
    """
    return to_metres(load(path), code, str(path))


def to_metres(raw: Shaped[np.ndarray, "..."], code: DepthCode, where: str) -> Depth:
    """Stored depth values to metres; see `read_depth`. (H, W, 1) and (1, H, W) count as (H, W)."""
    raw = raw.reshape(_plane(raw.shape))
    if raw.ndim != 2 or raw.dtype.kind not in "uif":
        raise FrameError(f"{where} is {_kind(raw)}; depth has one number per pixel")
    if code.rotate_right:
        if raw.dtype != np.uint16:
            raise FrameError(f"{where} is {_kind(raw)}; only 16-bit depth can be bit-rotated")
        raw = (raw >> code.rotate_right) | (raw << (16 - code.rotate_right))
    depth = raw.astype(np.float32) * np.float32(1.0 / code.units(raw.dtype.kind == "f"))
    for value in code.invalid:
        depth[raw == value] = 0
    if raw.dtype.kind != "u":
        depth[~(np.isfinite(depth) & (depth > 0))] = 0
    if code.max_metres is not None:
        depth[depth > code.max_metres] = 0
    if not depth.max(initial=0) > 0:  # a tenth of the time of `any` on floats
        raise FrameError(f"{where} has no depth at any pixel")
    return depth


def read_labels(path: Path, divide: int = 1) -> LabelMap:
    """A map of instance ids, 0 = none; stored values are divided by `divide`."""
    from lift3d.scene.labelmaps import read_label_map

    if path.suffix.lower() == ".npy":
        ids = load(path)
        if ids.ndim != 2 or ids.dtype.kind not in "bui":
            raise FrameError(f"{path} is {_kind(ids)}; expected whole ids (height, width)")
        return (np.maximum(ids, 0) // divide).astype(np.int32)
    check_complete(load_bytes(path, FrameError), str(path))
    return (read_label_map(path) // divide).astype(np.int32)


def read_confidence(path: Path, full: float) -> Float32[np.ndarray, "height width"]:
    """Confidence 0 to 1; `full` is the stored value that means 1."""
    raw = load(path)
    raw = raw.reshape(_plane(raw.shape))
    if raw.ndim != 2 or raw.dtype.kind not in "uif":
        raise FrameError(f"{path} is {_kind(raw)}; confidence has one number per pixel")
    share = np.nan_to_num(raw.astype(np.float32) / np.float32(full), posinf=0.0, neginf=0.0)
    return np.clip(share, 0, 1).astype(np.float32)


def load(path: Path) -> Shaped[np.ndarray, "..."]:
    """An image or .npy file with its own dtype and channels (BGR where it has three)."""
    if path.suffix.lower() == ".npy":
        return load_npy(path, FrameError)
    if path.suffix.lower() in optional_formats.EXR:
        return optional_formats.plane(path)
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
        shape = _plane(npy_shape(path, FrameError))
        if len(shape) < 2 or 0 in shape:
            raise FrameError(f"{path} is an array of {shape}; expected (height, width, ...)")
        return shape[1], shape[0]
    if path.suffix.lower() in optional_formats.SUFFIXES:
        return optional_formats.size(path)
    with opened_picture(path) as image:
        return int(image.width), int(image.height)


def _plane(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of an array of pixels without a last or first axis of length 1.

    >>> _plane((120, 160, 1)), _plane((1, 120, 160)), _plane((120, 160, 3))
    ((120, 160), (120, 160), (120, 160, 3))
    """
    if len(shape) != 3:
        return shape
    return shape[:2] if shape[2] == 1 else shape[1:] if shape[0] == 1 else shape


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype} {array.shape}"
