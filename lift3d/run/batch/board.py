"""How far a batch is: a bar per scan on a terminal, lines elsewhere, on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from lift3d.run.batch.overview import Row
from lift3d.scene.progress import PATIENCE

STAGES = ("reconstruct", "fuse", "track", "associate", "check", "report")
Running = Callable[[], list[tuple[str, int]]]
"""Scans at work and how many of their stages are finished."""


@runtime_checkable
class Board(Protocol):
    """What a batch tells of itself."""

    def shown(self, total: int, running: Running) -> Any:
        """A context around the whole batch."""
        ...

    def say(self, line: str) -> None:
        """One line to the person who waits."""
        ...

    def ended(self, row: Row) -> None:
        """A scan came to its end."""
        ...

    def pulse(self) -> None:
        """Called a few times a second."""
        ...


class LineBoard:
    """A line when a scan ends, and now and then one on what is being done."""

    def __init__(self) -> None:
        self.total, self.done, self.spoke = 0, 0, time.monotonic()
        self.running: Running = list

    @contextmanager
    def shown(self, total: int, running: Running) -> Iterator[None]:
        """Counts from here."""
        self.total, self.done, self.running = total, 0, running
        yield

    def say(self, line: str) -> None:
        """Prints to stderr."""
        self.spoke = time.monotonic()
        print(line, file=sys.stderr, flush=True)

    def ended(self, row: Row) -> None:
        """The scan in one line."""
        self.done += 1
        self.say(f"{self.done} of {self.total}  {row.in_words()}")

    def pulse(self) -> None:
        """Speaks where it was quiet for long."""
        if time.monotonic() - self.spoke > PATIENCE:
            at = ", ".join(f"{name} ({stage(done)})" for name, done in self.running())
            self.say(f"{self.done} of {self.total}; at work: {at or 'workers are starting'}")


class BarBoard:
    """One bar for the batch, one below it for each scan at work."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True)
        self.running: Running = list
        self.bars: dict[str, Any] = {}

    @contextmanager
    def shown(self, total: int, running: Running) -> Iterator[None]:
        """Draws to stderr; the bars go away at the end."""
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Drawing

        columns = (
            TextColumn("{task.description:<32}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self.running = running
        with Drawing(*columns, console=self.console, transient=True) as self.drawing:
            self.whole = self.drawing.add_task("scans", total=total)
            yield
        self.bars.clear()

    def say(self, line: str) -> None:
        """Prints above the bars."""
        self.console.print(line, highlight=False, markup=False)

    def ended(self, row: Row) -> None:
        """The scan in one line; the batch's bar grows."""
        self.say(row.in_words())
        self.drawing.advance(self.whole)

    def pulse(self) -> None:
        """Moves the bars."""
        now = dict(self.running())
        for name in self.bars.keys() - now.keys():
            self.drawing.remove_task(self.bars.pop(name))
        for name, done in now.items():
            if name not in self.bars:
                self.bars[name] = self.drawing.add_task(name, total=len(STAGES))
            told = f"  {name} · {stage(done)}"
            self.drawing.update(self.bars[name], completed=done, description=told)


def stage(done: int) -> str:
    """What follows after so many finished stages."""
    return STAGES[done] if done < len(STAGES) else "finishing"


def for_terminal() -> Board:
    """Bars where a person watches, lines where a file does."""
    return BarBoard() if sys.stderr.isatty() else LineBoard()
