"""The report's corrections: the numbers before and after them, and every edit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lift3d.correction.edits import Counting, Edit
from lift3d.correction.history import Corrections
from lift3d.run.report.markup import Markup, element, joined, table
from lift3d.run.report.verdict import percent

Json = Mapping[str, Any]


def corrections(run: Json, checked: Json, edits: tuple[Edit, ...]) -> Markup:
    """What a person changed; empty without edits."""
    made = Corrections.of_json(run.get("edits"))
    if not made:
        return Markup()
    about = f"{made}. What the machine found is unchanged in automatic/; edits.jsonl has each edit."
    if made.doubts:
        about += (
            " An edit in doubt was made on other settings, and its objects were not found here; "
            "it is not applied. The warnings below say why; lift3d edit settles or undoes it."
        )
    parts = [element("h2", "Corrected by hand"), element("p", about, class_="soft")]
    before = checked.get("automatic")
    if before is not None:
        head = ["number", "automatic", "corrected"]
        parts.append(table(head, _before_and_after(before, checked)))
    active = {each.n for each in Counting.of(edits).active}
    rows: list[list[object]] = [
        [each.n, each.at, each.who, str(each), "" if each.n in active else "undone"]
        for each in edits
        if each.do not in ("undo", "redo", "settle")
    ]
    title = element("summary", f"Every edit ({len(rows):,})")
    listed = table(["edit", "time (UTC)", "who", "what", ""], rows, words=5)
    return joined(*parts, element("details", title, listed))


def _before_and_after(before: Json, after: Json) -> list[list[object]]:
    """H never alone: coverage and the number of labels beside it."""
    rows: list[tuple[str, Callable[[Json], float | None], Callable[[Any], str]]] = [
        ("H over labelled pixels", lambda found: found["printed"]["foreground"]["H"], percent),
        (
            "H′ over labelled pixels",
            lambda found: found["printed"]["foreground"]["H_prime"],
            percent,
        ),
        ("pixels with a label", lambda found: found["printed"]["coverage"], percent),
        ("labels", lambda found: found["printed"]["labels"], str),
        ("agreement with the cloud", lambda found: found["reprojection"]["agreement"], percent),
        ("mean overlap with the cloud", lambda found: found["reprojection"]["mean_iou"], _number),
    ]
    if "truth" in before and "truth" in after:
        rows += [
            ("AP", lambda found: found["truth"]["ap"], _number),
            ("AP50", lambda found: found["truth"]["ap50"], _number),
        ]
    return [[name, shown(value(before)), shown(value(after))] for name, value, shown in rows]


def _labelled(found: Json) -> Json:
    shown: Json = found["printed"]["foreground"]
    return shown


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
