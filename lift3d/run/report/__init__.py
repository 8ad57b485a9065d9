"""`report.html`: one file that shows a run to a person, and `cloud.png`, its cloud.

Pictures are inside the file, nothing is fetched and nothing runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lift3d.export.ply import read_cloud
from lift3d.run.report import numbers, pictures
from lift3d.run.report.markup import Markup, element, joined
from lift3d.run.report.style import STYLE
from lift3d.scene import Scene
from lift3d.scene.colours import heat_colours
from lift3d.scene.storage import atomic

REPORT, PICTURE = "report.html", "cloud.png"
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(folder: Path, scene: Scene, run: Mapping[str, Any]) -> None:
    """Write both files into a run folder whose other files are there.

    `run` is the content of `run.json`, as it stands before the report. The views' pictures
    are read from `scene`; one that cannot be read is named in its place.
    """
    checked = json.loads((folder / "consistency.json").read_text())
    instances = json.loads((folder / "instances.json").read_text())
    shown = pictures.sides(read_cloud(folder / "cloud.ply"), scene)
    pictures.write_sheet(folder / PICTURE, shown)
    body = element(
        "main",
        _heading(scene, run),
        numbers.verdict(run, checked, instances),
        _cloud(shown),
        _views(scene, folder),
        numbers.per_view(checked),
        numbers.objects(instances, scene.metric),
        numbers.warnings(run),
        numbers.cost(run),
        numbers.repeat(run),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("title", f"{scene.name} · lift3d"),
        element("style", Markup(STYLE)),
    )
    page = joined(
        Markup("<!doctype html>\n"), element("html", head, element("body", body), lang="en")
    )
    with atomic(folder / REPORT) as part:
        part.write_text(page + "\n", encoding="utf-8")


def _heading(scene: Scene, run: Mapping[str, Any]) -> Markup:
    left_out = f", {len(run['skipped']):,} left out" if run["skipped"] else ""
    size = ""
    if scene.views:
        camera = scene.views[0].camera
        size = f" of {camera.width} × {camera.height} pixels"
    unit = "metres" if scene.metric else "unit unknown"
    read = f"{scene.source} · {run['views']:,} views{size}{left_out} · {unit}"
    return joined(element("h1", scene.name), element("p", read, class_="soft"))


def _cloud(shown: list[tuple[pictures.Rgba, pictures.Rgba]]) -> Markup:
    if not shown:
        return element("p", "The cloud has no points.", class_="bad")
    images = [
        element("img", src=pictures.png(pair[row]), alt=f"{what}, side {at}")
        for row, what in enumerate(("the cloud in colour", "the cloud by object"))
        for at, pair in enumerate(shown, start=1)
    ]
    below = element("figcaption", "From four sides: in colour, and by object (grey: no label).")
    grid = element("div", *images, class_="four")
    return joined(element("h2", "The cloud"), element("figure", grid, below, class_="group"))


def _views(scene: Scene, folder: Path) -> Markup:
    figures = []
    for strip in pictures.strips(scene, folder / "labels", folder / "heat"):
        if isinstance(strip, str):
            figures.append(element("p", strip, class_="bad"))
            continue
        triple = (
            ("picture", strip.image),
            ("labels", strip.labels),
            ("disagreement", strip.disagreement),
        )
        images = [
            element("p", f"no {what}", class_="soft")
            if image is None
            else element("img", src=pictures.jpeg(image), alt=f"view {strip.name}, {what}")
            for what, image in triple
        ]
        below = element("figcaption", f"view {strip.name}")
        figures.append(element("figure", element("div", *images, class_="three"), below))
    about = element(
        "p",
        "Picture, labels, disagreement with the other views at the same place: none ",
        element("span", class_="ramp", style=f"background: {_gradient()}"),
        " all; grey: not compared.",
        class_="soft",
    )
    return joined(element("h2", "Views"), about, element("div", *figures, class_="strips"))


def _gradient() -> str:
    steps = heat_colours(np.linspace(0, 1, 9)).tolist()
    return "linear-gradient(to right, " + ", ".join(f"rgb{tuple(rgb)}" for rgb in steps) + ")"
