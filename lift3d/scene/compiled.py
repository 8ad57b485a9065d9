"""Numba functions, compiled once and kept in a cache on the disk where there is a place for one.

numba keeps them beside the source or in the user's cache. Where neither can be written (an image
with a read-only package and no home) they go into a private temporary folder.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core.caching import FunctionCache

F = TypeVar("F", bound=Callable[..., Any])


def compiled(**options: Any) -> Callable[[F], F]:
    """A decorator that compiles a function with numba; `options` are those of `numba.njit`."""

    def decorate(function: F) -> F:
        made: Any = numba.njit(**options)(function)
        cache = _cache(function)
        if cache is not None:
            made._cache = cache
        return made

    return decorate


class _Cache(FunctionCache):
    """numba's cache, without which a function still works."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What is stored for a signature; None, and an empty cache, where it is damaged."""
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # whatever unpickling an incomplete file raises
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Store it; on a full disk it is compiled again the next time."""
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)


def _cache(function: Callable[..., Any]) -> _Cache | None:
    """A cache for the function; None where no folder can be written."""
    try:
        return _Cache(function)
    except RuntimeError:  # numba found no folder
        place = _temporary()
    if place is None:
        return None
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, place  # type: ignore[attr-defined]
    try:
        return _Cache(function)
    except RuntimeError:
        return None
    finally:
        numba.config.CACHE_DIR = before  # type: ignore[attr-defined]


@functools.cache
def _temporary() -> str | None:
    """A folder of this user alone, the same in every process; None where there is none.

    What is in it is executed, so a folder that others made or may write to is not used.
    """
    try:
        path = Path(tempfile.gettempdir(), f"lift3d-numba-{os.getuid()}")
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
    except OSError:
        return None
    private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o022
    return str(path) if private and status.st_uid == os.getuid() else None
