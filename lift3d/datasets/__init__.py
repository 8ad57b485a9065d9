"""Readers, one outside format per file, and the choice of the reader for a path."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lift3d.datasets.advice import convert, folders_inside, near_path
from lift3d.datasets.arkitscenes import ArkitScenes
from lift3d.datasets.colmap_model import ColmapModel
from lift3d.datasets.davis import Davis, Mose
from lift3d.datasets.open3d_system import Open3dSystem
from lift3d.datasets.patterns import contents, folders_listed_once, names_in
from lift3d.datasets.photos import Photos
from lift3d.datasets.polycam import Polycam
from lift3d.datasets.recipes import (
    ApcShelf,
    Hololens,
    HololensSubset,
    Open3dTrajectory,
    Replica,
    Tum,
)
from lift3d.datasets.record3d import Record3d
from lift3d.datasets.rgbd_folder import OPTIONS, DescribedFolder, RgbdFolder
from lift3d.datasets.rscan import Rscan
from lift3d.datasets.scanner_app import ScannerApp
from lift3d.datasets.scannet_folder import ScanNetFolder
from lift3d.datasets.scannetpp import ScanNetPP
from lift3d.datasets.sens import Sens
from lift3d.datasets.seven_scenes import SevenScenes
from lift3d.datasets.stray_scanner import StrayScanner
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.datasets.transforms_json import TransformsJson
from lift3d.datasets.video import Video
from lift3d.scene import Origin, Scene
from lift3d.scene.errors import InputError
from lift3d.scene.local_origin import localised
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
        # Before 7-Scenes, whose names are nearly the same.
        "3rscan": Rscan,
        "seven-scenes": SevenScenes,
        # Before the formats into which other programs convert such a capture.
        "scannetpp": ScanNetPP,
        "arkitscenes": ArkitScenes,
        "polycam": Polycam,
        "stray-scanner": StrayScanner,
        "record3d": Record3d,
        "3d-scanner-app": ScannerApp,
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
        "open3d-system": Open3dSystem,
        "tum": Tum,
        "replica": Replica,
        # These two guess the layout, so they come last; another reader may have poses for photos.
        "rgbd": RgbdFolder,
        "photos": Photos,
    },
    Reader,
)
"""Name -> class, in the order they are tried; plug-ins come before the readers that guess."""


TABLES = (".json", ".csv", ".txt", ".log", ".traj", ".bin", ".npy", ".npz")
"""Files that photos do not have beside them; a capture has."""
MANY = 100
"""More files than these beside a folder of photos are no notes about them."""


def detect(path: Path) -> Reader:
    """The first reader, in the order of `READERS`, that matches `path`, or a folder inside it.

    Where the path does not exist, only readers with `takes_words` are tried. InputError where none
    matches.
    """
    with folders_listed_once():
        return _detect(path)


def _detect(path: Path) -> Reader:
    broken: list[str] = []
    for name, reader in _tried(broken):
        if (reader.takes_words or path.exists()) and _matches(name, reader, path, broken):
            return reader
    if not path.exists():
        raise InputError(f"{path} does not exist{_synthetic(path) or near_path(path)}")
    inside = list(folders_inside(path))
    for name, reader in _tried([]):
        if any(_fits_inside(name, reader, each, path) for each in inside):
            return reader
    expected = "".join(
        f"\n  {name}: {READERS[name].expects}" for name in _order() if READERS.is_imported(name)
    )
    advice = convert(path)
    raise InputError(
        f"{path}: no reader knows this (found: {contents(path)}). "
        + (advice or f"Expected one of:{expected}")
        + f"\nFor a layout of your own, describe it in {path / OPTIONS} "
        "(docs/your-own-scan.md says how, and lists the layouts that are known)"
        + "".join(f"\n{each}" for each in broken)
    )


def read_scene(path: Path, reader: str | Reader | None = None) -> Scene:
    """The scene at `path`; the reader is detected, or given by name or as options.

    A scan in a folder inside `path` is read where it is the only one there. `scene.source` names
    the reader; `scene.origin` has what is needed to read the scene again. A georeferenced scene is
    relative to a local origin, `scene.offset`. InputError where it cannot be read.
    """
    found: Reader
    if reader is None:
        found = detect(path)
    else:
        found = READERS.find(reader)() if isinstance(reader, str) else reader
    if not found.takes_words and not path.exists():
        raise InputError(f"{path} does not exist{near_path(path)}")
    name = READERS.name_of(type(found)) or ""
    with folders_listed_once():
        place = _place(path, name, found)
    scene = localised(replace(found.read(place), origin=Origin.of(place, name, found)))
    if place == path:
        return scene
    return replace(scene, notes=(f"the scan is in {place.relative_to(path)}/", *scene.notes))


def _place(path: Path, name: str, reader: Reader) -> Path:
    """`path`, or the one folder inside it that holds what the reader knows."""
    if not path.is_dir() or reader.matches(path):
        return path
    inside = [each for each in folders_inside(path) if _fits_inside(name, reader, each, path)]
    # A scan's own sub-folder may match as well; the outer one is meant.
    outer = [each for each in inside if not any(up in inside for up in each.parents)]
    if len(outer) > 1:
        names = ", ".join(str(each.relative_to(path)) for each in outer[:3])
        raise InputError(
            f"{path} has {len(outer)} scans inside ({names}{', ...' * (len(outer) > 3)}); give one "
            f"of them, or all: lift3d batch {path}/* --out OUT"
        )
    return outer[0] if outer else path


def _fits_inside(name: str, reader: Reader, folder: Path, path: Path) -> bool:
    """Whether a reader takes a folder inside the given one.

    Photos only where nothing else is there: they would leave out the depth and the poses that lie
    beside them.
    """
    if reader.takes_words or (name == "photos" and not _alone(folder, path)):
        return False
    return _matches(name, reader, folder, [])


def _alone(folder: Path, path: Path) -> bool:
    """Whether neither another folder nor a table lies beside `folder`, up to `path`."""
    for up in dict.fromkeys((path, folder.parent)):
        others = [name for name in names_in(up) if up / name not in (folder, folder.parent)]
        tables = any(name.lower().endswith(TABLES) for name in others)
        if tables or any((up / name).is_dir() for name in others[:MANY]) or len(others) > MANY:
            return False
    return True


def _tried(broken: list[str]) -> Iterator[tuple[str, Reader]]:
    """Name and reader with its defaults, in order; errors of plug-ins are added to `broken`."""
    for name in _order():
        try:
            yield name, READERS[name]()
        except Exception as error:  # a plug-in may raise anything; another reader may match
            _plugin_failed(name, error, broken)


def _matches(name: str, reader: Reader, path: Path, broken: list[str]) -> bool:
    try:
        return reader.matches(path)
    except Exception as error:  # as above
        _plugin_failed(name, error, broken)
        return False


def _plugin_failed(name: str, error: Exception, broken: list[str]) -> None:
    """Note and log the error of a plug-in; that of an own reader is raised."""
    if name in READERS.own:
        raise error
    broken.append(f"{error}" if isinstance(error, InputError) else f"{name}: {error!r}")
    log.warning("reader skipped: %s", broken[-1])


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
