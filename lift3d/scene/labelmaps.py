"""The label maps of all views by view name, in a dict or in files.

Functions that need the label maps of a scene take a `Mapping[str, LabelMap]` from view names to
label maps: a dict, or `LabelMaps`, which reads each map from a folder on access (one grey image
per view, a pixel's value is its id).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Int32

from lift3d.scene import LabelMap, Scene, View
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.guarded import load_bytes, reading
from lift3d.scene.guarded.pictures import opened_picture
from lift3d.scene.storage import atomic

SUFFIXES = (".png", ".tif", ".tiff")
"""Formats of a label map file, in the order of search."""

_GREY = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L", "I;16N")

T = TypeVar("T")


class LazyMapping(Mapping[str, T]):
    """Values by view that `load` returns on each access, in the order of `names`.

    >>> twice = Lazy(["a", "b"], lambda name: np.full((1, 2), len(name), np.int32))
    >>> list(twice), twice["b"].tolist()
    (['a', 'b'], [[1, 1]])
    """

    def __init__(self, names: Iterable[str], load: Callable[[str], T]) -> None:
        self._names, self._load = dict.fromkeys(names), load

    def __getitem__(self, name: str) -> T:
        if name not in self._names:
            raise KeyError(name)
        return self._load(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Lazy(LazyMapping[LabelMap]):
    """Label maps that are made when they are asked for."""


class LabelMaps(Lazy):
    """The label maps in a folder; InputError where a file is missing or damaged."""

    def __init__(self, folder: Path, names: Iterable[str], next_step: str = "") -> None:
        """`next_step`: advice in the error for a missing file; by default, to run again."""
        super().__init__(names, self._read)
        self.folder = folder
        self._next_step = next_step or f"remove {folder} and run again"

    @staticmethod
    def found(folder: Path, names: Iterable[str], what: str = "label map") -> LabelMaps:
        """The label maps that have a file; InputError where none has."""
        names = list(names)
        there = [name for name in names if find_label_map(folder, name) is not None]
        if not there:
            raise InputError(
                f"{folder} has no {what} of any of {len(names)} views; expected one grey PNG per "
                f"view with an id per pixel, such as {names[0] if names else 'VIEW'}.png"
            )
        return LabelMaps(folder, there, f"put it into {folder} again")

    def _read(self, name: str) -> LabelMap:
        path = find_label_map(self.folder, name)
        if path is None:
            raise InputError(f"{self.folder} has no label map of view {name}; {self._next_step}")
        try:
            return read_label_map(path)
        except FrameError as error:
            raise InputError(f"{error}; {self._next_step}") from error


def derived(
    label_maps: Mapping[str, Int32[np.ndarray, "own_height own_width"]],
    change: Callable[[str, Int32[np.ndarray, "own_height own_width"]], LabelMap],
) -> Lazy:
    """Label maps computed from others on access: `change(name, label_map)`, of any size."""
    return Lazy(label_maps, lambda name: change(name, label_maps[name]))


def renumbered(label_maps: Mapping[str, LabelMap], new: Mapping[int, int]) -> Lazy:
    """The maps with ids replaced by `new`; ids that it lacks become 0."""
    return derived(label_maps, lambda name, labels: renumber(labels, new))


def true_label_maps(scene: Scene) -> Lazy:
    """The true label maps of the views that have one."""
    load = {view.name: view.instances for view in scene.views if view.load_instances is not None}

    def known(name: str) -> LabelMap:
        labels = load[name]()
        assert labels is not None
        return labels

    return Lazy(load, known)


def renumber(labels: np.ndarray, new: Mapping[int, int]) -> np.ndarray:
    """An array of ids, of any shape, with ids replaced by `new`; ids that it lacks become 0.

    >>> renumber(np.array([7, 3, 0]), {7: 1}).tolist()
    [1, 0, 0]
    """
    known, index = np.unique(labels, return_inverse=True)
    table = np.array([new.get(int(each), 0) for each in known], np.int32)
    return table[index.reshape(labels.shape)]


def by_name(scene: Scene, label_maps: Iterable[T]) -> dict[str, T]:
    """Label maps in the order of the views, as a dict; InputError where the counts differ."""
    maps = list(label_maps)
    if len(maps) != len(scene):
        raise InputError(f"{len(maps)} label maps for {len(scene)} views; expected one per view")
    return {view.name: labels for view, labels in zip(scene.views, maps, strict=True)}


def check_label_maps(label_maps: Mapping[str, object], scene: Scene) -> None:
    """Raises InputError where a view of the scene has no label map; reads no file."""
    if not isinstance(label_maps, Mapping):
        raise InputError(
            f"label maps came as {type(label_maps).__name__}; expected a mapping from the names "
            "of views to label maps, such as a dict (see lift3d.scene.labelmaps.by_name)"
        )
    missing = [view.name for view in scene.views if view.name not in label_maps]
    if missing:
        few = ", ".join(missing[:3]) + ", ..." * (len(missing) > 3)
        raise InputError(
            f"{len(missing)} of {len(scene)} views have no label map ({few}); track the scene "
            "again, or leave these views out"
        )


def label_map_of(label_maps: Mapping[str, LabelMap], view: View) -> LabelMap:
    """The label map of a view; InputError where its size is not that of the view's image."""
    labels = label_maps[view.name]
    expected = view.camera.height, view.camera.width
    if labels.shape != expected:
        raise InputError(
            f"view {view.name}: label map is {labels.shape[1]}x{labels.shape[0]}, its image is "
            f"{expected[1]}x{expected[0]}; make masks at image resolution"
        )
    return labels


