"""What a reconstruction made, kept in the run folder: cameras, depth, the cloud that came along.

`recall` joins it with the source while a run goes on, `reopened` any time after.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from lift3d.datasets import read_scene, recorded_reader
from lift3d.datasets.synthetic import NAME as SYNTHETIC
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.run.cameras import read_all_cameras, read_cameras, write_scene
from lift3d.run.record import RUN, read_json
from lift3d.run.stages import fresh_folder
from lift3d.scene import Camera, Depth, Points, Scene, Skipped, View
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.progress import Tick
from lift3d.scene.storage import atomic

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


def reopened(folder: Path, scan: Path | None = None) -> Scene:
    """The views of a finished run, opened where they came from, or at `scan` if they moved.

    Raises InputError where they are not there any more, or are others.
    """
    run, cameras = read_json(folder, RUN), read_cameras(folder / CAMERAS)
    source = _source(folder, run, cameras, scan)
    size = {view.name: _size(view.camera) for view in source.views}
    changed = [name for name, camera in cameras.items() if size.get(name) != _size(camera)]
    if changed:
        raise InputError(
            f"{source.source} lacks {len(changed)} of {len(cameras)} pictures of {folder}, or has "
            f"them in another size ({', '.join(changed[:3])}{', ...' * (len(changed) > 3)}); put "
            "them back, or lift what is there again"
        )
    result = next(each["result"] for each in run["stages"] if each["name"] == "reconstruct")
    return recall(folder, source, result)


def _source(
    folder: Path, run: Mapping[str, Any], cameras: Mapping[str, Camera], scan: Path | None
) -> Scene:
    path = Path(run["settings"]["input"]) if scan is None else scan
    reader = recorded_reader(run["settings"]["reader"], f"settings.reader in {folder / RUN}")
    if reader is None and str(path).partition(":")[0] == SYNTHETIC and not path.exists():
        return _synthetic(path, run, cameras)
    try:
        return read_scene(path, reader)
    except InputError as error:
        raise InputError(
            f"the pictures of {folder} cannot be opened: {error}; put the scan back (exports also "
            "take --scan, where it lies now)"
        ) from error


def _synthetic(path: Path, run: Mapping[str, Any], cameras: Mapping[str, Camera]) -> Scene:
    """The synthetic room that was lifted: the run notes its seed, not its size."""
    first = next(iter(cameras.values()))
    noise = not any("no-noise" in word for word in run["command"])
    own = SyntheticConfig(views=len(cameras), width=first.width, height=first.height, noise=noise)
    for config in (SyntheticConfig(noise=noise), own):
        scene = config.read(path)
        known = {view.name: view.camera for view in scene.views}
        if all(name in known and _same(known[name], camera) for name, camera in cameras.items()):
            return scene
    raise InputError(
        f"{path} has other views than this run, which was made of a room of another size; lift "
        "it again from a folder"
    )


def _same(a: Camera, b: Camera) -> bool:
    return _size(a) == _size(b) and np.allclose(a.pose, b.pose, atol=1e-9)


def _size(camera: Camera) -> tuple[int, int]:
    return camera.width, camera.height


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
