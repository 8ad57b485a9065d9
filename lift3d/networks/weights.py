"""Weights of networks: known checkpoints, the folder that keeps them, and their verification."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

from lift3d.networks.download import announced, download
from lift3d.networks.known import KNOWN, MB, Checkpoint
from lift3d.scene.contents import signature
from lift3d.scene.errors import InputError, did_you_mean
from lift3d.scene.fingerprint import PUBLISHED
from lift3d.scene.guarded.json_file import load_json
from lift3d.scene.printing import to_stderr
from lift3d.scene.storage import atomic, user_cache
from lift3d.scene.typed import conforming


def cache_folder() -> Path:
    """$LIFT3D_WEIGHTS, else `lift3d` in the user's cache ($XDG_CACHE_HOME, else ~/.cache)."""
    if given := os.environ.get("LIFT3D_WEIGHTS"):
        return expanded(given)
    folder = user_cache()
    if folder is None:
        raise InputError(
            "this user has no home folder; set LIFT3D_WEIGHTS to the folder of the weights"
        )
    return folder


def expanded(path: str | Path) -> Path:
    """The path with `~` replaced by the home folder where there is one."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no such user, or no home
        return Path(path)


def known(name: str) -> Checkpoint:
    """The checkpoint of that name; InputError with the nearest name where it is unknown."""
    if name not in KNOWN:
        raise InputError(did_you_mean(name, KNOWN, "checkpoint"))
    return KNOWN[name]


def find(name_or_path: str | Path, folder: Path | None = None) -> Path:
    """The file for a known name or a path; downloads nothing.

    A path is returned as is, and may be a folder. A known name gives the verified file, even where
    the working folder has a file of that name. A file whose size, times or inode changed since it
    was verified (it was copied, or written again) is verified again. Raises InputError where the
    file is missing, was never verified, or has another content.
    """
    name = str(name_or_path)
    if name not in KNOWN:
        path = expanded(name)
        if path.exists():
            return path
        raise InputError(f"no file {name!r}, and {did_you_mean(name, KNOWN, 'checkpoint')}")
    checkpoint, folder = KNOWN[name], folder or cache_folder()
    record = _record(checkpoint, folder)
    path = _place(checkpoint, folder, record)
    if not path.is_file():
        raise InputError(
            f"the weights {name} are not in {folder}; run: {_command(checkpoint, folder)} "
            f"({checkpoint.size / MB:,.0f} MB; licence: {checkpoint.licence})"
        )
    if record is None:
        raise InputError(f"{path} was never verified; run: {_command(checkpoint, folder)}")
    if record["stat"] != signature(path):
        if not checkpoint.fits(path.stat().st_size) or _sha256(path) != record["sha256"]:
            again = _command(checkpoint, folder)
            raise InputError(f"{path} changed since it was verified; run: {again}")
        with contextlib.suppress(OSError):  # only for speed, and the folder may be read-only
            _write_record(checkpoint, path, folder, record["sha256"])
    return path


def published(checkpoint: Checkpoint, folder: Path | None = None) -> str:
    """The SHA-256 of the published file, downloaded or not; the name where it is unknown."""
    if checkpoint.sha256 is not None:
        return checkpoint.sha256
    record = _record(checkpoint, folder or cache_folder())
    return checkpoint.name if record is None else str(record["sha256"])


PUBLISHED.update({name: partial(published, each) for name, each in KNOWN.items()})


def fetch(
    name: str,
    progress: Callable[[int, int], None] | None = None,
    *,
    path: Path | None = None,
    folder: Path | None = None,
    log: Callable[[str], None] = to_stderr,
) -> Path:
    """Download and verify a checkpoint, or verify the local file `path` in place; returns the file.

    `progress` is called with megabytes, first of the download, then of the verification. A wrong
    file is renamed to `.bad` if lift3d downloaded it, and left unchanged if it is the user's.
    """
    checkpoint, folder = known(name), folder or cache_folder()

    def tick(done: int) -> None:
        if progress is not None:
            progress(done // MB, checkpoint.size // MB)

    record = _record(checkpoint, folder)
    place = _place(checkpoint, folder, record) if path is None else expanded(path).resolve()
    log(f"{name}: licence {checkpoint.licence}; you accept it by fetching or using the file")
    if path is not None and not place.is_file():
        raise InputError(f"no file {path}; --path takes {checkpoint.file} as published")
    ours = folder / checkpoint.file
    if place.is_file():
        mine = path is None and place.resolve() == ours.resolve()
        sha256 = _checked(checkpoint, place, folder, record, mine, tick, log)
    elif checkpoint.form:
        raise InputError(
            f"{name} is behind a form: fill it in at {checkpoint.form}, get the file "
            f"{checkpoint.url.rsplit('/', 1)[-1]} there, and give it with --path"
        )
    else:
        part, place = ours.with_name(f"{ours.name}.part"), ours
        log(f"fetching {checkpoint.url} into {folder}")
        size = announced(checkpoint.url) if checkpoint.about else checkpoint.size
        if size is None or not checkpoint.fits(size):
            raise InputError(
                f"{checkpoint.url} has {size or 'unknown'} bytes where about {checkpoint.size:,} "
                "were expected: not the published file (a login page or a proxy in between?). Get "
                "it another way and give it with --path"
            )
        download(checkpoint.url, part, size, tick, log)
        sha256 = _checked(checkpoint, part, folder, record, True, tick, log)
        os.replace(part, ours)
    _write_record(checkpoint, place, folder, sha256)
    if folder != cache_folder():
        log(f"to have it found by name: export LIFT3D_WEIGHTS={folder}")
    return place


def listing(folder: Path | None = None) -> str:
    """Text with the purpose, licence, size, SHA-256 and state of every known checkpoint."""
    folder = folder or cache_folder()
    blocks = [f"weights in {folder}"]
    for checkpoint in KNOWN.values():
        record = _record(checkpoint, folder)
        if checkpoint.sha256:
            sha256 = checkpoint.sha256
        elif record:
            sha256 = f"{record['sha256']}, trusted on first use on {record['first']}"
        else:
            sha256 = "not known: the first file that comes is trusted, and held to from then on"
        rows = {
            "for": checkpoint.purpose,
            "licence": checkpoint.licence,
            "size": f"{'about ' if checkpoint.about else ''}{checkpoint.size / MB:,.0f} MB",
            "SHA-256": sha256,
            "here": _state(checkpoint, folder, record),
        }
        lines = [f"  {word:<8} {text}" for word, text in rows.items()]
        blocks.append("\n".join([checkpoint.name, *lines]))
    return "\n\n".join(blocks)


def _state(checkpoint: Checkpoint, folder: Path, record: dict[str, Any] | None) -> str:
    path = _place(checkpoint, folder, record)
    part = folder / f"{checkpoint.file}.part"
    again = _command(checkpoint, folder)
    if checkpoint.form:
        again = f"{again} --path FILE, with the file from {checkpoint.form}"
    if path.is_file():
        verified = record is not None and record["stat"] == signature(path)
        return f"yes, {path}" if verified else f"not verified, {path}; run: {again}"
    if part.is_file():
        return f"{part.stat().st_size / MB:,.0f} MB of it; to go on: {again}"
    return f"no; to fetch: {again}"


def _command(checkpoint: Checkpoint, folder: Path) -> str:
    elsewhere = "" if folder == cache_folder() else f" --folder {folder}"
    return f"lift3d weights {checkpoint.name}{elsewhere}"


def _checked(
    checkpoint: Checkpoint,
    path: Path,
    folder: Path,
    record: dict[str, Any] | None,
    mine: bool,
    tick: Callable[[int], None],
    log: Callable[[str], None],
) -> str:
    """The SHA-256 of a file with the right size and hash; InputError for any other.

    A wrong file is renamed to `.bad` if it is `mine`; else it is the user's and not changed.
    """
    size = path.stat().st_size
    expected = checkpoint.sha256 or (record and record["sha256"])
    if not checkpoint.fits(size):
        about = "about " if checkpoint.about else ""
        wrong = f"it has {size:,} bytes, expected {about}{checkpoint.size:,}"
    else:
        log(f"verifying {path}")
        sha256 = _sha256(path, tick)
        if expected is None:
            log(
                f"{checkpoint.name}: no published SHA-256 is known, so this file could only be "
                f"checked by its size; it is trusted on first use and later files must equal it: "
                f"{sha256}"
            )
            return sha256
        if sha256 == expected:
            log(f"{checkpoint.name}: SHA-256 as expected, {sha256}")
            return sha256
        wrong = f"its SHA-256 is {sha256}, expected {expected}"
        if checkpoint.sha256 is None and record:
            wrong += (
                f" as of the first use on {record['first']} (to trust another file from now on, "
                f"delete {_record_path(checkpoint, folder)})"
            )
    if not mine:
        raise InputError(
            f"{path} is not the expected {checkpoint.file}: {wrong}; it is left as it is. Give "
            "another with --path, or move it away to fetch one"
        )
    bad = _set_aside(path, folder / checkpoint.file)
    raise InputError(
        f"what came is not the expected {checkpoint.file}: {wrong}; do not load it. It is kept as "
        f"{bad} for you to look at or delete; to fetch anew: {_command(checkpoint, folder)}"
    )


def _set_aside(path: Path, ours: Path) -> Path:
    """Rename to the first free `.bad` name."""
    count = 1
    while (bad := ours.with_name(f"{ours.name}.bad{count if count > 1 else ''}")).exists():
        count += 1
    return path.rename(bad)


def _sha256(path: Path, tick: Callable[[int], None] = lambda done: None) -> str:
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
            done += len(chunk)
            tick(done)
    return digest.hexdigest()


def _place(checkpoint: Checkpoint, folder: Path, record: dict[str, Any] | None) -> Path:
    """The path of the file: the user's own if one is recorded and still exists, else ours."""
    given = Path(record["file"]) if record else None
    return given if given is not None and given.is_file() else folder / checkpoint.file


