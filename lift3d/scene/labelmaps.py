"""Label maps as files: one grey image per view, the value of a pixel is its id."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from lift3d.scene import LabelMap
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.storage import atomic

SUFFIXES = (".png", ".tif", ".tiff")
"""What a label map may be stored as, in the order they are looked for."""

_GREY = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L", "I;16N")


class LabelMaps(Mapping[str, LabelMap]):
    """The label maps of all views, by view name and in scene order; read when asked for."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        self._names = dict.fromkeys(names)

    def __getitem__(self, name: str) -> LabelMap:
        if name not in self._names:
            raise KeyError(name)
        path = find_label_map(self.folder, name)
        if path is None:
            raise InputError(f"{self.folder} has no label map of view {name}; lift again")
        try:
            return read_label_map(path)
        except FrameError as error:
            raise InputError(f"{error}, or remove {self.folder} and lift again") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def write_label_map(folder: Path, name: str, labels: LabelMap) -> Path:
    """Save `labels` under `folder` and return the file.

    A 16-bit PNG, or a 32-bit TIFF where an id is past 65 535. The file is whole or absent,
    and a version of it in the other format is removed.
    """
    from PIL import Image

    if labels.size and labels.min() < 0:
        raise ValueError(f"label map {name} has the negative id {labels.min()}; ids start at 0")
    wide = labels.size > 0 and labels.max() > np.iinfo(np.uint16).max
    path = folder / f"{name}{'.tif' if wide else '.png'}"
    with atomic(path) as part:
        if wide:
            Image.fromarray(labels).save(part, compression="tiff_lzw")
        else:
            # Level 1: label maps are flat, so it is near the best size and 5 times faster.
            Image.fromarray(labels.astype(np.uint16)).save(part, compress_level=1)
    for suffix in SUFFIXES:
        if suffix != path.suffix:
            (folder / f"{name}{suffix}").unlink(missing_ok=True)
    return path


def find_label_map(folder: Path, name: str) -> Path | None:
    """The label map of the view `name` in `folder`; None where there is none.

    >>> find_label_map(Path("nowhere"), "000000")
    """
    # Not with_suffix: a view may be called "frame-000000.color".
    candidates = (folder / f"{name}{suffix}" for suffix in SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def read_label_map(path: Path) -> LabelMap:
    """The ids in a grey image of any depth: 1- to 16-bit PNG, 32-bit TIFF.

    A palette image gives its indices, as the annotation tools of DAVIS and Pascal VOC mean
    them. A colour image is accepted only when it is grey all the same (its channels agree).
    Raises FrameError where the file is missing or damaged, InputError where it is no label map.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image, warnings.catch_warnings():
            # Pillow tells of a cut TIFF by a warning.
            warnings.simplefilter("error")
            values = np.asarray(image) if image.mode in _GREY else None
            mode = image.mode
    except FileNotFoundError as error:
        raise FrameError(f"label map {path} is missing") from error
    except UnidentifiedImageError as error:
        raise FrameError(f"{path} is not an image that can be read; write it again") from error
    except (OSError, SyntaxError, ValueError, Warning) as error:
        raise FrameError(
            f"label map {path} is truncated or damaged ({error}); write it again"
        ) from error
    labels = _grey(path, mode) if values is None else values
    labels = labels.astype(np.int32)
    if labels.size and labels.min() < 0:
        raise InputError(f"label map {path} holds the negative id {labels.min()}; ids start at 0")
    return labels


def _grey(path: Path, mode: str) -> np.ndarray:
    """The one channel of a colour file whose colour channels agree."""
    import cv2

    # OpenCV, because Pillow cuts 16-bit colour to 8 bits.
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if mode != "F" else None
    if pixels is None or not np.issubdtype(pixels.dtype, np.integer):
        raise InputError(
            f"label map {path} stores {mode} pixels; expected ids in a grey or palette PNG"
        )
    if pixels.ndim == 3:
        colour = pixels[..., :3]
        if (colour != colour[..., :1]).any():
            raise InputError(
                f"label map {path} is a colour picture ({mode}); expected one id per pixel in a "
                "grey or palette PNG: save the ids, not the colours they are drawn with"
            )
        pixels = pixels[..., 0]
    return pixels
