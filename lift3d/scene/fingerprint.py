"""Digests of settings, files, arrays, scenes and code, to see whether they are still the same."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from lift3d.scene import Scene, View
from lift3d.scene.contents import content
from lift3d.scene.errors import FrameError
from lift3d.scene.sources import code_of

PUBLISHED: dict[str, Callable[[], str]] = {}
"""A digest for each name that stands for published content, such as weights (`lift3d.networks`
fills it)."""
NAMES_A_FILE = {"names a file": True}
"""`field(metadata=...)` of a text setting that may name weights, a file or a folder."""


def fingerprint(value: object, code: bool = True) -> str:
    """A short hash of settings, arrays, paths and loaders.

    The hash of a path covers its content and suffix, not its location; that of a missing path
    covers its text. A text with a path separator that names an existing file counts as a path.
    Published weights are hashed by their published digest. Dataclass fields with `compare=False`
    are left out: they change no result.

    For a loader (a callable without arguments) that is a `partial` of a module's function the hash
    covers its arguments and, with `code`, the function's source. Any other loader, such as a
    lambda, is called and its result is hashed.

    Raises TypeError for anything else.
    """
    return _fingerprints([value], code)[0]


def scene_fingerprint(scene: Scene) -> str:
    """A hash of a scene's views: cameras, loaders, and the files that these read."""
    views = [
        [
            view.name,
            view.camera,
            view.depth_camera,
            [view.load_image, view.load_depth, view.load_confidence, view.load_instances],
            view.sparse,
        ]
        for view in scene.views
    ]
    return fingerprint([views, scene.metric, scene.load_points, scene.offset])


def pictures(views: Sequence[View]) -> list[str]:
    """A hash of each view's picture, depth and confidence, without the code that reads them."""
    shown = [[view.load_image, view.load_depth, view.load_confidence] for view in views]
    return _fingerprints(shown, code=False)


def classes_in(value: object) -> set[type]:
    """The classes of all settings in a value; their code is part of a stage's key."""
    if isinstance(value, list | tuple):
        return set().union(*map(classes_in, value))
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return set()
    inner = (getattr(value, each.name) for each in dataclasses.fields(value) if each.compare)
    return {type(value)}.union(*map(classes_in, inner))


def _fingerprints(values: Sequence[object], code: bool) -> list[str]:
    """The hash of each value; all files are read together, each once."""
    pieces = [list(_pieces(value, code)) for value in values]
    paths = list(dict.fromkeys(each for some in pieces for each in some if isinstance(each, Path)))
    there = dict(zip(paths, content(*paths), strict=True))
    suffix = {path: path.suffix if path.is_file() else "" for path in paths}
    found = []
    for some in pieces:
        digest = sha256()
        for piece in some:
            if isinstance(piece, Path):
                text = f"{suffix[piece]} {there[piece]}"
                digest.update(text.encode(errors="surrogateescape"))
            else:
                digest.update(piece)
        found.append(digest.hexdigest()[:24])
    return found


def _pieces(value: Any, code: bool) -> Iterator[Any]:
    """Bytes to hash, and paths whose content is to be hashed."""
    if isinstance(value, str) and os.sep in value and _exists(Path(value)):
        value = Path(value)  # as settings and loaders of plug-ins may name files
    if isinstance(value, Path):
        yield from _path_pieces(value)
        return
    yield f"<{type(value).__name__}>".encode()
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise TypeError("no fingerprint for an array of objects")
        yield f"{value.dtype}{value.shape}".encode()
        yield np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for item in dataclasses.fields(value):
            inner = getattr(value, item.name)
            if item.metadata == NAMES_A_FILE and isinstance(inner, str):
                inner = Path(inner)
            if item.compare:
                yield from _pieces([item.name, inner], code)
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from _pieces([str(key), value[key]], code)
    elif isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        for item in items:
            yield from _pieces(item, code)
    elif isinstance(value, str | bytes | int | float | bool | np.generic) or value is None:
        yield repr(value).encode(errors="surrogatepass")
    elif isinstance(value, type):
        yield f"{value.__module__} {value.__qualname__}".encode()
        if code:
            yield code_of(value).encode()
    elif callable(value):
        yield from _loader_pieces(value, code)
    else:
        raise TypeError(f"no fingerprint for {type(value).__name__}")
    yield b";"


def _path_pieces(path: Path) -> Iterator[Any]:
    yield b"<path>"
    known = PUBLISHED.get(str(path))
    if known is not None:
        yield known().encode()
    else:
        yield path.expanduser() if _exists(path) else str(path).encode(errors="surrogatepass")
    yield b";"


def _exists(path: Path) -> bool:
    try:
        return path.expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False  # not a valid file name, such as a long text


def _loader_pieces(load: Callable[..., Any], code: bool) -> Iterator[Any]:
    if isinstance(load, functools.partial):
        arguments = [list(load.args), dict(load.keywords)]
        try:
            pieces = [*_function_pieces(load.func, code), *_pieces(arguments, code)]
        except TypeError:
            pieces = []
        if pieces:
            yield from pieces
            return
    try:
        found = load()
    except FrameError as error:
        yield repr(error).encode()
        return
    yield from _pieces(found, code)


def _function_pieces(function: Any, code: bool) -> Iterator[Any]:
    """The pieces of a function that can be imported by its name.

    Raises TypeError for others, also from `__main__`: a notebook may redefine the name.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "<")
    found: Any = sys.modules.get(str(module))
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None or found is not function or module == "__main__":
        raise TypeError(f"{name} is not found by its name")
    if code:
        yield f"{module} {name} {code_of(function)}".encode()
