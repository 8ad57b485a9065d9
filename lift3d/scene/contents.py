"""Digests of the content of files and folders; known files are not read again.

A file's digest is remembered by its inode, size and times (mtime and ctime: programs can set back
the first, not the second). Recently changed files are read again, because a second change within
one tick of the file system's clock would not show.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path

from lift3d.scene.errors import InputError
from lift3d.scene.guarded.json_file import load_json
from lift3d.scene.storage import atomic

BLOCK = 1 << 22
"""Bytes read and hashed at a time; chosen by hand."""
THREADS = 8
"""Threads that hash blocks, outside Python's lock; chosen by hand."""
SETTLED = 2_000_000_000
"""Nanoseconds since the last change after which any later change also changes the file's times;
the coarsest file system in use (FAT) counts in 2 s."""
FOREIGN = ("thumbs.db", "desktop.ini")
"""Files of file browsers; ignored in a folder, like hidden files."""

_known: dict[str, str] = {}
_used: dict[str, str] = {}


def content(*paths: Path) -> list[str | None]:
    """A digest of each file or folder; it depends on the content, not on the path.

    The digest of a folder covers the relative names and contents of all its files, also in
    subfolders, except hidden ones. None where the path does not exist.
    """
    return [combined(each) for each in files_of(*paths)]


def files_of(*paths: Path) -> list[dict[str, str] | None]:
    """For each path, a digest of every file of the folder by its relative name.

    A single file has the name ""; None where the path does not exist.
    """
    trees = [_files(path) for path in paths]
    digests = _digests({file for tree in trees if tree for file in tree.values()})
    return [
        None if tree is None else {name: digests[file] for name, file in sorted(tree.items())}
        for tree in trees
    ]


def combined(files: Mapping[str, str] | None) -> str | None:
    """One digest of what `files_of` gives for a path."""
    if files is None:
        return None
    if "" in files:
        return files[""]
    digest = blake2b(b"folder", digest_size=16)
    for name, own in files.items():
        digest.update(f"{name!r} {own};".encode())
    return digest.hexdigest()


@contextlib.contextmanager
def remembered(file: Path, keep: bool = True) -> Iterator[None]:
    """Use the digests stored in `file`; with `keep`, store there the digests the block has used.

    Where `file` is missing or damaged, files are read again.
    """
    try:
        before = {key: str(value) for key, value in load_json(file, kind=dict).items()}
    except InputError:
        before = {}
    _known.update(before)
    _used.clear()
    try:
        yield
    finally:
        used = dict(_used)
        if keep and used != before:
            with contextlib.suppress(OSError), atomic(file) as part:  # only for speed
                part.write_text(json.dumps(used, indent=0))
        _known.clear()  # bounded memory in a process that handles many scans
        _used.clear()


def signature(path: Path) -> str | None:
    """A text that changes with every change of a file; None where the file does not exist."""
    try:
        return _signature(path.stat())
    except OSError:
        return None


def _signature(status: os.stat_result) -> str:
    numbers = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return ":".join(map(str, numbers))


def _files(path: Path) -> dict[str, str] | None:
    """The files of a folder by relative name; a single file as ""; None for a missing path."""
    if not path.exists():
        return None
    if not path.is_dir():
        return {"": os.fspath(path)}
    found: dict[str, str] = {}
    _walk(os.fspath(path), "", found, ())
    return found


def _walk(
    folder: str, inside: str, found: dict[str, str], above: tuple[tuple[int, int], ...]
) -> None:
    status = os.stat(folder)
    here = status.st_dev, status.st_ino
    if here in above:
        return  # a link to one of its parent folders
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in FOREIGN:
                continue
            if _is_folder(entry):
                _walk(entry.path, f"{inside}{entry.name}/", found, (*above, here))
            else:
                found[inside + entry.name] = entry.path


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, for example: counts as a file that is not there
        return False


def _digests(files: Iterable[str]) -> dict[str, str]:
    """The digest of each file; unknown files are read in threads."""
    found: dict[str, str] = {}
    blocks: list[tuple[str, int]] = []
    unknown: dict[str, tuple[str, int]] = {}
    for file in files:
        try:
            status = os.stat(file)
        except OSError:
            found[file] = "not there"  # such as a broken link
            continue
        if not stat.S_ISREG(status.st_mode):
            found[file] = "no file"  # a pipe or a device may never end
            continue
        known = _signature(status)
        if known in _known:
            found[file] = _used[known] = _known[known]
        else:
            count = max(1, -(-status.st_size // BLOCK))
            unknown[file] = known, count
            blocks += [(file, number * BLOCK) for number in range(count)]
    with ThreadPoolExecutor(THREADS) as pool:
        read = iter(list(pool.map(_block, blocks)))
    for file, (known, count) in unknown.items():
        digest = blake2b(digest_size=16)
        for _ in range(count):
            digest.update(next(read))
        found[file] = digest.hexdigest()
        _remember(file, known, found[file])
    return found


def _remember(file: str, known: str, digest: str) -> None:
    with contextlib.suppress(OSError):
        status = os.stat(file)
        settled = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > SETTLED
        if settled and status.st_ino and _signature(status) == known:
            _known[known] = _used[known] = digest


def _block(where: tuple[str, int]) -> bytes:
    file, offset = where
    try:
        with open(file, "rb", buffering=0) as stream:
            stream.seek(offset)
            return blake2b(_read(stream), digest_size=16).digest()
    except OSError as error:
        return f"cannot be read: {error.errno}".encode()


def _read(stream: object) -> bytes:
    """One full block, also where a single read returns less."""
    data: bytes = stream.read(BLOCK)  # type: ignore[attr-defined]
    while 0 < len(data) < BLOCK and (more := stream.read(BLOCK - len(data))):  # type: ignore[attr-defined]
        data += more
    return data
