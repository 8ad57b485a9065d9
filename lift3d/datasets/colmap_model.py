"""Reader for an existing COLMAP model: cameras, sparse points and dense depth."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from lift3d.datasets import colmap_scene
from lift3d.datasets.frames import finish
from lift3d.datasets.images import image_size, read_color
from lift3d.datasets.patterns import contents, find, names_in, natural
from lift3d.datasets.photos import SUFFIXES as PHOTOS
from lift3d.datasets.photos import unique_names
from lift3d.datasets.stored_names import Folders, renamed
from lift3d.scene import Camera, Depth, Scene, Skipped, View
from lift3d.scene.errors import FrameError, InputError, option_words
from lift3d.scene.guarded import file_size, load_bytes, reading
from lift3d.scene.local_origin import camera_at
from lift3d.scene.protocols import Reader

PLACES = ("", "sparse", "colmap", "colmap/sparse", "distorted/sparse", "dense/sparse")
"""Possible places of the model in the folder; in each, also in sub-folders called 0, 1, ..."""
IMAGES = ("images", "input", "rgb", "color", "")
"""Possible folders of the images, in the given folder, in the model's, or in one between."""
NO_IMAGES = ("mask", "depth", "label", "seg", "normal", "sparse", "stereo")
"""Words in the names of folders whose pictures are other ones of the same names."""
DENSE = "stereo/depth_maps"


@dataclass(frozen=True)
class ColmapModel(Reader):
    """cameras, images, points3D (.bin or .txt), and the images they were made from."""

    expects: ClassVar[str] = (
        "cameras, images and points3D (.bin or .txt) here, in sparse/, sparse/0/ or "
        "colmap/sparse/0/, beside images/"
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
        unit, offset = colmap_scene.read_unit(model)
        posed = {
            name: camera_at(camera, offset) for name, camera in colmap_scene.cameras(model).items()
        }
        images = sorted(posed, key=natural)
        if not images:
            raise InputError(f"{model} has no registered image; reconstruct it again")
        files = self._images(path, model, images)
        maps = _dense(path, model) if self.dense else None
        views, skipped, notes = [], [], {_chosen(path, model), renamed(files)}
        for image, name in zip(images, unique_names(images), strict=True):
            try:
                if image not in files:
                    raise FrameError(f"the picture {image} is missing")
                camera, note = _fitted(files[image], posed[image])
                load = partial(read_color, files[image])
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
        others = _others(files)
        # COLMAP often registers few of many images without a fault of the scan: then only a note.
        if 2 * (len(skipped) + len(others)) <= len(images) + len(others):
            skipped += [Skipped(o, "not registered in the COLMAP model") for o in others]
        elif others:
            notes.add(f"{len(others)} images are not registered in the COLMAP model")
        source = f"reader colmap at {path}"
        metric = unit if self.metric is None else self.metric
        scene = finish(path, views, skipped, source, sorted(filter(None, notes)), bool(metric))
        load_points = partial(colmap_scene.load_points, model, offset, scene.offset)
        return replace(scene, load_points=load_points)

    def _images(self, path: Path, model: Path, names: list[str]) -> dict[str, Path]:
        """Image name -> picture; InputError where the folder of the pictures is not found."""
        homes = _homes(path, model) if self.images is None else [self.images]
        tried = names[:10]
        exact = [h for h in homes if any((h / name).is_file() for name in tried)]
        for home in [*exact, *homes]:
            folder = Folders([home])
            if any(folder.find(name) for name in tried):
                return folder.all(names)
        raise InputError(
            f"{path}: {names[0]} of the COLMAP model is not in {path / 'images'}; "
            "put the images there, or name their folder with "
            f"{option_words('colmap', 'images', 'DIR')}"
        )


def _homes(path: Path, model: Path) -> list[Path]:
    """Folders that may hold the images, the likeliest first."""
    between = [path, *(up for up in (model, *model.parents) if up.is_relative_to(path))]
    homes = [find(base, place) for base in dict.fromkeys(between) for place in IMAGES]
    # Given the model's own folder, the images are beside it or one folder up.
    homes += [find(base, IMAGES[0]) for base in path.resolve().parents[:2]]
    others = [name for name in names_in(path) if not any(w in name.lower() for w in NO_IMAGES)]
    homes += [path / name for name in others]
    return [home for home in dict.fromkeys(homes) if home is not None and home.is_dir()]


def _models(path: Path) -> list[Path]:
    """The folders with the three files of a model in the first of the possible places."""
    for place in PLACES:
        home = find(path, place)
        if home is None:
            continue
        numbers = sorted((name for name in names_in(home) if name.isdecimal()), key=int)
        folders = [home, *(home / name for name in numbers)]
        models = [f for f in folders if any(colmap_scene.is_model(f, s) for s in ("bin", "txt"))]
        if models:
            return models
    return []


def _model(path: Path) -> Path | None:
    """The model with most registered images, of several the first; None without a model."""
    return max(_models(path), key=colmap_scene.registered, default=None)


def _chosen(path: Path, model: Path) -> str | None:
    """A note that names the models that were not taken."""
    counts = {each: colmap_scene.registered(each) for each in _models(path)}
    if len(counts) < 2:
        return None
    others = ", ".join(
        f"{each.relative_to(path)} with {count}" for each, count in counts.items() if each != model
    )
    return (
        f"the model {model.relative_to(path)} is taken, which has most images ({counts[model]}); "
        f"there is also {others}: give that folder to lift it instead"
    )


def _others(files: dict[str, Path]) -> list[str]:
    """Pictures beside those of the model that COLMAP did not register."""
    known = {(file.parent, file.name) for file in files.values()}
    homes = {file.parent for file in files.values()}
    found = [
        file
        for home in homes
        for file in home.iterdir()
        if file.suffix.lower() in PHOTOS
        and not file.name.startswith(".")
        and (file.parent, file.name) not in known
    ]
    top = Path(os.path.commonpath(homes))
    return sorted((file.relative_to(top).as_posix() for file in found), key=natural)


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
