"""Tables that the command prints: a scene, a run, its scores; one screen each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lift3d.datasets.depth_range import DepthRange, depth_range, scale_doubt, stored_as
from lift3d.reconstruction.registration import registration_doubt
from lift3d.run.record import progress_of
from lift3d.run.report.verdict import verdict
from lift3d.run.run import Run
from lift3d.run.transferring import Found
from lift3d.scene import Camera, Scene, Skipped
from lift3d.scene.printing import plain_table

NAMED = 12
"""Most frames that are named as left out for the same reason."""


def print_scene(scene: Scene) -> None:
    """Print the views, cameras, depth and truth of a scene."""
    table = _table(scene.name)
    table.add_row("source", scene.source)
    table.add_row("views", f"{len(scene)}, {len(scene.skipped)} left out")
    if scene.views:
        first, last = scene.views[0].name, scene.views[-1].name
        table.add_row("names", first if first == last else f"{first} to {last}")
        splits = Counter(view.split for view in scene.views if view.split)
        if splits:
            table.add_row("splits", ", ".join(f"{n} {split}" for split, n in splits.items()))
        table.add_row("colour", _cameras([view.camera for view in scene.views]))
        table.add_row("depth", _depth(scene))
        found = depth_range(scene)
        if found is not None:
            table.add_row("", _range(scene, found))
        table.add_row("extent", _extent(scene))
    table.add_row("unit", "metres" if scene.metric else "unknown")
    truth = [
        *(["masks of each view"] if any(view.load_instances for view in scene.views) else []),
        *(["labelled surface"] if scene.load_surface else []),
    ]
    table.add_row("truth", " and ".join(truth) or "none")
    reasons: dict[str, list[str]] = {}
    for frame in scene.skipped:
        reasons.setdefault(_kind(frame), []).append(frame.name)
    for reason, names in sorted(reasons.items(), key=lambda each: -len(each[1]))[:5]:
        few = ", ".join(names[:NAMED]) + ", ..." * (len(names) > NAMED)
        table.add_row("left out", f"{len(names)} x {reason} ({few})")
    for note in scene.notes:
        table.add_row("note", note)
    if scene.views:
        for doubt in (scale_doubt(scene, found), registration_doubt(scene)):
            if doubt:
                table.add_row("warning", doubt)
    Console().print(table)


def print_run(folder: Path) -> None:
    """Print the results of a run, its time and memory, and the paths of its files."""
    opened = Run.open(folder)
    run, checked = opened.record, opened.consistency
    results = {stage["name"]: stage["result"] for stage in run["stages"]}
    table = _table(str(folder))
    table.add_row("source", f"{run['source']}; {run['views']} views")
    if run["skipped"]:
        table.add_row("left out", f"{len(run['skipped'])} views, see the report")
    table.add_row("verdict", verdict(run, checked, opened.instances))
    labelled = _percent(results["associate"]["points_labelled"])
    table.add_row("points", f"{results['fuse']['points']:,}, {labelled} labelled")
    printed = checked["printed"]
    everywhere, foreground = printed["all"], printed["foreground"]
    table.add_row(
        "consistency",
        f"H {_percent(everywhere['H'])} (H' {_percent(everywhere['H_prime'])}) over all pixels, "
        f"{_percent(foreground['H'])} over labelled ones; exclude {printed['exclude']}, epsilon "
        f"{printed['epsilon']:g}, {_coverage(printed)}",
    )
    reprojected = checked["reprojection"]
    table.add_row(
        "reprojection",
        f"{_percent(reprojected['agreement'])} of doubly labelled pixels agree, mean IoU "
        f"{_number(reprojected['mean_iou'])}",
    )
    if "truth" in checked:
        _add_scores(table, checked["truth"])
    per_view = ", ".join(
        f"{stage['name']} {stage['seconds']:.1f}" + (" (kept)" if stage["reused"] else "")
        for stage in run["stages"]
    )
    table.add_row(
        "seconds",
        f"{run['seconds']:.1f} = {run['seconds'] / max(run['views'], 1):.2f} a view ({per_view}); "
        f"peak memory {run['peak_memory_mb']:.0f} MB",
    )
    if opened.corrections:
        table.add_row("corrected", str(opened.corrections))
    for warning in run["warnings"][:6]:
        table.add_row("warning", warning)
    files = opened.files
    paths = {"cloud": files.cloud, "report": files.report, "picture": files.picture}
    for what, path in paths.items():
        if path.exists():
            table.add_row(what, str(path))
    Console().print(table)


def print_unfinished(folder: Path) -> None:
    """Print how far a run has come that is interrupted or still going on."""
    table = _table(str(folder))
    table.add_row("state", f"a run that is not finished; {progress_of(folder)}")
    table.add_row("next", "wait for its lift, or give the same command again to continue it")
    Console().print(table)


def print_evaluation(found: dict[str, Any]) -> None:
    """Print the scores against ground truth."""
    table = _table(found["truth"])
    if "submission" in found:
        table.add_row("submission", f"{found['submission']}; {found['scenes']} scenes")
    if "labels" in found:
        table.add_row("labels", found["labels"])
    _add_scores(table, found)
    if "automatic" in found:
        _add_numbers(table, "automatic", found["automatic"], ("ap", "ap50", "ap25"))
    if "consistency" in found:
        printed = found["consistency"]
        table.add_row(
            "consistency",
            f"H {_percent(printed['all']['H'])} (exclude {printed['exclude']}), "
            f"{_coverage(printed)}",
        )
    for note in dict.fromkeys(found["notes"][:12]):
        table.add_row("note", note)
    Console().print(table)


def _add_scores(table: Table, found: dict[str, Any]) -> None:
    """Add rows with each score and its protocol."""
    for each in found["scores"]:
        _add_numbers(table, "score", each, ("ap", "ap50", "ap25"))
    for each in found.get("panoptic", []):
        _add_numbers(table, "panoptic", each, ("pq", "sq", "rq"))
    if "semantic" in found:
        _add_numbers(table, "classes", found["semantic"], ("miou", "accuracy"))


def _add_numbers(table: Table, what: str, found: dict[str, Any], names: tuple[str, ...]) -> None:
    shown = {"miou": "mIoU", "accuracy": "accuracy"}
    numbers = [f"{shown.get(name, name.upper())} {_number(found[name])}" for name in names]
    table.add_row(what, "   ".join(numbers))
    table.add_row("protocol", found["protocol"])


def _table(title: str) -> Table:
    table = plain_table(title, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _cameras(cameras: list[Camera]) -> str:
    sizes = Counter((camera.width, camera.height) for camera in cameras)
    (width, height), count = sizes.most_common(1)[0]
    K = cameras[0].K
    others = f" ({len(cameras) - count} views differ)" if count < len(cameras) else ""
    lens = ", distorted lens" if any(cameras[0].distortion) else ""
    return (
        f"{width}x{height}{others}, fx {K[0, 0]:.1f} fy {K[1, 1]:.1f} "
        f"cx {K[0, 2]:.1f} cy {K[1, 2]:.1f}{lens}"
    )


def _depth(scene: Scene) -> str:
    having = [view for view in scene.views if view.load_depth is not None]
    if not having:
        return "none"
    text = f"{len(having)} views"
    if having[0].depth_camera is None:
        return f"{text}, registered to colour"
    return f"{text}, own camera: {_cameras([view.geometry_camera for view in having])}"


def _kind(frame: Skipped) -> str:
    """The reason without the path of the frame's own file, so that equal reasons count together."""
    return re.sub(rf"\S*{re.escape(frame.name)}\S*", "...", frame.reason)


