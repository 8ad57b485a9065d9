"""`lift`: runs all stages, from a scan or photos to a labelled cloud and its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lift3d.association import Association, associate
from lift3d.association.votes.classes import vote_classes, with_classes
from lift3d.datasets import read_scene as open_scene
from lift3d.datasets.depth_range import depth_range, scale_doubt
from lift3d.datasets.selection import select
from lift3d.reconstruction.fusion import given_points
from lift3d.reconstruction.stereo import Answer, densify
from lift3d.run.correct import write_automatic
from lift3d.run.finishing import check_and_report, correct_stage
from lift3d.run.mask_backends import MaskBackends
from lift3d.run.record import STEREO, write_run
from lift3d.run.run import Run
from lift3d.run.scene_file import (
    read_points,
    read_scene,
    write_points,
    write_scene,
    write_stereo,
)
from lift3d.run.settings import LiftConfig, poses_unused
from lift3d.run.stages import CONTENTS, RunFolder, alone_in, open_run
from lift3d.run.staging import Stages
from lift3d.scene import LabelMap, Points, Scene, View, ids_in
from lift3d.scene.contents import remembered
from lift3d.scene.errors import InputError, system_words
from lift3d.scene.fingerprint import scene_fingerprint
from lift3d.scene.labelmaps import LabelMaps, write_label_map
from lift3d.scene.local_origin import localised
from lift3d.scene.mask_sets import MaskSets, ViewMasks, flat, flat_maps, write_view_masks
from lift3d.scene.prefetch import in_background, pictures_ahead, prefetch
from lift3d.scene.progress import Progress, Quiet, Tick
from lift3d.scene.skipping import warnings_of
from lift3d.scene.storage import fresh_folder
from lift3d.scene.workers.views import TakesWorkers, ViewWorkers


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
    masks = MaskBackends(config, RunFolder(config.out))
    with alone_in(open_run(config.out)), remembered(config.out / CONTENTS):
        run = Stages(config, RunFolder(config.out), progress or Quiet(), workers, warnings)
        used = _stereo(run, _reconstruct(run, source), source)
        run.scene = scene_fingerprint(used)
        run.config = config.for_scene(used)  # now it is known whether there is depth
        masks.check(used)
        points = _fuse(run, used)
        _track(run, used, masks)
        _associate(run, used, points)
        correct_stage(run, used)
        check_and_report(run, used, command)
        try:
            write_run(config.out, run.content(used, command))
        except OSError as error:
            # A finished run on a disk that is read-only or full stays one.
            if not (run.files.record.is_file() and run.folder.all_kept):
                raise
            run.progress.log(f"{run.files.record} stays as it was: {system_words(error)}")
        return Run(config.out, scene=used, records=run.folder.records)


def _reconstruct(run: Stages, source: Scene) -> Scene:
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
        warnings = [*scene.warnings, *([doubt] if doubt else [])]
        return {"notes": list(scene.notes), "warnings": warnings}

    said = [*source.notes, *(text for each in source.skipped for text in (each.name, each.reason))]
    # Notes contain paths; they must not change the key when the scan is moved.
    said = [text.replace(str(run.config.input), "") for text in said]
    settings = [scene_fingerprint(source), said, run.config.reconstruction]
    run.stage("reconstruct", settings, [], [run.files.scene, run.files.depth], work)
    return read_scene(run.folder.path, source, stereo=False)


def _stereo(run: Stages, scene: Scene, source: Scene) -> Scene:
    """Estimate the depth of posed views where the scene has none."""
    place, own = run.files.stereo, run.files.reconstruction / "stereo"
    wanted = run.config.reconstruction.wants_stereo and not scene.has_dense_depth
    if not wanted and not place.exists():
        return scene
    config = run.config.stereo

    def work(tick: Tick) -> dict[str, Any]:
        answer = Answer({}, {})
        with fresh_folder(place) as part:
            if wanted:
                try:
                    answer = densify(scene, config, part, own, tick)
                except InputError as error:
                    if scene.load_points is None:
                        raise
                    answer = Answer({}, {}, warnings=(f"only sparse points: {error}",))
            write_stereo(part, answer)
        share = (
            [
                f"depth estimated at {answer.answered:.0%} of the pixels of {len(answer.share)} "
                f"of {len(scene)} views; the rest stays empty"
            ]
            if answer.share
            else []
        )
        return {
            "notes": [*share, *answer.notes],
            "warnings": list(answer.warnings),
            "answered": answer.answered,
        }

    settings = [scene_fingerprint(scene), config, wanted]
    run.stage(STEREO, settings, [], [place], work)
    return read_scene(run.folder.path, source)


def _fuse(run: Stages, scene: Scene) -> Points:
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


def _track(run: Stages, scene: Scene, masks: MaskBackends) -> None:
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


def _associate(run: Stages, scene: Scene, points: Points) -> None:
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
            _fused_surface(config, scene),
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
        settings.append(config.fusion)  # of the surface on which objects are found
    outputs = [automatic.labels, automatic.cloud, automatic.objects]
    if not config.association.trust_ids:
        outputs += [automatic.assignments, automatic.surface]
    run.stage("associate", settings, [run.files.points, run.files.masks], outputs, work)


def _fused_surface(config: LiftConfig, scene: Scene) -> Points | None:
    """The fused surface, on which objects are found where vertices are given."""
    if config.cloud is None or not config.association.by_shape:
        return None
    return config.fuser().fuse(scene)


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
