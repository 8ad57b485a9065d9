"""Export NumPy archives: the cloud, and every view as MapAnything's dictionary.

`cloud.npz`: `xyz rgb normal confidence instance score` (and `semantic`), in the run's world.
`views/NAME.npz`: `img` uint8, `intrinsics` 3x3, `camera_poses` 4x4 camera-to-world with OpenCV
axes, `labels` int32; with dense depth also `depth_z` (0 = missing), `pts3d` in the world (NaN where
missing), `conf` and `mask`, at the picture's size. Pixel (0, 0) is the centre of the first pixel,
as in the run. `metric_scaling_factor` is 1 if the unit is the metre, NaN if the scale is unknown.
Only for undistorted pictures, as the dictionary has no lens distortion.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lift3d.export.content import Content, Format, Tick
from lift3d.export.frames import Frame, Limits, check_frames, frames
from lift3d.geometry import unproject
from lift3d.scene import Depth
from lift3d.scene.storage import atomic

LIMITS = Limits("npz", coefficients=0)


def write(content: Content, folder: Path, tick: Tick) -> list[str]:
    """Write the archives."""
    cloud = content.cloud
    arrays = vars(cloud.points) | {"instance": cloud.instance, "score": cloud.score}
    if cloud.semantic is not None:
        arrays["semantic"] = cloud.semantic
    _save(folder / "cloud.npz", arrays)
    scale = np.float32(1 if content.scene.metric else np.nan)
    for frame in frames(content, LIMITS, tick):
        entry = {
            "img": frame.image(),
            "intrinsics": frame.camera.K,
            "camera_poses": frame.camera.pose,
            "labels": frame.labels(content.label_maps[frame.view.name]),
            "metric_scaling_factor": scale,
        }
        _save(folder / "views" / f"{frame.stem}.npz", entry | _geometry(content, frame))
    return []


def _geometry(content: Content, frame: Frame) -> dict[str, Any]:
    """Depth, points, confidence and mask at the picture's size; empty without dense depth."""
    depth = frame.depth() if content.options.depth else None
    if depth is None:
        return {}
    size = (frame.camera.height, frame.camera.width)
    conf = frame.view.confidence() if frame.same else None
    if depth.shape != size:
        depth, conf = _nearest(depth, size), None
    if conf is None or conf.shape != size:
        conf = (depth > 0).astype(np.float32)
    xyz = unproject(frame.camera, depth)
    return {"depth_z": depth, "pts3d": xyz, "conf": conf, "mask": depth > 0}


def _nearest(depth: Depth, size: tuple[int, int]) -> Depth:
    """Depth resized by nearest neighbour, because averages across depth steps are wrong."""
    rows = ((np.arange(size[0]) + 0.5) * depth.shape[0] / size[0]).astype(int)
    columns = ((np.arange(size[1]) + 0.5) * depth.shape[1] / size[1]).astype(int)
    return depth[rows[:, None], columns]


def _save(path: Path, arrays: dict[str, Any]) -> None:
    with atomic(path) as part:
        np.savez_compressed(part, **arrays)


FORMAT = Format(
    name="npz",
    about="cloud and views as NumPy arrays (MapAnything's dictionary)",
    files=(
        "`cloud.npz`, `views/NAME.npz` with `img intrinsics camera_poses depth_z pts3d conf "
        "mask labels`"
    ),
    frames="`world_from_camera`, OpenCV axes",
    first_pixel="0, 0",
    limits="undistorted",
    read_by="NumPy; MapAnything's dictionary",
    write=write,
    check=lambda content: check_frames(content, LIMITS),
    pictures=True,
)
