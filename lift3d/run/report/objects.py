"""The report's objects: a card with a picture per object, doubtful objects first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from lift3d.run.report import pictures
from lift3d.run.report.best_views import BestView
from lift3d.run.report.markup import Markup, element, joined, zoom
from lift3d.run.report.verdict import FEW_VIEWS, LOW_CONFIDENCE, by_doubt, confidence_text, counted
from lift3d.scene import Scene
from lift3d.scene.colours import Palette
from lift3d.scene.errors import FrameError
from lift3d.scene.labelmaps import find_label_map, read_label_map

CutOuts: TypeAlias = Mapping[int, pictures.Shown | str]
"""Id -> a picture, or the reason why there is none."""
MOST_PICTURES = 300
"""Limit that keeps the file small: doubtful objects and then the largest have pictures."""
OPEN = 12
"""Number of cards shown at once; the rest is folded."""


def objects(
    instances: Mapping[str, Any],
    scene: Scene,
    cut_outs: CutOuts,
    views: int,
) -> Markup:
    """All objects: the doubtful ones with reasons, then the others; each group largest first."""
    doubtful, others = by_doubt(instances, views)
    unit = " m" if scene.metric else ""
    about = (
        f"Doubtful: a confidence below {LOW_CONFIDENCE:g}, very few points, or visible in at most "
        f"{counted(FEW_VIEWS, 'view')}. Confidence (0 to 1) measures how likely the points are "
        "one object, from the support of the views or, where superpoints were merged by shape, "
        "from size and shape. The picture is from the view that shows most of the object. The "
        "largest come first; the size is that of the box along the axes of the scene."
    )
    parts = [
        element("h2", f"{counted(len(doubtful) + len(others), 'object')}, the doubtful ones first"),
        element("p", about, class_="soft"),
    ]
    for title, cards in (
        ("Doubtful", [_card(each, unit, cut_outs, why) for each, why in doubtful]),
        ("Not doubtful", [_card(each, unit, cut_outs, {}) for each in others]),
    ):
        if cards:
            parts += _folded(title, cards)
    return joined(*parts)


def _folded(title: str, cards: list[Markup]) -> list[Markup]:
    """The first cards, and the rest folded below them."""
    parts = [
        element("h3", f"{title}: {len(cards):,}"),
        element("div", *cards[:OPEN], class_="cards"),
    ]
    if len(cards) > OPEN:
        rest = element("div", *cards[OPEN:], class_="cards")
        summary = element("summary", f"The other {len(cards) - OPEN:,}")
        parts.append(element("details", summary, rest))
    return parts


def _card(
    each: Mapping[str, Any],
    unit: str,
    cut_outs: CutOuts,
    why: Mapping[str, str],
) -> Markup:
    swatch = element("span", class_="swatch", style=f"background: {each['colour']}")
    facts = {
        "points": counted(each["points"], "point"),
        "views": counted(each["views"], "view"),
        "confidence": f"confidence {confidence_text(each['confidence'])}",
    }
    lines = [
        element("small", why[name], class_="bad") if name in why else element("small", fact)
        for name, fact in facts.items()
    ]
    if each["bbox"] is not None:
        sides = zip(each["bbox"]["min"], each["bbox"]["max"], strict=True)
        size = " × ".join(f"{high - low:.2f}" for low, high in sides)
        lines.append(element("small", size + unit))
    name = f"object {each['id']}"
    if each.get("name") or each.get("class"):
        name += f": {each.get('name') or each['class']}"
    picture = cut_outs.get(each["id"])
    if picture is None or isinstance(picture, str):
        text = "in no view" if picture is None and not each["views"] else picture or ""
        shown = element("div", text, class_="nothing soft")
    else:
        shown = zoom(pictures.photograph(picture), name, picture.shape)
    return element(
        "div",
        shown,
        element("b", swatch, name),
        *lines,
        class_="card",
        id=f"object-{each['id']}",
    )


def cut_outs(
    instances: Mapping[str, Any],
    scene: Scene,
    labels: Path,
    best: Mapping[int, BestView],
    palette: Palette,
    views: int,
) -> dict[int, pictures.Shown | str]:
    """A picture of each object, from the view that shows it best; each view is read once.

    A message instead where that view cannot be read. Objects in no view and those past
    `MOST_PICTURES` are left out.
    """
    doubtful, others = by_doubt(instances, views)
    chosen = [each["id"] for each in (*(each for each, _ in doubtful), *others)][:MOST_PICTURES]
    by_view: dict[int, list[int]] = {}
    for each in chosen:
        if each in best:
            by_view.setdefault(best[each].view, []).append(each)
    found: dict[int, pictures.Shown | str] = {}
    for at, ids in sorted(by_view.items()):
        view = scene.views[at]
        path = find_label_map(labels, view.name)
        try:
            image = view.image()
            ids_there = read_label_map(path) if path is not None else np.zeros((0, 0), np.int32)
        except (FrameError, OSError) as error:
            found |= dict.fromkeys(ids, f"view {view.name} cannot be read: {error}")
            continue
        for each in ids:
            found[each] = pictures.cut_out(image, ids_there, each, best[each].box, palette)
    return found
