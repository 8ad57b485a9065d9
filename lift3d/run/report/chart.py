"""A bar chart with a link to each view; the axis begins below the worst view.

Bars and lines are an SVG stretched to the page's width. Texts are HTML beside it, so that they stay
readable on a phone.
"""

from __future__ import annotations

from collections.abc import Sequence

from lift3d.run.report.markup import Markup, element
from lift3d.run.report.verdict import percent, worst_first

WIDTH, HEIGHT = 1000, 160
"""Size of the drawing in SVG units."""
MOST_BARS = 250
"""Above this number of views, several views share a bar, so that bars stay wide enough to see."""
STEPS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.25)
"""Distances between marks of the axis; the first that gives at most five steps is used."""


def axis(values: Sequence[float | None]) -> list[float]:
    """The marks of an axis from just below the smallest value up to 1, ascending.

    >>> axis([0.93, 1.0, None])
    [0.92, 0.94, 0.96, 0.98, 1.0]
    """
    known = [min(max(value, 0.0), 1.0) for value in values if value is not None]
    span = 1.0 - min(known, default=0.0)
    step = next((each for each in STEPS if span < 5 * each), STEPS[-1])
    count = min(int(span / step + 1e-9) + 1, round(1 / step))  # so that the worst bar is visible
    return [round(1 - step * at, 4) for at in range(count, -1, -1)]


def bars(names: Sequence[str], values: Sequence[float | None], overall: float | None) -> Markup:
    """A bar per value (0 to 1, in view order) and a dashed line at `overall`; None leaves a gap.

    Where views share a bar it shows the worst of them. A bar links to `#view-<position>`.
    """
    marks = axis(values)
    low = marks[0]

    def height(value: float) -> float:
        return HEIGHT * (min(max(value, low), 1.0) - low) / (1 - low)

    worst = worst_first(values)[0] if values else None
    groups = _groups(len(names))
    step = WIDTH / max(len(groups), 1)
    parts = [_line(HEIGHT - height(mark), "grid") for mark in marks]
    for at, group in enumerate(groups):
        here = min(group, key=lambda i: worst_first_key(values[i]))
        value = values[here]
        if value is None:
            continue
        kind = "bar worst" if here == worst else "bar"
        drawn = element(
            "rect",
            element("title", f"view {names[here]}: {percent(value)}"),
            class_=kind,
            x=f"{step * (at + 0.08):.2f}",
            y=f"{HEIGHT - height(value):.2f}",
            width=f"{0.84 * step:.2f}",
            height=f"{height(value):.2f}",
        )
        parts.append(element("a", drawn, href=f"#view-{here}"))
    if overall is not None:
        parts.append(_line(HEIGHT - height(overall), "mean"))
    drawing = element(
        "svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", preserveAspectRatio="none", role="img"
    )
    ticks = [
        element("span", f"{100 * mark:g} %", style=f"bottom: {100 * height(mark) / HEIGHT:.1f}%")
        for mark in marks
    ]
    return element(
        "div",
        element("div", *ticks, class_="ticks"),
        drawing,
        element("div", *_ends(names, worst if known(values) else None, values), class_="ends"),
        class_="chart",
    )


def known(values: Sequence[float | None]) -> bool:
    """Whether any view has a value."""
    return any(value is not None for value in values)


def worst_first_key(value: float | None) -> float:
    """Sort key: ascending values, None last."""
    return 2.0 if value is None else value


def _ends(names: Sequence[str], worst: int | None, values: Sequence[float | None]) -> list[Markup]:
    """Names below the axis: the first view, the worst with its value, the last."""
    if not names:
        return []
    parts = [element("span", names[0])]
    if worst is not None:
        text = f"worst: view {names[worst]}, {percent(values[worst])}"
        parts.append(element("a", text, href=f"#view-{worst}", class_="bad"))
    return [*parts, element("span", names[-1])] if len(names) > 1 else parts


def _groups(count: int) -> list[range]:
    size = max(1, -(-count // MOST_BARS))
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def _line(y: float, kind: str) -> Markup:
    return element("line", class_=kind, x1=0, x2=WIDTH, y1=f"{y:.2f}", y2=f"{y:.2f}")
