"""Files that are either whole or absent."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lift3d.scene.errors import InputError

T = TypeVar("T")


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary name to write to; it becomes `path` only when the block ends without an error.

    The temporary file keeps the suffix, because writers choose the format by it.
    A process that is killed leaves at most a `.part` file, which is never read.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


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
        with np.load(path, allow_pickle=False) as stored:
            return kind(**{name: stored[name] for name in names if name in stored})
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; expected what a lift writes") from error
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise InputError(f"{path} cannot be read ({error}); remove it and lift again") from error
