"""The stages from `correct` on: in a lift, and again when a finished run was edited."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from lift3d.correction.history import Corrections
from lift3d.evaluation.check import check, read_check, write_check, write_heat
from lift3d.evaluation.consistency import SceneConsistency
from lift3d.evaluation.scores import score
from lift3d.evaluation.truth import Truth
from lift3d.export.ply import read_cloud
from lift3d.run.correct import correct, read_automatic
from lift3d.run.objects import confidences
from lift3d.run.record import run_content, write_run
from lift3d.run.report import write_report
from lift3d.run.run import Run
from lift3d.run.scene_file import read_points
from lift3d.run.settings import LiftConfig, read_settings
from lift3d.run.stages import CONTENTS, RunFolder
from lift3d.run.staging import Stages
from lift3d.scene import LabelledPoints, Scene, View
from lift3d.scene.contents import remembered
from lift3d.scene.errors import InputError
from lift3d.scene.fingerprint import fingerprint, scene_fingerprint
from lift3d.scene.labelmaps import LabelMaps
from lift3d.scene.prefetch import THREADS, prefetch
from lift3d.scene.progress import Progress, Quiet, Tick
from lift3d.scene.skipping import warnings_of
from lift3d.scene.sources import code_of
from lift3d.scene.storage import atomic, fresh_folder
from lift3d.scene.workers.views import ViewWorkers


def correct_stage(run: Stages, scene: Scene) -> None:
    """Apply corrections; without edits this copies the automatic results to their public names."""
    files = run.files
    outputs = [files.labels, files.cloud, files.cloud_labels, files.instances]
    automatic = files.automatic
    reads = [files.points, automatic.labels, automatic.cloud, automatic.objects]
    names = [view.name for view in scene.views]
    edits = [each for each in (files.edits, files.edit_files) if each.exists()]

    def work(tick: Tick) -> dict[str, Any]:
        return correct(files.folder, scene.views, tick)

    run.stage("correct", [names, edits], reads, outputs, work)


def check_and_report(run: Stages, scene: Scene, command: Sequence[str]) -> None:
    """The stages after `correct`, of which the scan is read."""
    _check(run, scene)
    _report(run, scene, command)
    if run.files.evaluation.exists() and not run.folder.records["correct"].reused:
        run.warn("evaluation.json has scores of the earlier labels; evaluate again")


def _check(run: Stages, scene: Scene) -> None:
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

            def heat(item: tuple[int, View]) -> None:
                index, view = item
                write_heat(part / f"{view.name}.png", printed.heat_map(index))

            for _ in prefetch(enumerate(scene.views), heat, threads=THREADS):
                pass
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


def _automatic_check(run: Stages, scene: Scene, key: str, tick: Tick) -> dict[str, Any]:
    """The numbers of the automatic labels, by the same check; kept from before where they are."""
    files = run.files
    found = read_check(files.automatic_check, key)
    if found is None:
        cloud, confidence, _ = read_automatic(files.automatic, read_points(files.points))
        labels = LabelMaps(files.automatic.labels, [view.name for view in scene.views])
        found, *_ = _checked(run.config, scene, cloud, confidence, labels, tick)
        write_check(files.automatic_check, key, found)
    return found


def _report(run: Stages, scene: Scene, command: Sequence[str]) -> None:
    """Write the HTML report and its pictures."""

    def work(tick: Tick) -> dict[str, Any]:
        write_report(run.folder.path, scene, run.content(scene, command))
        return {}

    # Without the code of the settings' classes: the report only prints their values.
    asked = {each.name: getattr(run.config, each.name) for each in fields(run.config)}
    for place in ("input", "out"):
        del asked[place]
    settings = [run.scene, fingerprint(asked, code=False), code_of(run_content), scene.name]
    files = run.files
    reads = [files.labels, files.masks, files.cloud, files.instances, files.consistency, files.heat]
    run.stage("report", settings, reads, files.report_outputs, work)


def rewrite(run: Run, progress: Progress | None = None) -> None:
    """Bring the public results of a finished run up to its edits: the stage `correct` alone.

    The scan is not needed. The caller holds the run's lock.
    """
    again = _again(run, progress)
    correct_stage(again, run.scene)
    _write_again(run, again)


def finish(run: Run, progress: Progress | None = None) -> None:
    """Bring a finished run up to its edits: the stages from `correct` on.

    Raises InputError where the scan is missing, which `check` and the report need; the stage
    `correct` is done nevertheless. The caller holds the run's lock.
    """
    again = _again(run, progress)
    correct_stage(again, run.scene)
    _write_again(run, again)
    scene = run.whole_scene
    with remembered(run.folder / CONTENTS):
        again.scene = scene_fingerprint(scene)
        check_and_report(again, scene, run.record["command"])
    _write_again(run, again)


def _again(run: Run, progress: Progress | None) -> Stages:
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
    return Stages(read_settings(run.settings), folder, progress or Quiet(), ViewWorkers(), warnings)


def _write_again(run: Run, again: Stages) -> None:
    """Write `run.json` with the stages that were done again."""
    record = run.record
    content = again.content(run.scene, record["command"])
    write_run(run.folder, {**record, **content, "settings": record["settings"]})
    run.forget()
