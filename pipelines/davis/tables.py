"""Markdown tables of the trackers' mean scores over videos."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

Means: TypeAlias = Mapping[str, int | float | None]


def averaged(results: Sequence[Mapping[str, Any]]) -> dict[str, int | float | None]:
    """The means over videos of every number that the tables print."""
    found: dict[str, int | float | None] = {"sequences": len(results)}
    for protocol in ("per_image", "one_id"):
        for each in ("iou", "boundary", "f1", "precision", "recall"):
            found[f"{protocol}_{each}"] = _mean([r["video"][protocol][each] for r in results])
    for each in ("found", "longest"):
        found[each] = _mean([r["video"][each] for r in results])
    found["switches"] = _mean(
        [r["video"]["switches"] / r["video"]["objects"] for r in results if r["video"]["objects"]]
    )
    for each in ("H", "H0", "H_prime", "H_labelled", "H0_labelled", "coverage", "labels"):
        found[each] = _mean([r["consistency"][each] for r in results])
    found["seconds_per_frame"] = _mean([r["seconds"] / r["frames"] for r in results])
    return found


def per_image(found: Means) -> list[str]:
    """Cells: IoU, F1, precision and recall of the best mask of each image, and H in percent."""
    names = ("iou", "f1", "precision", "recall")
    return [*(number(found[f"per_image_{each}"], 4) for each in names), percent(found["H"])]


def strict(means: Mapping[str, Means]) -> Table:
    """Scores with one id for the whole video."""
    found = table("method", "J", "F", "F1", "precision", "recall", "found", "switches", "longest")
    keys = [f"one_id_{each}" for each in ("iou", "boundary", "f1", "precision", "recall")]
    for title, mean in means.items():
        numbers = [mean[each] for each in (*keys, "found", "switches", "longest")]
        found.add_row(title, *(number(each, 3) for each in numbers))
    return found


def consistency(means: Mapping[str, Means]) -> Table:
    """H with the numbers needed to interpret it, and seconds per frame."""
    percents = {
        "H": "H", "chance": "H0", "H'": "H_prime", "H labelled": "H_labelled",
        "chance, labelled": "H0_labelled", "coverage": "coverage",
    }  # fmt: skip
    headers = [f"{name}, %" for name in percents]
    found = table("method", *headers, "labels a sequence", "s a frame, about")
    for title, mean in means.items():
        found.add_row(
            title,
            *(percent(mean[key]) for key in percents.values()),
            number(mean["labels"], 0),
            number(mean["seconds_per_frame"], 2),
        )
    return found


def table(first: str, *others: str) -> Table:
    """An empty table with these columns; numbers are aligned right."""
    found = Table(box=box.MARKDOWN)
    found.add_column(first, justify="left")
    for column in others:
        found.add_column(column, justify="right")
    return found


def markdown(parts: Iterable[tuple[str, Table]], text: str) -> str:
    """Each table under its heading, then the text."""
    console = Console(width=300, record=True, file=io.StringIO(), markup=False, highlight=False)
    for heading, each in parts:
        console.print(f"## {heading}", each)
    console.print(text, soft_wrap=True)
    return "\n".join(line.rstrip() for line in console.export_text().splitlines()) + "\n"


def percent(value: int | float | None) -> str:
    """A share in percent with two decimals."""
    return number(None if value is None else 100 * value, 2)


def number(value: int | float | None, digits: int) -> str:
    """A number with `digits` decimals; a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}"


def _mean(values: Sequence[int | float | None]) -> float | None:
    """Mean of the values that are numbers."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    return float(np.mean(known)) if known else None
