"""The pose of each image of an RGB-D folder, in any of the known formats."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from lift3d.datasets.patterns import Files, collect
from lift3d.datasets.patterns import find as find_file
from lift3d.datasets.poses import (
    Poses,
    matrix4,
    nearest,
    read_headed,
    read_log,
    read_matrix,
    read_rows,
    read_tum,
)
from lift3d.scene import Skipped
from lift3d.scene.errors import InputError
from lift3d.scene.guarded import load_text


@runtime_checkable
class PoseOptions(Protocol):
    """The options of `RgbdFolder` for poses."""

    @property
    def poses(self) -> str:
        """File, or pattern of files."""

    @property
    def pose_format(self) -> str:
        """Format of the poses."""

    @property
    def frame_index(self) -> str:
        """File with the image of each row; empty: all rows in order."""

    @property
    def time_tolerance(self) -> float:
        """Largest time between a pose and its image, seconds."""


def find(options: PoseOptions, root: Path, images: Files) -> tuple[Poses, list[Skipped]]:
    """Frame key -> stored pose, and the images whose pose file cannot be read."""
    if options.pose_format == "files":
        return read_files(collect(root, options.poses), images)
    path = find_file(root, options.poses) or root / options.poses
    if not path.is_file():
        raise InputError(f"{path} is missing: the poses are expected there; copy the scan again")
    if options.pose_format == "rows":
        return _rows(path, root / options.frame_index if options.frame_index else None, images), []
    if options.pose_format == "log":
        return _log(path, images), []
    if options.pose_format == "headed":
        return _headed(path, images), []
    times, matrices = read_tum(path)
    near = {key: nearest(times, seconds(key), options.time_tolerance) for key in images}
    return {key: matrices[i] for key, i in near.items() if i is not None}, []


def read_files(files: Files, images: Files) -> tuple[Poses, list[Skipped]]:
    """A matrix per file, for existing images; frames with unreadable files are skipped."""
    poses: Poses = {}
    skipped = []
    for key, found in files.items():
        if key not in images:
            continue
        try:
            poses[key] = read_matrix(found.path)
        except InputError as error:
            skipped.append(Skipped(images[key].name, f"pose cannot be read: {error}"))
    return poses, skipped


def by_time(images: Files, depth: Files, tolerance: float) -> Files:
    """Depth files by the key of the image nearest in time; both are named by seconds."""
    keys = list(depth)
    times = np.array([seconds(key) for key in keys])
    near = {key: nearest(times, seconds(key), tolerance) for key in images}
    return {key: depth[keys[i]] for key, i in near.items() if i is not None}


def seconds(key: str) -> float:
    """The time in an image's name."""
    try:
        return float(key)
    except ValueError as error:
        raise InputError(
            f"image {key!r} is not named by its time in seconds, as the tum format needs"
        ) from error


def _log(path: Path, images: Files) -> Poses:
    """By the number of the frame; by order where the pictures are numbered otherwise.

    Open3D numbers the poses from 0, whatever the pictures are called.
    """
    poses = read_log(path)
    if len(poses) == len(images) and not all(key in poses for key in images):
        return dict(zip(images, poses.values(), strict=True))
    return poses


def _rows(path: Path, index: Path | None, images: Files) -> Poses:
    rows = read_rows(path)
    if index is None:
        if len(rows) != len(images):
            raise InputError(
                f"{path} has {len(rows)} poses but there are {len(images)} images; "
                "give frame_index, a file with `row filename` lines"
            )
        return dict(zip(images, rows, strict=True))
    row_of = {}
    for number, line in enumerate(load_text(index).splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or not words[0].isdecimal() or int(words[0]) >= len(rows):
            raise InputError(
                f"{index} line {number} is {line!r}; expected `row filename`, row below {len(rows)}"
            )
        row_of[words[1]] = int(words[0])
    return {
        key: rows[row_of[found.path.name]]
        for key, found in images.items()
        if found.path.name in row_of
    }


def _headed(path: Path, images: Files) -> Poses:
    last_words = {h.split()[-1]: (h, v) for h, v in read_headed(path).items() if h}
    return {
        key: matrix4(last_words[found.name][1], f"{path} under {last_words[found.name][0]!r}")
        for key, found in images.items()
        if found.name in last_words
    }
