"""What a reconstruction made, kept in the run folder: cameras, depth, the cloud that came along."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from lift3d.errors import FrameError, InputError
from lift3d.export.scene_json import read_all_cameras, write_scene
from lift3d.progress import Tick
from lift3d.scene import Depth, Points, Scene, Skipped, View
from lift3d.stages import fresh_folder
from lift3d.storage import atomic

CAMERAS, DEPTH = "scene.json", "depth"
POINTS = "points.npz"


def keep(folder: Path, source: Scene, made: Scene, tick: Tick) -> dict[str, Any]:
    """Write the cameras, and whatever depth and cloud the source does not have itself.

    Returns what `recall` needs besides the files.
    """
    write_scene(folder / CAMERAS, made)
    given = {view.name: view for view in source.views}
    stored = []
    with fresh_folder(folder / DEPTH) as part:
        for number, view in enumerate(made.views, start=1):
            if view.load_depth is not None and view.load_depth != given[view.name].load_depth:
                _write_depth(part / f"{view.name}.npz", view)
                stored.append(view.name)
            tick(number, len(made))
        if made.load_points is not None:
            write_points(part / POINTS, made.load_points())
    return {
        "skipped": [[frame.name, frame.reason] for frame in made.skipped],
        "notes": list(made.notes),
        "metric": made.metric,
        "depth": stored,
        "sparse": [view.name for view in made.views if view.sparse],
        "points": made.load_points is not None,
    }


def recall(folder: Path, source: Scene, result: dict[str, Any]) -> Scene:
    """The reconstructed scene, as `keep` left it: the same whether it ran now or before."""
    given = {view.name: view for view in source.views}
    stored, sparse = set(result["depth"]), set(result["sparse"])
    views = []
    for name, (camera, depth_camera) in read_all_cameras(folder / CAMERAS).items():
        if name not in given:
            raise InputError(
                f"{folder / CAMERAS} has view {name}, which {source.source} lacks; remove "
                f"{folder} and run again"
            )
        view = replace(given[name], camera=camera, depth_camera=depth_camera, sparse=name in sparse)
        if name in stored:
            path = folder / DEPTH / f"{name}.npz"
            view = replace(
                view,
                load_depth=partial(_read, path, "depth"),
                load_confidence=partial(_read, path, "confidence"),
            )
        views.append(view)
    return replace(
        source,
        views=tuple(views),
        metric=result["metric"],
        skipped=tuple(Skipped(name, reason) for name, reason in result["skipped"]),
        notes=tuple(result["notes"]),
        load_points=partial(read_points, folder / DEPTH / POINTS) if result["points"] else None,
    )


def write_points(path: Path, points: Points) -> None:
    """Arrays by name, whole or not at all."""
    with atomic(path) as part:
        np.savez(part, **vars(points))


def read_points(path: Path) -> Points:
    """What `write_points` wrote."""
    with np.load(path) as stored:
        return Points(**stored)


def _write_depth(path: Path, view: View) -> None:
    depth = view.depth()
    assert depth is not None
    confidence = view.confidence()
    if confidence is None:
        confidence = (depth > 0).astype(np.float32)
    # Sparse maps are nearly all zeros; dense ones hardly shrink and should load fast.
    save = np.savez_compressed if view.sparse else np.savez
    with atomic(path) as part:
        save(part, depth=depth, confidence=confidence)


def _read(path: Path, what: str) -> Depth | Float32[np.ndarray, "height width"]:
    try:
        with np.load(path) as stored:
            return np.asarray(stored[what], np.float32)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise FrameError(f"{path} cannot be read: {error}") from error
