"""What a worker does: build what a job needs once, then answer one item after the other."""

from __future__ import annotations

import pickle
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lift3d.scene.errors import InputError
from lift3d.scene.threads import use_cores

OF_SCRIPT = pickle.SHORT_BINUNICODE + b"\x08__main__"
"""The module's name in a pickled class of the script or notebook that runs."""


class CannotSend(InputError):
    """Something cannot be sent to another process; the message says what and why."""


@dataclass(frozen=True)
class Job:
    """A function of one item and of what `build` returns; both parts pickled."""

    work: bytes
    """A function (built, item) -> result."""
    build: bytes
    """A function without arguments; called once by each worker, to load a network for example."""


@dataclass(frozen=True)
class Answer:
    """What came back for one item."""

    data: bytes = b""
    """The pickled result or exception of the item; kept so until it is used."""
    host: str = ""
    attempts: int = 1
    lost: str = ""
    """Why there is no answer: how the worker ended in the last attempt; else empty."""

    def value(self) -> Any:
        """The result; an exception of the item is raised here."""
        succeeded, found = pickle.loads(self.data)
        if succeeded:
            return found
        raise found


class Desk:
    """The place in a worker where items are answered; it keeps what the last job has built."""

    def __init__(self, cores: float, network_threads: int) -> None:
        """`network_threads` is that of the process that hands out the items; 0: leave it."""
        self._cores = max(1, int(cores))
        self._network_threads = network_threads
        self._build = b""
        self._built: Any = None

    def answer(self, job: Job, item: bytes) -> bytes:
        """The pickled result for a pickled item, or the exception. KeyboardInterrupt goes on."""
        try:
            use_cores(self._cores)  # numba counts its threads per thread
            work = pickle.loads(job.work)
            if job.build != self._build:
                self._build, self._built = b"", None  # frees the memory of the last one first
                self._built = pickle.loads(job.build)()
                self._build = job.build
                self._as_there()
            return _pickled((True, work(self._built, pickle.loads(item))))
        except Exception as error:  # any: it is raised again where the answer is used
            return _failed(error)

    def _as_there(self) -> None:
        """Let torch use as many threads as there: on a CPU its last digits depend on them."""
        torch = sys.modules.get("torch")
        if torch is not None and self._network_threads:
            torch.set_num_threads(self._network_threads)


def network_threads() -> int:
    """The threads of torch in this process; 0 where it is not loaded."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch is not None else 0


def nothing() -> None:
    """The `build` of a job that needs nothing."""


def _failed(error: Exception) -> bytes:
    error.add_note(f"in a worker:\n{''.join(traceback.format_exception(error))}")
    try:
        data = _pickled((False, error))
        pickle.loads(data)
    except Exception:  # an exception with arguments of its own, as some libraries have
        plain = RuntimeError(f"{type(error).__name__}: {error}")
        plain.add_note(error.__notes__[-1])
        return _pickled((False, plain))
    return data


def _pickled(value: object) -> bytes:
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def sendable(
    value: object, what: str, dumps: Callable[[object], bytes] = _pickled, by_value: bool = False
) -> bytes:
    """The pickled value; CannotSend where it cannot be pickled, or not loaded elsewhere.

    `by_value`: whether `dumps` also packs the code of classes that no module has.
    """
    try:
        data = dumps(value)
    except Exception as error:  # any: classes may have a __reduce__ of their own
        raise CannotSend(f"{what} cannot be sent to another process ({error})") from error
    if not by_value and OF_SCRIPT in data:
        raise CannotSend(
            f"{what} cannot be sent to another process: its class is in the script or notebook "
            "that runs; move it into a module"
        )
    return data
