"""Reader for a folder of photos: focal lengths from EXIF, no poses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lift3d.datasets import optional_formats
from lift3d.datasets.colmap_scene import centred_camera
from lift3d.datasets.frames import finish
from lift3d.datasets.images import image_size, read_color
from lift3d.datasets.patterns import contents, natural
from lift3d.scene import Image, Scene, Skipped, View
from lift3d.scene.errors import FrameError, InputError, option_words
from lift3d.scene.guarded.pictures import opened_picture
from lift3d.scene.protocols import Reader

SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"),
    *optional_formats.SUFFIXES,
)
FILM_DIAGONAL = 43.2666
"""Diagonal in millimetres of a 36 x 24 mm frame, the reference of EXIF's 35 mm equivalent."""
MILLIMETRES = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
"""EXIF FocalPlaneResolutionUnit: inch, cm, mm, micrometre."""
UNREAD = (".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".rw2", ".orf", ".jxl", ".avif", ".gif")
"""Pictures that are not read: camera raw and formats that few write."""
ORIENTATION, EXIF_FOLDER = 0x0112, 0x8769
FOCAL, FOCAL_35, PIXELS_X = 0x920A, 0xA405, 0xA002
PLANE_X, PLANE_UNIT = 0xA20E, 0xA210


@dataclass(frozen=True)
class Photos(Reader):
    """Photos of one place, of any sizes and orientations, without poses and depth."""

    guesses: ClassVar[bool] = True
    expects: ClassVar[str] = (
        "a folder with two or more photos (jpg, png, webp, tif, heic, exr), no poses needed"
    )

    focal: float | None = None
    """Focal length in pixels, for all photos; unset: EXIF, else a guess (1.2 longest sides)."""

    def matches(self, path: Path) -> bool:
        """Whether there are two photos or more, and no depth map among the first 20."""
        if not path.is_dir():
            return False
        modes = [_mode(photo) for photo in _photos(path)[:20]]
        return sum(map(bool, modes)) > 1 and "depth" not in modes

    def read(self, path: Path) -> Scene:
        """The scene, every view without a pose; InputError for fewer than two photos."""
        photos = _photos(path) if path.is_dir() else []
        if not photos:
            raise InputError(f"{path}: expected {self.expects}; found: {contents(path)}")
        views, known = [], 0
        skipped: list[Skipped] = []
        excused: list[Skipped] = []
        for photo, name in zip(photos, unique_names(p.name for p in photos), strict=True):
            try:
                width, height, orientation, focal = _header(photo)
            except FrameError as error:
                optional = photo.suffix.lower() in optional_formats.SUFFIXES
                (excused if optional else skipped).append(Skipped(name, str(error)))
                continue
            if orientation >= 5:  # orientations 5 to 8 swap rows and columns
                width, height = height, width
            focal = focal if self.focal is None else self.focal
            known += focal is not None
            views.append(
                View(
                    name=name,
                    camera=centred_camera(width, height, focal),
                    load_image=partial(read_photo, photo, orientation),
                )
            )
        notes = [f"focal length of {known} of {len(views)} photos from {self._origin()}"]
        if known < len(views):
            notes[0] += (
                f"; {len(views) - known} guessed as 1.2 longest sides: give it in pixels with "
                f"{option_words('photos', 'focal', 'N')}"
            )
        unread = [each for each in sorted(path.iterdir()) if each.suffix.lower() in UNREAD]
        if unread:
            notes.append(
                f"{len(unread)} files such as {unread[0].name} are left out, because "
                f"{unread[0].suffix.lower()} is not read; convert them to JPEG to use them"
            )
        source = f"reader photos at {path}"
        return finish(path, views, skipped, source, notes, metric=False, excused=excused)

    def _origin(self) -> str:
        return "EXIF" if self.focal is None else "--reader.focal"


def read_photo(path: Path, orientation: int) -> Image:
    """The photo rotated upright by its EXIF orientation (1 to 8)."""
    image = read_color(path)
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def unique_names(files: Iterable[str]) -> list[str]:
    """View names for files: their stems, with special characters replaced.

    Where two stems are equal, the folder, the suffix or a number makes them unique.

    >>> unique_names(["a b.jpg", "c.jpg", "c.png", "right/c.jpg"])
    ['a_b', 'c', 'c-png', 'right-c']
    """
    taken: set[str] = set()
    names = []
    for file in files:
        path = Path(file)
        stem, folder = (re.sub(r"[^\w.-]+", "_", word) for word in (path.stem, path.parent.name))
        name, number = stem, 2
        if name in taken:
            name = f"{folder}-{stem}" if folder else f"{stem}-{path.suffix[1:].lower()}"
        while name in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name)
        names.append(name)
    return names


def _photos(path: Path) -> list[Path]:
    """Photos directly in the folder, numbers in numeric order."""
    found = (p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    visible: Sequence[Path] = [p for p in found if not p.name.startswith(".")]
    return sorted(visible, key=lambda p: natural(p.name))


def _mode(path: Path) -> str:
    """Pillow's mode; empty where the file is not an image.

    "depth" for 16-bit or float images and names with "depth": the folder is then a scan without
    poses.
    """
    if path.suffix.lower() in optional_formats.SUFFIXES:
        return "depth" if "depth" in path.stem.lower() else "RGB"
    try:
        with opened_picture(path) as image:
            mode = str(image.mode)
    except FrameError:
        return ""
    return "depth" if mode[0] in "IF" or "depth" in path.stem.lower() else mode


def _header(path: Path) -> tuple[int, int, int, float | None]:
    """Width and height as stored, EXIF orientation, and focal length in pixels where known."""
    if path.suffix.lower() in optional_formats.EXR:
        return *image_size(path), 1, None
    if path.suffix.lower() in optional_formats.HEIF:
        wide, high, tags = optional_formats.heif_header(path)  # rotated upright already
        return wide, high, 1, focal_pixels(tags.get_ifd(EXIF_FOLDER), wide, high)
    with opened_picture(path) as image:
        width, height = int(image.width), int(image.height)
        try:
            exif = image.getexif()
            more = exif.get_ifd(EXIF_FOLDER)
        except Exception:  # Pillow raises many kinds of errors for damaged EXIF
            return width, height, 1, None  # the picture may be fine
    orientation = exif.get(ORIENTATION, 1)
    if orientation not in range(1, 9):
        orientation = 1
    return width, height, int(orientation), focal_pixels(more, width, height)


def focal_pixels(exif: Any, width: int, height: int) -> float | None:
    """Focal length in pixels from EXIF tags; None where they are absent or implausible.

    From the 35 mm equivalent by the diagonals (CIPA DCG-001), or from the focal length and the
    sensor's pixels per unit, which are for the size of the original photo.

    >>> focal_pixels({FOCAL_35: 43.2666}, 300, 400)
    500.0
    """
    equivalent = _number(exif, FOCAL_35)
    focal, per_unit = _number(exif, FOCAL), _number(exif, PLANE_X)
    unit = MILLIMETRES.get(exif.get(PLANE_UNIT, 2))
    if equivalent:
        pixels = equivalent * float(np.hypot(width, height)) / FILM_DIAGONAL
    elif focal and per_unit and unit:
        taken_at = _number(exif, PIXELS_X) or width
        pixels = focal * per_unit / unit * width / taken_at
    else:
        return None
    return pixels if 0.1 < pixels / max(width, height) < 10 else None


def _number(exif: Any, tag: int) -> float:
    """A tag as a number above 0; 0 where it is absent or not such a number."""
    try:
        value = float(exif.get(tag, 0))
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return value if np.isfinite(value) and value > 0 else 0.0
