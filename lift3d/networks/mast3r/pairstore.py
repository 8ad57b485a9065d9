"""Arrays of images and pairs, in memory up to a budget and in files beyond it."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np

from lift3d.scene.errors import InputError
from lift3d.scene.guarded.arrays import load_npy
from lift3d.scene.storage import atomic

Key: TypeAlias = tuple[int, ...]
IDENTITY = "identity.txt"


class PairStore:
    """Named arrays under the keys (i, j) or (i,).

    With a folder, `put` writes every entry there, as `<i>-<j>/<name>.npy`, and a later store on
    the same folder has it. Without one, entries beyond the budget go to a temporary folder that
    is removed with the store.

    Entries in memory stay there: pairs are visited in rounds, so the oldest entry is needed next.
    """

    def __init__(
        self, folder: Path | None = None, memory_bytes: int = 2**31, identity: str = ""
    ) -> None:
        """`identity`: text of all that the arrays depend on; entries with another are removed."""
        self.memory_bytes = memory_bytes
        self._folder = folder
        self._kept = folder is not None
        self._memory: dict[Key, dict[str, np.ndarray]] = {}
        self._names: dict[Key, frozenset[str]] = {}
        self._used = 0
        if folder is not None:
            self._open(folder, identity)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, key: Key) -> bool:
        return key in self._names

    def __iter__(self) -> Iterator[Key]:
        return iter(self._names)

    def has(self, key: Key, names: Iterable[str]) -> bool:
        """Whether the entry exists with all these arrays."""
        return key in self._names and self._names[key].issuperset(names)

    def put(self, key: Key, arrays: Mapping[str, np.ndarray]) -> None:
        """Add an entry or replace it; on disk it is complete or absent."""
        for array in self._memory.pop(key, {}).values():
            self._used -= array.nbytes
        size = sum(array.nbytes for array in arrays.values())
        fits = self._used + size <= self.memory_bytes
        if fits:
            # A copy where the array is a view of a larger one, which would stay in memory.
            self._memory[key] = {
                name: array if array.base is None else array.copy()
                for name, array in arrays.items()
            }
            self._used += size
        if self._kept or not fits:
            self._write(key, arrays)
        self._names[key] = frozenset(arrays)

    def get(self, key: Key, *names: str) -> dict[str, np.ndarray]:
        """The arrays of an entry, or only the named ones."""
        wanted = names or sorted(self._names[key])
        if key in self._memory:
            return {name: self._memory[key][name] for name in wanted}
        return {name: self._read(self._place(key) / f"{name}.npy") for name in wanted}

    def _open(self, folder: Path, identity: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        note = folder / IDENTITY
        entries = {}
        for place in folder.iterdir():
            numbers = place.name.split("-")
            if place.is_dir() and all(number.isdecimal() for number in numbers):
                entries[tuple(map(int, numbers))] = place
        if not note.exists() or note.read_text() != identity:
            for place in entries.values():
                shutil.rmtree(place)
            entries = {}
        with atomic(note) as part:
            part.write_text(identity)
        for key, place in entries.items():
            self._names[key] = frozenset(file.stem for file in place.glob("*.npy"))

    def _place(self, key: Key) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="lift3d-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder / "-".join(map(str, key))

    def _write(self, key: Key, arrays: Mapping[str, np.ndarray]) -> None:
        place = self._place(key)
        part = place.with_name(f".{place.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        try:
            for name, array in arrays.items():
                np.save(part / f"{name}.npy", array)
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            raise InputError(
                f"{part.parent} cannot be written to ({error}); free some space there, or choose "
                "another folder"
            ) from error
        shutil.rmtree(place, ignore_errors=True)
        part.rename(place)

    @staticmethod
    def _read(path: Path) -> np.ndarray:
        return load_npy(path, advice=f"remove {path.parent} and run again")
