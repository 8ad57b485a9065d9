"""Readers, one outside format per file, and the choice of the reader for a path."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lift3d.datasets.colmap_model import ColmapModel
from lift3d.datasets.davis import Davis, Mose
from lift3d.datasets.patterns import contents
from lift3d.datasets.photos import Photos
from lift3d.datasets.recipes import (
    ApcShelf,
    Hololens,
    HololensSubset,
    Open3dTrajectory,
    Replica,
    Tum,
)
from lift3d.datasets.rgbd_folder import OPTIONS, DescribedFolder, RgbdFolder
from lift3d.datasets.scannet_folder import ScanNetFolder
from lift3d.datasets.sens import Sens
from lift3d.datasets.seven_scenes import SevenScenes
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.datasets.transforms_json import TransformsJson
from lift3d.datasets.video import Video
from lift3d.scene import Origin, Scene
from lift3d.scene.errors import InputError
from lift3d.scene.protocols import Reader
from lift3d.scene.registry import KINDS
from lift3d.scene.typed import checked

log = logging.getLogger(__name__)

READERS = KINDS["reader"].built_in(
    {
        "synthetic": SyntheticConfig,
        "rgbd-json": DescribedFolder,
        "sens": Sens,
        "scannet-folder": ScanNetFolder,
        "seven-scenes": SevenScenes,
        "nerfstudio": TransformsJson,
        "colmap": ColmapModel,
        "davis": Davis,
        "mose": Mose,
        "video": Video,
        # Specific layouts first: hololens also matches a subset.
        "hololens-subset": HololensSubset,
        "hololens": Hololens,
        "apc-shelf": ApcShelf,
        "open3d-trajectory": Open3dTrajectory,
        "tum": Tum,
        "replica": Replica,
        # These two guess the layout, so they come last; another reader may have poses for photos.
        "rgbd": RgbdFolder,
        "photos": Photos,
    },
    Reader,
)
"""Name -> class, in the order they are tried; plug-ins come before the readers that guess."""


def detect(path: Path) -> Reader:
    """The first reader, in the order of `READERS`, that matches `path`.

    Where the path does not exist, only readers with `takes_words` are tried. InputError where none
    matches.
    """
    broken = []
    for name in _order():
        try:
            reader: Reader = READERS[name]()
            if (reader.takes_words or path.exists()) and reader.matches(path):
                return reader
        except Exception as error:  # a plug-in may raise anything; another reader may match
            if name in READERS.own:
                raise
            broken.append(f"{error}" if isinstance(error, InputError) else f"{name}: {error!r}")
            log.warning("reader skipped: %s", broken[-1])
    if not path.exists():
        raise InputError(f"{path} does not exist{_synthetic(path)}")
    expected = "".join(
        f"\n  {name}: {READERS[name].expects}" for name in _order() if READERS.is_imported(name)
    )
    raise InputError(
        f"{path}: no reader knows this (found: {contents(path)}). Expected one of:{expected}\n"
        f"For a layout of your own, describe it in {path / OPTIONS} (see docs/your-own-scan.md)"
        + "".join(f"\n{each}" for each in broken)
    )


def read_scene(path: Path, reader: str | Reader | None = None) -> Scene:
    """The scene at `path`; the reader is detected, or given by name or as options.

    `scene.source` names the reader; `scene.origin` has what is needed to read the scene again.
    InputError where it cannot be read.
    """
    found: Reader
    if reader is None:
        found = detect(path)
    else:
        found = READERS.find(reader)() if isinstance(reader, str) else reader
    if not found.takes_words and not path.exists():
        raise InputError(f"{path} does not exist")
    name = READERS.name_of(type(found)) or ""
    return replace(found.read(path), origin=Origin.of(path, name, found))


def read_again(path: Path, reader: str | None, options: Mapping[str, Any]) -> Scene:
    """The scene at `path`, read with the reader and options of a `scene.origin`.

    Another reader is detected where `path` has another format now.
    """
    if not reader:
        return read_scene(path)
    known: Reader = checked(READERS.find(reader), dict(options), f"the options of {reader}")
    return read_scene(path, known if known.matches(path) else None)


def _synthetic(path: Path) -> str:
    """A hint for a misspelled `synthetic:SEED`."""
    word, colon, seed = str(path).partition(":")
    near = difflib.get_close_matches(word, ["synthetic"], cutoff=0.75)
    return f"; did you mean `synthetic{colon}{seed}`?" if near else ""


def _order() -> list[str]:
    exact = [name for name in READERS.own if not READERS[name].guesses]
    return [*exact, *READERS.plugins, *(name for name in READERS.own if name not in exact)]