def _record_path(checkpoint: Checkpoint, folder: Path) -> Path:
    return folder / f"{checkpoint.file}.json"


class Record(TypedDict):
    """What is remembered of a verified file."""

    sha256: str
    first: str
    file: str
    stat: str


def _record(checkpoint: Checkpoint, folder: Path) -> dict[str, Any] | None:
    """The record of the last verification; None without one."""
    path = _record_path(checkpoint, folder)
    if not path.exists():
        return None
    # If a damaged record counted as absent, any file would be trusted as the first.
    trust = "delete it if you trust the weights beside it"
    record: dict[str, Any] = conforming(load_json(path, advice=trust), Record, path, trust)
    return record


def _write_record(checkpoint: Checkpoint, path: Path, folder: Path, sha256: str) -> None:
    """Write the record beside the weights; the date of the first verification is kept."""
    before = _record(checkpoint, folder)
    record = {
        "name": checkpoint.name,
        "url": checkpoint.url,
        "sha256": sha256,
        "sha256_is": "published" if checkpoint.sha256 else "trusted on first use",
        "first": before["first"] if before else date.today().isoformat(),
        "file": str(path.resolve()),
        "stat": signature(path),
    }
    with atomic(_record_path(checkpoint, folder)) as part:
        part.write_text(json.dumps(record, indent=2) + "\n")
