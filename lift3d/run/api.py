"""The verbs of the Python front door: `import lift3d as l3`, then `l3.lift(...)` and the rest.

Each takes and gives the nouns of `lift3d.scene`; nothing is written unless a folder is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lift3d import association
from lift3d.datasets import read_scene
from lift3d.datasets.selection import select
from lift3d.evaluation import truth as truths
from lift3d.evaluation.consistency import Exclude, SceneConsistency, scene_consistency
from lift3d.evaluation.scores import score
from lift3d.geometry.scale import fitted
from lift3d.geometry.visibility import DepthTolerance
from lift3d.run import lift as lifting
from lift3d.run.run import Run
from lift3d.run.settings import LiftConfig
from lift3d.scene import LabelledPoints, LabelMap, Points, Scene
from lift3d.scene.errors import InputError, did_you_mean
from lift3d.scene.mask_sets import ViewMasks
from lift3d.scene.progress import Progress, for_terminal
from lift3d.scene.registry import KINDS
from lift3d.scene.typed import checked
from lift3d.scene.workers.views import ViewWorkers

Choice = str | Any
"""A backend by name, or its settings (`backend` makes them)."""


def open_scene(
    path: Path | str, reader: Choice | None = None, views: int | None = None, stride: int = 1
) -> Scene:
    """The scene at a path, lazily; the reader is found unless one is given.

    `views` and `stride` take some of the views, as `lift3d lift` does. InputError where nothing
    there can be read.
    """
    return select(read_scene(_path(path), reader), views, stride)


def backend(kind: str, name: str, **options: Any) -> Any:
    """The settings of a backend by name: `backend("segmentation", "regions", level=0.3)`.

    Kinds: reader, reconstruction, fusion, matching, segmentation, tracking, export. InputError for
    an unknown kind, name or option, with the nearest known one.

    >>> backend("segmentation", "regions", level=0.3).level
    0.3
    """
    if kind not in KINDS:
        raise InputError(did_you_mean(kind, KINDS, "kind of backend"))
    found = KINDS[kind].find(name)
    return checked(found, options, f"{kind}:{name}") if isinstance(found, type) else found


def lift(
    scene: Scene | Path | str,
    out: Path | str,
    progress: Progress | bool = False,
    workers: int | None = None,
    address: str | None = None,
    **settings: Any,
) -> Run:
    """Lift a scene, or what is at a path, into the run folder `out`: the same as `lift3d lift`.

    `settings` are the fields of `LiftConfig`; a backend is a name or its settings:
    `lift(scene, "out/a", segmentation="regions", voxel=0.02)`. `progress=True` shows bars. A run
    that is there already goes on where it stopped; finished stages are not done again. `workers`
    processes, or those of the Ray cluster at `address`, share the work on single views.
    """
    chosen = {kind: _settings(kind, value) for kind, value in settings.items()}
    path = scene if isinstance(scene, str | Path) else Path(scene.name)
    config = LiftConfig(_path(path), _path(out), **chosen)
    shown = for_terminal() if progress is True else (progress or None)
    given = scene if isinstance(scene, Scene) else None
    return lifting.lift(config, given, shown, workers=ViewWorkers(workers, address))


def _path(given: Path | str) -> Path:
    """A path; InputError for an empty one, which would mean the current folder."""
    if not str(given).strip():
        raise InputError("the path is empty; give that of a scan, photos or a run")
    return Path(given)


def _settings(kind: str, value: Any) -> Any:
    if kind in KINDS and isinstance(value, str):
        return backend(kind, value)
    return Path(value) if kind in ("cloud", "classes") and value is not None else value


def fuse(scene: Scene, fusion: Choice = "voxel", voxel: float | None = None) -> Points:
    """The depth maps of a scene with poses as one cloud."""
    options = {} if voxel is None else {"voxel": voxel}
    config = backend("fusion", fusion, **options) if isinstance(fusion, str) else fusion
    points: Points = config.build().fuse(scene)
    return replace(points, offset=scene.offset)


def segment(
    scene: Scene, segmentation: Choice = "regions", tracking: Choice | None = None
) -> dict[str, ViewMasks]:
    """The masks of each view, by its name, as segmented, before the views agree on ids.

    A label map each; a `MaskSet`, whose `labels` is a label map, where masks overlap or have
    scores.
    """
    chosen = {"segmentation": _settings("segmentation", segmentation)}
    if tracking is not None:
        chosen["tracking"] = _settings("tracking", tracking)
    config = LiftConfig(Path(scene.name), Path(), **chosen).resolved(scene)
    maps = config.scene_segmenter().label(scene)
    return {view.name: labels for view, labels in zip(scene.views, maps, strict=True)}


def associate(
    points: Points,
    scene: Scene,
    masks: Mapping[str, ViewMasks],
    config: association.AssociationConfig | None = None,
    tolerance: DepthTolerance | None = None,
    seed: int = 0,
) -> association.Association:
    """Label points by the masks of all views: `.cloud` and, by view name, `.labels`."""
    if config is None:
        config = association.AssociationConfig(by_shape=False)
    tolerance = fitted(tolerance or DepthTolerance(), scene)
    return association.associate(points, scene, masks, config, tolerance, seed)


def consistency(
    scene: Scene, labels: Mapping[str, LabelMap], exclude: Exclude = "view"
) -> SceneConsistency:
    """How well the label maps of all views agree: `.result.H` and where they do not."""
    return scene_consistency(scene, labels, exclude=exclude)


def evaluate(
    result: Run | LabelledPoints | Path | str, truth: Path | str | LabelledPoints, **options: Any
) -> dict[str, Any]:
    """Scores of a run, or of a labelled cloud, against a truth: a file, a scan folder or a cloud.

    Keys `ap`, `ap50`, `ap25`, and `scores` with every protocol that the truth allows.
    """
    if isinstance(result, str | Path):
        result = Run.open(result)
    if isinstance(truth, LabelledPoints):
        known = truths.Truth.of_surface(truth, ())
    elif isinstance(result, Run):
        return result.evaluate(truth, **options)
    else:
        known = truths.read_truth(Path(truth), result)
    cloud = result.cloud if isinstance(result, Run) else result
    confidence = result.confidence if isinstance(result, Run) else _by_size(cloud)
    return score(cloud, confidence, known, **options)


def _by_size(cloud: LabelledPoints) -> dict[int, float]:
    """A ranking where nothing better is known: the larger object first."""
    ids, counts = np.unique(cloud.instance[cloud.instance > 0], return_counts=True)
    return {int(i): float(n) / max(len(cloud), 1) for i, n in zip(ids, counts, strict=True)}
