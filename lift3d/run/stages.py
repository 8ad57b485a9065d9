"""A run folder whose stages are done once: finished ones are kept, half-done ones redone.

Each stage has a key, the hash of its settings and of the keys it depends on. Its record is
written last, so a stage that was killed has none and runs again; a stage whose key changed
runs again together with everything that depends on it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lift3d import __version__
from lift3d.scene import Scene
from lift3d.scene.errors import InputError
from lift3d.scene.storage import atomic

RECORDS = ".stages"


@dataclass(frozen=True)
class Record:
    """What is known of a finished stage."""

    name: str
    key: str
    seconds: float
    peak_memory_mb: float
    """Largest resident size of the process up to the end of this stage."""
    result: dict[str, Any]
    reused: bool = False
    """True where this run found it finished."""


@dataclass
class RunFolder:
    """The folder of one run and the records of its stages."""

    path: Path
    on_stage: Callable[[Record], None] = lambda record: None
    records: dict[str, Record] = field(default_factory=dict)

    def stage(
        self,
        name: str,
        settings: object,
        after: Sequence[str],
        outputs: Sequence[Path],
        work: Callable[[], dict[str, Any] | None],
    ) -> Record:
        """Run `work` unless the same stage with the same inputs is finished here.

        `after` names the stages it depends on; `outputs` the files or folders it leaves, all
        of which must exist for the stage to count as finished.
        """
        key = fingerprint([__version__, name, settings, [self.records[each].key for each in after]])
        record = self._finished(name, key, outputs)
        if record is None:
            self.forget(name)
            began = time.perf_counter()
            result = work() or {}
            record = Record(
                name, key, round(time.perf_counter() - began, 3), peak_memory_mb(), result
            )
            with atomic(self._record_path(name)) as part:
                part.write_text(json.dumps(dataclasses.asdict(record), indent=1))
        self.records[name] = record
        self.on_stage(record)
        return record

    def has(self, name: str) -> bool:
        """Whether the stage was finished here once, with these settings or others."""
        return self._record_path(name).is_file()

    def forget(self, name: str) -> None:
        """Drop the record of a stage before its outputs are touched."""
        self._record_path(name).unlink(missing_ok=True)

    def _record_path(self, name: str) -> Path:
        return self.path / RECORDS / f"{name}.json"

    def _finished(self, name: str, key: str, outputs: Sequence[Path]) -> Record | None:
        try:
            record = Record(**json.loads(self._record_path(name).read_text()))
        except (OSError, ValueError, TypeError):
            return None  # never finished, damaged, or written by another version
        whole = record.key == key and all(each.exists() for each in outputs)
        return dataclasses.replace(record, reused=True) if whole else None


@contextlib.contextmanager
def fresh_folder(path: Path) -> Iterator[Path]:
    """A folder that takes the place of `path` when the block ends without an error."""
    import shutil

    part = path.with_name(f".{path.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        shutil.rmtree(path, ignore_errors=True)
        os.replace(part, path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def open_run(path: Path) -> Path:
    """The folder, made if need be; an error where it cannot be one or is somebody else's."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; --out takes a folder")
    if path.is_dir() and any(path.iterdir()) and not (path / RECORDS).is_dir():
        raise InputError(
            f"{path} has files in it and is no run of lift3d; give --out a new folder, "
            "so that nothing of yours is overwritten"
        )
    try:
        (path / RECORDS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write to {path}: {error.strerror}; choose another --out"
        ) from None
    return path


@contextlib.contextmanager
def alone_in(path: Path) -> Iterator[None]:
    """Nobody else writes to the run folder meanwhile; an error where somebody does.

    The lock goes with the process, however it ends.
    """
    import fcntl

    with (path / RECORDS / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another lift3d is writing to {path}; wait for it or choose another --out"
            ) from None
        except OSError:
            pass  # a file system without locks
        yield


def fingerprint(value: object) -> str:
    """A short hash of settings, arrays and paths; a path counts with size and date (a folder
    with those of its files). Fields that are not compared do not count: they change no result.
    """
    digest = hashlib.sha256()
    for piece in _pieces(value):
        digest.update(piece)
    return digest.hexdigest()[:24]


def scene_fingerprint(scene: Scene) -> str:
    """A hash of a scene's views: cameras, what loads them, and the files behind them."""
    return fingerprint(
        [
            [
                view.name,
                view.camera,
                view.depth_camera,
                [view.load_image, view.load_depth, view.load_confidence, view.load_instances],
                view.sparse,
            ]
            for view in scene.views
        ]
        + [scene.metric, scene.load_points]
    )


def _pieces(value: object) -> Iterator[bytes]:
    yield f"<{type(value).__name__}>".encode()
    if isinstance(value, np.ndarray):
        yield f"{value.dtype}{value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, Path):
        yield os.fsencode(value)
        with contextlib.suppress(OSError):
            for each in sorted(value.iterdir()) if value.is_dir() else [value]:
                stat = each.stat()
                yield f"{each.name!r} {stat.st_size} {stat.st_mtime_ns}".encode()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for item in dataclasses.fields(value):
            if not item.compare:
                continue
            yield from _pieces([item.name, getattr(value, item.name)])
    elif isinstance(value, functools.partial):
        yield from _pieces([value.func.__module__, value.func.__qualname__])
        yield from _pieces([list(value.args), dict(value.keywords)])
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            yield from _pieces([str(key), value[key]])
    elif isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        for item in items:
            yield from _pieces(item)
    elif isinstance(value, str | bytes | int | float | bool | np.generic) or value is None:
        yield repr(value).encode()
    elif callable(value):
        yield getattr(value, "__qualname__", type(value).__qualname__).encode()
    else:
        raise TypeError(f"no fingerprint for {type(value).__name__}")
    yield b";"


def peak_memory_mb() -> float:
    """The largest resident size of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, 1)
