"""The table of a batch: `batch.json`, a page that links to every report, and the printed table."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import quote

from rich.console import Console

from lift3d.run.batch.workers import Ended
from lift3d.run.layout import Layout
from lift3d.run.report import POLICY
from lift3d.run.report.markup import Markup, element, joined, table
from lift3d.run.report.style import STYLE
from lift3d.run.run import Run
from lift3d.run.settings import LiftConfig
from lift3d.scene.printing import plain_table, to_console
from lift3d.scene.storage import atomic

TABLE, PAGE = "batch.json", "batch.html"
HEAD = ("scan", "views", "objects", "points", "AP", "AP50", "AP25", "H", "coverage", "seconds")
MEANS = ("ap", "ap50", "ap25", "H", "coverage", "seconds")
ScanState: TypeAlias = Literal["done", "quarantined", "failed", "not done"]


@dataclass(frozen=True)
class Row:
    """One scan of a batch; a number that does not exist is None."""

    scan: str
    input: str
    folder: str
    state: ScanState
    error: str = ""
    attempts: int = 0
    """Number of workers that tried it; 1 where none died."""
    host: str = ""
    reused: int = 0
    """Number of stages that were kept from an earlier run."""
    views: int | None = None
    objects: int | None = None
    points: int | None = None
    ap: float | None = None
    ap50: float | None = None
    ap25: float | None = None
    protocol: str = ""
    """Protocol of AP."""
    H: float | None = None
    coverage: float | None = None
    """Share of pixels that H is over."""
    seconds: float | None = None
    """Time of all stages, including those kept from earlier runs."""
    peak_memory_mb: float | None = None
    warnings: int = 0

    @staticmethod
    def of_run(name: str, config: LiftConfig, ended: Ended) -> Row:
        """The row of a finished run; InputError where its files cannot be read."""
        opened = Run.open(config.out)
        run, checked = opened.record, opened.consistency
        result = {stage["name"]: stage["result"] for stage in run["stages"]}
        truth = checked.get("truth", {})
        return Row(
            scan=name,
            input=str(config.input),
            folder=str(config.out),
            state="done",
            attempts=ended.attempts,
            host=ended.host,
            reused=sum(stage["reused"] for stage in run["stages"]),
            views=run["views"],
            objects=result["associate"]["instances"],
            points=result["fuse"]["points"],
            ap=truth.get("ap"),
            ap50=truth.get("ap50"),
            ap25=truth.get("ap25"),
            protocol=truth.get("protocol", ""),
            H=checked["printed"]["all"]["H"],
            coverage=checked["printed"]["coverage"],
            seconds=run["seconds"],
            peak_memory_mb=run["peak_memory_mb"],
            warnings=len(run["warnings"]),
        )

    def in_words(self) -> str:
        """One line."""
        if self.state != "done":
            return f"{self.scan}: {self.state}: {first_line(self.error)}"
        _, views, objects, _, ap, *_, consistency, _, seconds = self.cells()
        again = f", attempt {self.attempts}" if self.attempts > 1 else ""
        known = f", AP {ap}" if self.ap is not None else ""
        found = f"{views} views, {objects} objects{known}, H {consistency}, {seconds} s"
        return f"{self.scan}: {found}{again}"

    def cells(self) -> list[str]:
        """As the table shows them, after `HEAD`."""
        counts = [_count(each) for each in (self.views, self.objects, self.points)]
        return [self.scan, *counts, *_shown([getattr(self, name) for name in MEANS])]


def write_overview(out: Path, rows: Sequence[Row]) -> None:
    """Write both files. Links are relative, so the folder can be moved with its runs."""
    content = {
        "states": Counter(row.state for row in rows),
        "mean": means(rows),
        "scans": [asdict(row) for row in rows],
    }
    with atomic(out / TABLE) as part:
        part.write_text(json.dumps(content, indent=1))
    with atomic(out / PAGE) as part:
        part.write_text(_page(out, rows), encoding="utf-8")


def means(rows: Sequence[Row]) -> dict[str, Any]:
    """Mean of each number over the scans that have it.

    The mean AP is not a benchmark's AP, which ranks the objects of all scans together.
    """
    done = [row for row in rows if row.state == "done"]
    found: dict[str, Any] = {}
    for name in MEANS:
        known = [getattr(row, name) for row in done if getattr(row, name) is not None]
        found[name] = sum(known) / len(known) if known else None
        found[f"{name}_scans"] = len(known)
    return found


def print_overview(out: Path, rows: Sequence[Row]) -> None:
    """Print a line per scan, the means, and the path of the page."""
    shown = plain_table(out, header_style="bold")
    for at, name in enumerate(HEAD):
        shown.add_column(name, justify="right" if at else "left", overflow="fold")
    for row in rows:
        if row.state == "done":
            shown.add_row(*row.cells())
    mean = means(rows)
    if sum(row.state == "done" for row in rows) > 1:
        shown.add_row("mean", "", "", "", *_shown([mean[name] for name in MEANS]), style="bold")
    console = Console()
    console.print(shown)
    for row in rows:
        if row.state != "done":
            to_console(console, row.in_words())
    for protocol in sorted({row.protocol.partition(" (")[0] for row in rows if row.protocol}):
        to_console(console, f"AP: {protocol}")
    to_console(console, f"{tally(rows)}; {out / PAGE}")


def tally(rows: Sequence[Row]) -> str:
    """The number of scans in each state.

    >>> tally([Row("a", "", "", "done"), Row("b", "", "", "quarantined")])
    '2 scans: 1 done, 1 quarantined'
    """
    states = Counter(row.state for row in rows)
    return f"{len(rows)} scans: " + ", ".join(f"{count} {state}" for state, count in states.items())


def first_line(error: str) -> str:
    """The first line of an error message; of a traceback the last."""
    lines = error.strip().splitlines() or [""]
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]


def _page(out: Path, rows: Sequence[Row]) -> str:
    done = [row for row in rows if row.state == "done"]
    lines: list[list[object]] = [
        [_linked(out, row), *row.cells()[1:], row.attempts, row.host] for row in done
    ]
    mean = means(rows)
    if len(done) > 1:
        lines.append(["mean", "", "", "", *_shown([mean[name] for name in MEANS]), "", ""])
    protocols = sorted({row.protocol.partition(" (")[0] for row in done if row.protocol})
    body = element(
        "main",
        element("h1", out.name or str(out)),
        element("p", tally(rows), class_="soft"),
        element("h2", "Scans"),
        table([*HEAD, "attempts", "node"], lines),
        *(element("p", f"AP: {each}", class_="soft") for each in protocols),
        element(
            "p",
            "H is over all pixels; seconds are the sum of all stages; each mean is over the scans "
            "that have the number. The mean AP is not a benchmark's AP, which ranks the objects of "
            "all scans together.",
            class_="soft",
        ),
        _left_over(rows),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("title", f"{out.name} · lift3d batch"),
        element("style", Markup(STYLE)),
    )
    return joined(
        Markup("<!doctype html>\n"), element("html", head, element("body", body), lang="en"), "\n"
    )


def _linked(out: Path, row: Row) -> Markup:
    place = os.path.relpath(Layout(Path(row.folder)).report, out)
    return element("a", row.scan, href=quote(os.fsencode(place)))


def _left_over(rows: Sequence[Row]) -> Markup:
    parts = []
    for row in rows:
        if row.state != "done":
            what = f"{row.scan}: {row.state}" + (f", {row.attempts} attempts" * (row.attempts > 1))
            parts.append(element("h3", what, class_="bad"))
            parts.append(element("p", f"{row.input} → {row.folder}", class_="soft"))
            parts.append(element("pre", row.error or "not started"))
    return joined(element("h2", "Not in the table"), *parts) if parts else Markup("")


def _shown(numbers: Sequence[float | None]) -> list[str]:
    """Texts for the numbers of `MEANS`."""
    forms = ("{:.3f}", "{:.3f}", "{:.3f}", "{:.1%}", "{:.1%}", "{:.1f}")
    return [
        "–" if each is None else form.format(each)
        for each, form in zip(numbers, forms, strict=True)
    ]


def _count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"
