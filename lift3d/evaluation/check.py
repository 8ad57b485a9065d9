"""The check of a run: H with everything that must stand beside it, and the reprojection."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from lift3d.evaluation.consistency import Exclude, SceneConsistency, scene_consistencies
from lift3d.evaluation.reprojection import reprojection_check
from lift3d.geometry.visibility import DepthTolerance, spacing
from lift3d.scene import LabelledPoints, LabelMap, Scene
from lift3d.scene.labelmaps import derived
from lift3d.scene.progress import Tick
from lift3d.scene.storage import atomic

PRINTED: Exclude = "view"
"""What the printed H excludes: a pixel's own view, so that only agreement between views counts."""
SPLAT = 2.0
"""Edge of a rendered point in median distances between points, so that surfaces close."""


def check(
    scene: Scene,
    cloud: LabelledPoints,
    label_maps: Mapping[str, LabelMap],
    epsilon: float | None = None,
    max_pixels: int = 4_000_000,
    tolerance: DepthTolerance = DepthTolerance(),
    tick: Tick = lambda done, total: None,
) -> tuple[dict[str, Any], SceneConsistency]:
    """The content of `consistency.json`, and the printed H with its pixels.

    `label_maps` gives each view's ids by its name, those of the cloud.
    """
    looked, passes = 0, 2

    def counted(name: str, labels: LabelMap) -> LabelMap:
        nonlocal looked
        looked += 1
        tick(looked, passes * len(scene))
        return labels

    maps = derived(label_maps, counted)
    found = scene_consistencies(
        scene, maps, epsilon, foreground=(False, True), max_pixels=max_pixels
    )
    everywhere = {each.result.exclude: each for each in found if not each.result.foreground}
    labelled = {each.result.exclude: each for each in found if each.result.foreground}
    printed, foreground = everywhere[PRINTED], labelled[PRINTED]
    splat = SPLAT * spacing(cloud.points.xyz)
    reprojected = reprojection_check(cloud, scene, maps, splat, tolerance)
    return {
        "printed": {
            "all": _shown(printed),
            "foreground": _shown(foreground),
            "exclude": PRINTED,
            "coverage": printed.result.summary()["coverage"],
            "labels": printed.result.labels,
            "epsilon": printed.result.epsilon,
            "sampling": printed.sampling,
        },
        "views": list(printed.names),
        "all": {name: each.result.summary() for name, each in everywhere.items()},
        "foreground": {name: each.result.summary() for name, each in labelled.items()},
        "reprojection": {"splat": splat, **reprojected.summary()},
    }, printed


def write_heat(path: Path, disagreement: Float32[np.ndarray, "height width"]) -> None:
    """Disagreement 0 to 1 as grey 1 to 255, 0 where no pixel counts."""
    from PIL import Image

    grey = np.where(np.isnan(disagreement), 0, 1 + np.round(254 * np.nan_to_num(disagreement)))
    with atomic(path) as part:
        Image.fromarray(grey.astype(np.uint8)).save(part, compress_level=1)


def _shown(consistency: SceneConsistency) -> dict[str, Any]:
    """What people are shown: no H where nothing is labelled, which would agree everywhere."""
    found = consistency.result.summary()
    return {name: found[name] if found["labels"] else None for name in ("H", "H_prime")}
