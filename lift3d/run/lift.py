"""The main job, stage by stage: a posed RGB-D scan in, a labelled cloud and its report out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lift3d.association import Association, associate
from lift3d.association.votes.classes import class_maps, vote_classes, with_classes
from lift3d.datasets import read_scene
from lift3d.datasets.selection import select
from lift3d.evaluation.check import check, write_heat
from lift3d.evaluation.scores import score
from lift3d.evaluation.truth import Truth
from lift3d.export.instances import write_instances
from lift3d.export.ply import coloured_by_label, read_cloud, write_cloud
from lift3d.reconstruction.fusion import given_points
from lift3d.run.evaluating import confidences
from lift3d.run.record import RUN, run_content, write_run
from lift3d.run.report import PICTURE, REPORT, write_report
from lift3d.run.settings import Automatic, LiftConfig, as_json, poses_unused
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
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.labelmaps import find_label_map, read_label_map, write_label_map
from lift3d.scene.prefetch import ahead, behind, pictures_ahead
from lift3d.scene.progress import Progress, Quiet, Tick
from lift3d.scene.protocols import Matcher, SceneSegmenter, Segmenter
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
    if scene is None:
        config = config.with_reader()
        scene = read_scene(config.input, config.reader)
    source = select(scene, config.views, config.stride)
    warnings = poses_unused(config, source)
    config = config.for_source(source)
    masks = _Masks(config, RunFolder(config.out))
    with alone_in(open_run(config.out)):
        run = _Run(config, RunFolder(config.out), progress or Quiet(), warnings)
        used = _reconstruct(run, source)
        run.config = config.for_scene(used)  # now it is known whether there is depth
        masks.check(used)
        points = _fuse(run, used)
        _track(run, used, masks)
        _associate(run, used, points)
        _check(run, used)
        _report(run, used, command)
        write_run(config.out, _content(run, used, command))
        return Lifted(config.out, used, run.folder.records, tuple(run.warnings))


class _Masks:
    """What labels the views. Its networks are built before the first stage, so that what would
    stop them an hour later, such as missing weights, does so at once; where a run has its masks,
    only when asked for.
    """

    def __init__(self, config: LiftConfig, folder: RunFolder) -> None:
        self._config = config
        self._segmenter: Segmenter | SceneSegmenter | None = None
        self._matcher: Matcher | None = None
        config.check()
        if not folder.has("track"):
            self._build()

    def _build(self) -> None:
        """Build what is needed and not there yet; an automatic matcher is not known before the
        cameras are, and needs no weights.
        """
        config = self._config
        if self._segmenter is None and config.needs_segmenter:
            self._segmenter = config.segmenter()
        if (
            self._matcher is None
            and config.needs_matcher
            and not isinstance(config.matching, Automatic)
        ):
            self._matcher = config.matcher()

    def check(self, scene: Scene) -> None:
        """InputError where the segmenter cannot segment the scene; only where it is built."""
        if self._segmenter is not None:
            self._segmenter.check(scene)

    def labels(self, config: LiftConfig, scene: Scene) -> Iterator[LabelMap]:
        """One label map per view, by the resolved configuration."""
        self._build()
        return config.scene_segmenter(self._segmenter, self._matcher).label(scene)


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
            maps = masks.labels(config, pictured)
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

    matching = config.matching if config.needs_matcher else None
    settings = [config.segmentation, config.tracking, matching]
    run.stage("track", settings, ["reconstruct"], [MASKS], work)


def _associate(run: _Run, scene: Scene, points: Points) -> None:
    """Labels on the points, and the views' masks with ids that agree."""
    config = run.config

    def work(tick: Tick) -> dict[str, Any]:
        found = associate(
            points,
            scene,
            lambda: stored_maps(run.path(MASKS), scene),
            config.association,
            config.tolerance,
            config.seed,
            tick,
        )
        views = _write_labels(run, scene, found)
        cloud = found.cloud
        if config.classes is not None:
            maps = class_maps(config.classes, scene)
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

    def label_map(index: int) -> LabelMap:
        return stored_map(run.path(LABELS), scene.views[index].name)

    def work(tick: Tick) -> dict[str, Any]:
        cloud = read_cloud(run.path(CLOUD))
        epsilon, pixels = config.epsilon, config.check_pixels
        found, printed = check(scene, cloud, label_map, epsilon, pixels, config.tolerance, tick)
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


def _write_labels(run: _Run, scene: Scene, found: Association) -> dict[int, int]:
    """Each view's masks with the ids of the cloud; in how many views each id is."""
    views: dict[int, int] = {}

    def named(item: tuple[int, View]) -> tuple[str, LabelMap]:
        index, view = item
        return view.name, found.relabel(index, view, stored_map(run.path(MASKS), view.name))

    with fresh_folder(run.path(LABELS)) as part:
        for name, labels in ahead(enumerate(scene.views), named):
            write_label_map(part, name, labels)
            for each in ids_in(labels).tolist():
                views[each] = views.get(each, 0) + 1
    return views


def stored_maps(folder: Path, scene: Scene) -> Iterator[LabelMap]:
    """The label maps of all views, one at a time."""
    for view in scene.views:
        yield stored_map(folder, view.name)


def stored_map(folder: Path, name: str) -> LabelMap:
    """One view's label map, which this run has written."""
    path = find_label_map(folder, name)
    if path is None:
        raise InputError(f"{folder} has no label map of view {name}; remove {folder} and run again")
    try:
        return read_label_map(path)
    except FrameError as error:
        raise InputError(f"{error}; remove {folder} and run again") from error
