"""Readers, one outside format per file, and how the right one is found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from lift3d.datasets.colmap_model import ColmapModel
from lift3d.datasets.davis import Davis, Mose
from lift3d.datasets.patterns import contents
from lift3d.datasets.photos import Photos
from lift3d.datasets.recipes import RECIPES
from lift3d.datasets.rgbd_folder import OPTIONS, RgbdFolder, from_file
from lift3d.datasets.scannet_folder import ScanNetFolder
from lift3d.datasets.sens import Sens
from lift3d.datasets.seven_scenes import SevenScenes
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.datasets.transforms_json import TransformsJson
from lift3d.datasets.typed import checked
from lift3d.datasets.video import Video
from lift3d.scene import Origin, Scene
from lift3d.scene.errors import InputError, did_you_mean


@runtime_checkable
class Reader(Protocol):
    """The options of one outside format; frozen, and all there is to a reader."""

    expects: ClassVar[str]
    """What it reads, in words, for the message when nothing matches."""

    def matches(self, path: Path) -> bool:
        """Whether `path` looks like this format; cheap, decodes nothing."""
        ...

    def read(self, path: Path) -> Scene:
        """The scene, lazily: no image is decoded. InputError where it cannot be read."""
        ...


READERS: dict[str, Any] = {
    "sens": Sens,
    "scannet-folder": ScanNetFolder,
    "seven-scenes": SevenScenes,
    "rgbd": RgbdFolder,
    "nerfstudio": TransformsJson,
    "colmap": ColmapModel,
    "davis": Davis,
    "mose": Mose,
    "video": Video,
    "photos": Photos,
    "synthetic": SyntheticConfig,
}
"""Name -> config class, in the order they are asked; all fields have defaults."""


def detect(path: Path) -> Reader:
    """The reader for `path`, options filled in.

    The word `synthetic` where nothing has that name; else first the folder's own `rgbd.json`,
    then the readers, then the recipes; photos without poses come last.
    """
    if SyntheticConfig().matches(path):
        return SyntheticConfig()
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if (path / OPTIONS).is_file():
        return from_file(path / OPTIONS)
    particular = [READERS[name]() for name in READERS if name not in ("rgbd", "photos")]
    # The plain RGB-D folder comes late: its defaults are a guess where a recipe is none. Photos
    # come last: what else is there may pose them.
    for reader in (*particular, *RECIPES.values(), RgbdFolder(), Photos()):
        if reader.matches(path):
            return reader
    expected = "".join(f"\n  {name}: {reader.expects}" for name, reader in READERS.items())
    raise InputError(
        f"{path}: no reader knows this (found: {contents(path)}). Expected one of:{expected}\n"
        f"  or one of the recipes {', '.join(RECIPES)}.\n"
        f"For a layout of your own, describe it in {path / OPTIONS} (see data/README.md)"
    )


def read_scene(path: Path, reader: str | Reader | None = None) -> Scene:
    """The scene at `path`; the reader is found, or given by name (a recipe's too) or as options.

    `scene.source` says which it was, `scene.origin` how to read it again.
    """
    chosen = _reader(path, reader)
    scene = chosen.read(path)
    return replace(scene, origin=Origin(path, reader_name(chosen), _as_options(chosen)))


def read_again(path: Path, reader: str | None, options: Mapping[str, Any]) -> Scene:
    """The scene at `path` by the reader and the options that a `scene.origin` has.

    By another reader where `path` is of another format by now.
    """
    if reader is None:
        return read_scene(path)
    if reader not in READERS:
        raise InputError(did_you_mean(reader, READERS, "reader"))
    known = checked(READERS[reader], dict(options), f"the options of {reader}")
    return read_scene(path, known if known.matches(path) else None)


def reader_name(reader: Reader) -> str:
    """The name of a reader by its kind."""
    return next(name for name, kind in READERS.items() if type(reader) is kind)


def _reader(path: Path, reader: str | Reader | None) -> Reader:
    if reader is None:
        return detect(path)
    if not isinstance(reader, str):
        return reader
    if reader != "synthetic" and not path.exists():
        raise InputError(f"{path} does not exist")
    if reader == "rgbd" and (path / OPTIONS).is_file():
        return from_file(path / OPTIONS)
    if reader in RECIPES:
        return RECIPES[reader]
    if reader not in READERS:
        raise InputError(did_you_mean(reader, [*READERS, *RECIPES], "reader"))
    return READERS[reader]()


def _as_options(reader: Reader) -> dict[str, Any]:
    """A reader's options as JSON holds them, so that they compare equal after reading."""
    return json.loads(json.dumps(asdict(reader), default=str))  # type: ignore[call-overload]
