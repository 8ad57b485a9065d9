"""Edits, and the file `edits.jsonl` that keeps them: one JSON object per line, only appended to.

An undo is a line too, so nothing is ever removed. Points and pixels of an edit are in the folder
`edits/` beside the file.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lift3d.correction.places import Place
from lift3d.scene.errors import InputError, did_you_mean, system_words
from lift3d.scene.storage import remove

KINDS = (
    *("merge", "split", "select", "paint", "assign", "delete"),
    *("name", "class", "colour", "accept", "lock", "unlock"),
    *("settle", "undo", "redo"),
)
"""What an edit may do."""
OF_OTHERS = ("settle", "undo", "redo")
"""Kinds that change how another edit counts; `details["of"]` is its number."""
_ACCESS = threading.RLock()
"""Held while a file is read or written: no thread sees half of another's line."""


@dataclass(frozen=True, eq=False)
class Edit:
    """One line of `edits.jsonl`."""

    n: int
    """Its number, from 1: the line's position in the file."""
    do: str
    """One of `KINDS`."""
    at: str
    """Time in UTC, ISO 8601."""
    who: str
    base: str
    """Digest of the automatic labels that its ids belong to."""
    spacing: float = 0.0
    """Median distance between neighbouring points of the cloud it was made on."""
    ids: tuple[int, ...] = ()
    """The objects that it changes."""
    new: tuple[int, ...] = ()
    """The objects that it makes."""
    points: int = 0
    """Number of points whose label it changed when it was made."""
    where: Mapping[int, Place] = field(default_factory=dict)
    """Where each object of `ids`, and the target in `details["into"]`, was."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Files with its points or pixels, relative to the run folder, and their SHA-256."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What only this kind has, such as `name`, `into`, `clicks`, `view`, `of`."""
    offset: tuple[float, ...] = ()
    """Local origin that its places are relative to; empty for the world's own."""

    def line(self) -> dict[str, Any]:
        """The line as JSON values; empty fields are left out."""
        own: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name not in ("details", "where") and value not in ((), {}, 0):
                own[each.name] = list(value) if isinstance(value, tuple) else value
        if self.where:
            own["where"] = {str(each): place.as_json() for each, place in self.where.items()}
        return own | dict(self.details)

    @staticmethod
    def of_line(line: Mapping[str, Any]) -> Edit:
        """From what `line` gave; KeyError, TypeError or ValueError for anything else."""
        known = {each.name for each in fields(Edit)} - {"details"}
        if line["do"] not in KINDS:
            raise ValueError(did_you_mean(str(line["do"]), KINDS, "edit"))
        where = {int(each): Place.of_json(place) for each, place in line.get("where", {}).items()}
        details = {name: value for name, value in line.items() if name not in known}
        if len(line.get("offset", ())) not in (0, 3):
            raise ValueError("its offset is not three numbers")
        if line["do"] in OF_OTHERS:
            details["of"] = int(details["of"])
        return Edit(
            n=int(line["n"]),
            do=str(line["do"]),
            at=str(line["at"]),
            who=str(line["who"]),
            base=str(line["base"]),
            spacing=float(line.get("spacing", 0.0)),
            offset=tuple(float(each) for each in line.get("offset", ())),
            ids=tuple(int(each) for each in line.get("ids", ())),
            new=tuple(int(each) for each in line.get("new", ())),
            points=int(line.get("points", 0)),
            where=where,
            files={str(name): str(digest) for name, digest in line.get("files", {}).items()},
            details=details,
        )

    @property
    def into(self) -> int | None:
        """The object that points go to; None for a new one, 0 for none."""
        into = self.details.get("into")
        return None if into is None else int(into)

    def __str__(self) -> str:
        ids, more = _words(self.ids), self.details
        to = f"object {self.into}" if self.into else "no object"
        if self.new:
            to = f"the new object {_words(self.new)}"
        count = f"{self.points:,} points"
        return {
            "merge": f"merge {ids} into {self.into}",
            "split": f"split {ids}: {count} become {_words(self.new)}",
            "select": f"{count} to {to}",
            "paint": f"painted in view {more.get('view')}: {count} to {to}",
            "assign": f"mask {more.get('mask')} of view {more.get('view')} to {to}",
            "delete": f"delete {ids}" + (f": to object {self.into}" if self.into else ""),
            "name": f"name {ids}: {more.get('name') or 'no name'}",
            "class": f"class of {ids}: {more.get('class') or 'none'}",
            "colour": f"colour of {ids}: {more.get('colour') or 'its own again'}",
            "accept": f"accept {ids}",
            "lock": f"lock {ids}",
            "unlock": f"unlock {ids}",
            "settle": f"apply edit {more.get('of')} to {ids}",
            "undo": f"undo edit {more.get('of')}",
            "redo": f"redo edit {more.get('of')}",
        }[self.do]


def _words(ids: Sequence[int]) -> str:
    """Ids in words.

    >>> _words((3, 4, 5))
    '3, 4 and 5'
    """
    few = [str(each) for each in ids]
    return " and ".join([", ".join(few[:-1]), few[-1]]) if len(few) > 1 else "".join(few)


