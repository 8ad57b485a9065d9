"""`lift`: runs all stages, from a scan or photos to a labelled cloud and its report."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lift3d.association import Association, associate
from lift3d.association.votes.classes import vote_classes, with_classes
from lift3d.correction.history import Corrections
from lift3d.datasets import read_scene as open_scene
from lift3d.datasets.depth_range import depth_range, scale_doubt
from lift3d.datasets.selection import select
from lift3d.evaluation.check import check, read_check, write_check, write_heat
from lift3d.evaluation.consistency import SceneConsistency
from lift3d.evaluation.scores import score
from lift3d.evaluation.truth import Truth
from lift3d.export.ply import read_cloud
from lift3d.geometry.visibility import cloud_spacing
from lift3d.reconstruction.fusion import given_points
from lift3d.reconstruction.fusion.frames import default_voxel
from lift3d.run.correct import correct, read_automatic, write_automatic
from lift3d.run.layout import Layout
from lift3d.run.objects import confidences
from lift3d.run.record import run_content, write_run
from lift3d.run.report import write_report
from lift3d.run.run import Run
from lift3d.run.scene_file import read_points, read_scene, write_points, write_scene
from lift3d.run.settings import (
    Automatic,
    LiftConfig,
    poses_unused,
    read_settings,
    uses_network,
)
from lift3d.run.stages import (
    CONTENTS,
    RunFolder,
    alone_in,
    open_run,
)
from lift3d.scene import LabelledPoints, LabelMap, Points, Scene, Skipped, View, ids_in
from lift3d.scene.contents import remembered
from lift3d.scene.errors import InputError, system_words
from lift3d.scene.fingerprint import fingerprint, scene_fingerprint
from lift3d.scene.labelmaps import LabelMaps, write_label_map
from lift3d.scene.local_origin import localised
from lift3d.scene.mask_sets import MaskSets, ViewMasks, flat, flat_maps, write_view_masks
from lift3d.scene.prefetch import in_background, pictures_ahead, prefetch
from lift3d.scene.progress import Progress, Quiet, Tick
from lift3d.scene.protocols import Matcher, SceneSegmenter, Segmenter
from lift3d.scene.skipping import warnings_of
from lift3d.scene.sources import code_of
from lift3d.scene.storage import atomic, fresh_folder
from lift3d.scene.workers.job import CannotSend
from lift3d.scene.workers.views import Pool, TakesWorkers, ViewWorkers, opened
from lift3d.segmentation.spread import spread

SPARSE = 1.25
"""Spacings of given vertices, in default voxels of the scene, above which objects are found on the
fused surface instead. In a metric scene 1.9 cm. Fused is better on all of four scans given as
vertices of decimated meshes, 2.6 to 2.9 cm apart (AP 0.37 against 0.60), and not better on the
HoloLens kitchen, 1.6 cm apart."""


@dataclass
class _Stages:
    """State shared by the stages: the folder, the settings, the progress display."""

    config: LiftConfig
    folder: RunFolder
    progress: Progress
    workers: ViewWorkers
    """Not part of any key: workers change no result."""
    warnings: list[str] = field(default_factory=list)
    scene: str = ""
    """Fingerprint of the views that are used."""

    def stage(
        self,
        name: str,
        settings: object,
        reads: Sequence[Path],
        outputs: Sequence[Path],
        work: Callable[[Tick], dict[str, Any]],
    ) -> dict[str, Any]:
        """Run a stage unless it is finished; returns its result."""

        def shown() -> dict[str, Any]:
            with self.progress.stage(name) as tick:
                return work(tick)

        record = self.folder.stage(name, settings, reads, outputs, shown, work)
        again = ", kept" if record.reused else ""
        self.progress.log(f"{name:<12} {record.seconds:7.1f} s{again}")
        self.warnings += record.result.get("warnings", [])
        for each in record.edited:
            files = [file for file in record.changed if file == each or file.startswith(f"{each}/")]
            self.warn(_changed(each, files))
        for each in record.set_aside:
            self.warn(f"{name} had to run again; its edited output was moved to {each}")
        return record.result

    def pool(self, settings: object, wanted: bool) -> AbstractContextManager[Pool | None]:
        """Workers for a stage with these settings; None where this process works alone."""
        workers = self.workers if wanted else ViewWorkers()
        return opened(workers, uses_network(settings), self.progress.log)

    def warn(self, warning: str) -> None:
        """Keep a warning for the report and show it."""
        self.warnings.append(warning)
        self.progress.log(f"warning: {warning}")

    @property
    def files(self) -> Layout:
        """The paths of the run folder."""
        return Layout(self.folder.path)


def _changed(output: str, files: Sequence[str]) -> str:
    """The warning for an output that was changed by hand, with its changed files."""
    it = f"{output} was changed since this run wrote it"
    if list(files) == [output]:
        return f"{it} and is used as it is; to have it made again, remove it"
    few = ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
    which = "that file" if len(files) == 1 else "these files"
    return f"{it} ({few}) and is used as it is; to have it made again, remove {which}"


def lift(
    config: LiftConfig,
    scene: Scene | None = None,
    progress: Progress | None = None,
    command: Sequence[str] = (),
    workers: ViewWorkers | None = None,
) -> Run:
    """Run every stage that is not finished yet in `config.out`.

    `scene` replaces the scene read from `config.input`; `command` is recorded in `run.json`.
    `workers` share the work on single views; the result is the same with any number of them.
    Raises InputError for bad input or settings, OSError where the disk fails; finished stages
    are kept in both cases.
    """
    workers = workers or ViewWorkers()
    workers.check()
    if scene is None:
        config = config.with_reader()
        scene = open_scene(config.input, config.reader)
    source = select(localised(scene), config.views, config.stride)
    warnings = poses_unused(config, source)
    config = config.for_source(source)
    masks = _Masks(config, RunFolder(config.out))
    with alone_in(open_run(config.out)), remembered(config.out / CONTENTS):
        run = _Stages(config, RunFolder(config.out), progress or Quiet(), workers, warnings)
        used = _reconstruct(run, source)
        run.scene = scene_fingerprint(used)
        run.config = config.for_scene(used)  # now it is known whether there is depth
        masks.check(used)
        points = _fuse(run, used)
        _track(run, used, masks)
        _associate(run, used, points)
        _correct(run, used)
        _check(run, used)
        _report(run, used, command)
        if run.files.evaluation.exists() and not run.folder.records["correct"].reused:
            run.warn("evaluation.json has scores of the earlier labels; evaluate again")
        try:
            write_run(config.out, _content(run, used, command))
        except OSError as error:
            # A finished run on a disk that is read-only or full stays one.
            if not (run.files.record.is_file() and run.folder.all_kept):
                raise
            run.progress.log(f"{run.files.record} stays as it was: {system_words(error)}")
        return Run(config.out, scene=used, records=run.folder.records)


class _Masks:
    """Builds the segmenter, tracker and matcher. Networks are built before the first stage, to fail
    early on missing weights; where the run already has masks, only when needed.
    """

    def __init__(self, config: LiftConfig, folder: RunFolder) -> None:
        self._config = config
        self._segmenter: Segmenter | SceneSegmenter | None = None
        self._matcher: Matcher | None = None
        self._labelling: SceneSegmenter | None = None
        config.check()
        if not folder.has("track"):
            self._build()

    def _build(self) -> None:
        """Build the segmenter and the matcher where needed. An automatic matcher is chosen only
        after the reconstruction; it needs no weights.
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
        """InputError where the segmenter is built and cannot segment the scene."""
        if self._segmenter is not None:
            self._segmenter.check(scene)

    @staticmethod
    def per_view(config: LiftConfig) -> bool:
        """Whether a segmenter sees each view alone, so that workers can do it."""
        return config.needs_segmenter and not config.sees_all_views

    def labels(
        self, config: LiftConfig, scene: Scene, views: Sequence[View], pool: Pool | None
    ) -> Iterator[ViewMasks]:
        """Yield the masks of each view; `config` must be resolved.

        `views` are those of the scene, as they can be sent to workers.
        """
        self._build()
        segmenter = self._segmenter
        if pool is not None and isinstance(segmenter, Segmenter):
            try:
                asks = config.tracking.asks
                segmenter = spread(pool, config.segmentation.build, segmenter, views, asks)
            except CannotSend as error:
                pool.say(f"{error}; so this process segments all views itself")
            else:
                self._segmenter = None  # this process may not need it any more
        built = config.scene_segmenter(segmenter, self._matcher)
        self._labelling = built
        return built.label(scene)

    @property
    def skipped(self) -> list[Skipped]:
        """Views left unlabelled because they cannot be read."""
        return [] if self._labelling is None else self._labelling.skipped


