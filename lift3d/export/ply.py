"""The labelled cloud as PLY, for MeshLab, CloudCompare, Open3D and plyfile.

Binary little endian, one element `vertex`. Common properties come first; programs ignore `label`,
`score` and `confidence` if they do not know them. MeshLab drops unknown properties, so the label
is repeated as MeshLab's `quality`. The same cloud gives the same bytes. Coordinates are in the
run's world and unit, float32, or in georeferenced scenes double, with the local origin in the
header (`comment lift3d offset X Y Z`); there are no cameras.

As an export: `cloud.ply`, and each object as `objects/0003.ply`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lift3d.export.content import Content, Format, Tick
from lift3d.scene import NO_OFFSET, LabelledPoints, Offset, Points
from lift3d.scene.colours import Palette, label_colours
from lift3d.scene.errors import InputError
from lift3d.scene.guarded.ply import load_ply
from lift3d.scene.palette import distinct_colours
from lift3d.scene.storage import atomic

XYZ, NORMAL, RGB = ("x", "y", "z"), ("nx", "ny", "nz"), ("red", "green", "blue")
PROPERTIES = [
    *((name, "<f4") for name in (*XYZ, *NORMAL)),
    *((name, "u1") for name in RGB),
    ("label", "<i4"),
    ("score", "<f4"),
    ("confidence", "<f4"),
]
QUALITY = ("quality", "<f4")
SEMANTIC = ("semantic", "<i4")
OFFSET = "lift3d offset"
"""Start of the comment with the local origin of a georeferenced scene."""
COMMENT = "lift3d: label 0 = unlabelled, score = how sure it is, metres if the scan is metric"


def write_cloud(path: Path, cloud: LabelledPoints) -> None:
    """Write all points in order, atomically, in world coordinates."""
    from plyfile import PlyData, PlyElement

    points = cloud.points
    far = points.offset != NO_OFFSET
    places = [(name, "<f8") for name in XYZ] if far else []
    comments = [COMMENT, f"{OFFSET} {_joined(points.offset)}"] if far else [COMMENT]
    semantic = [] if cloud.semantic is None else [SEMANTIC]
    vertex = np.empty(
        len(cloud), np.dtype([*places, *PROPERTIES[len(places) :], QUALITY, *semantic])
    )
    columns = (
        (XYZ, points.world if far else points.xyz),
        (NORMAL, points.normal),
        (RGB, points.rgb),
    )
    for names, values in columns:
        for column, name in enumerate(names):
            vertex[name] = values[:, column]
    vertex["label"] = vertex["quality"] = cloud.instance
    vertex["score"] = cloud.score
    vertex["confidence"] = points.confidence
    if cloud.semantic is not None:
        vertex["semantic"] = cloud.semantic
    element = PlyElement.describe(vertex, "vertex")
    with atomic(path) as part:
        PlyData([element], byte_order="<", comments=comments).write(str(part))


def read_cloud(path: Path, offset: Offset | None = None) -> LabelledPoints:
    """Read what `write_cloud` wrote; InputError for anything else.

    The points are relative to `offset`, by default to the local origin in the file's header.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a cloud that lift3d has written")
    ply = load_ply(path, "PLY that lift3d has written", "remove it and run again")
    has = ply.names()
    missing = [name for name, _ in PROPERTIES if name not in has]
    if missing:
        raise InputError(
            f"{path} has no {', '.join(missing)} on its vertices (it has {', '.join(has)}); "
            "expected a cloud that lift3d has written"
        )
    if offset is None:
        offset = _offset(path, ply.comments)
    points = Points(
        ply.local(offset),
        ply.rgb(),
        ply.columns(NORMAL, np.float32),
        ply.column("confidence").astype(np.float32),
        offset,
    )
    semantic = ply.whole("semantic").astype(np.int32) if "semantic" in has else None
    label, score = ply.whole("label").astype(np.int32), ply.column("score").astype(np.float32)
    return LabelledPoints(points, label, score, semantic)


def _joined(offset: Offset) -> str:
    return " ".join(repr(each) for each in offset)


def _offset(path: Path, comments: Sequence[str]) -> Offset:
    """The local origin in the header; zeros without one."""
    for comment in comments:
        if comment.startswith(OFFSET):
            try:
                x, y, z = (float(word) for word in comment[len(OFFSET) :].split())
            except ValueError as error:
                raise InputError(f"{path}: {comment!r} in the header is no offset") from error
            return x, y, z
    return NO_OFFSET


def coloured_by_label(cloud: LabelledPoints, palette: Palette | None = None) -> Points:
    """The points with the colours of their objects, by default those of `distinct_colours`."""
    palette = distinct_colours(cloud) if palette is None else palette
    colours = label_colours(cloud.instance, palette)
    return replace(cloud.points, rgb=colours)


def write(content: Content, folder: Path, tick: Tick) -> list[str]:
    """Write the cloud, and each object as a separate file."""
    cloud = content.cloud
    write_cloud(folder / "cloud.ply", cloud)
    order = np.argsort(cloud.instance, kind="stable")
    ids, starts = np.unique(cloud.instance[order], return_index=True)
    for number, (each, index) in enumerate(
        zip(ids.tolist(), np.split(order, starts[1:]), strict=True), start=1
    ):
        if each > 0:
            part = LabelledPoints(
                cloud.points.take(index), cloud.instance[index], cloud.score[index]
            )
            write_cloud(folder / "objects" / f"{each:04d}.ply", part)
        tick(number, len(ids))
    return []


FORMAT = Format(
    name="ply",
    about="the labelled cloud, and each object as a cloud of its own",
    files=(
        "`cloud.ply`, `objects/0003.ply`; properties `label`, `score`, `confidence`, and "
        "`quality` = label for MeshLab"
    ),
    frames="the run's world",
    first_pixel="no cameras",
    read_by="plyfile, Open3D, MeshLab, CloudCompare",
    write=write,
    coordinates="world",
)
