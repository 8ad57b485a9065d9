"""The check of a run: consistency H with its coverage and settings, and reprojection."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from lift3d.evaluation.consistency import Exclude, SceneConsistency, scene_consistencies
from lift3d.evaluation.reprojection import Comparison
from lift3d.geometry.visibility import DepthTolerance, spacing
from lift3d.scene import LabelledPoints, LabelMap, Scene, Skipped, View
from lift3d.scene.colours import heat_colours
from lift3d.scene.errors import InputError
from lift3d.scene.guarded.json_file import load_json
from lift3d.scene.progress import Tick
from lift3d.scene.storage import atomic

PRINTED: Exclude = "view"
"""Exclusion of the printed H: a pixel's own view, so that only agreement between views counts."""
SPLAT = 2.0
"""Edge of a rendered point in median distances between points, so that surfaces have no holes.
Chosen by hand; not tuned on data."""
WINDOW = 0.02
"""Edge of the smoothing square of a heat map, as a share of its width: 13 pixels of 640. It hides
noise along object borders, which is one or two pixels wide. Chosen by hand; not tuned on data."""
DISAGREES = 0.35
"""Minimum mean disagreement shown in a heat map; noise along borders stays below it. Chosen by
hand; not tuned on data."""
COMPARED = 0.2
"""Minimum share of compared pixels in the square. Chosen by hand; not tuned on data."""


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

    `label_maps` gives each view's label map by its name, in the ids of the cloud.
    """
    done = 0
    splat = SPLAT * spacing(cloud.points.xyz)
    comparison = Comparison(cloud, scene, splat, tolerance)

    def compare(view: View, labels: LabelMap, lost: Skipped | None) -> None:
        nonlocal done
        comparison.add(view, labels, lost)
        done += 1
        tick(done, len(scene))

    found = scene_consistencies(
        scene,
        label_maps,
        epsilon,
        foreground=(False, True),
        max_pixels=max_pixels,
        also=compare,
    )
    everywhere = {each.result.exclude: each for each in found if not each.result.foreground}
    labelled = {each.result.exclude: each for each in found if each.result.foreground}
    printed, foreground = everywhere[PRINTED], labelled[PRINTED]
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
        "reprojection": {"splat": splat, **comparison.result().summary()},
    }, printed


BEFORE = ("printed", "reprojection", "truth")
"""What is kept of the check of automatic labels, for "before and after"."""


def write_check(path: Path, key: str, found: dict[str, Any]) -> None:
    """Keep the numbers of a check under `key`, without those of single views."""
    kept = {name: found[name] for name in BEFORE if name in found}
    with atomic(path) as part:
        part.write_text(json.dumps({"key": key, **kept}, indent=1))


def read_check(path: Path, key: str) -> dict[str, Any] | None:
    """What `write_check` kept under the same key; None where there is none."""
    try:
        found: dict[str, Any] = load_json(path, kind=dict)
    except InputError:
        return None  # it is computed again
    return found if found.pop("key", None) == key else None


def write_heat(path: Path, disagreement: Float32[np.ndarray, "height width"]) -> None:
    """Write a heat map of the disagreement between views, after `without_specks`.

    A palette PNG: index 0 is grey and means not compared; 1 to 255 are disagreement 0 to 1 in the
    colours of `heat_colours`.
    """
    from PIL import Image

    shown = without_specks(disagreement)
    index = np.where(np.isnan(shown), 0, 1 + np.round(254 * np.nan_to_num(shown)))
    picture = Image.fromarray(index.astype(np.uint8))
    ramp = heat_colours(np.concatenate([[np.nan], np.linspace(0, 1, 255)]))
    picture.putpalette(ramp.tobytes())
    with atomic(path) as part:
        picture.save(part, compress_level=1)


def without_specks(
    disagreement: Float32[np.ndarray, "height width"],
) -> Float32[np.ndarray, "height width"]:
    """Smoothed disagreement, with specks and thin lines set to 0.

    Depth noise moves single pixels, mostly along borders, into another object; such pixels would
    hide the relevant areas. A pixel becomes the mean over the compared pixels in a square
    (`WINDOW`) around it. It is 0 if this mean is below `DISAGREES` or if its connected area is
    smaller than the square, and NaN (not compared) if at most `COMPARED` of the square was
    compared.
    """
    import cv2

    edge = max(3, int(WINDOW * disagreement.shape[1])) | 1
    known = (~np.isnan(disagreement)).astype(np.float32)
    share = cv2.blur(known, (edge, edge), borderType=cv2.BORDER_REFLECT)
    total = cv2.blur(np.nan_to_num(disagreement), (edge, edge), borderType=cv2.BORDER_REFLECT)
    compared = share > COMPARED
    mean = np.where(compared, total / np.maximum(share, 1e-6), 0).clip(0, 1)
    core = (mean > DISAGREES).astype(np.uint8)
    _, area, sizes, _ = cv2.connectedComponentsWithStats(core, connectivity=8)
    large = sizes[:, cv2.CC_STAT_AREA] >= edge**2
    large[0] = False  # the background
    shown = np.where(large[area], mean, 0)
    return np.where(compared, shown, np.nan).astype(np.float32)


def _shown(consistency: SceneConsistency) -> dict[str, Any]:
    """H and H' for display; None without labels, where H would mean perfect agreement."""
    found = consistency.result.summary()
    return {name: found[name] if found["labels"] else None for name in ("H", "H_prime")}