def _reconstruct(run: _Stages, source: Scene) -> Scene:
    """Find the usable views, with cameras and depth."""

    def work(tick: Tick) -> dict[str, Any]:
        own = run.files.reconstruction
        backend = run.config.reconstructor()
        spreads = isinstance(backend, TakesWorkers)
        with run.pool(run.config.reconstruction, spreads) as pool:
            if pool is not None and isinstance(backend, TakesWorkers):
                backend.take(pool)
            scene = backend.reconstruct(source, progress=tick, folder=own)
        write_scene(run.folder.path, source, scene, tick)
        doubt = scale_doubt(scene, depth_range(scene)) if source.has_dense_depth else None
        return {"notes": list(scene.notes), "warnings": [doubt] if doubt else []}

    said = [*source.notes, *(text for each in source.skipped for text in (each.name, each.reason))]
    # Notes contain paths; they must not change the key when the scan is moved.
    said = [text.replace(str(run.config.input), "") for text in said]
    settings = [scene_fingerprint(source), said, run.config.reconstruction]
    run.stage("reconstruct", settings, [], [run.files.scene, run.files.depth], work)
    return read_scene(run.folder.path, source)


def _fuse(run: _Stages, scene: Scene) -> Points:
    """Make the cloud without labels: fused, given by the user, or from the reconstruction."""
    dense = any(view.load_depth is not None and not view.sparse for view in scene.views)
    own = None if dense else scene.load_points

    def work(tick: Tick) -> dict[str, Any]:
        if run.config.cloud is not None:
            points = given_points(run.config.cloud, scene.offset)
            notes = [f"points of {run.config.cloud}"]
        elif own is not None:
            points, notes = (
                own(),
                ["no dense depth: the cloud has the points of the reconstruction"],
            )
        else:
            fuser = run.config.fuser()
            points, notes = fuser.fuse(scene, progress=tick), list(fuser.notes)
            notes += [f"view {each.name} not fused: {each.reason}" for each in fuser.skipped]
        write_points(run.files.points, replace(points, offset=scene.offset))
        return {"points": len(points), "notes": notes}

    settings = [run.scene, run.config.fusion if run.config.cloud is None else run.config.cloud]
    run.stage("fuse", settings, [], [run.files.points], work)
    return read_points(run.files.points)


