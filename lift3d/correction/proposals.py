"""One click: an object proposed in the cloud and in the views, before it becomes an edit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from lift3d.correction.clicks.answering import answers, check, chosen, other_views
from lift3d.correction.clicks.asking import first_mask
from lift3d.correction.clicks.boxing import NO_BOXES, Boxes
from lift3d.correction.clicks.choosing import corrected
from lift3d.correction.clicks.evidence import Evidence
from lift3d.correction.clicks.place import Place
from lift3d.correction.clicks.pointing import Click, PointClick, in_best_view
from lift3d.correction.clicks.solving import ClickConfig, solve
from lift3d.correction.state import MOST_CONFIDENT
from lift3d.scene import Prompt
from lift3d.scene.errors import InputError
from lift3d.scene.protocols import Segmenter

VIEWS = 8
"""Views that are asked, the prompted ones included."""


@dataclass(frozen=True, eq=False)
class Proposal:
    """Points that may be one object, and how they were found."""

    points: Int64[np.ndarray, " members"]
    tool: str
    """`tree` or `segmenter`."""
    score: float
    """0 to 0.9."""
    prompts: tuple[Mapping[str, Any], ...]
    """What was asked, as JSON values; kept with the edit."""
    masks: Mapping[str, Bool[np.ndarray, "height width"]] = field(default_factory=dict)
    """Masks of the views that were asked, as the segmenter gave them."""
    level: int = 0
    """Which of the alternatives, from part to whole."""
    levels: int = 1
    views: int = 0
    """Views that have answered."""
    of: int = 0
    """Views that are asked in all."""


def propose_clicks(
    place: Place,
    clicks: Sequence[Click | PointClick],
    level: int | None = None,
    boxes: Boxes = NO_BOXES,
) -> Proposal:
    """The object that clicks in any views and in the cloud mean, in their order, by the tree.

    The first one chooses a node of the tree, at `level` above its superpoint; by default the one
    that became its object. Further ones correct it as in `clicks.choosing`; with `boxes` all do, in
    views with dense depth. The score is 0. InputError where the first click is on no point or
    beside the object, or the boxes hold nothing.
    """
    for name in boxes:
        if place.seen(name).nearest is None:
            raise InputError(f"view {name} has no depth; a box needs it here")
    found, level, levels = corrected(place, clicks, level, boxes)
    evidence = Evidence.none(len(place.points))
    evidence.positive, evidence.negative = found.positive, found.negative
    evidence.meant = found.pieces
    probability, _ = solve(place, evidence, ClickConfig())
    told = [
        {"at": place.points.xyz[each.point].tolist(), "positive": each.positive}
        if isinstance(each, PointClick)
        else {"view": each.view, "xy": each.xy.tolist(), "positive": each.positive}
        for each in clicks
    ]
    if not boxes:
        told[0]["level"] = level
    told = [*({"view": name, "box": box.tolist()} for name, box in boxes.items()), *told]
    points = np.flatnonzero(probability > 0.5).astype(np.int64)
    return Proposal(points, "tree", 0.0, tuple(told), level=level, levels=levels)


def propose_segmented(
    place: Place,
    clicks: Sequence[Click | PointClick],
    segmenter: Segmenter,
    views: int = VIEWS,
    level: int | None = None,
    boxes: Boxes = NO_BOXES,
) -> Iterator[Proposal]:
    """The object that clicks in any views and in the cloud mean, or boxes and clicks, by a
    segmenter: prompted views are asked, and the answer is carried to others, and all vote.

    Yields a proposal after the prompted views, and a better one after each further view: those of
    `clicks.answers`. `level` chooses among the masks that the segmenter offers for one click in the
    first view, part to whole; by default the one that the tree of joins explains best. InputError
    where the first prompt gives no mask with points, no click is on the object, or no view sees a
    clicked point.
    """
    prompts = by_view(place, clicks, boxes)
    check(place, [prompts])
    first = next(n for n, each in prompts.items() if each.positive.any() or each.box is not None)
    offered = first_mask(segmenter, place.view(first), prompts[first])
    if level is None:
        level = chosen(place, first, offered)
    level = min(max(level, 0), max(len(offered) - 1, 0))
    mask = offered.stack[level] if len(offered) else np.zeros((1, 1), bool)
    if not mask.any():
        raise InputError(
            f"the segmenter finds nothing at this prompt in view {first}; click elsewhere"
        )
    score = round(min(float(offered.scores[level]), MOST_CONFIDENT), 6)
    told = [_as_json(name, each) for name, each in prompts.items()]
    told[list(prompts).index(first)]["level"] = level
    given = {**prompts, first: replace(prompts[first], mask=mask)}
    more = max(views - len(given), 0)
    others: list[str] | None = None
    for number, answer in enumerate(answers(place, [given], segmenter, ClickConfig(), most=more)):
        points = answer.points()
        if others is None:
            if not len(points):
                raise InputError(
                    f"view {first} sees no point of the cloud in this mask; click in another"
                )
            others = other_views(answer, more)
        masks = {**answer.given[0], **(answer.asked[0] if answer.asked else {})}
        asked = [*told, *({"view": each, "used": each in masks} for each in others[:number])]
        yield Proposal(
            points, "segmenter", score, tuple(asked), masks, level, len(offered),
            len(given) + number, len(given) + len(others),
        )  # fmt: skip


def by_view(
    place: Place, clicks: Sequence[Click | PointClick], boxes: Boxes = NO_BOXES
) -> dict[str, Prompt]:
    """The prompts of each view, in their order; boxes come first.

    A click on a point of the cloud is one in the view that sees most of what it is on; InputError
    where no view sees the point.
    """
    told: dict[str, list[Click]] = {name: [] for name in boxes}
    for each in clicks:
        click = in_best_view(place, each) if isinstance(each, PointClick) else each
        if click is None:
            raise InputError("no view sees the clicked point; click in a picture")
        told.setdefault(click.view, []).append(click)
    return {
        name: Prompt(
            np.array([each.xy for each in some], np.float64).reshape(-1, 2),
            np.array([each.positive for each in some], bool),
            box=boxes.get(name),
        )
        for name, some in told.items()
    }


def _as_json(view: str, prompt: Prompt) -> dict[str, Any]:
    box = {} if prompt.box is None else {"box": prompt.box.tolist()}
    return {"view": view, "xy": prompt.xy.tolist(), "positive": prompt.positive.tolist(), **box}
