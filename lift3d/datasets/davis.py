"""DAVIS and MOSE: videos of moving objects, with masks of some or all frames."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from lift3d.datasets.colmap_scene import centred_camera
from lift3d.datasets.frames import finish, first_size
from lift3d.datasets.images import read_color, read_labels
from lift3d.datasets.patterns import any_match, collect, contents
from lift3d.scene import LabelMap, Scene, View
from lift3d.scene.errors import InputError, did_you_mean
from lift3d.scene.guarded.pictures import opened_picture
from lift3d.scene.protocols import Reader

IMAGES, TRUTH = "JPEGImages", "Annotations"
WHITE = 255
"""Value of the object in a mask of DAVIS 2016; in a mask with other ids, void pixels."""


@dataclass(frozen=True)
class Davis(Reader):
    """DAVIS 2016 and 2017: a sequence's folder of images, or the root and a sequence's name."""

    expects: ClassVar[str] = (
        f"DAVIS: a sequence's folder {IMAGES}/480p/SEQUENCE beside {TRUTH}/480p/SEQUENCE, or "
        "their root"
    )

    sequence: str | None = None
    """Which one, where the path is the root; unset: the only one."""
    resolution: str = "480p"
    """Which folder of images, where the path is the root and has several."""

    def matches(self, path: Path) -> bool:
        """Whether images are two folders below `JPEGImages`, beside `Annotations`."""
        return _matches(path, depth=2)

    def read(self, path: Path) -> Scene:
        """The scene, without poses and depth; each frame's masks where it is annotated."""
        return _read(path, "davis", self.expects, 2, self.sequence, self.resolution)


@dataclass(frozen=True)
class Mose(Reader):
    """MOSE and others in its layout (YouTube-VOS): a sequence's folder of images, or the root."""

    expects: ClassVar[str] = (
        f"MOSE: a sequence's folder {IMAGES}/SEQUENCE beside {TRUTH}/SEQUENCE, or their root"
    )

    sequence: str | None = None
    """Which one, where the path is the root; unset: the only one."""

    def matches(self, path: Path) -> bool:
        """Whether images are one folder below `JPEGImages`, beside `Annotations`."""
        return _matches(path, depth=1)

    def read(self, path: Path) -> Scene:
        """The scene, without poses and depth; each frame's masks where it is annotated."""
        return _read(path, "mose", self.expects, 1, self.sequence, "")


def sequences(root: Path, resolution: str = "480p") -> dict[str, Path]:
    """The sequences of a root of either layout: name -> folder of images, sorted by name."""
    for depth in (2, 1):
        if _matches(root, depth) and (root / IMAGES).is_dir():
            return _sequences(root, depth, resolution)
    raise InputError(f"{root}: expected {IMAGES}/ and {TRUTH}/; found: {contents(root)}")


def read_annotation(path: Path) -> LabelMap:
    """Object ids, 0 = background, from a mask of DAVIS 2016 or 2017.

    A mask of 2016 is black and white; white becomes id 1. A mask of 2017 (and of MOSE) has ids
    as palette indices; 255 is void and becomes 0.
    """
    labels = read_labels(path)
    white = labels == WHITE
    if white.any():
        with opened_picture(path) as image:
            holds_ids = image.mode == "P"
        holds_ids = holds_ids or bool(((labels > 0) & ~white).any())
        labels = np.where(white, 0 if holds_ids else 1, labels).astype(np.int32)
    return labels


def _matches(path: Path, depth: int) -> bool:
    """Whether it is a root or one sequence, with images `depth` folders below `JPEGImages`."""
    if not path.is_dir():
        return False
    if (path / IMAGES).is_dir():
        below = "/".join(["*"] * depth)
        return (path / TRUTH).is_dir() and any_match(path, f"{IMAGES}/{below}/*.jp*g")
    home = _home(path, depth)
    return home is not None and (home / TRUTH).is_dir() and any_match(path, "*.jp*g")


def _home(images: Path, depth: int) -> Path | None:
    """The root above a sequence's folder of images."""
    above = images.resolve().parents
    return above[depth] if len(above) > depth and above[depth - 1].name == IMAGES else None


def _sequences(root: Path, depth: int, resolution: str) -> dict[str, Path]:
    folder = root / IMAGES
    if depth == 2:
        sizes = sorted(each.name for each in folder.iterdir() if each.is_dir())
        if resolution not in sizes and len(sizes) > 1:
            raise InputError(f"{folder}: {did_you_mean(resolution, sizes, 'resolution')}")
        folder /= resolution if resolution in sizes else sizes[0]
    found = sorted(each for each in folder.iterdir() if any_match(each, "*.jp*g"))
    return {each.name: each for each in found}


def _read(
    path: Path, reader: str, expects: str, depth: int, sequence: str | None, resolution: str
) -> Scene:
    if not _matches(path, depth):
        raise InputError(f"{path}: expected {expects}; found: {contents(path)}")
    images = path
    if (path / IMAGES).is_dir():
        known = _sequences(path, depth, resolution)
        if sequence is None and len(known) > 1:
            first = next(iter(known.values()))
            raise InputError(
                f"{path} holds {len(known)} sequences ({', '.join(list(known)[:8])}"
                f"{', ...' * (len(known) > 8)}); give the folder of one, such as {first}"
            )
        name = sequence or next(iter(known))
        if name not in known:
            raise InputError(f"{path}: {did_you_mean(name, known, 'sequence')}")
        images = known[name]
    home = _home(images, depth)
    assert home is not None
    truth = home / TRUTH / images.resolve().relative_to(home / IMAGES)
    return _scene(path, images, truth, f"reader {reader} at {path}")


def _scene(path: Path, images: Path, truth: Path, source: str) -> Scene:
    frames, masks = collect(images, "*"), collect(truth, "*")
    camera = centred_camera(*first_size(found.path for found in frames.values()))
    views = []
    for key, found in frames.items():
        annotated = partial(read_annotation, masks[key].path) if key in masks else None
        load = partial(read_color, found.path)
        views.append(View(found.name, camera, load, load_instances=annotated))
    count = sum(key in masks for key in frames)
    notes = [
        f"{count} of {len(frames)} frames are annotated",
        "objects in these videos move: a cloud lifted from one is not of a static scene",
    ]
    name = images.resolve().name
    return finish(path, views, [], source, notes, metric=False, name=name)
