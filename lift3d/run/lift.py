"""The main job, stage by stage: a posed RGB-D scan in, a labelled cloud and its report out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from lift3d.association import Association, associate
from lift3d.association.votes.classes import vote_classes, with_classes
from lift3d.datasets.selection import open_scene, select
from lift3d.evaluation.check import check, write_heat
from lift3d.evaluation.scores import score
from lift3d.evaluation.truth import Truth
from lift3d.export.instances import write_instances
from lift3d.export.ply import coloured_by_label, read_cloud, write_cloud
from lift3d.reconstruction.fusion import given_points
from lift3d.run.evaluating import confidences
from lift3d.run.record import RUN, run_content, write_run
from lift3d.run.report import PICTURE, REPORT, write_report
from lift3d.run.settings import LiftConfig, as_json
from lift3d.run.stages import (
    RECORDS,
    Record,
    RunFolder,
    alone_in,
    fresh_folder,
    open_run,
    scene_fingerprint,
)
from lift3d.run.stored import CAMERAS, DEPTH, keep, read_points, recall, write_points
from lift3d.scene import LabelMap, Points, Scene, View, ids_in
from lift3d.scene.errors import InputError
from lift3d.scene.labelmaps import LabelMaps, write_label_map
from lift3d.scene.prefetch import behind, pictures_ahead, prefetch
from lift3d.scene.progress import Progress, Quiet, Tick
from lift3d.scene.protocols import Segmenter, Tracker
from lift3d.scene.storage import atomic

POINTS = f"{RECORDS}/points.npz"
RECONSTRUCTION = "reconstruction"
MASKS, LABELS = "masks", "labels"
CLOUD, CLOUD_LABELS, INSTANCES = "cloud.ply", "cloud_labels.ply", "instances.json"
CONSISTENCY, HEAT = "consistency.json", "heat"


@dataclass(frozen=True)
class Lifted:
    """What a run left in its folder."""

    path: Path
    scene: Scene
    """The views that were used."""
    records: dict[str, Record]
    """Every stage in order: its time, its result, whether it was found finished."""
    warnings: tuple[str, ...] = ()


@dataclass
class _Run:
    """The stages share the folder, the settings and who is told."""

    config: LiftConfig
    folder: RunFolder
    progress: Progress
    warnings: list[str] = field(default_factory=list)

    def stage(
        self,
        name: str,
        settings: object,
        after: list[str],
        outputs: list[str],
        work: Callable[[Tick], dict[str, Any]],
    ) -> dict[str, Any]:
        """The stage's result, from now or from before."""

        def shown() -> dict[str, Any]:
            self.path(RUN).unlink(missing_ok=True)  # not finished any more
            with self.progress.stage(name) as tick:
                return work(tick)

        record = self.folder.stage(name, settings, after, outputs, shown)
        again = ", found finished" if record.reused else ""
        self.progress.say(f"{name:<12} {record.seconds:7.1f} s{again}")
        self.warnings += record.result.get("warnings", [])
        return record.result

    def path(self, name: str) -> Path:
        return self.folder.path / name


def lift(
    config: LiftConfig,
    scene: Scene | None = None,
    progress: Progress | None = None,
    command: Sequence[str] = (),
) -> Lifted:
    """Run every stage that is not finished yet in `config.out`.

    `scene` takes the place of what `config.input` names; `command` is noted in `run.json`.
    Raises InputError for bad input or settings, OSError where the disk fails; finished stages
    stay in both cases.
    """
    source = open_scene(config.input, config.reader) if scene is None else scene
    source = select(source, config.views, config.stride)
    config = config.resolved(source)
    masks = _Masks(config, RunFolder(config.out))
    with alone_in(open_run(config.out)):
        run = _Run(config, RunFolder(config.out), progress or Quiet())
        used = _reconstruct(run, source)
        masks.check(used)
        points = _fuse(run, used)
        _track(run, used, masks)
        _associate(run, used, points)
        _check(run, used)
        _report(run, used, command)
        write_run(config.out, _content(run, used, command))
        return Lifted(config.out, used, run.folder.records, tuple(run.warnings))


