"""A run folder whose finished stages are kept and whose unfinished stages run again.

A stage has a key: the hash of its settings, its code, and the content of its inputs. A stage runs
again when its key has changed. Its record is written last, so a stage that was killed has none and
runs again. The record also has a digest of each output, so that outputs edited by a person are
noticed. While the key stays the same, an edited output is used as it is, and the stages that read
it run again. A stage also runs again where a file of its outputs is missing. Where the stage itself
has to run again, its edited output is first moved to `edited/`, also after a kill: the inodes noted
when the stage began tell which outputs it had not replaced yet.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lift3d.run.layout import Layout
from lift3d.scene.contents import combined, content, files_of
from lift3d.scene.errors import POSIX_ONLY, InputError
from lift3d.scene.fingerprint import classes_in, fingerprint
from lift3d.scene.guarded.json_file import load_json
from lift3d.scene.sources import code_of
from lift3d.scene.storage import atomic, remove, tidy
from lift3d.scene.typed import checked, conforming

try:
    import fcntl
    import resource
except ImportError as error:
    raise InputError(POSIX_ONLY) from error

RECORDS = ".stages"
CONTENTS = f"{RECORDS}/contents"
"""Cache of digests of files that were read."""
OPEN_AT = "open"
"""Where the page of a run that is locked is served."""
EDITED = "edited"
FILES = "files"
"""Folder beside the records; it has the digest of each file of a stage's outputs."""


@dataclass(frozen=True)
class Record:
    """The record of a finished stage."""

    name: str
    key: str
    seconds: float
    peak_memory_mb: float
    """Largest resident size of the process up to the end of this stage."""
    result: dict[str, Any]
    outputs: dict[str, str | None]
    """A digest of each output, as the stage wrote it."""
    set_aside: tuple[str, ...] = ()
    """Paths of edited outputs that were moved away before the stage ran again."""
    edited: tuple[str, ...] = ()
    """Outputs that were changed since the stage ran, and are used as they are now."""
    changed: tuple[str, ...] = ()
    """The files of these outputs that were changed or added."""
    reused: bool = False
    """Whether the stage was kept from an earlier run."""

    @staticmethod
    def of_json(stored: Mapping[str, Any]) -> Record:
        """From what `dataclasses.asdict` gave; KeyError or InputError for anything else."""
        known = {each.name: stored[each.name] for each in dataclasses.fields(Record)}
        return checked(Record, known, "the record of a stage")


