"""The files of edits, in the folder `edits/` of a run: sets of points, and painted pixels."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lift3d.correction.edits import Edit
from lift3d.correction.places import PointSet
from lift3d.scene.errors import InputError
from lift3d.scene.storage import load_arrays

POINTS, PIXELS, OBJECTS = "npz", "png", "objects.npz"
"""Endings of the kinds of files: points that an edit gives to objects, painted pixels, and the
points of the objects that it is about."""


class Unfit(Exception):
    """An edit cannot be applied; the message says why."""


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_of(edit: Edit, ending: str) -> str | None:
    """The name of a file of an edit; None where it has none of this kind."""
    names = (each for each in edit.files if each.rpartition("/")[2].partition(".")[2] == ending)
    return next(names, None)


def stored(folder: Path, edit: Edit, ending: str) -> Path:
    """A file of an edit, below the run folder; `Unfit` where it is missing or was changed."""
    name = file_of(edit, ending)
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

    def __call__(self, edit: Edit, ending: str = POINTS) -> PointSet:
        """The points of an edit; `Unfit` where its file is missing, damaged or another.

        Of `OBJECTS`, part n is the n-th of the ids in `where`, ascending.
        """
        digest = edit.files.get(file_of(edit, ending) or "", "")
        if digest not in self._known:
            path = stored(self._folder, edit, ending)
            try:
                self._known[digest] = load_arrays(path, PointSet)
            except InputError as error:
                raise Unfit(str(error)) from error
        return self._known[digest]
