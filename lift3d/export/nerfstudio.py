"""Export for nerfstudio: `transforms.json`, `images/`, `depth/`, `cloud.ply`, `labels/`.

`transform_matrix` is `world_from_camera` with OpenGL camera axes (x right, y up, z back), in the
run's world and unit; the scene is not rotated, centred or scaled. Principal points are relative to
the corner of the picture (lift3d's + 0.5). `k1 k2 p1 p2 k3` are OpenCV's. Depth is 16-bit PNG in
thousandths of the unit (millimetres), 0 = missing or beyond 65.5. Sparse depth (COLMAP's points)
must not be used as dense depth, so it is written to `sparse_depth/`, float32, for `lift3d lift`
only.

The default data parser moves and rescales the scene; to keep metres and axes:
`ns-train METHOD --data FOLDER nerfstudio-data --orientation-method none --center-method none
--auto-scale-poses False`. It reads only points and colours of `cloud.ply`; `labels/` (each frame's
`label_path`) is for other programs. Views of a scan with splits are listed in `train_filenames`,
`val_filenames` and `test_filenames`. `mask_path` excludes pixels from training: those outside
--keep, and the borders after undistortion.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lift3d.export.content import Content, Format, Tick
from lift3d.export.frames import Frame, Limits, check_frames, frames, write_png
from lift3d.export.ply import write_cloud
from lift3d.scene import NO_OFFSET, Camera
from lift3d.scene.labelmaps import write_label_map
from lift3d.scene.storage import atomic

LIMITS = Limits("nerfstudio")
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
"""opencv_from_opengl of camera axes; it is its own inverse."""
FAR = np.iinfo(np.uint16).max
ALL = "--orientation-method none --center-method none --auto-scale-poses False"


def write(content: Content, folder: Path, tick: Tick) -> list[str]:
    """Write the dataset."""
    listed, intrinsics, cut, with_depth = [], [], 0, 0
    splits: dict[str, list[str]] = {}
    for frame in frames(content, LIMITS, tick):
        frame.write_image(folder / "images")
        entry: dict[str, Any] = {"file_path": f"images/{frame.file}"}
        if frame.view.split:
            entry["split"] = frame.view.split
            splits.setdefault(frame.view.split, []).append(entry["file_path"])
        labels = frame.labels(content.label_maps[frame.view.name])
        path = write_label_map(folder / "labels", frame.stem, labels)
        entry["label_path"] = f"labels/{path.name}"
        keep = content.options.keep
        if keep or content.options.undistort:
            wanted = np.isin(labels, keep) if keep else frame.seen()
            entry["mask_path"] = f"masks/{frame.stem}.png"
            write_png(folder / entry["mask_path"], wanted.astype(np.uint8) * 255)
        stored, lost = _depth(content, frame)
        cut += lost
        if stored is not None:
            with_depth += 1
            entry["depth_file_path"] = f"depth/{frame.stem}.png"
            write_png(folder / entry["depth_file_path"], stored)
        known = frame.sparse_depth() if content.options.depth else None
        if known is not None:
            entry["sparse_depth_path"] = f"sparse_depth/{frame.stem}.npz"
            with atomic(folder / entry["sparse_depth_path"]) as part, part.open("wb") as file:
                np.savez_compressed(file, depth=known)
        entry["transform_matrix"] = (frame.camera.pose @ OPENGL).tolist()
        listed.append(entry)
        intrinsics.append(camera_values(frame.camera))
    points = replace(content.cloud.points, offset=NO_OFFSET)  # nerfstudio reads float32
    write_cloud(folder / "cloud.ply", replace(content.cloud, points=points))
    notes = [f"nerfstudio: to keep metres and axes, train with nerfstudio-data {ALL}"]
    if with_depth < len(listed):
        # nerfstudio's parser requires depth for all frames or for none.
        for entry in listed:
            entry.pop("depth_file_path", None)
        if with_depth:
            import shutil

            shutil.rmtree(folder / "depth")
            notes.append(f"nerfstudio: depth left out, {len(listed) - with_depth} views have none")
    if cut:
        notes.append(f"nerfstudio: {cut} pixels of depth beyond {FAR / 1000:g} are missing")
    top: dict[str, Any] = {"camera_model": "OPENCV", "ply_file_path": "cloud.ply"}
    top["metric"] = content.scene.metric  # for lift3d; nerfstudio ignores unknown keys
    if content.offset != NO_OFFSET:
        top["offset"] = list(content.offset)  # for lift3d, likewise
    if all(each == intrinsics[0] for each in intrinsics):
        top |= intrinsics[0]
    else:
        listed = [entry | values for entry, values in zip(listed, intrinsics, strict=True)]
    top |= _lists(splits)
    with atomic(folder / "transforms.json") as part:
        part.write_text(json.dumps(top | {"frames": listed}, indent=1))
    return notes


def _lists(splits: dict[str, list[str]]) -> dict[str, list[str]]:
    """The names of each split. nerfstudio's parser fails where it asks for one that is missing, so
    a split without pictures gets those of another.
    """
    if not splits:
        return {}
    instead = {"train": ("val", "test"), "val": ("test", "train"), "test": ("val", "train")}
    return {
        f"{name}_filenames": next(splits[each] for each in (name, *others) if each in splits)
        for name, others in instead.items()
    }


def camera_values(camera: Camera) -> dict[str, float]:
    """Intrinsics under nerfstudio's names."""
    k1, k2, p1, p2, k3 = (*camera.distortion, *(0.0,) * 5)[:5]
    K = camera.K
    focal = {"fl_x": float(K[0, 0]), "fl_y": float(K[1, 1])}
    centre = {"cx": float(K[0, 2] + 0.5), "cy": float(K[1, 2] + 0.5)}
    lens = {"k1": k1, "k2": k2, "k3": k3, "p1": p1, "p2": p2}
    return {**focal, **centre, "w": camera.width, "h": camera.height, **lens}


def _depth(content: Content, frame: Frame) -> tuple[np.ndarray | None, int]:
    """Depth as stored, and the number of pixels beyond its range."""
    depth = frame.depth() if content.options.depth else None
    if depth is None:
        return None, 0
    stored = np.rint(depth.astype(np.float64) * 1000)
    far = stored > FAR
    stored[far] = 0
    return stored.astype(np.uint16), int(far.sum())


FORMAT = Format(
    name="nerfstudio",
    about="transforms.json, images, depth, cloud, label maps",
    files=(
        "`transforms.json`, `images/`, `depth/` or `sparse_depth/`, `labels/`, `cloud.ply`; "
        "`masks/` with `--keep` or `--undistort`"
    ),
    frames="`world_from_camera`, OpenGL axes (x right, y up, z back)",
    first_pixel="0.5, 0.5",
    limits="k1 k2 p1 p2 k3; depth 16-bit millimetres, to 65.5; depth of all views or of none",
    read_by="nerfstudio 1.1.5 (parser), `lift3d lift`",
    write=write,
    check=lambda content: check_frames(content, LIMITS),
    pictures=True,
)