@dataclass
class RunFolder:
    """The folder of one run and the records of its stages."""

    path: Path
    on_stage: Callable[[Record], None] = lambda record: None
    records: dict[str, Record] = field(default_factory=dict)
    stays_finished: bool = False
    """Whether the run is finished and stays so while stages follow its edits."""
    _content: dict[str, str | None] = field(default_factory=dict)
    """Digests of outputs, as this process wrote or found them."""

    def stage(
        self,
        name: str,
        settings: object,
        reads: Sequence[Path],
        outputs: Sequence[Path],
        work: Callable[[], dict[str, Any] | None],
        code: Callable[..., Any] | None = None,
    ) -> Record:
        """Run `work` unless the stage is finished with the same key.

        `reads` are the files or folders of the run that it reads, `outputs` those that it writes;
        all outputs must exist for the stage to count as finished. The key includes the source of
        `code`, by default `work`, and of the classes of all settings.
        """
        source = code_of(code or work, *classes_in(settings))
        inputs = [self._content_of(each) for each in self._names(reads)]
        key = fingerprint([name, settings, source, inputs])
        written = self._names(outputs)
        record = self._finished(name, key, written)
        if record is None:
            if not self.stays_finished:
                remove(Layout(self.path).record)
            set_aside = self._set_aside(name, written)
            self._begin(name, written)
            began = time.perf_counter()
            result = work() or {}
            seconds = round(time.perf_counter() - began, 3)
            found = files_of(*(self.path / each for each in written))
            files = dict(zip(written, found, strict=True))
            self._content.update({each: combined(files[each]) for each in written})
            record = Record(
                name,
                key,
                seconds,
                peak_memory_mb(),
                result,
                {each: self._content[each] for each in written},
                set_aside,
            )
            with atomic(self._files_path(name)) as part:
                part.write_text(json.dumps(files, indent=0))
            with atomic(self._record_path(name)) as part:
                part.write_text(json.dumps(dataclasses.asdict(record), indent=1))
            remove(self._begun_path(name))
        self.records[name] = record
        self.on_stage(record)
        return record

    @property
    def all_kept(self) -> bool:
        """Whether no stage had to run."""
        return all(record.reused for record in self.records.values())

    def has(self, name: str) -> bool:
        """Whether the stage has finished before, with any settings."""
        return self._record_path(name).is_file()

    def _begin(self, name: str, outputs: Sequence[str]) -> None:
        """Remove the record of a stage, and note the inodes of its outputs, before they change."""
        with atomic(self._begun_path(name)) as part:
            part.write_text(json.dumps({each: self._inode(each) for each in outputs}))
        remove(self._record_path(name))

    def _replaced(self, name: str) -> Callable[[str], bool]:
        """Whether a killed stage had already replaced an output; always False without a kill."""
        try:
            begun = load_json(self._begun_path(name), kind=dict)
        except InputError:
            return lambda output: self._begun_path(name).exists()
        return lambda output: begun.get(output) != self._inode(output)

    def _inode(self, output: str) -> int | None:
        path = self.path / output
        return path.stat().st_ino if path.exists() else None

    def _record_path(self, name: str) -> Path:
        return self.path / RECORDS / f"{name}.json"

    def _files_path(self, name: str) -> Path:
        return self.path / RECORDS / FILES / f"{name}.json"

    def _begun_path(self, name: str) -> Path:
        return self.path / RECORDS / FILES / f"{name}.begun"

    def _changes(self, name: str, output: str) -> tuple[list[str], list[str]]:
        """The files of an output that were changed or added since the stage, and those missing."""
        try:
            files = load_json(self._files_path(name), kind=dict)
            written = conforming(files.get(output), dict[str, str], output, "")
        except InputError:
            return [output], []  # not recorded: the output as a whole
        now = files_of(self.path / output)[0] or {}
        changed = [each for each, digest in now.items() if written.get(each) != digest]
        missing = [each for each in written if each not in now]
        return [f"{output}/{each}".rstrip("/") for each in changed], missing

    def _names(self, paths: Sequence[Path]) -> list[str]:
        """Paths relative to the run folder, so that records stay valid when it is moved."""
        return [path.relative_to(self.path).as_posix() for path in paths]

    def _now(self, names: Sequence[str]) -> dict[str, str | None]:
        found = content(*(self.path / each for each in names))
        return dict(zip(names, found, strict=True))

    def _content_of(self, name: str) -> str | None:
        if name not in self._content:
            self._content.update(self._now([name]))
        return self._content[name]

    def _record(self, name: str) -> Record | None:
        try:
            return Record.of_json(load_json(self._record_path(name), kind=dict))
        except (InputError, KeyError):
            return None  # never finished, damaged, or written by another version

    def _finished(self, name: str, key: str, outputs: Sequence[str]) -> Record | None:
        record = self._record(name)
        if record is None or record.key != key:
            return None
        now = self._now(outputs)
        if None in now.values():
            return None
        self._content.update(now)
        edited = tuple(each for each in outputs if now[each] != record.outputs.get(each))
        changed: list[str] = []
        for each in edited:
            files, missing = self._changes(name, each)
            if missing:
                return None
            changed += files
        return dataclasses.replace(record, edited=edited, changed=tuple(changed), reused=True)

    def _set_aside(self, name: str, outputs: Sequence[str]) -> tuple[str, ...]:
        """Move edited outputs of a stage to `edited/`; returns their new paths.

        A killed stage has no record: of its outputs those count that it had not replaced yet.
        """
        record = self._record(name)
        written = dict.fromkeys(outputs) if record is None else record.outputs
        replaced = self._replaced(name) if record is None else lambda output: False
        moved = []
        for each, now in self._now(list(written)).items():
            edited = now is not None and now != written[each] and not replaced(each)
            if edited and self._changes(name, each)[0]:
                place = self._free(Path(each).name)
                place.parent.mkdir(exist_ok=True)
                (self.path / each).rename(place)
                moved.append(place.relative_to(self.path).as_posix())
        return tuple(moved)

    def _free(self, name: str) -> Path:
        """An unused path in `edited/`."""
        place, number = self.path / EDITED / name, 1
        while place.exists():
            number += 1
            place = self.path / EDITED / f"{Path(name).stem}-{number}{Path(name).suffix}"
        return place


def open_run(path: Path) -> Path:
    """Create the run folder if needed. InputError where it is a file or has other files in it."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; --out takes a folder")
    if path.is_dir() and any(path.iterdir()) and not (path / RECORDS).is_dir():
        raise InputError(
            f"{path} has files in it and is no run of lift3d; give --out a new folder, "
            "so that none of your files are overwritten"
        )
    try:
        (path / RECORDS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write to {path}: {error.strerror}; choose another --out"
        ) from None
    return path


@contextlib.contextmanager
def alone_in(path: Path, lock: Path | None = None) -> Iterator[None]:
    """Lock the folder; InputError where another process has locked it.

    The lock (flock) is on a file in the run folder, or on `lock`; the system releases it when the
    process exits. Unfinished changes of a killed process are cleaned up first. A folder that
    cannot be written needs neither.
    """
    lock = lock or path / RECORDS / "lock"
    writable = os.access(path, os.W_OK)
    mode = os.O_RDONLY if lock.is_dir() or not writable else os.O_WRONLY | os.O_CREAT
    if not writable and not lock.exists():
        yield
        return
    handle = os.open(lock, mode, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(_taken(path)) from None
        except OSError:
            pass  # a file system without locks, such as some NFS: go on without one
        if writable:
            (path / RECORDS / OPEN_AT).unlink(missing_ok=True)  # of a killed one
        for each in (path, path / RECORDS, path / RECORDS / FILES):
            if writable and each.is_dir():
                tidy(each)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def announced(path: Path, address: str) -> Iterator[None]:
    """Note where a run that is locked is open, for whoever finds it locked.

    The address may hold a secret, so only the owner can read the note.
    """
    note = path / RECORDS / OPEN_AT
    note.unlink(missing_ok=True)
    with open(os.open(note, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(address)
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def _taken(path: Path) -> str:
    """Why a run cannot be locked, and where it is open."""
    with contextlib.suppress(OSError):
        address = (path / RECORDS / OPEN_AT).read_text()
        return f"{path} is open in `lift3d view`, at {address} ; end that one (Ctrl+C) first"
    return f"another lift3d is writing to {path}; wait for it or choose another --out"


def peak_memory_mb() -> float:
    """The largest resident size of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)
