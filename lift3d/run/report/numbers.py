"""The report's numbers with explanations, its warnings, and how to repeat the run."""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from lift3d.run.report.markup import Markup, element, joined, table
from lift3d.run.report.verdict import counted, percent

Json = Mapping[str, Any]
Row = tuple[str, str, str]
"""A number, its name, and its explanation."""
LOW_OVERLAP = 0.5
"""Below this IoU an object counts as badly overlapping with its labels. Chosen by hand."""


def explained(run: Json, checked: Json, instances: Json) -> Markup:
    """Every number with an explanation, grouped by question."""
    return joined(
        element("h2", "The numbers"),
        _numbers("What was found", _counts(run, checked, instances)),
        _numbers("Do the views agree with each other?", _between(checked)),
        _numbers("Do the views agree with the cloud?", _with_cloud(checked, instances)),
        _numbers("Against the truth", _truth(checked.get("truth"), instances)),
    )


def _numbers(title: str, rows: list[Row]) -> Markup:
    if not rows:
        return Markup()
    lines = [
        element(
            "div",
            element("b", number),
            element("p", element("span", name), element("small", what)),
            class_="number-row",
        )
        for number, name, what in rows
    ]
    return element("div", element("h3", title), *lines, class_="group")


def _counts(run: Json, checked: Json, instances: Json) -> list[Row]:
    """Numbers of objects, labels and points, and why they differ."""
    points, unlabelled = instances["points"], instances["unlabelled"]
    listed = instances["instances"]
    unseen = [each["id"] for each in listed if not each["views"]]
    labels, seen = checked["printed"]["labels"], len(listed) - len(unseen)
    bridge = "each object is one id, the same in the cloud and in every view"
    if unseen:
        few = ", ".join(map(str, unseen[:5])) + (" ..." if len(unseen) > 5 else "")
        bridge += f"; {counted(len(unseen), 'object')} ({few}) without a pixel in any view"
    if labels < seen:
        bridge += f"; {counted(seen - labels, 'id')} only on pixels that were not compared"
    rows = [
        (f"{len(listed):,}", "objects", "ids on the points of the cloud, listed below"),
        (f"{labels:,}", "labels", f"ids on the compared pixels of the views: {bridge}"),
        (
            percent(1 - unlabelled / points if points else None),
            f"of {points:,} points have a label",
            f"{counted(unlabelled, 'point')} without one (grey in the pictures)",
        ),
    ]
    coverage = percent(checked["printed"]["coverage"])
    return [*rows, (coverage, "of the pixels have a label", "coverage of the views")]


def _between(checked: Json) -> list[Row]:
    """H and the parameters it was computed with."""
    printed = checked["printed"]
    labelled, everywhere = printed["foreground"], printed["all"]
    exclude = {
        "view": "pixels of other views only (exclude = view)",
        "self": "all other pixels, its own view's too (exclude = self)",
        "nothing": "all pixels, itself too (exclude = nothing)",
    }[printed["exclude"]]
    return [
        (
            percent(labelled["H"]),
            "H over labelled pixels",
            "pixels that show the same place and have the same label, on average. A pixel is "
            f"compared with {exclude} whose 3D point is within {printed['epsilon']:g} of its own "
            f"(epsilon, in the scene's unit); {printed['sampling']} was used. A single label "
            "everywhere would give H 100 %, so check the number of labels too",
        ),
        (
            percent(labelled["H_prime"]),
            "H′ over labelled pixels",
            "H corrected for chance: random labels have 0, perfect agreement has 100 %",
        ),
        (
            percent(everywhere["H"]),
            "H over all pixels",
            f"here no label counts as one more label; its H′ is {percent(everywhere['H_prime'])}",
        ),
    ]


def _with_cloud(checked: Json, instances: Json) -> list[Row]:
    """The two numbers of the reprojection, and why they differ."""
    found = checked.get("reprojection")
    if found is None:
        return []
    overlap = {each["id"]: each["iou"] for each in found["instances"]}
    low = {each for each, iou in overlap.items() if iou < LOW_OVERLAP}
    points = sum(each["points"] for each in instances["instances"] if each["id"] in low)
    mean = found["mean_iou"]
    why = "small objects count here as much as large ones"
    if low:
        share = percent(points / max(instances["points"], 1))
        why += (
            f": {len(low):,} of {len(overlap):,} objects overlap by less than half; they have "
            f"{share} of the points"
        )
    return [
        (
            percent(found["agreement"]),
            "of the pixels agree",
            "the cloud's labels projected into each view, compared with the view's own labels "
            "where both have one",
        ),
        (
            "undefined" if mean is None else f"{mean:.3f}",
            "mean overlap (IoU) of an object's projected points and its labels in the views",
            why,
        ),
    ]


