"""`scene.json`: the views of a run as used, readable without the scan.

It has the cameras, the paths of depth maps, the views left out, and the source of the pictures.
Poses are `world_from_camera`, OpenCV axes, 4x4 by rows; pixel (0, 0) is the centre of the
top-left pixel. Numbers keep every digit, so they are read back exactly. Depth that the
reconstruction made is in `depth/`; a sensor's depth stays in the scan. In georeferenced scenes
poses are relative to a local origin: add `offset` for world coordinates.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from lift3d.datasets import read_again
from lift3d.reconstruction.stereo import Answer, dense_views
from lift3d.run.layout import Layout
from lift3d.run.schema import ADVICE, read_run_file
from lift3d.run.stages import CONTENTS
from lift3d.scene import (
    NO_OFFSET,
    Camera,
    Depth,
    Image,
    Offset,
    Origin,
    Points,
    Scene,
    Skipped,
    View,
)
from lift3d.scene.contents import remembered
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.fingerprint import pictures
from lift3d.scene.guarded import reading
from lift3d.scene.guarded.arrays import load_npz
from lift3d.scene.guarded.json_file import load_json
from lift3d.scene.guarded.pictures import PIXELS
from lift3d.scene.local_origin import at_offset
from lift3d.scene.progress import Tick
from lift3d.scene.storage import DAMAGED, atomic, fresh_folder
from lift3d.scene.typed import arrays_fit

FORMAT = 2
"""Version of the file's format; files of other versions are refused."""
POINTS = "points.npz"
STEREO = "stereo.json"
SCAN = "scan"
"""Instead of a path: the view's depth is in the scan."""


def write_scene(folder: Path, source: Scene, made: Scene, tick: Tick) -> None:
    """Write `scene.json` for `made`, and its depth and cloud where `source` does not have them."""
    layout = Layout(folder)
    given = {view.name: view for view in source.views}
    entries = []
    with fresh_folder(layout.depth) as part:
        for number, view in enumerate(made.views, start=1):
            depth = None if view.load_depth is None else SCAN
            if depth and view.load_depth != given[view.name].load_depth:
                _write_depth(part / f"{view.name}.npz", view)
                depth = f"{layout.depth.name}/{view.name}.npz"
            entries.append(_entry(view, depth))
            tick(number, len(made))
        if made.load_points is not None:
            write_points(part / POINTS, made.load_points())
    content = {
        "format": FORMAT,
        "name": made.name,
        "source": made.source,
        "metric": made.metric,
        "conventions": "world_from_camera by rows, OpenCV axes (x right, y down, z forward), "
        "pixel (0, 0) = centre of the top-left pixel; depth: a file of this folder, "
        f"'{SCAN}' where the scan has it, or null; world coordinates: translation + offset",
        "offset": list(made.offset),
        "origin": _origin(source.origin, folder),
        "points": f"{layout.depth.name}/{POINTS}" if made.load_points is not None else None,
        "shown": dict(zip(given, pictures(source.views), strict=True)),
        "loaders": sorted(_loaders(source.views)),
        "views": entries,
        "skipped": [{"name": frame.name, "reason": frame.reason} for frame in made.skipped],
        "notes": list(made.notes),
    }
    with atomic(layout.scene) as part:
        part.write_text(json.dumps(content, indent=1))


def write_stereo(folder: Path, answer: Answer) -> None:
    """Write `stereo.json`: the cameras of the estimated depth maps, and the shares with depth."""
    views = {
        name: {"camera": _as_json(camera), "answered": round(answer.share[name], 4)}
        for name, camera in answer.camera.items()
    }
    with atomic(folder / STEREO) as part:
        part.write_text(json.dumps({"views": views}, indent=1))


def _with_stereo(scene: Scene, folder: Path) -> Scene:
    """The scene with the depth that stereo estimated, where it did."""
    place = Layout(folder).stereo
    path = place / STEREO
    if not path.is_file():
        return scene
    found = load_json(path, kind=dict, advice=ADVICE)
    with reading(path, "cameras of depth maps", advice=ADVICE):
        cameras = {name: _camera(each["camera"], folder) for name, each in found["views"].items()}
    return scene.with_views(list(dense_views(scene, place, cameras)))


