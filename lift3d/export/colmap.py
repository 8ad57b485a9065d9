"""Export a COLMAP project: `images/`, `sparse/0/`, and the run's labels.

Poses are `camera_from_world`, Hamilton quaternion w x y z, OpenCV axes, in the run's world and
unit. Pixel coordinates start at the corner of the picture: the centre of the first pixel is
(0.5, 0.5), which is lift3d's coordinate + 0.5. Undistorted cameras are PINHOLE, others OPENCV or
FULL_OPENCV (with k3).

POINT3D_ID is the index in the cloud + 1; `labels.npy` has the label of each point in that order,
`labels/` the label map of each picture, `stereo/depth_maps/` dense depth in the format of COLMAP's
stereo. `lift3d.json` in the model states whether the unit is the metre. Every picture lists at
most `OBSERVED` of its visible points, the same points in all pictures, so that tracks are long.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float64, Int32, Int64

from lift3d.datasets.colmap_scene import write_unit
from lift3d.export.content import Content, Format, Tick
from lift3d.export.frames import Frame, Limits, check_frames, frames, write_bytes, write_png
from lift3d.geometry import project
from lift3d.geometry.lens import inside
from lift3d.geometry.visibility import sightings
from lift3d.scene import NO_OFFSET, Camera, Depth, LabelledPoints
from lift3d.scene.labelmaps import write_label_map
from lift3d.scene.local_origin import camera_at
from lift3d.scene.storage import atomic

LIMITS = Limits("colmap")
OBSERVED = 4096
"""Maximum number of points per picture. Chosen by hand; not tuned on data."""
MODEL_IDS = {"PINHOLE": 1, "OPENCV": 4, "FULL_OPENCV": 6}

POINT = np.dtype(
    [("id", "<u8"), ("xyz", "<f8", 3), ("rgb", "u1", 3), ("error", "<f8"), ("track", "<u8")]
)
"""A point of points3D.bin without its track."""
PAIR = 8
"""Bytes of one observation in a track."""


@dataclass(frozen=True, eq=False)
class Observed:
    """A picture of the model and its observed points."""

    file: str
    camera: Camera
    point: Int32[np.ndarray, " seen"]
    """Index into the cloud."""
    xy: Float64[np.ndarray, "seen 2"]
    """Pixel coordinates from the picture's corner."""


def write(content: Content, folder: Path, tick: Tick) -> list[str]:
    """Write the project."""
    pictures, notes = [], []
    masked = bool(content.options.keep or content.options.undistort)
    for frame in frames(content, LIMITS, tick):
        frame.write_image(folder / "images")
        ids = content.label_maps[frame.view.name]
        labels = frame.labels(ids)
        write_label_map(folder / "labels", frame.stem, labels)
        if masked:
            # COLMAP's convention: the picture's full file name + .png; black is ignored.
            wanted = np.isin(labels, content.options.keep) if content.options.keep else frame.seen()
            write_png(folder / "masks" / f"{frame.file}.png", wanted.astype(np.uint8) * 255)
        depth = frame.depth() if content.options.depth else None
        if depth is not None:
            path = folder / "stereo/depth_maps" / f"{frame.file}.geometric.bin"
            write_bytes(path, dense_depth(depth))
        pictures.append(observed(content.cloud, frame))
    write_model(folder / "sparse/0", content, pictures, world=True)
    write_npy(folder / "labels.npy", content.cloud.instance)
    if any(each.camera.distortion for each in pictures):
        notes.append("colmap: cameras have lens distortion, which 3DGS cannot read: --undistort")
    return notes


def observed(cloud: LabelledPoints, frame: Frame, most: int = OBSERVED) -> Observed:
    """At most `most` of the points visible in the view, ascending; the same choice in all views."""
    seen = sightings(cloud.points, frame.view).point
    if len(seen) > most:
        rank = np.random.default_rng(0).permutation(len(cloud))[seen]
        seen = np.sort(seen[np.argsort(rank)[:most]])
    xy, _ = project(frame.camera, cloud.points.xyz[seen])
    shown = inside(frame.camera, xy)
    return Observed(frame.file, frame.camera, seen[shown].astype(np.int32), xy[shown] + 0.5)


