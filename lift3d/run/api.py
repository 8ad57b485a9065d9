"""The verbs of the Python front door: `import lift3d as l3`, then `l3.lift(...)` and the rest.

Each takes and gives the nouns of `lift3d.scene`; nothing is written unless a folder is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lift3d import association
from lift3d.datasets import read_scene
from lift3d.datasets.selection import select
from lift3d.evaluation import truth as truths
from lift3d.evaluation.consistency import Exclude, SceneConsistency, scene_consistency
from lift3d.evaluation.scores import score
from lift3d.export.content import Options
from lift3d.geometry.scale import fitted
from lift3d.geometry.visibility import DepthTolerance
from lift3d.run import lift as lifting
from lift3d.run.run import Run
from lift3d.run.settings import LiftConfig
from lift3d.scene import (
    Camera,
    Depth,
    Image,
    LabelledPoints,
    LabelMap,
    Points,
    Scene,
    Transform,
    View,
)
from lift3d.scene.errors import InputError
from lift3d.scene.mask_sets import ViewMasks
from lift3d.scene.progress import Progress, for_terminal
from lift3d.scene.registry import KINDS

Choice = str | Any
"""A backend by name, or its settings (`backend` makes them)."""


def open_scene(
    path: Path | str, reader: Choice | None = None, views: int | None = None, stride: int = 1
) -> Scene:
    """The scene at a path, lazily; the reader is found unless one is given.

    `views` and `stride` take some of the views, as `lift3d lift` does. InputError where nothing
    there can be read.
    """
    return select(read_scene(Path(path), reader), views, stride)


def scene_from_arrays(
    images: Sequence[Image],
    K: np.ndarray | Sequence[np.ndarray],
    world_from_camera: Sequence[Transform],
    depth: Sequence[Depth] | None = None,
    names: Sequence[str] | None = None,
    metric: bool = True,
    name: str = "arrays",
) -> Scene:
    """A scene of what is in memory.

    `images` are (H, W, 3) uint8 RGB; `K` is 3x3, one for all views or one each, pixel (0, 0) being
    the centre of the top-left pixel; poses are 4x4, OpenCV axes; `depth` is (H, W) metres along z,
    0 where missing, as seen by the same cameras. InputError where the numbers of views differ.
    """
    count = len(images)
    single = np.ndim(K) == 2
    given: dict[str, Any] = {"poses": world_from_camera, "depth maps": depth, "names": names}
    if not single:
        given["matrices K"] = K
    for what, each in given.items():
        if each is not None and len(each) != count:
            raise InputError(f"{count} images and {len(each)} {what}; expected one per image")
    views = []
    for index, image in enumerate(images):
        matrix = np.asarray(K if single else K[index], np.float64)
        pose = np.asarray(world_from_camera[index], np.float64)
        height, width = image.shape[:2]
        own = None if depth is None else np.asarray(depth[index], np.float32)
        views.append(
            View(
                names[index] if names else f"{index:06d}",
                Camera(matrix, width, height, pose),
                partial(_held, np.asarray(image, np.uint8)),
                load_depth=None if own is None else partial(_held, own),
            )
        )
    return Scene(name, tuple(views), metric, f"{count} images in memory")


def _held(array: np.ndarray) -> np.ndarray:
    return array


def backend(kind: str, name: str, **options: Any) -> Any:
    """The settings of a backend by name: `backend("segmentation", "regions", level=0.3)`.

    Kinds: reader, reconstruction, fusion, matching, segmentation, tracking, export. InputError for
    an unknown kind, name or option, with the nearest known one.

    >>> backend("segmentation", "regions", level=0.3).level
    0.3
    """
    from lift3d.datasets.typed import checked
    from lift3d.scene.errors import did_you_mean

    if kind not in KINDS:
        raise InputError(did_you_mean(kind, KINDS, "kind of backend"))
    found = KINDS[kind].find(name)
    return checked(found, options, f"{kind}:{name}") if isinstance(found, type) else found


def lift(
    scene: Scene | Path | str,
    out: Path | str,
    progress: Progress | bool = False,
    **settings: Any,
) -> Run:
    """Lift a scene, or what is at a path, into the run folder `out`: the same as `lift3d lift`.

    `settings` are the fields of `LiftConfig`; a backend is a name or its settings:
    `lift(scene, "out/a", segmentation="regions", voxel=0.02)`. `progress=True` shows bars. A run
    that is there already goes on where it stopped; finished stages are not done again.
    """
    chosen = {kind: _settings(kind, value) for kind, value in settings.items()}
    path = scene if isinstance(scene, str | Path) else Path(scene.name)
    config = LiftConfig(Path(path), Path(out), **chosen)
    shown = for_terminal() if progress is True else (progress or None)
    return lifting.lift(config, scene if isinstance(scene, Scene) else None, shown)


def _settings(kind: str, value: Any) -> Any:
    if kind in KINDS and isinstance(value, str):
        return backend(kind, value)
    return Path(value) if kind in ("cloud", "classes") and value is not None else value


def fuse(scene: Scene, fusion: Choice = "voxel", voxel: float | None = None) -> Points:
    """The depth maps of a scene with poses as one cloud."""
    options = {} if voxel is None else {"voxel": voxel}
    config = backend("fusion", fusion, **options) if isinstance(fusion, str) else fusion
    points: Points = config.build().fuse(scene)
    return points


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


def export(
    run: Run | Path | str, *formats: str, to: Path | str | None = None, **options: Any
) -> Sequence[Path]:
    """Write a run in other programs' formats (`lift3d export --help` lists them); what was written.

    `options` are the fields of `Options`, such as `undistort=True`.
    """
    opened = run if isinstance(run, Run) else Run.open(run)
    return opened.export(*formats, to=to, options=Options(**options))
