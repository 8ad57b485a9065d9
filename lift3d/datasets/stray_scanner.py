"""Reader for Stray Scanner's exports: a video, depth and confidence pictures, odometry.

The layout is that of kekeblom/StrayVisualizer. strayrobots/scanner (OdometryEncoder.swift) turns
ARKit's camera axes by half a turn about x before it writes them, so they are OpenCV's; its
camera_matrix.csv is ARKit's, with the principal point from the corner of the picture.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from lift3d.datasets.captures import Capture, Shot, from_corner
from lift3d.datasets.images import DepthCode
from lift3d.datasets.intrinsics import Size, pinhole
from lift3d.datasets.patterns import collect, contents
from lift3d.datasets.poses import numbers, rotations_from_quaternions
from lift3d.datasets.video import frame_at, frame_size
from lift3d.scene import Scene, Skipped
from lift3d.scene.errors import InputError
from lift3d.scene.guarded import load_text, reading
from lift3d.scene.protocols import Reader

ODOMETRY, MATRIX = "odometry.csv", "camera_matrix.csv"
POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")
LENS = ("fx", "fy", "cx", "cy")
VIDEOS = ("rgb.mp4", "rgb.mov")


@dataclass(frozen=True)
class StrayScanner(Reader):
    """A folder of the app Stray Scanner: rgb.mp4, depth/, confidence/, odometry.csv.

    The video is decoded without seeking, because its frames are counted. Frames in a folder rgb/
    (`ffmpeg -i rgb.mp4 -start_number 0 rgb/%06d.jpg`) are faster, and are used where they are.
    """

    expects: ClassVar[str] = (
        "rgb.mp4 (or rgb/), depth/, odometry.csv and camera_matrix.csv (Stray Scanner)"
    )

    depth_max: float | None = None
    """Depth beyond this many metres is treated as missing. The sensor reaches 5 m."""

    def matches(self, path: Path) -> bool:
        """Whether the two tables are there."""
        return (path / ODOMETRY).is_file() and (path / MATRIX).is_file()

    def read(self, path: Path) -> Scene:
        """The scene; InputError where a table cannot be read."""
        if not self.matches(path):
            raise InputError(f"{path}: expected {self.expects}; found: {contents(path)}")
        K = pinhole(numbers(load_text(path / MATRIX), str(path / MATRIX)), str(path / MATRIX))
        pictures, video = collect(path, "rgb/*"), _video(path)
        if video is None and not pictures:
            raise InputError(f"{path} has no {VIDEOS[0]} and no pictures in rgb/; copy it again")
        depth, confidence = collect(path, "depth/*"), collect(path, "confidence/*")
        shots, skipped = [], []
        for row in _rows(path / ODOMETRY):
            name = f"{row.frame:06d}"
            key = str(row.frame)
            lacking = [
                what
                for what, files in (("depth/*", depth), ("rgb/*", pictures))
                if files and key not in files
            ]
            if lacking:
                skipped.append(Skipped(name, f"nothing for it in {' and '.join(lacking)}"))
                continue
            shots.append(
                Shot(
                    name,
                    pictures[key].path if pictures else video or path,
                    from_corner(K if row.K is None else row.K),
                    row.pose,
                    depth[key].path if depth else None,
                    confidence[key].path if key in confidence else None,
                    load_image=partial(frame_at, video, row.place)
                    if video and not pictures
                    else None,
                )
            )
        size: Size | None = None
        if video is not None:
            size = frame_size(video)
        capture = Capture(
            path,
            "stray-scanner",
            opengl=False,
            code=DepthCode(max_metres=self.depth_max),
            size=size,
            image_size=None if pictures else size,
        )
        note = None if depth else "there is no depth: it has to be reconstructed"
        return capture.scene(shots, skipped, [note])


@dataclass(frozen=True, eq=False)
class _Row:
    """A line of the odometry."""

    frame: int
    """Number in the names of depth and confidence."""
    place: int
    """Number in the video."""
    pose: np.ndarray
    K: np.ndarray | None


def _video(path: Path) -> Path | None:
    return next((path / name for name in VIDEOS if (path / name).is_file()), None)


def _rows(path: Path) -> list[_Row]:
    """The lines of odometry.csv. Old versions have neither a heading nor times and frames."""
    text = load_text(path)
    with reading(path, "a table"):
        lines = [[word.strip() for word in line] for line in csv.reader(text.splitlines())]
    lines = [line for line in lines if any(line)]
    heading = lines[0] if lines and not _is_number(lines[0][0]) else []
    body = lines[1:] if heading else lines
    heading = heading or {7: [*POSE], 9: ["timestamp", "frame", *POSE]}.get(
        len(body[0]) if body else 0, []
    )
    missing = [name for name in POSE if name not in heading]
    if missing or not body:
        raise InputError(f"{path}: expected columns {', '.join(POSE)}, found {heading or 'none'}")
    try:
        table = np.array([[float(word or "nan") for word in line] for line in body])
    except ValueError as error:
        raise InputError(f"{path}: expected a number in each column: {error}") from error
    if table.ndim != 2 or table.shape[1] != len(heading):
        raise InputError(f"{path}: a line has another number of columns than the heading")
    column = dict(zip(heading, table.T, strict=True))
    turns = rotations_from_quaternions(np.stack([column[name] for name in POSE[3:]], 1))
    poses = np.tile(np.eye(4), (len(table), 1, 1))
    poses[:, :3, :3] = turns
    poses[:, :3, 3] = np.stack([column[name] for name in POSE[:3]], 1)
    frames = column.get("frame", np.arange(len(table)))
    lens = np.stack([column[n] for n in LENS], 1) if set(LENS) <= set(heading) else None
    known = None if lens is None else [pinhole(tuple(each), str(path)) for each in lens.tolist()]
    return [
        _Row(int(frames[i]), i, poses[i], None if known is None else known[i])
        for i in range(len(table))
        if np.isfinite(frames[i])
    ]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