def write_model(
    folder: Path, content: Content, pictures: Sequence[Observed], world: bool = False
) -> None:
    """Write cameras, images and points3D, all as binary or all as text.

    `world`: in world coordinates also where the scene is georeferenced. Else such a model is
    relative to the local origin, which `lift3d.json` holds, for trainers that compute in float32.
    """
    cloud, stated = content.cloud, content.offset
    if world:
        pictures = [
            replace(each, camera=camera_at(each.camera, content.offset)) for each in pictures
        ]
        stated = NO_OFFSET
    else:
        cloud = replace(cloud, points=replace(cloud.points, offset=NO_OFFSET))
    cameras = [_parameters(each.camera) for each in pictures]
    numbers = {each: number for number, each in enumerate(dict.fromkeys(cameras), start=1)}
    of_picture = [numbers[each] for each in cameras]
    tracks = _tracks(len(cloud), pictures)
    write = _write_text if content.options.text else _write_binary
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, numbers, of_picture, pictures, cloud, *tracks)
    write_unit(folder, content.scene.metric, stated)


_Parameters = tuple[str, int, int, tuple[float, ...]]
"""Model, width, height, numbers."""


def _parameters(camera: Camera) -> _Parameters:
    K, lens = camera.K, (*camera.distortion, *(0.0,) * 5)[:5]
    numbers = (K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5)
    model = "FULL_OPENCV" if lens[4] else "OPENCV" if any(lens) else "PINHOLE"
    more = {"PINHOLE": (), "OPENCV": lens[:4], "FULL_OPENCV": (*lens, 0.0, 0.0, 0.0)}[model]
    return model, camera.width, camera.height, tuple(float(each) for each in (*numbers, *more))


def quaternion(rotation: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, "4"]:
    """w x y z, Hamilton, w >= 0.

    >>> quaternion(np.diag([1.0, -1.0, -1.0])).tolist()
    [0.0, 1.0, 0.0, 0.0]
    """
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(rotation).as_quat(canonical=True)
    return np.array([w, x, y, z])


def dense_depth(depth: Depth) -> bytes:
    """A depth map in the format of COLMAP's stereo."""
    height, width = depth.shape
    return f"{width}&{height}&1&".encode() + depth.astype("<f4").tobytes()


def write_npy(path: Path, values: np.ndarray) -> None:
    """Write one array."""
    with atomic(path) as part:
        np.save(part, values)


def _tracks(
    points: int, pictures: Sequence[Observed]
) -> tuple[Int64[np.ndarray, " starts"], Int32[np.ndarray, "observations 2"]]:
    """Start of each point's observations, and (image id, index in the image) per observation."""
    point = np.concatenate([p.point for p in pictures] or [np.zeros(0, np.int32)])
    image = np.repeat(np.arange(1, len(pictures) + 1), [len(p.point) for p in pictures])
    index = np.concatenate([np.arange(len(p.point)) for p in pictures] or [np.zeros(0, int)])
    order = np.argsort(point, kind="stable")
    pairs = np.stack([image, index], 1).astype(np.int32)[order]
    starts = np.concatenate([[0], np.cumsum(np.bincount(point, minlength=points))])
    return starts.astype(np.int64), pairs


def _pose(camera: Camera) -> tuple[Float64[np.ndarray, "4"], Float64[np.ndarray, "3"]]:
    camera_from_world = camera.camera_from_world
    return quaternion(camera_from_world[:3, :3]), camera_from_world[:3, 3]


def _write_binary(
    folder: Path,
    cameras: dict[_Parameters, int],
    of_picture: list[int],
    pictures: Sequence[Observed],
    cloud: LabelledPoints,
    starts: Int64[np.ndarray, " starts"],
    pairs: Int32[np.ndarray, "observations 2"],
) -> None:
    with atomic(folder / "cameras.bin") as part, part.open("wb") as file:
        file.write(struct.pack("<Q", len(cameras)))
        for (model, width, height, numbers), camera in cameras.items():
            file.write(struct.pack("<iiQQ", camera, MODEL_IDS[model], width, height))
            file.write(np.array(numbers, "<f8").tobytes())
    with atomic(folder / "images.bin") as part, part.open("wb") as file:
        file.write(struct.pack("<Q", len(pictures)))
        for number, (camera, each) in enumerate(zip(of_picture, pictures, strict=True), start=1):
            turn, move = _pose(each.camera)
            file.write(struct.pack("<i7di", number, *turn, *move, camera))
            file.write(each.file.encode() + b"\0" + struct.pack("<Q", len(each.point)))
            rows = np.empty(len(each.point), np.dtype([("xy", "<f8", 2), ("point", "<i8")]))
            rows["xy"], rows["point"] = each.xy, each.point.astype(np.int64) + 1
            file.write(rows.tobytes())
    with atomic(folder / "points3D.bin") as part, part.open("wb") as file:
        _write_points(file, cloud, starts, pairs)


