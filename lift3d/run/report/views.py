"""The report's views: the worst views large, a chart of all views, the others small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lift3d.run.report import pictures
from lift3d.run.report.chart import bars, known
from lift3d.run.report.markup import Markup, element, joined, zoom
from lift3d.run.report.verdict import percent, view_agreement, worst_first
from lift3d.scene import Scene
from lift3d.scene.colours import Palette, heat_colours
from lift3d.scene.errors import FrameError
from lift3d.scene.prefetch import THREADS, prefetch

MOST_STRIPS = 8
MOST_THUMBS = 150
"""Limit that keeps the file small: further views are listed without a picture."""


def order(values: Sequence[float | None]) -> list[int]:
    """All views, the worst first; where no pixel was compared, first some spread over the scan."""
    if known(values):
        return worst_first(values)
    count = len(values)
    few = min(MOST_STRIPS, count)
    # From the middle of equal parts of the scan: first and last views often show only floor.
    spread = ((np.arange(few) + 0.5) * count / max(few, 1)).astype(int).tolist()
    return [*spread, *(at for at in range(count) if at not in spread)]


def thumbs_of(checked: Mapping[str, Any]) -> set[int]:
    """Positions of the views that have a small picture."""
    return set(order(view_agreement(checked))[MOST_STRIPS:][:MOST_THUMBS])


def worst_views(scene: Scene, folder: Path, checked: Mapping[str, Any], palette: Palette) -> Markup:
    """Up to `MOST_STRIPS` views with picture, labels and disagreement."""
    values = view_agreement(checked)

    def figure(at: int) -> Markup:
        view = scene.views[at]
        try:
            found = pictures.strip(view, folder / "labels", folder / "heat", palette)
        except (FrameError, OSError) as error:
            text = f"view {view.name} cannot be shown: {error}"
            return element("p", text, class_="bad", id=f"view-{at}")
        return _figure(at, found, values[at])

    figures = prefetch(order(values)[:MOST_STRIPS], figure, threads=THREADS)
    about = element(
        "p",
        "Left: the picture. Middle: its labels. Right, in colour: the share of other views that "
        "have another label at the same place, from a third ",
        element("span", class_="ramp", style=f"background: {_gradient()}"),
        " to all. Where they agree the picture is dark; flat grey was not compared, as no other "
        "view shows it. Specks are left out. Click a picture to enlarge it, and again to close it.",
        class_="soft",
    )
    title = "The worst views" if known(values) else "Views"
    return joined(element("h2", title), about, element("div", *figures, class_="strips"))


def _figure(at: int, found: pictures.Strip, value: float | None) -> Markup:
    triple: tuple[tuple[str, pictures.Shown | None, str], ...] = (
        ("picture", found.image, ""),
        ("labels", found.labels, "labels/ has no file of this view"),
        ("disagreement", found.disagreement, "heat/ has no file of this view"),
    )
    images = []
    for what, image, reason in triple:
        if image is None:
            images.append(element("p", f"no {what}: {reason}", class_="soft"))
            continue
        shown = pictures.photograph(image)
        images.append(zoom(shown, f"view {found.name}, {what}", image.shape))
    agreed = (
        ": no number, because it has no labelled pixels that another view shows"
        if value is None
        else f": {percent(value)} of its labelled pixels agree"
    )
    below = element("figcaption", element("b", f"view {found.name}"), agreed)
    return element("figure", below, element("div", *images, class_="three"), id=f"view-{at}")


def all_views(checked: Mapping[str, Any], thumbs: Mapping[int, pictures.Shown]) -> Markup:
    """A bar per view, and below it the views that are not shown large, the worst first."""
    names, values = checked["views"], view_agreement(checked)
    overall = checked["printed"]["foreground"]["H"]
    rest = order(values)[MOST_STRIPS:]
    parts: list[Markup] = [element("h2", "Agreement, view by view")]
    if known(values):
        caption = (
            "Share of each view's labelled pixels where the other views have the same label (H), "
            "in capture order. The axis does not begin at 0. Dashed: all views together. Click a "
            "bar to go to its view."
        )
        chart = bars(names, values, overall)
        parts.append(element("figure", chart, element("figcaption", caption), class_="group"))
    else:
        parts.append(element("p", "No pixel could be compared between views.", class_="soft"))
    if rest:
        shown = prefetch(
            rest, lambda at: _thumb(at, names[at], values[at], thumbs), threads=THREADS
        )
        title = f"The other {len(rest):,} views, labels only, the worst first"
        bare = len(set(rest) - set(thumbs))
        if bare:
            title += (
                f"; {bare:,} without a picture, because at most {MOST_THUMBS} small ones are shown"
            )
        folded = element("div", *shown, class_="thumbs")
        parts.append(element("details", element("summary", title), folded))
    return joined(*parts)


def _thumb(at: int, name: str, value: float | None, thumbs: Mapping[int, pictures.Shown]) -> Markup:
    text = name if value is None else f"{name}: {percent(value)}"
    picture = thumbs.get(at)
    shown = [] if picture is None else [zoom(pictures.drawing(picture), name, picture.shape)]
    return element("figure", *shown, element("figcaption", text), id=f"view-{at}")


def _gradient() -> str:
    steps = heat_colours(np.linspace(0.35, 1, 9)).tolist()
    return "linear-gradient(to right, " + ", ".join(f"rgb{tuple(rgb)}" for rgb in steps) + ")"
