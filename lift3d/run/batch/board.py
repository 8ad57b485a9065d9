"""Progress of a batch on stderr: a bar per scan on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from lift3d.run.batch.overview import Row
from lift3d.run.record import STAGES
from lift3d.scene.printing import printable, to_console, to_stderr
from lift3d.scene.progress import PATIENCE

Running = Callable[[], list[tuple[str, int]]]
"""Scans being lifted and the number of their finished stages."""


@runtime_checkable
class Board(Protocol):
    """Shows the progress of a batch."""

    def shown(self, total: int, running: Running) -> Any:
        """A context around the batch, which has `total` scans to lift."""
        ...

    def say(self, line: str) -> None:
        """Log a line to stderr."""
        ...

    def ended(self, row: Row) -> None:
        """Report that a scan has ended."""
        ...

    def pulse(self) -> None:
        """Update; called a few times a second."""
        ...


class LineBoard:
    """A line when a scan ends, and a heartbeat line in between."""

    def __init__(self) -> None:
        self.total, self.done, self.last_line = 0, 0, time.monotonic()
        self.running: Running = list

    @contextmanager
    def shown(self, total: int, running: Running) -> Iterator[None]:
        """Start counting."""
        self.total, self.done, self.running = total, 0, running
        yield

    def say(self, line: str) -> None:
        """Print to stderr."""
        self.last_line = time.monotonic()
        to_stderr(line)

    def ended(self, row: Row) -> None:
        """Print the scan's row as one line."""
        self.done += 1
        self.say(f"{self.done} of {self.total}  {row.in_words()}")

    def pulse(self) -> None:
        """Print a heartbeat line after `PATIENCE` seconds without output."""
        if time.monotonic() - self.last_line > PATIENCE:
            now = ", ".join(f"{name} ({stage(done)})" for name, done in self.running())
            self.say(f"{self.done} of {self.total}; running: {now or 'workers are starting'}")


class BarBoard:
    """One bar for the batch, and below it one for each scan being lifted."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True)
        self.running: Running = list
        self.bars: dict[str, Any] = {}

    @contextmanager
    def shown(self, total: int, running: Running) -> Iterator[None]:
        """Draw to stderr; the bars are removed at the end."""
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Drawing

        columns = (
            TextColumn("{task.description:<32}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        self.running = running
        with Drawing(*columns, console=self.console, transient=True) as self.drawing:
            self.all_scans = self.drawing.add_task("scans", total=total)
            yield
        self.bars.clear()

    def say(self, line: str) -> None:
        """Print above the bars."""
        to_console(self.console, line)

    def ended(self, row: Row) -> None:
        """Print the scan's row as one line and advance the batch's bar."""
        self.say(row.in_words())
        self.drawing.advance(self.all_scans)

    def pulse(self) -> None:
        """Update the bars."""
        now = dict(self.running())
        for name in self.bars.keys() - now.keys():
            self.drawing.remove_task(self.bars.pop(name))
        for name, done in now.items():
            if name not in self.bars:
                self.bars[name] = self.drawing.add_task(printable(name), total=len(STAGES))
            text = printable(f"  {name} · {stage(done)}")
            self.drawing.update(self.bars[name], completed=done, description=text)


def stage(done: int) -> str:
    """The stage that runs after `done` finished ones."""
    return STAGES[done] if done < len(STAGES) else "finishing"


def for_terminal() -> Board:
    """Bars on a terminal, lines where stderr goes to a file."""
    return BarBoard() if sys.stderr.isatty() else LineBoard()
