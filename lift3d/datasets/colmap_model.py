"""Reader for an existing COLMAP model: cameras, sparse points and dense depth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from lift3d.datasets import colmap_scene
from lift3d.datasets.frames import finish
from lift3d.datasets.images import image_size, read_color
from lift3d.datasets.patterns import contents, natural
from lift3d.datasets.photos import SUFFIXES as PHOTOS
from lift3d.datasets.photos import unique_names
from lift3d.scene import Camera, Depth, Scene, Skipped, View
from lift3d.scene.errors import FrameError, InputError, option_words
from lift3d.scene.guarded import file_size, load_bytes, reading
from lift3d.scene.protocols import Reader

PLACES = (".", "sparse", "sparse/0")
"""Possible places of the model in the folder."""
IMAGES = ("images", "../images", "../../images", ".")
"""Possible places of the images, relative to the model or to the given folder."""
DENSE = "stereo/depth_maps"


@dataclass(frozen=True)
class ColmapModel(Reader):
    """cameras, images, points3D (.bin or .txt), and the images they were made from."""

    expects: ClassVar[str] = (
        "cameras, images and points3D (.bin or .txt) here, in sparse/ or in sparse/0/, "
        "beside images/"
    )

    images: Path | None = None
    """Folder of the images; unset: images/ in or beside the given folder."""
    dense: bool = True
    """Use COLMAP's dense depth (stereo/depth_maps/*.geometric.bin) where it exists."""
    metric: bool | None = None
    """Whether one unit of the model is a metre; unset: as in `lift3d.json` beside the model, which
    `lift3d export` writes, else no, because COLMAP does not know the scale."""

    def matches(self, path: Path) -> bool:
        """Whether there is a model."""
        return path.is_dir() and _model(path) is not None

    def read(self, path: Path) -> Scene:
        """The scene; InputError where the model or its images cannot be read."""
        model = _model(path) if path.is_dir() else None
        if model is None:
            raise InputError(f"{path}: expected {self.expects}; found: {contents(path)}")
        posed = colmap_scene.cameras(model)
        images = sorted(posed, key=natural)
        if not images:
            raise InputError(f"{model} has no registered image; reconstruct it again")
        folder = self._images(path, model, images)
        maps = _dense(path, model) if self.dense else None
        views, skipped, notes = [], [], set()
        for image, name in zip(images, unique_names(images), strict=True):
            try:
                camera, note = _fitted(folder / image, posed[image])
                load = partial(read_color, folder / image)
                view = colmap_scene.posed_view(name, camera, load, model, image)
                stored = maps / f"{image}.geometric.bin" if maps else None
                if stored is not None and stored.is_file():
                    view = _with_dense(view, stored)
            except FrameError as error:
                skipped.append(Skipped(name, str(error)))
                continue
            notes.add(note)
            views.append(view)
        if maps and views and all(view.sparse for view in views):
            notes.add(f"{maps} has no depth map of these images: going with the sparse points")
        others = _others(folder, images)
        # COLMAP often registers few of many images without a fault of the scan: then only a note.
        if 2 * (len(skipped) + len(others)) <= len(images) + len(others):
            skipped += [Skipped(o, "not registered in the COLMAP model") for o in others]
        elif others:
            notes.add(f"{len(others)} images are not registered in the COLMAP model")
        source = f"reader colmap at {path}"
        metric = colmap_scene.read_unit(model) if self.metric is None else self.metric
        scene = finish(path, views, skipped, source, sorted(filter(None, notes)), bool(metric))
        return replace(scene, load_points=partial(colmap_scene.load_points, model))

    def _images(self, path: Path, model: Path, names: list[str]) -> Path:
        """The folder that contains one of the first ten images."""
        if self.images is not None:
            homes = [self.images]
        else:
            homes = [base / place for base in (path, model) for place in IMAGES]
        for home in homes:
            if any((home / name).is_file() for name in names[:10]):
                return home
        raise InputError(
            f"{path}: {names[0]} of the COLMAP model is not in {', '.join(map(str, homes[:2]))}; "
            "put the images there, or name their folder with "
            f"{option_words('colmap', 'images', 'DIR')}"
        )


def _model(path: Path) -> Path | None:
    """The folder with the three files of a model."""
    for place in PLACES:
        folder = path / place
        for suffix in ("bin", "txt"):
            if all((folder / f"{n}.{suffix}").is_file() for n in ("cameras", "images", "points3D")):
                return folder
    return None


def _others(folder: Path, known: list[str]) -> list[str]:
    """Images beside those of the model that COLMAP did not register."""
    homes = {(folder / name).parent for name in known}
    files = (file for home in homes if home.is_dir() for file in home.iterdir())
    found = (f for f in files if f.suffix.lower() in PHOTOS and not f.name.startswith("."))
    return sorted({f.relative_to(folder).as_posix() for f in found} - set(known), key=natural)


def _fitted(path: Path, camera: Camera) -> tuple[Camera, str | None]:
    """The camera at the actual size of the image, and a note where that differs."""
    if not path.is_file():
        raise FrameError(f"{path} is missing")
    size = image_size(path)
    if size == (camera.width, camera.height):
        return camera, None
    if abs(size[0] * camera.height / (size[1] * camera.width) - 1) > 0.01:
        raise FrameError(
            f"{path} is {size[0]}x{size[1]}, but the COLMAP model was made of "
            f"{camera.width}x{camera.height}"
        )
    return camera.resized(*size), (
        "images have another size than those the COLMAP model was made of: cameras rescaled"
    )


def _dense(path: Path, model: Path) -> Path | None:
    homes = (path, model, model.parent, model.parent.parent)
    return next((home / DENSE for home in homes if (home / DENSE).is_dir()), None)


def _with_dense(view: View, stored: Path) -> View:
    """The view with the depth map, at the map's own size."""
    width, height = _dense_header(stored)[:2]
    camera = view.camera
    own = None if (width, height) == (camera.width, camera.height) else camera
    return replace(
        view,
        load_depth=partial(read_dense, stored),
        depth_camera=own and own.resized(width, height),
        sparse=False,
    )


def read_dense(path: Path) -> Depth:
    """A depth map of COLMAP's dense stereo: `width&height&1&`, then float32 row by row."""
    width, height, start = _dense_header(path)
    values = np.frombuffer(load_bytes(path, FrameError), np.uint8, offset=start).view("<f4")
    depth = values.reshape(height, width).astype(np.float32)
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def _dense_header(path: Path) -> tuple[int, int, int]:
    """Width, height, and the offset of the data."""
    size = file_size(path, FrameError)
    with reading(path, "a depth map of COLMAP's dense stereo", FrameError):
        with path.open("rb") as file:
            words = file.read(64).split(b"&", 3)
        width, height, channels = (int(word) for word in words[:3])
    start = sum(len(word) + 1 for word in words[:3])
    if channels != 1 or min(width, height) < 1 or width * height * 4 != size - start:
        raise FrameError(
            f"{path} has {max(0, size - start)} bytes of depths, its header says {width}x{height}, "
            f"{channels} a pixel; run COLMAP's dense stereo again"
        )
    return width, height, start
