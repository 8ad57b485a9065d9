"""Pictures that only an optional library decodes: HEIC of phones by pillow-heif, EXR by OpenEXR.

Where the library is absent, each file is refused as one frame, with the line that installs it, so
that the other pictures of a folder can still be used.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float32, UInt8

from lift3d.scene.errors import FrameError
from lift3d.scene.guarded import file_size, reading
from lift3d.scene.guarded.pictures import PIXELS

HEIF = (".heic", ".heif", ".hif")
EXR = (".exr",)
SUFFIXES = HEIF + EXR

_ONE_AT_A_TIME = threading.Lock()
"""`redirect_stdout` is of the whole process."""
T = TypeVar("T")


def size(path: Path) -> tuple[int, int]:
    """Width and height; decodes no pixels. FrameError where the file cannot be read or is huge."""
    if path.suffix.lower() in HEIF:
        image = _guarded(path, lambda: _heif(path))
        width, height = int(image.size[0]), int(image.size[1])
    else:
        low, high = _guarded(path, lambda: _exr(path, header_only=True).header()["dataWindow"])
        width, height = int(high[0] - low[0]) + 1, int(high[1] - low[1]) + 1
    if width * height > PIXELS:
        raise FrameError(f"{path} has more than {PIXELS // 1_000_000} megapixels; save it smaller")
    return width, height


def heif_header(path: Path) -> tuple[int, int, Any]:
    """Width and height of a HEIC file, rotated upright, and its EXIF tags; decodes no pixels."""
    from PIL import Image as Pillow

    image = _guarded(path, lambda: _heif(path))
    exif = Pillow.Exif()
    exif.load(image.info.get("exif") or b"")
    return int(image.size[0]), int(image.size[1]), exif


def color(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    """A colour picture, RGB. EXR holds linear light, which is encoded as sRGB.

    pillow-heif applies the rotation that a HEIC file names, and clears it from the EXIF data.
    """
    size(path)
    if path.suffix.lower() in HEIF:
        pixels = _guarded(path, lambda: np.asarray(_heif(path).to_pillow().convert("RGB")))
        return np.ascontiguousarray(pixels)
    planes = _channels(path)
    names = [next((n for n in (c, c.lower()) if n in planes), "") for c in "RGB"]
    if not all(names):
        names = [_main(planes)] * 3
    linear = np.stack([planes[name] for name in names], -1).clip(0, 1)
    # IEC 61966-2-1, the sRGB transfer function.
    encoded = np.where(
        linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055
    )
    return np.rint(encoded * 255).astype(np.uint8)


def plane(path: Path) -> Float32[np.ndarray, "height width"]:
    """The numbers of an EXR file with one value a pixel, such as depth."""
    size(path)
    planes = _channels(path)
    return planes[_main(planes)]


def _main(planes: dict[str, Any]) -> str:
    """The channel with depth: Z by OpenEXR's convention; Record3D writes R."""
    return next((name for name in ("Z", "Y", "R", "V") if name in planes), next(iter(planes)))


def _channels(path: Path) -> dict[str, Float32[np.ndarray, "height width"]]:
    found = _guarded(path, lambda: _exr(path, separate_channels=True).channels())
    if not found:
        raise FrameError(f"{path} has no channels")
    return {name: np.nan_to_num(each.pixels.astype(np.float32)) for name, each in found.items()}


def _heif(path: Path) -> Any:
    try:
        import pillow_heif
    except ImportError as error:
        raise FrameError(_lacking(path, "pillow-heif", "heic")) from error
    return pillow_heif.open_heif(path)


def _exr(path: Path, **options: bool) -> Any:
    try:
        import OpenEXR
    except ImportError as error:
        raise FrameError(_lacking(path, "openexr", "exr")) from error
    # It prints a warning about damaged data and goes on with half a picture.
    with _ONE_AT_A_TIME, redirect_stdout(io.StringIO()) as said:
        file = OpenEXR.File(str(path), **options)
    if "Exception" in said.getvalue():
        raise ValueError(said.getvalue().strip().splitlines()[0])
    return file


def _lacking(path: Path, library: str, extra: str) -> str:
    return (
        f"{path} needs {library}, which is not installed: pip install {library} "
        f"(or 'lift3d[{extra}]'), or convert it to JPEG or PNG"
    )


def _guarded(path: Path, work: Callable[[], T]) -> T:
    """The result of `work`; FrameError for whatever the library raises about a damaged file."""
    file_size(path, FrameError)
    with reading(path, "a picture", FrameError):
        return work()