@dataclass(frozen=True)
class EditFile:
    """`edits.jsonl` of a run, and the folder of points and pixels beside it."""

    path: Path

    @property
    def torn(self) -> Path:
        """A last line that was cut off by a crash or a full disk is moved here."""
        return self.path.with_suffix(".torn")

    def read(self) -> tuple[Edit, ...]:
        """Every edit, in order; a last line that is cut off is left out.

        Raises InputError where another line is damaged, or from a newer version.
        """
        return _parsed(self._text()[0], self.path)

    def size(self) -> int:
        """Bytes of the file; 0 where there is none."""
        return self.path.stat().st_size if self.path.exists() else 0

    def repair(self) -> str | None:
        """Move a last line that is cut off to `torn`; returns a warning, None where all is well.

        The caller holds the run's lock.
        """
        with _ACCESS:
            whole, rest = self._text()
            if not rest:
                return None
            with self.torn.open("ab") as file:
                file.write(rest + b"\n")
                _to_disk(file.fileno())
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
                _to_disk(file.fileno())
        return (
            f"the last line of {self.path} was cut off and was moved to {self.torn.name}: "
            "the edit that was being written is lost, all before it are kept"
        )

    def append(self, edit: Edit) -> None:
        """Add a line; it is on the disk when this returns. OSError where it cannot be written."""
        line = json.dumps(edit.line(), ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
        is_new = not self.path.exists()
        with _ACCESS:
            self._write(line)
        if is_new:
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                _to_disk(folder)
            finally:
                os.close(folder)

    def _write(self, line: bytes) -> None:
        before = self.size()
        with self.path.open("ab") as file:
            try:
                if before and not self._ends():
                    file.write(b"\n")
                file.write(line)
                file.flush()
                _to_disk(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), before)  # a part of a line must not stay
                raise

    def _ends(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _text(self) -> tuple[bytes, bytes]:
        """The whole lines, and what is left of a last line that was cut off."""
        try:
            with _ACCESS:
                text = self.path.read_bytes()
        except FileNotFoundError:
            return b"", b""
        except OSError as error:
            raise InputError(f"{self.path} cannot be read ({system_words(error)})") from error
        cut = text.rfind(b"\n") + 1
        whole, rest = text[:cut], text[cut:]
        if rest.strip() and _complete(rest):  # edited by hand: only the end of the line is missing
            return text, b""
        return whole, rest


def _complete(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _to_disk(handle: int) -> None:
    os.fsync(handle)


def _parsed(text: bytes, path: Path) -> tuple[Edit, ...]:
    found: list[Edit] = []
    for number, line in enumerate(text.decode(errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
            if not isinstance(content, dict):
                raise TypeError("it is no JSON object")
            edit = Edit.of_line(content)
        except (
            *(ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError),
        ) as error:
            why = f"it lacks {error}" if isinstance(error, KeyError) else error
            raise InputError(
                f"{path}, line {number} is no edit ({why}); correct or remove that line, or use "
                "a newer lift3d"
            ) from error
        if edit.n != len(found) + 1:
            raise InputError(
                f"{path}, line {number} is edit {edit.n}; expected {len(found) + 1}: lines were "
                "removed or added by hand; put them back (`lift3d edit RUN undo N` takes an edit "
                "back)"
            )
        if edit.do in OF_OTHERS and not 1 <= edit.details["of"] < edit.n:
            raise InputError(
                f"{path}, line {number} is about edit {edit.details['of']}, which is not there"
            )
        found.append(edit)
    return tuple(found)


@dataclass(frozen=True)
class Counting:
    """Which of the edits count now."""

    active: tuple[Edit, ...]
    """Edits that are not undone, in order, without `OF_OTHERS`."""
    settled: Mapping[int, Edit]
    """Number of an edit -> the line that says which objects it is for."""
    undone: Mapping[str, tuple[Edit, ...]]
    """Who -> edits that person may redo, the next one last."""
    done: Mapping[str, tuple[Edit, ...]]
    """Who -> edits that person may undo, the next one last."""

    @staticmethod
    def of(edits: Iterable[Edit]) -> Counting:
        """Follow the undos and redos of `edits`."""
        known: dict[int, Edit] = {}
        off: set[int] = set()
        undone: dict[str, list[int]] = {}
        done: dict[str, list[int]] = {}
        for each in edits:
            known[each.n] = each
            back, forth = undone.setdefault(each.who, []), done.setdefault(each.who, [])
            if each.do == "undo":
                off.add(each.details["of"])
                back.append(each.details["of"])
            elif each.do == "redo":
                off.discard(each.details["of"])
                forth.append(each.details["of"])
            else:
                forth.append(each.n)
                back.clear()
        left = [each for each in known.values() if each.n not in off]
        return Counting(
            tuple(each for each in left if each.do not in OF_OTHERS),
            {each.details["of"]: each for each in left if each.do == "settle"},
            {who: _once(known, ns, off, True) for who, ns in undone.items()},
            {who: _once(known, ns, off, False) for who, ns in done.items()},
        )


def _once(
    known: Mapping[int, Edit], numbers: Sequence[int], off: set[int], inside: bool
) -> tuple[Edit, ...]:
    """The edits, each at its last mention, that are undone (`inside`) or not."""
    last = list(dict.fromkeys(reversed(numbers)))
    return tuple(known[n] for n in reversed(last) if (n in off) == inside)


def remove_files(folder: Path, names: Iterable[str]) -> None:
    """Remove files of an edit that was not made after all."""
    for each in names:
        remove(folder / each)