def _track(run: _Stages, scene: Scene, masks: _Masks) -> None:
    """Segment every view; the tracker gives the masks their ids."""
    config = run.config

    def work(tick: Tick) -> dict[str, Any]:
        empty = []
        with (
            fresh_folder(run.files.masks) as part,
            pictures_ahead(scene) as pictured,
            in_background() as later,  # writes one while the next is tracked
            run.pool(config.segmentation, masks.per_view(config)) as pool,
        ):
            maps = masks.labels(config, pictured, scene.views, pool)
            for number, (view, found) in enumerate(zip(scene.views, maps, strict=True), start=1):
                later(partial(write_view_masks, part, view.name, found))
                if not flat(found).any():
                    empty.append(view.name)
                tick(number, len(scene))
        warnings = warnings_of(masks.skipped, "stays unlabelled")
        if len(empty) == len(scene):
            count = len(masks.skipped)
            reason = f"; {count} of them cannot be read ({warnings[0]})" if count else ""
            raise InputError(
                f"{scene.source}: segmentation found no mask in any of {len(scene)} views{reason}; "
                + ("mend these files" if count else "try another segmenter or change its settings")
            )
        lost = {each.name for each in masks.skipped}
        empty = [name for name in empty if name not in lost]
        if empty:
            few = ", ".join(empty[:5]) + (" ..." if len(empty) > 5 else "")
            warnings.append(f"{len(empty)} views have no masks: {few}")
        return {"warnings": warnings}

    matching = config.matching if config.needs_matcher else None
    settings = [run.scene, config.segmentation, config.tracking, matching]
    run.stage("track", settings, [], [run.files.masks], work)


