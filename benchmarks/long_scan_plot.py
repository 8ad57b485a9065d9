"""Plot benchmarks/results/long_scan.json: time per view and peak memory against the views.

Run `python benchmarks/long_scan_plot.py`; the picture goes to benchmarks/results/long_scan.png.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

RESULTS = Path(__file__).parent / "results"
SIZE, SCALE = (1500, 560), 2
"""The plot is drawn at twice the size and scaled down, for smooth lines."""
COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7")
LEFT, TOP, BOTTOM, RIGHT = 80, 60, 60, 130


class Panel:
    """One diagram: lines of y over x, both axes from 0."""

    def __init__(self, draw: ImageDraw.ImageDraw, x: int, width: int, title: str) -> None:
        self._draw = draw
        self._box = (x + LEFT, TOP, x + width - RIGHT, SIZE[1] - BOTTOM)
        self._text(x + LEFT, 18, title, size=17)

    def axes(self, x_ticks: list[int], y_most: float, x_name: str) -> None:
        """Draw the frame and ticks, and set the axis limits."""
        left, _, right, bottom = self._box
        step = _step(y_most / 5)
        self._reach = (1.04 * max(x_ticks), max(y_most * 1.05, step))
        value = 0.0
        while value <= self._reach[1]:
            y = self._place(0, value)[1]
            self._line([(left, y), (right, y)], "#dddddd", 1)
            self._text(left - 8, y, f"{value:g}", anchor="rm")
            value += step
        for tick in x_ticks:
            x = self._place(tick, 0)[0]
            self._line([(x, bottom), (x, bottom + 5)], "#888888", 1)
            self._text(x, bottom + 8, f"{tick}", anchor="mt")
        self._text((left + right) / 2, bottom + 30, x_name, anchor="mt")

    def line(self, points: list[tuple[float, float]], colour: str, thick: int = 2) -> None:
        """Draw a line with its points."""
        places = [self._place(*point) for point in points]
        self._line(places, colour, thick)
        for x, y in places:
            dot = [SCALE * (each) for each in (x - 4, y - 4, x + 4, y + 4)]
            self._draw.ellipse(dot, fill=colour)

    def names(self, named: list[tuple[str, float, str]]) -> None:
        """Write each line's name at its end, without overlaps."""
        lowest = float("inf")
        for name, value, colour in sorted(named, key=lambda each: each[1]):
            y = min(self._place(0, value)[1], lowest - 17)
            self._text(self._box[2] + 8, y, name, colour=colour, anchor="lm")
            lowest = y

    def _place(self, x: float, y: float) -> tuple[float, float]:
        left, top, right, bottom = self._box
        return (
            left + (right - left) * x / self._reach[0],
            bottom - (bottom - top) * y / self._reach[1],
        )

    def _line(self, places: list[tuple[float, float]], colour: str, thick: int) -> None:
        scaled = [(SCALE * x, SCALE * y) for x, y in places]
        self._draw.line(scaled, fill=colour, width=SCALE * thick, joint="curve")

    def _text(
        self, x: float, y: float, text: str, colour: str = "#222222", anchor: str = "la",
        size: int = 14,
    ) -> None:  # fmt: skip
        font = ImageFont.load_default(SCALE * size)
        self._draw.text((SCALE * x, SCALE * y), text, fill=colour, font=font, anchor=anchor)


def _step(least: float) -> float:
    """The smallest 1, 2 or 5 times a power of ten that is at least `least`."""
    power = 1.0
    while power * 5 < least:
        power *= 10
    return next(digit * power for digit in (1, 2, 5) if digit * power >= least)


def draw(runs: list[dict[str, Any]], path: Path) -> None:
    """Draw processor milliseconds per view, and megabytes, of each stage and in total."""
    canvas = Image.new("RGB", (SCALE * SIZE[0], SCALE * SIZE[1]), "white")
    pen = ImageDraw.Draw(canvas)
    stages = [name for name in runs[0]["stages"] if name not in ("read", "correct")]
    ticks = [run["views"] for run in runs]
    what = (
        ("processor ms per view", "cpu_seconds", lambda run, value: 1000 * value / run["views"],
         "cpu_ms_per_view"),
        ("peak memory, MB (aim: 4096)", "peak_mb", lambda run, value: value, "peak_mb"),
    )  # fmt: skip
    for at, (title, key, scaled, whole) in enumerate(what):
        panel = Panel(pen, at * SIZE[0] // 2, SIZE[0] // 2, title)
        panel.axes(ticks, max(run[whole] for run in runs), "views")
        names = []
        for name, colour in [*zip(stages, COLOURS, strict=False), ("all", "#222222")]:
            points = [
                (run["views"], run[whole])
                if name == "all"
                else (run["views"], scaled(run, run["stages"][name][key]))
                for run in runs
            ]
            panel.line(points, colour, 3 if name == "all" else 2)
            names.append((name, points[-1][1], colour))
        panel.names(names)
    canvas.resize(SIZE, Image.Resampling.LANCZOS).save(path, optimize=True)


if __name__ == "__main__":
    every = json.loads((RESULTS / "long_scan.json").read_text())["runs"]
    draw([run for run in every if run["tracking"] == "independent"], RESULTS / "long_scan.png")