def _write_points(
    file: BinaryIO,
    cloud: LabelledPoints,
    starts: Int64[np.ndarray, " starts"],
    pairs: Int32[np.ndarray, "observations 2"],
    chunk: int = 1 << 16,
) -> None:
    """Write each point followed by its track; bytes are placed by array operations."""
    file.write(struct.pack("<Q", len(cloud)))
    xyz = cloud.points.world
    for first in range(0, len(cloud), chunk):
        part = slice(first, min(first + chunk, len(cloud)))
        begin = starts[part.start : part.stop + 1] - starts[part.start]
        rows = np.zeros(len(begin) - 1, POINT)
        rows["id"] = np.arange(part.start, part.stop) + 1
        rows["xyz"], rows["rgb"] = xyz[part], cloud.points.rgb[part]
        rows["track"] = np.diff(begin)
        track = pairs[starts[part.start] : starts[part.stop]].astype("<i4")
        data = np.empty(rows.nbytes + track.nbytes, np.uint8)
        before = np.arange(len(rows)) * POINT.itemsize
        at = before + begin[:-1] * PAIR
        data[at[:, None] + np.arange(POINT.itemsize)] = _bytes(rows)
        shift = np.repeat(before + POINT.itemsize, rows["track"].astype(np.int64))
        data[(shift + np.arange(len(track)) * PAIR)[:, None] + np.arange(PAIR)] = _bytes(track)
        file.write(data.tobytes())


def _bytes(rows: np.ndarray) -> np.ndarray:
    """The bytes of each row."""
    return np.frombuffer(rows.tobytes(), np.uint8).reshape(len(rows), -1 if len(rows) else 1)


def _write_text(
    folder: Path,
    cameras: dict[_Parameters, int],
    of_picture: list[int],
    pictures: Sequence[Observed],
    cloud: LabelledPoints,
    starts: Int64[np.ndarray, " starts"],
    pairs: Int32[np.ndarray, "observations 2"],
) -> None:
    with atomic(folder / "cameras.txt") as part, part.open("w", encoding="utf-8") as file:
        file.write("# CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n")
        for (model, width, height, numbers), camera in cameras.items():
            file.write(f"{camera} {model} {width} {height} {_joined(numbers)}\n")
    with atomic(folder / "images.txt") as part, part.open("w", encoding="utf-8") as file:
        file.write("# IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME\n")
        file.write("# POINTS2D[] as (X, Y, POINT3D_ID), on a line that may be empty\n")
        for number, (camera, each) in enumerate(zip(of_picture, pictures, strict=True), start=1):
            turn, move = _pose(each.camera)
            file.write(f"{number} {_joined((*turn, *move))} {camera} {each.file}\n")
            seen = zip(each.xy.tolist(), (each.point + 1).tolist(), strict=True)
            file.write(" ".join(f"{x!r} {y!r} {point}" for (x, y), point in seen) + "\n")
    with atomic(folder / "points3D.txt") as part, part.open("w", encoding="utf-8") as file:
        file.write("# POINT3D_ID, X, Y, Z, R, G, B, ERROR, TRACK[] as (IMAGE_ID, POINT2D_IDX)\n")
        xyz, rgb = cloud.points.world.tolist(), cloud.points.rgb.tolist()
        for number, (place, colour) in enumerate(zip(xyz, rgb, strict=True)):
            track = pairs[starts[number] : starts[number + 1]].ravel().tolist()
            words = [number + 1, *map(repr, place), *colour, 0, *track]
            file.write(" ".join(map(str, words)) + "\n")


def _joined(numbers: Sequence[float]) -> str:
    """Numbers with all digits, separated by spaces."""
    return " ".join(repr(float(each)) for each in numbers)


FORMAT = Format(
    name="colmap",
    about="images, sparse/0 (binary, or text with --text), dense depth, label maps",
    files=(
        "`images/`, `sparse/0/` (binary, or text), `labels/`, `labels.npy`, "
        "`stereo/depth_maps/`; `masks/` likewise"
    ),
    frames="`camera_from_world`, quaternion w x y z, OpenCV axes",
    first_pixel="0.5, 0.5",
    limits="PINHOLE, OPENCV, with k3 FULL_OPENCV",
    read_by="pycolmap 4.2, nerfstudio's COLMAP parser, 3DGS where undistorted, `lift3d lift`",
    write=write,
    coordinates="world",
    check=lambda content: check_frames(content, LIMITS),
    pictures=True,
)
