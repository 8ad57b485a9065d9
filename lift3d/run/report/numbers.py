"""The report's verdict, its tables and what it warns of."""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from lift3d.run.report.chart import bars
from lift3d.run.report.markup import Markup, element, joined, table

Json = Mapping[str, Any]


def percent(value: float | None) -> str:
    """A share for people; None is undefined."""
    return "undefined" if value is None else f"{100 * value:.1f} %"


def verdict(run: Json, checked: Json, instances: Json) -> Markup:
    """The numbers a run is judged by. H stands among what it takes to read it."""
    printed = checked["printed"]
    labelled, everywhere = printed["foreground"], printed["all"]
    points, unlabelled = instances["points"], instances["unlabelled"]
    cloud = _group(
        "The cloud",
        _tile(f"{len(instances['instances']):,}", "objects", f"seen in {run['views']:,} views"),
        _tile(f"{points:,}", "points"),
        _tile(percent(1 - unlabelled / points if points else None), "of the points labelled"),
        *_reprojection(checked.get("reprojection")),
    )
    agreement = _group(
        "Agreement between views",
        _tile(percent(labelled["H"]), "H over labelled pixels", "1 = the views always agree"),
        _tile(percent(labelled["H_prime"]), "H′ over labelled pixels", "H less chance"),
        _tile(percent(printed["coverage"]), "coverage", "share of pixels with a label"),
        _tile(f"{printed['labels']:,}", "labels", "one label everywhere makes H 100 %"),
        _tile(
            percent(everywhere["H"]), "H over all pixels", f"H′ {percent(everywhere['H_prime'])}"
        ),
        note=f"{_how(printed)}; {printed['sampling']}.",
    )
    return joined(cloud, agreement, _truth(checked.get("truth")))


def _reprojection(found: Json | None) -> list[Markup]:
    if found is None:
        return []
    mean = found["mean_iou"]
    return [
        _tile(
            percent(found["agreement"]),
            "reprojection agreement",
            "cloud drawn into the views, where both have a label",
        ),
        _tile("undefined" if mean is None else f"{mean:.3f}", "mean IoU per object", "the same"),
    ]


def _truth(found: Json | None) -> Markup:
    if found is None:
        return Markup()
    tiles = [
        _tile("undefined" if found[key] is None else f"{found[key]:.3f}", key.upper())
        for key in ("ap", "ap50", "ap25")
    ]
    return _group("Against the truth", *tiles, note=f"Protocol: {found['protocol']}.")


def _how(printed: Json) -> str:
    return f"exclude = {printed['exclude']}, epsilon = {printed['epsilon']:g}"


def _tile(number: str, name: str, more: str = "") -> Markup:
    parts = [element("b", number), element("span", name)]
    return element("div", *parts, *([element("small", more)] if more else []), class_="tile")


def _group(title: str, *tiles: Markup, note: str = "") -> Markup:
    below = [element("p", note, class_="soft")] if note else []
    shown = element("div", *tiles, class_="tiles")
    return element("div", element("h3", title), shown, *below, class_="group")


def per_view(checked: Json) -> Markup:
    """H of each view as bars, with what stands beside it."""
    printed = checked["printed"]
    found = checked["foreground"][printed["exclude"]]
    caption = (
        f"H over the labelled pixels of each view, in capture order; dashed: all views, H "
        f"{percent(found['H'])}, H′ {percent(found['H_prime'])}, coverage "
        f"{percent(found['coverage'])}, {found['labels']:,} labels; {_how(found)}."
    )
    chart = bars(checked["views"], found["view_H"], found["H"])
    figure = element("figure", chart, element("figcaption", caption), class_="group")
    return joined(element("h2", "H per view"), figure)


def objects(instances: Json, metric: bool) -> Markup:
    """Every object, the largest first."""
    rows: list[list[object]] = []
    for each in sorted(instances["instances"], key=lambda one: (-one["points"], one["id"])):
        swatch = element("span", class_="swatch", style=f"background: {each['colour']}")
        size = "none"
        if each["bbox"] is not None:
            sides = zip(each["bbox"]["min"], each["bbox"]["max"], strict=True)
            size = " × ".join(f"{high - low:.2f}" for low, high in sides)
        numbers = [f"{each['points']:,}", each["views"], f"{each['score']:.2f}"]
        rows.append([joined(swatch, each["id"]), *numbers, f"{each['confidence']:.2f}", size])
    box = f"box x × y × z, {'m' if metric else 'units'}"
    head = ["object", "points", "views", "score", "confidence", box]
    about = (
        "score: mean share of the votes its points gave to it; confidence: how sure it is one "
        "object, by how well the views support it, or by its size and shape where the surface "
        "decides (association.by_shape)."
    )
    return joined(
        element("h2", f"{len(rows):,} objects"),
        table(head, rows),
        element("p", about, class_="soft"),
    )


def warnings(run: Json) -> Markup:
    """What a reader must know before trusting the run; what was merged, divided, dropped."""
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
        made = element("summary", "What association merged, divided and dropped")
        parts.append(element("details", made, table(["what", "count"], counts)))
    return joined(*parts)


def cost(run: Json) -> Markup:
    """Time and memory of each stage before this report."""
    rows: list[list[object]] = [
        [
            stage["name"],
            f"{stage['seconds']:.1f}",
            f"{stage['seconds_per_view']:.3f}",
            f"{stage['peak_memory_mb']:,.0f}",
            "found finished" if stage["reused"] else "run now",
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
        element("h2", "Again"),
        element("pre", command),
        element(
            "details",
            element("summary", f"Settings ({len(settings)}), seed {run['seed']}"),
            table(["setting", "value"], settings, words=2),
        ),
        element(
            "details", element("summary", "Versions"), table(["what", "version"], versions, words=2)
        ),
    )


def _flat(prefix: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(f"{prefix}.{name}" if prefix else str(name), inner)
    else:
        yield prefix, value if isinstance(value, str) else json.dumps(value)
