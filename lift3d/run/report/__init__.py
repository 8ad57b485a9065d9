"""Write a run's `report.html`, `cloud.png` and coloured label maps.

The report is one file with its pictures in it; it loads nothing and has no scripts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lift3d.correction.edits import EditFile
from lift3d.export.ply import read_cloud
from lift3d.run.layout import Layout
from lift3d.run.report import corrections, numbers, objects, pictures, views
from lift3d.run.report.best_views import BestView, coloured_copies, update_best_views
from lift3d.run.report.markup import Markup, element, joined, zoom
from lift3d.run.report.style import STYLE
from lift3d.run.report.verdict import next_step, verdict
from lift3d.run.schema import read_run_file
from lift3d.scene import Scene
from lift3d.scene.colours import Palette
from lift3d.scene.palette import colours_of
from lift3d.scene.prefetch import THREADS, prefetch
from lift3d.scene.storage import atomic

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(folder: Path, scene: Scene, run: Mapping[str, Any]) -> None:
    """Write `Layout.report_outputs` into a run folder; the other stages must have finished.

    `run` is the content of `run.json` before this stage. The views' pictures are read from
    `scene`; for one that cannot be read the report has a message.
    """
    files = Layout(folder)
    checked = read_run_file(files.consistency)
    instances = read_run_file(files.instances)
    palette = colours_of(instances["instances"], files.instances)
    shown = pictures.sides(read_cloud(files.cloud, scene.offset), scene, palette)
    pictures.write_sheet(files.picture, shown)
    best, thumbs = _coloured(files, scene, palette, views.thumbs_of(checked))
    cut_outs = objects.cut_outs(instances, scene, files.labels, best, palette, run["views"])
    body = element(
        "main",
        _heading(scene, run),
        _verdict(folder, run, checked, instances),
        _cloud(shown),
        views.worst_views(scene, folder, checked, palette),
        objects.objects(instances, scene, cut_outs, run["views"]),
        views.all_views(checked, thumbs),
        corrections.corrections(run, checked, EditFile(files.edits).read()),
        numbers.explained(run, checked, instances),
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
    with atomic(files.report) as part:
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


def _verdict(
    folder: Path, run: Mapping[str, Any], checked: Mapping[str, Any], instances: Mapping[str, Any]
) -> Markup:
    text, command = next_step(run, instances, str(folder))
    return element(
        "div",
        element("p", verdict(run, checked, instances), class_="verdict"),
        element("p", text, " ", element("code", command), class_="next"),
        class_="group",
    )


def _coloured(
    files: Layout, scene: Scene, palette: Palette, small: set[int]
) -> tuple[dict[int, BestView], dict[int, pictures.Shown]]:
    """Write the coloured copies; returns each object's best view, and thumbnails of `small`."""
    names = [view.name for view in scene.views]
    best: dict[int, BestView] = {}
    thumbs: dict[int, pictures.Shown] = {}
    for at, labels in coloured_copies(files.labels, names, palette):
        update_best_views(best, at, labels)
        if at in small:
            thumbs[at] = pictures.thumb(labels, palette)
    for _ in coloured_copies(files.masks, names):
        pass  # writes them; mask ids are not object ids, so without the objects' palette
    return best, thumbs


def _cloud(shown: list[list[pictures.Rgba]]) -> Markup:
    if not shown:
        return element("p", "The cloud has no points.", class_="bad")
    images = prefetch(
        [
            (pair[row], f"{what}, side {at}")
            for row, what in enumerate(("the cloud in colour", "the cloud by object"))
            for at, pair in enumerate(shown, start=1)
        ],
        lambda item: zoom(pictures.photograph(item[0]), item[1], item[0].shape),
        threads=THREADS,
    )
    below = element(
        "figcaption",
        "From four sides: in colour, and by object (grey: no label). Walls and ceilings that "
        "face away are left out. Click a picture to enlarge it.",
    )
    grid = element("div", *images, class_="four")
    return element("figure", grid, below, class_="group")
