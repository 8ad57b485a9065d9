"""Read existing masks: one file or folder per view, named after the view, or one file for all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from lift3d.scene import Masks, Prompt, Scene, View
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.protocols import Segmenter, SegmenterConfig
from lift3d.segmentation.answers import best_mask
from lift3d.segmentation.mask_files import READERS, UNREAD, is_coloured, read_masks, unread
from lift3d.segmentation.mask_json import AllViews

INSIDE = ("masks", "labels", "annotations")
"""Folders that tools put masks into."""


@dataclass(frozen=True)
class FolderConfig(SegmenterConfig):
    """Existing masks, named after the view: ids in .png or .npy, a stack (masks, height, width) in
    .npy or .npz, SAM's, COCO's or labelme's .json, ultralytics' .txt, or a folder <view>/ with one
    PNG per mask. docs/masks.md has all.
    """

    made_elsewhere: ClassVar[bool] = True

    path: Path
    """The folder of masks, or a COCO .json of all views. `lift3d info SCAN` prints the names of
    the views."""
    ids: Literal["per-view", "consistent"] = "per-view"
    """`consistent`: equal ids in different views are the same object."""
    allow_missing: bool = False
    """Treat a view without a mask file as a view without masks, instead of an error."""

    @property
    def ids_agree(self) -> bool:
        """Whether `ids` is `consistent`."""
        return self.ids == "consistent"

    def build(self) -> Folder:
        """The segmenter; raises InputError if the folder does not exist."""
        if not self.path.is_dir() and not (self.path.is_file() and self.path.suffix == ".json"):
            raise InputError(
                f"{self.path} is not a folder; --segmentation.path expects the folder with the "
                "masks, one <view>.png per view, or a COCO .json"
            )
        return Folder(self)


class Folder(Segmenter):
    """Masks read from files; masks of the image's aspect ratio are resized to it."""

    def __init__(self, config: FolderConfig) -> None:
        self._config = config
        self._reason = ""
        """Why the only JSON file in the folder is not of all views."""

    def check(self, scene: Scene) -> None:
        """Raise InputError if views have no masks, before any work is done."""
        missing = [view.name for view in scene.views if self._find(view) is None]
        if not missing or (self._config.allow_missing and len(missing) < len(scene)):
            return
        if self._config.path.is_file():
            raise InputError(
                f"{self._config.path} has no masks of {len(missing)} of {len(scene)} views "
                f"({', '.join(missing[:3])}); its pictures have to be named after the views"
            )
        held = [p for p in self._config.path.iterdir() if not p.name.startswith(".")]
        examples = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        found = ", ".join(sorted(p.name for p in held)[:3]) or "nothing"
        hint = (
            "name the files after the views"
            if len(missing) == len(scene)
            else "add them, or pass --segmentation.allow-missing if those views have no objects"
        )
        hint = self._unread(missing) or hint
        raise InputError(
            f"{self._config.path} has masks for {len(scene) - len(missing)} of {len(scene)} views; "
            f"none for {examples} (found {len(held)} files: {found}); {hint}"
        )

    def segment(self, view: View) -> Masks:
        """The masks of the view, with the ids of the files."""
        found = self._find(view)
        if found is None:
            if self._config.allow_missing:
                shape = (0, view.camera.height, view.camera.width)
                return Masks(np.zeros(shape, bool), np.zeros(0, np.float32), np.zeros(0, np.int32))
            raise FrameError(f"no masks for view {view.name} in {self._config.path}")
        if isinstance(found, Path):
            return read_masks(found, view.camera)
        assert self._whole is not None
        return self._whole.masks(found, view.camera)

    def prompt(self, view: View, prompts: Sequence[Prompt]) -> Masks:
        """For each prompt, the mask that classifies most of its points correctly."""
        masks = self.segment(view)
        return best_mask(masks, prompts)

    def _find(self, view: View) -> Path | str | None:
        """The view's file or folder, or its picture's name in the file of all views."""
        picture = _picture_of(view)
        picture = picture and picture.resolve()
        for home in self._homes:
            for name in _names(view):
                files = (home / f"{name}{suffix}" for suffix in READERS)
                there = [each for each in files if each.is_file() and each.resolve() != picture]
                there += [home / name] * (home / name).is_dir()
                if there:
                    return min(there, key=is_coloured) if len(there) > 1 else there[0]
        found = self._by_number.get(int(view.name)) if view.name.isdecimal() else None
        if found is not None and found.resolve() != picture:
            return found
        return None if self._whole is None else self._whole.name_of(list(_names(view)))

    @cached_property
    def _homes(self) -> list[Path]:
        """The folder, and folders in it that tools put masks into."""
        path = self._config.path
        return [each for each in (path, *(path / name for name in INSIDE)) if each.is_dir()]

    @cached_property
    def _by_number(self) -> dict[int, Path]:
        """Masks that are called by a number of their own, which may have other leading zeros."""
        found: dict[int, list[Path]] = {}
        for path in (each for home in self._homes for each in sorted(home.iterdir())):
            if path.stem.isdecimal() and (path.suffix.lower() in READERS or path.is_dir()):
                found.setdefault(int(path.stem), []).append(path)
        return {number: paths[0] for number, paths in found.items() if len(paths) == 1}

    @cached_property
    def _whole(self) -> AllViews | None:
        """The file of all views: `path` itself, or the only JSON file in the folder."""
        path = self._config.path
        if path.is_file():
            return AllViews(path)
        listed = [each for each in path.glob("*.json") if not each.name.startswith(".")]
        if len(listed) != 1:
            return None
        try:
            return AllViews(listed[0])
        except InputError as error:
            self._reason = str(error)
            return None

    def _unread(self, missing: Sequence[str]) -> str:
        """Why files that are there are not read; empty where none seems meant."""
        names = set(missing)
        for path in sorted(self._config.path.iterdir()):
            suffix = path.suffix.lower()
            meant = path.stem in names and suffix not in READERS
            if path.is_file() and (meant or suffix in UNREAD):
                return unread(path.name, suffix)
        return self._reason


def _names(view: View) -> Iterator[str]:
    """Names of a view's masks: the view's own, and those of its picture, as tools use them."""
    yield view.name
    picture = _picture_of(view)
    if picture is not None:
        yield picture.stem
        yield picture.name


def _picture_of(view: View) -> Path | None:
    """The file of the picture, where it has one of its own."""
    load = view.load_image
    path = load.args[0] if isinstance(load, partial) and load.args else None
    return path if isinstance(path, Path) else None