def _associate(run: _Stages, scene: Scene, points: Points) -> None:
    """Label the points, and give the views' masks the same ids."""
    config, automatic = run.config, run.files.automatic
    masks: Mapping[str, ViewMasks] = MaskSets(run.files.masks, [each.name for each in scene.views])
    if not config.association.overlaps:
        masks = flat_maps(masks)

    def work(tick: Tick) -> dict[str, Any]:
        found = associate(
            points,
            scene,
            masks,
            config.association,
            config.tolerance,
            config.seed,
            tick,
            _denser(config, scene, points),
        )
        views = _write_labels(automatic.labels, masks, scene, found)
        cloud = found.cloud
        if config.classes is not None:
            names = [view.name for view in scene.views]
            maps = LabelMaps.found(config.classes, names, "class map")
            cloud = with_classes(cloud, vote_classes(points, scene, maps, config.tolerance)[0])
        write_automatic(automatic, cloud, found.confidence, views)
        for kept, path in (
            (found.assignments, automatic.assignments),
            (found.surface, automatic.surface),
        ):
            path.unlink(missing_ok=True)
            if kept is not None:
                kept.save(path)
        labelled = float(np.mean(cloud.instance > 0)) if len(points) else 0.0
        return {
            **found.summary,
            "instances": len(found.confidence),
            "points_labelled": labelled,
            "warnings": list(found.warnings),
        }

    settings = [run.scene, config.association, config.tolerance, config.seed, config.classes]
    if config.cloud is not None and config.association.by_shape:
        settings.append(config.fusion)  # of the denser surface
    outputs = [automatic.labels, automatic.cloud, automatic.objects]
    if not config.association.trust_ids:
        outputs += [automatic.assignments, automatic.surface]
    run.stage("associate", settings, [run.files.points, run.files.masks], outputs, work)


def _denser(config: LiftConfig, scene: Scene, points: Points) -> Points | None:
    """The surface on which objects are found, where the given vertices are too far apart for it."""
    if config.cloud is None or not config.association.by_shape:
        return None
    if cloud_spacing(points) <= SPARSE * default_voxel(scene):
        return None
    return config.fuser().fuse(scene)


def _correct(run: _Stages, scene: Scene) -> None:
    """Apply corrections; without edits this copies the automatic results to their public names."""
    files = run.files
    outputs = [files.labels, files.cloud, files.cloud_labels, files.instances]
    automatic = files.automatic
    reads = [files.points, automatic.labels, automatic.cloud, automatic.objects]
    names = [view.name for view in scene.views]
    edits = [each for each in (files.edits, files.edit_files) if each.exists()]
    tolerance = run.config.tolerance if edits else None

    def work(tick: Tick) -> dict[str, Any]:
        return correct(files.folder, scene.views, run.config.tolerance, tick)

    run.stage("correct", [names, edits, tolerance], reads, outputs, work)


def _check(run: _Stages, scene: Scene) -> None:
    """Measure how well views and cloud agree, and scores where the scene has ground truth."""
    config, files = run.config, run.files
    labels = LabelMaps(files.labels, [view.name for view in scene.views])
    confidence = confidences(files.instances)

    def work(tick: Tick) -> dict[str, Any]:
        cloud = read_cloud(files.cloud, scene.offset)
        found, printed, warnings = _checked(config, scene, cloud, confidence, labels, tick)
        edits = Corrections.of_json(run.folder.records["correct"].result)
        key = fingerprint([settings, code_of(check), files.automatic.labels, files.automatic.cloud])
        if edits:
            found["edits"] = edits.as_json()
            found["automatic"] = _automatic_check(run, scene, key, tick)
        else:
            write_check(files.automatic_check, key, found)
        with fresh_folder(files.heat) as part:
            for index, view in enumerate(scene.views):
                write_heat(part / f"{view.name}.png", printed.heat_map(index))
        with atomic(files.consistency) as part:
            part.write_text(json.dumps(found, indent=1))
        return {"warnings": warnings}

    truth = [scene.load_surface, scene.void_classes]
    settings = [run.scene, config.epsilon, config.check_pixels, config.tolerance, truth]
    # Not the whole list of objects: naming one changes no number.
    ranking = sorted(confidence.items())
    reads = [files.labels, files.cloud]
    run.stage("check", [*settings, ranking], reads, [files.consistency, files.heat], work)


def _checked(
    config: LiftConfig,
    scene: Scene,
    cloud: LabelledPoints,
    confidence: dict[int, float],
    labels: LabelMaps,
    tick: Tick,
) -> tuple[dict[str, Any], SceneConsistency, list[str]]:
    """The content of `consistency.json` for these labels, the printed H with its pixels, and
    warnings.
    """
    epsilon, pixels = config.epsilon, config.check_pixels
    found, printed = check(scene, cloud, labels, epsilon, pixels, config.tolerance, tick)
    warnings = warnings_of(printed.skipped, "takes no part in the consistency")
    if scene.load_surface is not None:
        try:
            truth = Truth.of_surface(scene.load_surface(), scene.void_classes)
        except InputError as error:  # a damaged truth makes the labels no worse
            warnings.append(f"the labels are not scored against the scan's truth: {error}")
        else:
            found["truth"] = score(cloud, confidence, truth, metric=scene.metric)
    return found, printed, warnings