def _truth(found: Json | None, instances: Json) -> list[Row]:
    """AP, and the numbers of true objects that were found and missed."""
    if found is None:
        return []
    rows = []
    if found.get("panoptic"):
        counts = found["panoptic"][0]
        hit, missed, wrong = counts["matches"], counts["missed"], counts["wrong"]
        rest = len(instances["instances"]) - hit - wrong
        text = (
            f"a true object is found if an object overlaps it by more than half (IoU); {missed:,} "
            f"not found; {counted(wrong, 'object')} without a true object to match"
        )
        if rest > 0:
            text += f"; the other {counted(rest, 'object')} in parts that are not scored"
        rows.append((f"{hit:,}", f"of {counted(hit + missed, 'true object')} found", text))
    names = {
        "ap": "AP: average precision, mean over IoU thresholds from 0.5 up; 1 is perfect",
        "ap50": "AP50: average precision at an IoU threshold of 0.5",
        "ap25": "AP25: average precision at an IoU threshold of 0.25",
    }
    for key, what in names.items():
        name, _, more = what.partition(": ")
        value = "undefined" if found[key] is None else f"{found[key]:.3f}"
        rows.append((value, name, more))
    scored = f"Scored: {found['protocol']}."
    rows[-1] = (*rows[-1][:2], f"{rows[-1][2]}. {scored}")
    return rows


def warnings(run: Json) -> Markup:
    """Warnings, views left out, notes of the stages, and counts of the association."""
    lines: list[Markup] = [element("li", each, class_="bad") for each in run["warnings"]]
    reasons = defaultdict(list)
    for frame in run["skipped"]:
        reasons[frame["reason"]].append(frame["name"])
    for reason, names in reasons.items():
        few = ", ".join(names[:8]) + (" ..." if len(names) > 8 else "")
        plural = "frame" if len(names) == 1 else "frames"
        lines.append(element("li", f"{len(names)} {plural} left out, {reason}: {few}"))
    counts: list[list[object]] = []
    for stage in run["stages"]:
        result = stage["result"]
        lines += [element("li", f"{stage['name']}: {note}") for note in result.get("notes", [])]
        if stage["name"] == "associate":
            counts += [
                [name.replace("_", " "), f"{value:,}"]
                for name, value in result.items()
                if isinstance(value, int)
            ]
    if not lines:
        lines.append(element("li", "None."))
    parts = [element("h2", "Warnings and notes"), element("ul", *lines)]
    if counts:
        title = element("summary", "Counts of the association: merged, split and dropped")
        parts.append(element("details", title, table(["what", "count"], counts)))
    return joined(*parts)


def cost(run: Json) -> Markup:
    """Time and memory of each stage before this report."""
    rows: list[list[object]] = [
        [
            stage["name"],
            f"{stage['seconds']:.1f}",
            f"{stage['seconds_per_view']:.3f}",
            f"{stage['peak_memory_mb']:,.0f}",
            "kept" if stage["reused"] else "run now",
        ]
        for stage in run["stages"]
    ]
    each = run["seconds"] / max(run["views"], 1)
    rows.append(
        ["all", f"{run['seconds']:.1f}", f"{each:.3f}", f"{run['peak_memory_mb']:,.0f}", ""]
    )
    head = ["stage", "seconds", "seconds a view", "peak memory so far, MB", ""]
    host = run["host"]
    where = f"On {host['processor']} with {host['cores']} cores, {host['memory_gb']} GB; "
    about = element("p", f"{where}{host['system']}. This report's own time is in run.json.")
    return joined(element("h2", "Cost"), table(head, rows), about)


def repeat(run: Json) -> Markup:
    """The command, every setting, the versions."""
    command = shlex.join(run["command"]) or "called from Python; the settings below repeat it"
    settings: list[list[object]] = [list(pair) for pair in _flat("", run["settings"])]
    versions: list[list[object]] = [[name, version] for name, version in run["versions"].items()]
    return joined(
        element("h2", "Repeat this run"),
        element("pre", command),
        element(
            "details",
            element("summary", f"Settings ({len(settings)}), seed {run['seed']}"),
            table(["setting", "value"], settings, words=2, kind="pairs"),
        ),
        element(
            "details",
            element("summary", "Versions"),
            table(["what", "version"], versions, words=2, kind="pairs"),
        ),
    )


def _flat(prefix: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(f"{prefix}.{name}" if prefix else str(name), inner)
    else:
        yield prefix, value if isinstance(value, str) else json.dumps(value)
