"""A bar for each view, drawn as SVG."""

from __future__ import annotations

from collections.abc import Sequence

from lift3d.run.report.markup import Markup, element

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 1100, 190, 54, 22, 8
MOST_BARS = 250
"""More views than this share bars, so that each can be seen."""


def bars(names: Sequence[str], values: Sequence[float | None], overall: float | None) -> Markup:
    """Values 0 to 1 in view order, a dashed line at `overall`; None leaves a gap."""
    height, width = HEIGHT - BOTTOM - TOP, WIDTH - LEFT
    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = TOP + height * (1 - share)
        parts.append(_line(LEFT, WIDTH, y, "grid"))
        parts.append(_text(LEFT - 8, y + 4, f"{100 * share:.0f} %", "end"))
    groups = _groups(len(names))
    step = width / max(len(groups), 1)
    for at, group in enumerate(groups):
        known = [value for value in (values[i] for i in group) if value is not None]
        first, last = names[group[0]], names[group[-1]]
        title = first if len(group) == 1 else f"{first} to {last}"
        if not known:
            continue
        value = sum(known) / len(known)
        tall = height * min(max(value, 0.0), 1.0)
        parts.append(
            element(
                "rect",
                element("title", f"{title}: {100 * value:.1f} %"),
                class_="bar",
                x=f"{LEFT + step * (at + 0.08):.2f}",
                y=f"{TOP + height - tall:.2f}",
                width=f"{0.84 * step:.2f}",
                height=f"{tall:.2f}",
            )
        )
    if overall is not None:
        parts.append(_line(LEFT, WIDTH, TOP + height * (1 - overall), "mean"))
    if names:
        parts.append(_text(LEFT, HEIGHT - 4, names[0], "start"))
    if len(names) > 1:
        parts.append(_text(WIDTH, HEIGHT - 4, names[-1], "end"))
    return element("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img")


def _groups(count: int) -> list[range]:
    size = max(1, -(-count // MOST_BARS))
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def _line(x1: int, x2: int, y: float, kind: str) -> Markup:
    return element("line", class_=kind, x1=x1, x2=x2, y1=f"{y:.2f}", y2=f"{y:.2f}")


def _text(x: int, y: float | int, text: str, anchor: str) -> Markup:
    return element("text", text, x=x, y=f"{y:.2f}", text_anchor=anchor)