def _automatic_check(run: _Stages, scene: Scene, key: str, tick: Tick) -> dict[str, Any]:
    """The numbers of the automatic labels, by the same check; kept from before where they are."""
    files = run.files
    found = read_check(files.automatic_check, key)
    if found is None:
        cloud, confidence, _ = read_automatic(files.automatic, read_points(files.points))
        labels = LabelMaps(files.automatic.labels, [view.name for view in scene.views])
        found, *_ = _checked(run.config, scene, cloud, confidence, labels, tick)
        write_check(files.automatic_check, key, found)
    return found


def _report(run: _Stages, scene: Scene, command: Sequence[str]) -> None:
    """Write the HTML report and its pictures."""

    def work(tick: Tick) -> dict[str, Any]:
        write_report(run.folder.path, scene, _content(run, scene, command))
        return {}

    # Without the code of the settings' classes: the report only prints their values.
    asked = {each.name: getattr(run.config, each.name) for each in fields(run.config)}
    for place in ("input", "out"):
        del asked[place]
    settings = [run.scene, fingerprint(asked, code=False), code_of(run_content), scene.name]
    files = run.files
    reads = [files.labels, files.masks, files.cloud, files.instances, files.consistency, files.heat]
    run.stage("report", settings, reads, files.report_outputs, work)


def _content(run: _Stages, scene: Scene, command: Sequence[str]) -> dict[str, Any]:
    return run_content(run.config, scene, run.folder.records, command, run.warnings)


def _write_labels(
    folder: Path, masks: Mapping[str, ViewMasks], scene: Scene, found: Association
) -> dict[int, int]:
    """Write each view's masks with the ids of the cloud; returns each id's number of views."""
    views: dict[int, int] = {}

    def named(item: tuple[int, View]) -> tuple[str, LabelMap]:
        index, view = item
        return view.name, found.relabel(index, view, masks[view.name])

    with fresh_folder(folder) as part:
        for name, labels in prefetch(enumerate(scene.views), named):
            write_label_map(part, name, labels)
            for each in ids_in(labels).tolist():
                views[each] = views.get(each, 0) + 1
    return views


def rewrite(run: Run, progress: Progress | None = None) -> None:
    """Bring the public results of a finished run up to its edits: the stage `correct` alone.

    The scan is not needed. The caller holds the run's lock.
    """
    again = _again(run, progress)
    _correct(again, run.scene)
    _write_again(run, again)


def finish(run: Run, progress: Progress | None = None) -> None:
    """Bring a finished run up to its edits: the stages from `correct` on.

    Raises InputError where the scan is missing, which `check` and the report need; the stage
    `correct` is done nevertheless. The caller holds the run's lock.
    """
    again = _again(run, progress)
    _correct(again, run.scene)
    _write_again(run, again)
    scene = run.whole_scene
    with remembered(run.folder / CONTENTS):
        again.scene = scene_fingerprint(scene)
        _check(again, scene)
        _report(again, scene, run.record["command"])
    if run.files.evaluation.exists() and not again.folder.records["correct"].reused:
        again.warn("evaluation.json has scores of the earlier labels; evaluate again")
    _write_again(run, again)


def _again(run: Run, progress: Progress | None) -> _Stages:
    """The stages of a finished run, all finished; its warnings without those of the last three."""
    records = {name: replace(each, reused=True) for name, each in run.records.items()}
    redone = {
        text
        for name in ("correct", "check", "report")
        if name in records
        for text in records[name].result.get("warnings", [])
    }
    warnings = [each for each in run.warnings if each not in redone]
    folder = RunFolder(run.folder, records=records, stays_finished=True)
    return _Stages(
        read_settings(run.settings), folder, progress or Quiet(), ViewWorkers(), warnings
    )


def _write_again(run: Run, again: _Stages) -> None:
    """Write `run.json` with the stages that were done again."""
    record = run.record
    content = run_content(
        again.config, run.scene, again.folder.records, record["command"], again.warnings
    )
    write_run(run.folder, {**record, **content, "settings": record["settings"]})
    run.forget()
