"""A run's results in one sentence, the next step, and which objects are doubtful and why."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from lift3d.correction.doubts import LOW_CONFIDENCE
from lift3d.correction.history import Corrections

Json = Mapping[str, Any]

FEW_POINTS = 0.0005
"""Share of the cloud's points; objects with fewer are doubtful, as they may be noise. Chosen by
hand."""
FEW_VIEWS = 1
"""Objects visible in at most this many views are doubtful: no other view confirms them."""


def percent(value: float | None) -> str:
    """A share as text in per cent; None is "undefined"."""
    return "undefined" if value is None else f"{100 * value:.1f} %"


def counted(count: int, noun: str) -> str:
    """A number and its noun.

    >>> counted(1, "view"), counted(1200, "view")
    ('1 view', '1,200 views')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def doubts(entry: Json, points: int, views: int) -> dict[str, str]:
    """Why an object of `instances.json` is doubtful; empty where it is not.

    Maps each field of the entry that is too low ("confidence", "points", "views") to the reason in
    words. `points` and `views` are the numbers of the cloud's points and the run's views.
    """
    why: dict[str, str] = {}
    if entry.get("reviewed"):
        return why
    if entry["points"] < FEW_POINTS * points:
        why["points"] = f"only {counted(entry['points'], 'point')}"
    if views > FEW_VIEWS and entry["views"] <= FEW_VIEWS:
        seen = counted(entry["views"], "view") if entry["views"] else "no view"
        why["views"] = f"seen in {seen}"
    if entry["confidence"] < LOW_CONFIDENCE:
        why["confidence"] = f"confidence {confidence_text(entry['confidence'])}"
    return why


def confidence_text(confidence: float) -> str:
    """A confidence as text.

    >>> confidence_text(0.42), confidence_text(0.0007)
    ('0.42', 'under 0.01')
    """
    return f"{confidence:.2f}" if confidence >= 0.01 else "under 0.01"


def by_doubt(instances: Json, views: int) -> tuple[list[tuple[Json, dict[str, str]]], list[Json]]:
    """The doubtful objects with the reasons, and the others; both largest first."""
    listed = sorted(instances["instances"], key=lambda entry: (-entry["points"], entry["id"]))
    reasons = [doubts(each, instances["points"], views) for each in listed]
    pairs = list(zip(listed, reasons, strict=True))
    return [pair for pair in pairs if pair[1]], [each for each, why in pairs if not why]


def view_agreement(checked: Json) -> list[float | None]:
    """H over the labelled pixels of each view, in capture order; None without such pixels."""
    found: list[float | None] = checked["foreground"][checked["printed"]["exclude"]]["view_H"]
    return found


def worst_first(values: Sequence[float | None]) -> list[int]:
    """Positions sorted by value, the smallest first; None last.

    >>> worst_first([0.9, None, 0.2])
    [2, 0, 1]
    """
    return sorted(
        range(len(values)),
        key=lambda at: (values[at] is None, values[at] if values[at] is not None else 0, at),
    )


def verdict(run: Json, checked: Json, instances: Json) -> str:
    """One sentence: objects, agreement between views, the worst view, and the scores."""
    objects = len(instances["instances"])
    if not objects:
        return f"No object was found in {counted(run['views'], 'view')}."
    doubtful, _ = by_doubt(instances, run["views"])
    parts = [f"{counted(objects, 'object')} in {counted(run['views'], 'view')}"]
    if doubtful:
        points = sum(each["points"] for each, _ in doubtful)
        share = percent(points / max(instances["points"], 1))
        parts[0] += f", {len(doubtful):,} of them doubtful ({share} of the points)"
    else:
        parts[0] += ", none of them doubtful"
    parts += [*_agreement(checked), *_scores(checked.get("truth"))]
    if run.get("edits"):
        parts.append(f"corrected by hand: {Corrections.of_json(run['edits'])}")
    return "; ".join(parts) + "."


def _agreement(checked: Json) -> list[str]:
    """How well the views agree with each other and with the cloud, and the worst view."""
    values, names = view_agreement(checked), checked["views"]
    between = checked["printed"]["foreground"]["H"]
    with_cloud = (checked.get("reprojection") or {}).get("agreement")
    parts = []
    if between is not None:
        parts.append(f"with each other at {percent(between)}")
    if with_cloud is not None:
        parts.append(f"with the cloud at {percent(with_cloud)}")
    if not parts:
        return ["the agreement of the views could not be measured"]
    text = f"the views agree {' and '.join(parts)} of the labelled pixels"
    worst = next((at for at in worst_first(values) if values[at] is not None), None)
    if worst is not None and len(names) > 1:
        text += f", worst in view {names[worst]} ({percent(values[worst])})"
    return [text]


def _scores(truth: Json | None) -> list[str]:
    if truth is None:
        return []
    parts = []
    if truth.get("panoptic"):
        found, missed = truth["panoptic"][0]["matches"], truth["panoptic"][0]["missed"]
        parts.append(f"{found:,} of {counted(found + missed, 'true object')} found")
    if truth.get("ap50") is not None:
        parts.append(f"AP50 {truth['ap50']:.3f}")
    return [", ".join(parts)] if parts else []


def next_step(run: Json, instances: Json, folder: str) -> tuple[str, str]:
    """The next step: a sentence, and a command for it."""
    command = f"lift3d view {shlex.quote(folder)}"
    if not instances["instances"]:
        return (
            "Next: look at masks_coloured/ in the run folder, which shows the segmenter's masks. "
            "If they do not show the objects, choose another segmenter:",
            "lift3d lift --help",
        )
    doubtful, _ = by_doubt(instances, run["views"])
    first = "the doubtful objects and the worst views" if doubtful else "the worst views"
    return f"Next: look at {first} below, then view the cloud in 3D:", command