class _Masks:
    """Segmenter and tracker: built before the first stage, so that what would stop them an hour
    later, such as weights, is told at once; where a run has its masks, only when asked for.
    """

    def __init__(self, config: LiftConfig, folder: RunFolder) -> None:
        self._config = config
        config.fuser()
        if not folder.has("track"):
            self.tracker  # noqa: B018 - built here, once

    @cached_property
    def _segmenter(self) -> Segmenter:
        return self._config.segmenter()

    @cached_property
    def tracker(self) -> Tracker:
        """Over its segmenter and, where it compares views, its matcher."""
        return self._config.tracker(self._segmenter)

    def check(self, scene: Scene) -> None:
        """What the segmenter has to say of the scene."""
        if "_segmenter" in vars(self):
            getattr(self._segmenter, "check", lambda scene: None)(scene)


def _reconstruct(run: _Run, source: Scene) -> Scene:
    """The views that can be used, with cameras and depth."""

    def work(tick: Tick) -> dict[str, Any]:
        own = run.path(RECONSTRUCTION)
        scene = run.config.reconstructor().reconstruct(source, progress=tick, folder=own)
        return keep(run.folder.path, source, scene, tick)

    settings = [
        *(scene_fingerprint(source), source.source, source.skipped, source.notes),
        run.config.reconstruction,
    ]
    result = run.stage("reconstruct", settings, [], [CAMERAS, DEPTH], work)
    return recall(run.folder.path, source, result)


def _fuse(run: _Run, scene: Scene) -> Points:
    """The cloud without labels: fused, given, or what came with the cameras."""
    dense = any(view.load_depth is not None and not view.sparse for view in scene.views)
    own = None if dense else scene.load_points

    def work(tick: Tick) -> dict[str, Any]:
        if run.config.cloud is not None:
            points, notes = given_points(run.config.cloud), [f"points of {run.config.cloud}"]
        elif own is not None:
            points, notes = own(), ["no dense depth: the points that came with the cameras"]
        else:
            fuser = run.config.fuser()
            points, notes = fuser.fuse(scene, progress=tick), list(fuser.notes)
            notes += [f"view {each.name} not fused: {each.reason}" for each in fuser.skipped]
        write_points(run.path(POINTS), points)
        return {"points": len(points), "notes": notes}

    settings = run.config.fusion if run.config.cloud is None else run.config.cloud
    run.stage("fuse", settings, ["reconstruct"], [POINTS], work)
    return read_points(run.path(POINTS))


def _track(run: _Run, scene: Scene, masks: _Masks) -> None:
    """Masks of every view, with the ids that the tracker gives them."""
    config = run.config

    def work(tick: Tick) -> dict[str, Any]:
        empty = []
        with (
            fresh_folder(run.path(MASKS)) as part,
            pictures_ahead(scene) as pictured,
            behind() as later,  # one is written while the next is tracked
        ):
            maps = masks.tracker.track(pictured)
            for number, (view, labels) in enumerate(zip(scene.views, maps, strict=True), start=1):
                later(partial(write_label_map, part, view.name, labels))
                if not labels.any():
                    empty.append(view.name)
                tick(number, len(scene))
        if len(empty) == len(scene):
            raise InputError(
                f"{scene.source}: segmentation found no mask in any of {len(scene)} views; "
                "try another segmenter or other settings of it"
            )
        few = ", ".join(empty[:5]) + (" ..." if len(empty) > 5 else "")
        return {"warnings": [f"{len(empty)} views have no masks: {few}"] if empty else []}

    matching = config.matching if config.matches else None
    settings = [config.segmentation, config.tracking, matching]
    run.stage("track", settings, ["reconstruct"], [MASKS], work)


