"""`scene.json`: the views of a run and their cameras, as used; to draw frusta or to go on from.

Poses are `world_from_camera`, OpenCV axes, 4x4 by rows; pixel (0, 0) is the centre of the
top-left pixel. Numbers keep every digit: what is read is what was written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from lift3d.scene import Camera, Scene
from lift3d.scene.errors import InputError
from lift3d.scene.storage import atomic


def write_scene(path: Path, scene: Scene) -> None:
    """Write the cameras of every view; the file appears whole or not at all."""
    content = {
        "name": scene.name,
        "source": scene.source,
        "metric": scene.metric,
        "conventions": "world_from_camera by rows, OpenCV axes (x right, y down, z forward), "
        "pixel (0, 0) = centre of the top-left pixel",
        "views": [
            {"name": view.name, "camera": _as_json(view.camera)}
            | ({} if view.depth_camera is None else {"depth_camera": _as_json(view.depth_camera)})
            for view in scene.views
        ],
        "skipped": [{"name": frame.name, "reason": frame.reason} for frame in scene.skipped],
        "notes": list(scene.notes),
    }
    with atomic(path) as part:
        part.write_text(json.dumps(content, indent=1))


def read_cameras(path: Path) -> dict[str, Camera]:
    """View name -> colour camera, in view order; InputError where the file is damaged."""
    return {name: colour for name, (colour, _) in read_all_cameras(path).items()}


def read_all_cameras(path: Path) -> dict[str, tuple[Camera, Camera | None]]:
    """View name -> colour camera, and the depth camera where depth has its own."""
    try:
        views = json.loads(path.read_text())["views"]
        return {
            view["name"]: (
                _camera(view["camera"]),
                _camera(view["depth_camera"]) if "depth_camera" in view else None,
            )
            for view in views
        }
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; expected a run's cameras") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} holds no cameras ({error!r}); remove it and run again") from error


def _as_json(camera: Camera) -> dict[str, Any]:
    pose = camera.world_from_camera
    return {
        "width": camera.width,
        "height": camera.height,
        "K": camera.K.tolist(),
        "distortion": list(camera.distortion),
        "world_from_camera": None if pose is None else pose.tolist(),
    }


def _camera(stored: dict[str, Any]) -> Camera:
    pose = stored["world_from_camera"]
    return Camera(
        np.array(stored["K"], np.float64).reshape(3, 3),
        int(stored["width"]),
        int(stored["height"]),
        None if pose is None else np.array(pose, np.float64).reshape(4, 4),
        tuple(float(value) for value in stored["distortion"]),
    )