def read_scene(folder: Path, source: Scene | None = None, stereo: bool = True) -> Scene:
    """The scene of a run, from its `scene.json` and the depth beside it.

    `source` is the scan that was lifted, for pictures, sensor depth and truth. Without it the scan
    is opened from the path in the file when a picture is first used; cameras and stored depth
    need no scan. Without `stereo` depth that was estimated from the pictures is left out. Raises
    InputError where the file is damaged or the scan lacks a view.
    """
    content = _content(folder)
    given = None if source is None else {view.name: view for view in source.views}
    scan = _Scan(folder, content) if given is None else None
    views = tuple(_view(entry, folder, given, scan) for entry in content["views"])
    base = source or Scene(content["name"], (), content["metric"], content["source"])
    offset, points = _offset(content), content["points"]
    scene = replace(
        at_offset(base, offset),
        views=views,
        offset=offset,
        metric=content["metric"],
        skipped=tuple(Skipped(each["name"], each["reason"]) for each in content["skipped"]),
        notes=tuple(content["notes"]),
        load_points=partial(read_points, folder / points) if points else None,
    )
    return _with_stereo(scene, folder) if stereo else scene


def read_cameras(folder: Path) -> dict[str, Camera]:
    """View name -> colour camera, in view order; InputError where the file is damaged."""
    return {each["name"]: _camera(each["camera"], folder) for each in _content(folder)["views"]}


def read_offset(folder: Path) -> Offset:
    """World coordinates of the run's local origin; InputError where the file is damaged."""
    return _offset(_content(folder))


def open_source(folder: Path, scan: Path | None = None) -> Scene:
    """Open the scan of the run in `folder`, from its recorded path or from `scan`.

    Raises InputError where it is missing or its pictures were changed.
    """
    content = _content(folder)
    source = _opened(folder, content, scan)
    cameras = read_cameras(folder)
    there = {view.name: view for view in source.views if view.name in cameras}
    if scan is not None and _loaders(there.values()) != set(content["loaders"]):
        # The scan is now in another format, so its files cannot be compared, only their sizes.
        size = {name: (view.camera.width, view.camera.height) for name, view in there.items()}
        changed = [name for name, c in cameras.items() if size.get(name) != (c.width, c.height)]
    else:
        with remembered(folder / CONTENTS, keep=False):
            now = dict(zip(there, pictures(list(there.values())), strict=True))
        changed = [name for name in cameras if now.get(name) != content["shown"][name]]
    if changed:
        raise InputError(
            f"{source.source} lacks {len(changed)} of {len(cameras)} pictures of {folder}, or they "
            f"were changed since ({', '.join(changed[:3])}{', ...' * (len(changed) > 3)}); put "
            "them back, or lift the scan again"
        )
    return source


def write_points(path: Path, points: Points) -> None:
    """Write the arrays to an .npz file, completely or not at all."""
    with atomic(path) as part:
        np.savez(part, **vars(points))


def read_points(path: Path) -> Points:
    """Read the file of `write_points`; InputError where it is missing or damaged."""
    stored = load_npz(path, [each.name for each in fields(Points)], advice=DAMAGED)
    with reading(path, "what a lift writes", advice=DAMAGED):
        x, y, z = map(float, stored.pop("offset", NO_OFFSET))
        arrays_fit(stored, Points)
        return Points(**stored, offset=(x, y, z))


class _Scan:
    """The run's scan, opened when a picture is first used."""

    def __init__(self, folder: Path, content: Mapping[str, Any]) -> None:
        self._folder, self._content = folder, content
        self._views: dict[str, View] | None = None

    def view(self, name: str) -> View:
        """The scan's view with this name."""
        if self._views is None:
            self._views = {each.name: each for each in open_source(self._folder).views}
        return self._views[name]


def _scan_image(scan: _Scan, name: str) -> Image:
    return scan.view(name).image()


def _scan_depth(scan: _Scan, name: str) -> Depth:
    depth = scan.view(name).depth()
    if depth is None:
        raise FrameError(f"view {name}: the scan has no depth of it any more")
    return depth


def _view(
    entry: Mapping[str, Any], folder: Path, given: Mapping[str, View] | None, scan: _Scan | None
) -> View:
    """One view from its entry in `scene.json`, joined with the scan's view."""
    name, depth = entry["name"], entry["depth"]
    if scan is not None:
        view = View(name, _camera(entry["camera"], folder), partial(_scan_image, scan, name))
        if depth == SCAN:
            view = replace(view, load_depth=partial(_scan_depth, scan, name))
    else:
        assert given is not None
        if name not in given:
            raise InputError(
                f"{Layout(folder).scene} has view {name}, which the scan lacks; remove "
                f"{folder} and lift again"
            )
        view = given[name]
    own = entry.get("depth_camera")
    view = replace(
        view,
        camera=_camera(entry["camera"], folder),
        depth_camera=None if own is None else _camera(own, folder),
        sparse=bool(entry.get("sparse", False)),
        split=str(entry.get("split", "")),
    )
    if depth in (None, SCAN):
        return view if depth else replace(view, load_depth=None, load_confidence=None)
    path = folder / depth
    return replace(
        view,
        load_depth=partial(_stored, path, "depth"),
        load_confidence=partial(_stored, path, "confidence"),
    )