def resized_label_map(
    labels: LabelMap, height: int, width: int
) -> Int32[np.ndarray, "image_height image_width"]:
    """The map of the same image at another size, by nearest pixel, so that no ids are mixed."""
    if labels.shape == (height, width):
        return labels
    row, column = (
        ((np.arange(to) + 0.5) * of / to).astype(np.int64)
        for of, to in zip(labels.shape, (height, width), strict=True)
    )
    return labels[row][:, column]


def write_label_map(folder: Path, name: str, labels: LabelMap) -> Path:
    """Save `labels` in `folder` and return the file.

    A 16-bit PNG, or a 32-bit TIFF where an id is above 65 535. The file is complete or absent;
    a file of the same name in the other format is removed.
    """
    if labels.size and labels.min() < 0:
        raise ValueError(f"label map {name} has the negative id {labels.min()}; ids start at 0")
    wide = labels.size > 0 and labels.max() > np.iinfo(np.uint16).max
    path = folder / f"{name}{'.tif' if wide else '.png'}"
    with atomic(path) as part:
        part.write_bytes(_tiff(labels) if wide else flat_png(labels.astype(np.uint16)))
    for suffix in SUFFIXES:
        if suffix != path.suffix:
            (folder / f"{name}{suffix}").unlink(missing_ok=True)
    return path


def _tiff(labels: LabelMap) -> bytes:
    from PIL import Image

    data = BytesIO()  # libtiff takes only names that are UTF-8
    Image.fromarray(labels).save(data, "TIFF", compression="tiff_adobe_deflate")
    return data.getvalue()


def flat_png(pixels: np.ndarray) -> bytes:
    """A PNG of a picture with flat areas, of one channel or BGR.

    Level 1 without a filter per row is nearly as small as Pillow's best filters there, is written
    in a third of the time and read in half.
    """
    import cv2

    options = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]
    _, data = cv2.imencode(".png", pixels, options)
    return data.tobytes()


def find_label_map(folder: Path, name: str) -> Path | None:
    """The label map of the view `name` in `folder`; None where there is none.

    >>> find_label_map(Path("nowhere"), "000000")
    """
    # Not with_suffix: a view may be called "frame-000000.color".
    candidates = (folder / f"{name}{suffix}" for suffix in SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def read_label_map(path: Path) -> LabelMap:
    """The ids in a grey image of any depth: 1- to 16-bit PNG, 32-bit TIFF.

    A palette image gives its indices, as in the annotations of DAVIS and Pascal VOC. A colour
    image is accepted only where its channels are equal. Raises FrameError where the file is
    missing or damaged, InputError where it is not a label map.
    """
    with opened_picture(path, f"label map {path}") as image, warnings.catch_warnings():
        # Pillow only warns of a truncated TIFF.
        warnings.simplefilter("error")
        values = np.asarray(image) if image.mode in _GREY else None
        mode = image.mode
    labels = _grey(path, mode) if values is None else values
    labels = labels.astype(np.int32)
    if labels.size and labels.min() < 0:
        raise InputError(f"label map {path} holds the negative id {labels.min()}; ids start at 0")
    return labels


def _grey(path: Path, mode: str) -> np.ndarray:
    """One channel of a colour file whose channels are equal."""
    import cv2

    # OpenCV, because Pillow reduces 16-bit colour to 8 bits. From memory, because OpenCV crashes on
    # names that are not UTF-8.
    pixels = None
    if mode != "F":
        data = np.frombuffer(load_bytes(path, FrameError), np.uint8)
        with reading(path, "a label map", FrameError, "write it again"):
            pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
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
