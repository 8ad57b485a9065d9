"""How far a run is: bars on a terminal, plain lines elsewhere, on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

Tick = Callable[[int, int], None]
"""Called with how many are done and how many there are."""

PATIENCE = 15.0
"""Seconds between plain lines of one stage."""


@runtime_checkable
class Progress(Protocol):
    """What a run tells of itself while it goes on."""

    def stage(self, name: str) -> AbstractContextManager[Tick]:
        """A context around one stage that takes its ticks."""
        ...

    def say(self, line: str) -> None:
        """One line to the person who waits."""
        ...


class Quiet:
    """Says nothing."""

    @contextmanager
    def stage(self, name: str) -> Iterator[Tick]:
        """Takes the ticks and drops them."""
        yield lambda done, total: None

    def say(self, line: str) -> None:
        """Drops the line."""


class Lines:
    """One line when a stage begins and, while it lasts, one now and then."""

    @contextmanager
    def stage(self, name: str) -> Iterator[Tick]:
        """Prints to stderr."""
        spoke = time.monotonic()

        def tick(done: int, total: int) -> None:
            nonlocal spoke
            if time.monotonic() - spoke > PATIENCE:
                spoke = time.monotonic()
                self.say(f"{name}: {done} of {total}")

        self.say(f"{name} ...")
        yield tick

    def say(self, line: str) -> None:
        """Prints to stderr."""
        print(line, file=sys.stderr, flush=True)


class Bars:
    """A bar per stage that goes away when the stage is done."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[Tick]:
        """Draws to stderr."""
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Drawing

        columns = (
            TextColumn("{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Drawing(*columns, console=self.console, transient=True) as drawing:
            task = drawing.add_task(name, total=None)
            yield lambda done, total: drawing.update(task, completed=done, total=total)

    def say(self, line: str) -> None:
        """Prints to stderr."""
        self.console.print(line, highlight=False, markup=False)


def for_terminal() -> Bars | Lines:
    """Bars where a person watches, lines where a file does."""
    return Bars() if sys.stderr.isatty() else Lines()
