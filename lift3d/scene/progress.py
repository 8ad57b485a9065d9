"""Progress of a run on stderr: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

from lift3d.scene.printing import printable, to_console, to_stderr

Tick = Callable[[int, int], None]
"""Called with the number of items done and the total."""

PATIENCE = 15.0
"""Seconds between plain lines of one stage; chosen by hand."""


@runtime_checkable
class Progress(Protocol):
    """Receives the progress of a run."""

    def stage(self, name: str) -> AbstractContextManager[Tick]:
        """A context around one stage; gives the function to call after each item."""
        ...

    def log(self, line: str) -> None:
        """Log a line."""
        ...


class Quiet:
    """Shows no progress."""

    @contextmanager
    def stage(self, name: str) -> Iterator[Tick]:
        """Ignores the progress of the stage."""
        yield lambda done, total: None

    def log(self, line: str) -> None:
        """Ignores the line."""


class Lines:
    """One line when a stage begins and one every `PATIENCE` seconds while it lasts."""

    @contextmanager
    def stage(self, name: str) -> Iterator[Tick]:
        """Prints to stderr."""
        printed = time.monotonic()

        def tick(done: int, total: int) -> None:
            nonlocal printed
            if time.monotonic() - printed > PATIENCE:
                printed = time.monotonic()
                self.log(f"{name}: {done} of {total}")

        self.log(f"{name} ...")
        yield tick

    def log(self, line: str) -> None:
        """Prints to stderr."""
        to_stderr(line)


class Bars:
    """A bar per stage, removed when the stage is done."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[Tick]:
        """Draws to stderr."""
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Drawing

        columns = (
            TextColumn("{task.description:<12}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Drawing(*columns, console=self.console, transient=True) as drawing:
            task = drawing.add_task(printable(name), total=None)
            yield lambda done, total: drawing.update(task, completed=done, total=total)

    def log(self, line: str) -> None:
        """Prints to stderr."""
        to_console(self.console, line)


def for_terminal() -> Bars | Lines:
    """Bars where stderr is a terminal, lines elsewhere."""
    return Bars() if sys.stderr.isatty() else Lines()