def _associate(run: _Run, scene: Scene, points: Points) -> None:
    """Labels on the points, and the views' masks with ids that agree."""
    config = run.config

    def work(tick: Tick) -> dict[str, Any]:
        found = associate(
            points,
            scene,
            _maps(run, MASKS, scene),
            config.association,
            config.tolerance,
            config.seed,
            tick,
        )
        views = _write_labels(run, scene, found)
        cloud = found.cloud
        if config.classes is not None:
            names = [view.name for view in scene.views]
            maps = LabelMaps.found(config.classes, names, "class map")
            cloud = with_classes(cloud, vote_classes(points, scene, maps, config.tolerance)[0])
        write_cloud(run.path(CLOUD), cloud)
        write_cloud(run.path(CLOUD_LABELS), replace(cloud, points=coloured_by_label(cloud)))
        write_instances(run.path(INSTANCES), cloud, found.confidence, views)
        labelled = float(np.mean(cloud.instance > 0)) if len(points) else 0.0
        return {
            **found.summary,
            "instances": len(found.confidence),
            "points_labelled": labelled,
            "warnings": list(found.warnings),
        }

    settings = [config.association, config.tolerance, config.seed, config.classes]
    outputs = [LABELS, CLOUD, CLOUD_LABELS, INSTANCES]
    run.stage("associate", settings, ["fuse", "track"], outputs, work)


def _check(run: _Run, scene: Scene) -> None:
    """How well views and cloud agree; scores against the truth where the scene has one."""
    config = run.config

    def work(tick: Tick) -> dict[str, Any]:
        cloud = read_cloud(run.path(CLOUD))
        epsilon, pixels = config.epsilon, config.check_pixels
        maps = _maps(run, LABELS, scene)
        found, printed = check(scene, cloud, maps, epsilon, pixels, config.tolerance, tick)
        if scene.load_surface is not None:
            confidence = confidences(run.path(INSTANCES))
            truth = Truth.of_surface(scene.load_surface(), scene.void_classes)
            found["truth"] = score(cloud, confidence, truth)
        with fresh_folder(run.path(HEAT)) as part:
            for index, view in enumerate(scene.views):
                write_heat(part / f"{view.name}.png", printed.heat_map(index))
        with atomic(run.path(CONSISTENCY)) as part:
            part.write_text(json.dumps(found, indent=1))
        return {}

    settings = [config.epsilon, config.check_pixels, config.tolerance, scene.load_surface]
    run.stage("check", settings, ["associate"], [CONSISTENCY, HEAT], work)


def _report(run: _Run, scene: Scene, command: Sequence[str]) -> None:
    """What a person looks at first."""

    def work(tick: Tick) -> dict[str, Any]:
        write_report(run.folder.path, scene, _content(run, scene, command))
        return {}

    settings = [as_json(replace(run.config, out=Path())), scene.name]
    run.stage("report", settings, ["check"], [REPORT, PICTURE], work)


def _content(run: _Run, scene: Scene, command: Sequence[str]) -> dict[str, Any]:
    return run_content(run.config, scene, run.folder.records, command, run.warnings)


def _maps(run: _Run, folder: str, scene: Scene) -> LabelMaps:
    """Label maps that this run has written."""
    return LabelMaps(run.path(folder), [view.name for view in scene.views])


def _write_labels(run: _Run, scene: Scene, found: Association) -> dict[int, int]:
    """Each view's masks with the ids of the cloud; in how many views each id is."""
    views: dict[int, int] = {}
    masks = _maps(run, MASKS, scene)

    def named(item: tuple[int, View]) -> tuple[str, LabelMap]:
        index, view = item
        return view.name, found.relabel(index, view, masks[view.name])

    with fresh_folder(run.path(LABELS)) as part:
        for name, labels in prefetch(enumerate(scene.views), named):
            write_label_map(part, name, labels)
            for each in ids_in(labels).tolist():
                views[each] = views.get(each, 0) + 1
    return views