def _offset(content: Mapping[str, Any]) -> Offset:
    x, y, z = (float(each) for each in content.get("offset", NO_OFFSET))
    return x, y, z


def _entry(view: View, depth: str | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": view.name, "camera": _as_json(view.camera), "depth": depth}
    if view.depth_camera is not None:
        entry["depth_camera"] = _as_json(view.depth_camera)
    if view.sparse:
        entry["sparse"] = True
    if view.split:
        entry["split"] = view.split
    return entry


def _loaders(views: Iterable[View]) -> set[str]:
    """Names of the functions that load the pictures; they differ between formats of a scan."""
    functions = [getattr(view.load_image, "func", view.load_image) for view in views]
    return {getattr(each, "__qualname__", type(each).__qualname__) for each in functions}


def _origin(origin: Origin | None, folder: Path) -> dict[str, Any] | None:
    """The scan's absolute path, its path relative to the run folder, and its reader."""
    if origin is None:
        return None
    path, relative = str(origin.path), None
    if origin.path.exists():
        path = str(origin.path.resolve())
        relative = os.path.relpath(path, folder.resolve())
    return {"path": path, "relative": relative, "reader": origin.reader, "options": origin.options}


def _opened(folder: Path, content: Mapping[str, Any], scan: Path | None) -> Scene:
    origin = content.get("origin") or {"reader": None, "options": {}, "path": None}
    if scan is None:
        if origin["path"] is None:
            raise InputError(
                f"{folder} was made from Python, of a scene without files; its pictures cannot be "
                "opened again (if they are in files too, exports take --scan FOLDER)"
            )
        relative = origin.get("relative")
        beside = Path(os.path.realpath(folder / relative)) if relative else None
        scan = Path(origin["path"])
        if not scan.exists() and beside and beside.exists():
            scan = beside  # moved together with the run
    try:
        return read_again(scan, origin["reader"], origin["options"])
    except InputError as error:
        raise InputError(
            f"the pictures of {folder} cannot be opened: {error}; put the scan back (exports also "
            "take --scan with its new path)"
        ) from error


def _content(folder: Path) -> dict[str, Any]:
    path = Layout(folder).scene
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a run's cameras")
    found = load_json(path, advice=ADVICE)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError(f"{path} is of another version of lift3d; lift again into {folder}")
    content: dict[str, Any] = read_run_file(path)
    return content


def _as_json(camera: Camera) -> dict[str, Any]:
    pose = camera.world_from_camera
    return {
        "width": camera.width,
        "height": camera.height,
        "K": camera.K.tolist(),
        "distortion": list(camera.distortion),
        "world_from_camera": None if pose is None else pose.tolist(),
    }


def _camera(stored: Mapping[str, Any], folder: Path) -> Camera:
    pose, width, height = stored["world_from_camera"], stored["width"], stored["height"]
    with reading(Layout(folder).scene, "cameras", advice=ADVICE):
        if min(width, height) < 1 or width * height > PIXELS:
            raise ValueError(f"a picture of {width}x{height}")
        K = np.array(stored["K"], np.float64).reshape(3, 3)
        place = None if pose is None else np.array(pose, np.float64).reshape(4, 4)
    return Camera(K, width, height, place, tuple(map(float, stored["distortion"])))


def _write_depth(path: Path, view: View) -> None:
    depth = view.depth()
    assert depth is not None
    confidence = view.confidence()
    if confidence is None:
        confidence = (depth > 0).astype(np.float32)
    # Sparse maps are nearly all zeros; dense ones hardly compress and should load fast.
    save = np.savez_compressed if view.sparse else np.savez
    with atomic(path) as part:
        save(part, depth=depth, confidence=confidence)


def _stored(path: Path, what: str) -> Depth | Float32[np.ndarray, "height width"]:
    found = load_npz(path, [what], FrameError, DAMAGED).get(what)
    if found is None or found.ndim != 2 or found.dtype.kind != "f":
        raise FrameError(f"{path} holds no {what}, one number per pixel; {DAMAGED}")
    return found.astype(np.float32)
