"""Files and folders that are either whole or absent, also after a kill or a power cut.

What is written gets a temporary name first, one of its own in each process, and its final name
when it is whole and on the disk. A replaced folder is renamed aside until the new one is in its
place; `tidy` puts it back, and removes temporary files, where a process was killed in between.
"""

from __future__ import annotations

import dataclasses
import errno
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
from zipfile import BadZipFile

import numpy as np

from lift3d.scene.errors import InputError

T = TypeVar("T")

THREADS = 8
"""File systems write many files to the disk in one go when they are asked at the same time: 3000
label maps of 20 kB took 10.3 s one after the other, 0.35 s with 8 threads (ext4)."""
FOREIGN_AGE = 24 * 3600.0
"""Seconds after which a temporary file of another machine is taken as left behind."""
_TEMPORARY = re.compile(r"\..+\.(\d+)-([0-9a-f]{8})\.part(\.\w+)?")
_ASIDE = re.compile(r"\.(.+)\.old")


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary name to write to; it becomes `path` only when the block ends without an error.

    The temporary file keeps the suffix, because writers choose the format by it. The file is on
    the disk before it has its name, unless it lies in a folder that is itself temporary: that
    folder is brought to the disk as a whole, which is much faster.
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
    """A folder that takes the place of `path` when the block ends without an error."""
    with staged_folder(path) as part:
        yield part
        replace_folder(part, path)


@contextmanager
def staged_folder(path: Path) -> Iterator[Path]:
    """An empty temporary folder beside `path`, removed at the end if it is still there."""
    part = _temporary(path)
    shutil.rmtree(part, ignore_errors=True)  # of an earlier process of the same number
    part.mkdir(parents=True)
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def replace_folder(part: Path, path: Path) -> None:
    """Give the folder `part` the name `path`; what has the name stays until then.

    Killed in between, the earlier folder is found beside it by `tidy`.
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
    """Put back the folder that was being replaced when a process was killed; remove it where the
    new one has the name already.
    """
    old = _aside(path)
    if not old.exists():
        return
    if path.exists():
        shutil.rmtree(old)
    else:
        os.replace(old, path)


def tidy(folder: Path) -> None:
    """Put right what killed processes left directly in a folder that this process has locked."""
    for path in sorted(folder.iterdir()):
        if found := _ASIDE.fullmatch(path.name):
            restore(path.with_name(found.group(1)))
        elif (found := _TEMPORARY.fullmatch(path.name)) and _left_behind(path, *found.groups()[:2]):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file, for good before anything that follows."""
    if path.exists():
        path.unlink(missing_ok=True)
        _sync(path.parent)


def _temporary(path: Path, suffix: str = "") -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}-{_machine()}.part{suffix}")


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _machine() -> str:
    """This machine in 8 hexadecimal digits."""
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _left_behind(path: Path, process: str, machine: str) -> bool:
    """Whether the process that made it has ended."""
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
        return False  # of another user
    return False


def _sync_all(folder: Path) -> None:
    """Bring a folder with everything in it to the disk."""
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
        return  # a writer that made no file: os.replace says so; or one that may not be read
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # no such thing on this file system
            raise
    finally:
        os.close(handle)


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Arrays under their names as one .npz, whole or absent; None is left out."""
    with atomic(path) as part:
        np.savez(part, **{name: each for name, each in arrays.items() if each is not None})


def load_arrays(path: Path, kind: type[T]) -> T:
    """The dataclass `kind` from an .npz of its fields; fields that have a default may be absent.

    Raises InputError where the file is missing, damaged or lacks a field.
    """
    names = [each.name for each in dataclasses.fields(kind)]  # type: ignore[arg-type]
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return kind(**{name: stored[name] for name in names if name in stored})
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; expected what a lift writes") from error
    except (OSError, ValueError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({error}); remove it and lift again") from error