def _range(scene: Scene, found: DepthRange) -> str:
    """The range of depth, and how it is stored."""
    unit = "m" if scene.metric else "units"
    few = "" if found.views == len(scene) else f" in {found.views} of the views"
    how = stored_as(next(view for view in scene.views if view.load_depth is not None))
    stored = f"; {how}" if how else ""
    return f"{found.low:.3g} to {found.high:.3g} {unit}, median {found.usual:.3g}{few}{stored}"


def _extent(scene: Scene) -> str:
    """Size of the cameras' bounding box; the surface is known only after fusion."""
    import numpy as np

    poses = [view.geometry_camera.world_from_camera for view in scene.views]
    places = np.array([pose[:3, 3] for pose in poses if pose is not None])
    if not len(places):
        return "no poses"
    low, high = places.min(0), places.max(0)
    size = " x ".join(f"{length:.2f}" for length in high - low)
    return f"cameras within {size} {'m' if scene.metric else 'units'}, {len(places)} posed"


def _coverage(printed: dict[str, Any]) -> str:
    if not printed["labels"]:
        return "nothing is labelled"
    return f"coverage {_percent(printed['coverage'])}, {printed['labels']} labels"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def print_transfer(found: Sequence[Found]) -> None:
    """Print the pictures in which each object was found, with confidence."""
    table = _table("masks found")
    for each in found:
        there = [
            f"{id_} ({one['confidence']:.2f})"
            for id_, one in each.objects.items()
            if one["present"]
        ]
        table.add_row(each.picture, ", ".join(there) or "none")
    Console().print(table)
