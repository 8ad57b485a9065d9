"""One click: an object proposed in the cloud and in the views, before it becomes an edit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64

from lift3d.correction.clicks.answering import answers, check, chosen, other_views
from lift3d.correction.clicks.asking import first_mask
from lift3d.correction.clicks.boxing import NO_BOXES, Boxes
from lift3d.correction.clicks.choosing import corrected
from lift3d.correction.clicks.evidence import Evidence
from lift3d.correction.clicks.place import Place
from lift3d.correction.clicks.pointing import Click, PointClick
from lift3d.correction.clicks.solving import ClickConfig, solve
from lift3d.correction.state import MOST_CONFIDENT
from lift3d.scene import Prompt
from lift3d.scene.errors import InputError
from lift3d.scene.protocols import Segmenter

VIEWS = 8
"""Views that are asked, the clicked one included."""


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


def propose_click(
    place: Place,
    view: str,
    xy: Float[np.ndarray, "prompts 2"],
    positive: Bool[np.ndarray, " prompts"],
    segmenter: Segmenter,
    views: int = VIEWS,
    level: int | None = None,
) -> Iterator[Proposal]:
    """The object at clicked pixels (column, row) of a view, carried to other views and voted.

    Yields a proposal after the clicked view, and a better one after each further view: those of
    `clicks.answers`. `level` chooses among the masks that the segmenter offers for one click, part
    to whole; by default the one that the tree of joins explains best. InputError where the click
    gives no mask with points.
    """
    if not positive.any():
        raise InputError("a click on the object is needed; all clicks are beside it")
    prompt = Prompt(xy.astype(np.float64), positive)
    check(place, [{view: prompt}])
    offered = first_mask(segmenter, place.view(view), prompt)
    if level is None:
        level = chosen(place, view, offered)
    level = min(max(level, 0), max(len(offered) - 1, 0))
    mask = offered.stack[level] if len(offered) else np.zeros((1, 1), bool)
    if not mask.any():
        raise InputError(
            f"the segmenter finds nothing at this pixel of view {view}; click elsewhere"
        )
    score = round(min(float(offered.scores[level]), MOST_CONFIDENT), 6)
    told = {"view": view, "xy": xy.tolist(), "positive": positive.tolist(), "level": level}
    given = Prompt(prompt.xy, positive, mask)
    found = answers(place, [{view: given}], segmenter, ClickConfig(), most=views - 1)
    others: list[str] | None = None
    for number, answer in enumerate(found):
        points = answer.points()
        if others is None:
            if not len(points):
                raise InputError(
                    f"view {view} sees no point of the cloud in this mask; click in another"
                )
            others = other_views(answer)[: views - 1]
        masks = {**answer.given[0], **(answer.asked[0] if answer.asked else {})}
        prompts = [told, *({"view": each, "used": each in masks} for each in others[:number])]
        yield Proposal(
            points, "segmenter", score, tuple(prompts), masks, level, len(offered),
            1 + number, 1 + len(others),
        )  # fmt: skip
