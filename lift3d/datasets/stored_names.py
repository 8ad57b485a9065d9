"""Files by the names that another program stored for them, as people's folders really are.

A model made on Windows has backslashes; Metashape writes labels without suffix; a capture was
renamed from .JPG to .jpg, or to `0001.png.png`; a file names the folder of another machine.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lift3d.datasets.images import SUFFIXES

SAME = {".jpeg": ".jpg", ".tiff": ".tif", ".heif": ".heic"}
"""Suffixes that mean the same format."""


class Folders:
    """Finds files below some folders by stored names; each folder is listed once.

    A name is taken as it is where such a file exists. Else, in this order: `\\` as a separator;
    other capitals; a suffix that is missing, or twice; another suffix of a picture; without the
    first folders of the name. Nothing is guessed where two files would fit.
    """

    def __init__(self, homes: Sequence[Path]) -> None:
        self.homes = list(dict.fromkeys(homes))
        self._listed: dict[Path, _Entries] = {}

    def find(self, stored: str) -> Path | None:
        """The file; None where there is none."""
        parts = [part for part in stored.replace("\\", "/").split("/") if part not in ("", ".")]
        if not parts or "\0" in stored:
            return None
        for name in dict.fromkeys((stored, "/".join(parts))):
            for home in self.homes:
                if _is_file(home / name):
                    return home / name
        tails = [parts[start:] for start in range(len(parts))]
        for tail in tails:
            for home in self.homes:
                found = self._below(home, tail)
                if found is not None:
                    return found
        return None

    def all(self, stored: Iterable[str]) -> dict[str, Path]:
        """Stored name -> file. A file that two names would lead to belongs to none of them."""
        found = {name: self.find(name) for name in stored}
        claims = Counter(path for path in found.values() if path is not None)
        exact = {name for name in found if any(_is_file(home / name) for home in self.homes)}
        return {
            name: path
            for name, path in found.items()
            if path is not None and (claims[path] == 1 or name in exact)
        }

    def _below(self, folder: Path, parts: Sequence[str]) -> Path | None:
        *above, last = parts
        for part in above:
            entries = self._entries(folder).names.get(part.lower(), [])
            if part == "..":
                folder = folder / part
            elif len(entries) == 1:
                folder = folder / entries[0]
            else:
                return None
        fitting = (each for each in self._entries(folder).fitting(last) if len(each) == 1)
        return next((folder / name for (name,) in fitting if _is_file(folder / name)), None)

    def _entries(self, folder: Path) -> _Entries:
        if folder not in self._listed:
            self._listed[folder] = _Entries(folder)
        return self._listed[folder]


class _Entries:
    """The names in a folder, by themselves and by their stems, in lower case."""

    def __init__(self, folder: Path) -> None:
        self.names: dict[str, list[str]] = {}
        self.stems: dict[str, list[str]] = {}
        try:
            listed = sorted(os.listdir(folder))
        except OSError:
            listed = []
        for name in listed:
            self.names.setdefault(name.lower(), []).append(name)
            stem, suffix = os.path.splitext(name.lower())
            if suffix in SUFFIXES:
                self.stems.setdefault(stem, []).append(name)

    def fitting(self, stored: str) -> Iterator[list[str]]:
        """The names that fit a stored one, the strictest rule first."""
        low = stored.lower()
        stem, suffix = os.path.splitext(low)
        yield self.names.get(low, [])
        yield self.stems.get(low, [])
        if suffix in SUFFIXES:
            if stem.endswith(suffix):  # stored as 0001.png.png, and the file is 0001.png
                yield self.names.get(stem, [])
            others = self.stems.get(stem, [])
            yield [name for name in others if _format(name) == _format(stored)]
            yield others


def renamed(found: dict[str, Path]) -> str | None:
    """A note where files have other names than the stored ones; a missing suffix is no news."""
    others = {
        name: path
        for name, path in found.items()
        if path.name != Path(name).name and path.stem != Path(name).name
    }
    if not others:
        return None
    name, path = next(iter(others.items()))
    return (
        f"{len(others)} pictures were found under another name than the stored one, such as "
        f"{path.name} for {name}"
    )


def _format(name: str) -> str:
    suffix = os.path.splitext(name)[1].lower()
    return SAME.get(suffix, suffix)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a zero byte
        return False
