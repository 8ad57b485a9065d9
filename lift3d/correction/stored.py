"""The files of edits, in the folder `edits/` of a run: sets of points, and painted pixels."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lift3d.correction.edits import Edit
from lift3d.correction.places import PointSet
from lift3d.scene.errors import InputError
from lift3d.scene.storage import load_arrays

POINTS, PIXELS = ".npz", ".png"
"""Endings of the two kinds of files."""


class Unfit(Exception):
    """An edit cannot be applied; the message says why."""


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stored(folder: Path, edit: Edit, ending: str) -> Path:
    """A file of an edit, below the run folder; `Unfit` where it is missing or was changed."""
    name = next((each for each in edit.files if each.endswith(ending)), None)
    if name is None:
        raise Unfit(f"its {'points' if ending == POINTS else 'pixels'} were not recorded")
    path = folder / name
    if not path.is_file():
        raise Unfit(f"its file {name} is missing; put it back")
    if digest_of(path) != edit.files[name]:
        raise Unfit(f"its file {name} was changed since; put back the one it was made with")
    return path


class StoredSets:
    """The point sets of edits, read from the run folder and kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, PointSet] = {}

    def __call__(self, edit: Edit) -> PointSet:
        """The points of an edit; `Unfit` where its file is missing, damaged or another."""
        digest = next((d for name, d in edit.files.items() if name.endswith(POINTS)), "")
        if digest not in self._known:
            path = stored(self._folder, edit, POINTS)
            try:
                self._known[digest] = load_arrays(path, PointSet)
            except InputError as error:
                raise Unfit(str(error)) from error
        return self._known[digest]
