"""Files and folders that are either complete or absent, also after a kill or a power cut.

Files are written under a temporary name, unique to the process and the call, and get their final
name when they are complete and on the disk. A folder to be replaced is renamed until the new one is
in place. Where a process was killed in between, `tidy` restores it and removes temporary files.
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
import os
import platform
import re
import shutil
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lift3d.scene.guarded import reading
from lift3d.scene.guarded.arrays import load_npz
from lift3d.scene.typed import arrays_fit

T = TypeVar("T")

THREADS = 8
"""Threads that call fsync: file systems combine simultaneous calls. 3000 label maps of 20 kB took
10.3 s one after the other, 0.35 s with 8 threads (ext4)."""
FOREIGN_AGE = 24 * 3600.0
"""Seconds after which a temporary file of another machine counts as abandoned; chosen by hand."""
DAMAGED = "remove it and lift again"
"""What to do where a file of a run cannot be read."""
_TEMPORARY = re.compile(r"\..+\.(\d+)-([0-9a-f]{8})(?:-\d+)?\.part(\.\w+)?")
_numbers = itertools.count()
_ASIDE = re.compile(r"\.(.+)\.old")


def user_cache() -> Path | None:
    """`lift3d` in the user's cache ($XDG_CACHE_HOME, else ~/.cache); None without a home."""
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return Path(caches) / "lift3d"
    try:
        return Path.home() / ".cache/lift3d"
    except RuntimeError:  # as in a container whose user has no entry
        return None


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary file to write to, renamed to `path` when the block ends without an error.

    The temporary file keeps the suffix, because writers choose the format by it. It is synced
    before it is renamed, unless it is in a temporary folder: that folder is synced once, which
    is much faster.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _temporary(path.with_name(path.stem), path.suffix)
    staged = any(_TEMPORARY.fullmatch(each.name) for each in path.parents)
    try:
        yield part
        if not staged:
            _sync(part)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if not staged:
        _sync(path.parent)


@contextmanager
def fresh_folder(path: Path) -> Iterator[Path]:
    """A new folder that replaces `path` when the block ends without an error."""
    with staged_folder(path) as part:
        yield part
        replace_folder(part, path)


@contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """An empty temporary folder beside `path`, removed at the end if it is still there."""
    part = _temporary(path)
    shutil.rmtree(part, ignore_errors=True)  # of an earlier process with the same id
    part.mkdir(parents=True)
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def replace_folder(part: Path, path: Path) -> None:
    """Rename the folder `part` to `path`, and then remove the folder it replaces.

    After a kill in between, `tidy` restores the earlier folder.
    """
    restore(path)
    _sync_all(part)
    old = _aside(path)
    if path.exists():
        os.replace(path, old)
    try:
        os.replace(part, path)
    except BaseException:
        restore(path)
        raise
    _sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def restore(path: Path) -> None:
    """Put back the folder that a killed process was replacing; remove it where the new one is
    in place already.
    """
    old = _aside(path)
    if not old.exists():
        return
    if path.exists():
        shutil.rmtree(old)
    else:
        os.replace(old, path)


def tidy(folder: Path) -> None:
    """Restore replaced folders and remove temporary files that killed processes left in `folder`.

    Subfolders are not searched. The caller holds the folder's lock.
    """
    for path in sorted(folder.iterdir()):
        if found := _ASIDE.fullmatch(path.name):
            restore(path.with_name(found.group(1)))
        elif (found := _TEMPORARY.fullmatch(path.name)) and _left_behind(path, *found.groups()[:2]):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file and sync its folder, so that the removal is durable before later writes."""
    if path.exists():
        path.unlink(missing_ok=True)
        _sync(path.parent)


def _temporary(path: Path, suffix: str = "") -> Path:
    number = next(_numbers)  # two threads may write to one path
    return path.with_name(f".{path.name}.{os.getpid()}-{_machine()}-{number}.part{suffix}")


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _machine() -> str:
    """This machine in 8 hexadecimal digits."""
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _left_behind(path: Path, process: str, machine: str) -> bool:
    """Whether the process that made the temporary file has ended."""
    if machine != _machine():
        try:
            return time.time() - path.stat().st_mtime > FOREIGN_AGE
        except OSError:
            return False
    if int(process) == os.getpid():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False  # a process of another user
    return False


def _sync_all(folder: Path) -> None:
    """Sync a folder with everything in it to the disk."""
    folders, files = [], []
    for place, _, names in os.walk(folder):
        folders.append(Path(place))
        files += [Path(place, name) for name in names]
    _sync_many(files)
    _sync_many(folders)


def _sync_many(paths: Iterable[Path]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(_sync, paths):
            pass


def _sync(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, PermissionError):
        return  # no file was written (os.replace raises), or it may not be read
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not supported by the file system
            raise
    finally:
        os.close(handle)


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Save named arrays as one .npz, complete or absent; None is left out."""
    with atomic(path) as part:
        np.savez(part, **{name: each for name, each in arrays.items() if each is not None})


def load_arrays(path: Path, kind: type[T]) -> T:
    """The dataclass `kind` from an .npz of its fields; fields with a default may be absent.

    Raises InputError where the file is missing or damaged, lacks a field, or where the type or the
    shape of a field is another.
    """
    names = [each.name for each in dataclasses.fields(kind)]  # type: ignore[arg-type]
    stored = load_npz(path, names, advice=DAMAGED)
    with reading(path, "what a lift writes", advice=DAMAGED):
        arrays_fit(stored, kind)
        return kind(**stored)
