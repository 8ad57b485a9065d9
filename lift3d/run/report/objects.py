"""The report's objects: a card with a picture for each, the doubtful ones first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from lift3d.run.report import pictures
from lift3d.run.report.markup import Markup, element, joined, zoom
from lift3d.run.report.sights import Sight
from lift3d.run.report.verdict import FEW_VIEWS, LOW_CONFIDENCE, by_doubt, counted, sureness
from lift3d.scene import Scene
from lift3d.scene.colours import Palette
from lift3d.scene.errors import FrameError
from lift3d.scene.labelmaps import find_label_map, read_label_map

CutOuts: TypeAlias = Mapping[int, pictures.Shown | str]
"""Id to a picture, or to the reason why there is none."""
MOST_PICTURES = 300
"""The doubtful objects and the largest others have a picture; all are listed."""
OPEN = 12
"""So many cards are shown at once, the rest is folded."""


def objects(
    instances: Mapping[str, Any],
    scene: Scene,
    cut_outs: CutOuts,
    views: int,
) -> Markup:
    """Every object: first the doubtful ones with the reasons, then the others; largest first."""
    doubtful, others = by_doubt(instances, views)
    unit = " m" if scene.metric else ""
    about = (
        f"Doubtful: a confidence below {LOW_CONFIDENCE:g}, hardly any points, or seen in "
        f"{counted(FEW_VIEWS, 'view')} at most. Confidence says how sure it is that the points "
        "are one object (0 to 1): how well the views support it or, where the surface decides, "
        "its size and shape. Each is shown in the view that shows most of it. The largest come "
        "first; sizes are those of the box along the axes of the scene."
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
    """A few cards, and the rest folded below them."""
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
        "confidence": f"confidence {sureness(each['confidence'])}",
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
    best: Mapping[int, Sight],
    palette: Palette,
    views: int,
) -> dict[int, pictures.Shown | str]:
    """A picture of each object, from the view that shows it best; each view is read once.

    A sentence where that view cannot be read. Nothing of objects in no view or past
    `MOST_PICTURES`.
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
            found[each] = pictures.cut_out(image, ids_there, each, best[each], palette)
    return found
