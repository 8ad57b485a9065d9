"""ScanNet's annotation: a mesh with the true object id of each vertex."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
from jaxtyping import Float, Float32, Int, Int32, Int64

from lift3d.scene import NO_OFFSET, LabelledPoints, Offset, Points
from lift3d.scene.errors import InputError
from lift3d.scene.guarded import reading
from lift3d.scene.guarded.json_file import load_json
from lift3d.scene.guarded.ply import load_ply
from lift3d.scene.typed import conforming

STRUCTURE = (1, 2, 22)
"""Wall, floor and ceiling in nyu40: not objects, so scores ignore them."""


def surface_loader(
    folder: Path, scene: str, offset: Offset = NO_OFFSET
) -> Callable[[], LabelledPoints] | None:
    """A loader of the labelled surface; None where mesh, segments or aggregation are absent."""
    paths = annotation_files(folder, scene)
    there = all(path.is_file() for path in paths[:3])
    return partial(read_surface, *paths, offset) if there else None


def annotation_files(folder: Path, scene: str) -> tuple[Path, Path, Path, Path]:
    """Mesh, segments, aggregation and class labels, as ScanNet names them."""
    return (
        folder / f"{scene}_vh_clean_2.ply",
        folder / f"{scene}_vh_clean_2.0.010000.segs.json",
        folder / f"{scene}.aggregation.json",
        folder / f"{scene}_vh_clean_2.labels.ply",
    )


def read_surface(
    mesh: Path, segments: Path, aggregation: Path, labels: Path, offset: Offset = NO_OFFSET
) -> LabelledPoints:
    """Mesh vertices in file order; `instance` is ScanNet's objectId + 1, 0 = none
    (`object_groups`).

    `semantic` is the `label` of the labels mesh (nyu40 in ScanNet v2) where that exists.
    """
    ply = load_ply(mesh)
    xyz = ply.local(offset)
    groups = object_groups(aggregation)
    instance = vertex_instances(segments, groups)
    if len(instance) != len(xyz):
        raise InputError(
            f"{segments} has {len(instance)} entries but {mesh} has {len(xyz)} vertices; "
            "they belong to different meshes: get both again"
        )
    semantic = None
    if labels.is_file():
        semantic = load_ply(labels).whole("label").astype(np.int32)
        if len(semantic) != len(xyz):
            raise InputError(f"{labels} has {len(semantic)} vertices but {mesh} has {len(xyz)}")
    normal = vertex_normals(xyz, ply.triangles())
    points = Points(xyz, ply.rgb(), normal, np.ones(len(xyz), np.float32), offset)
    names = {each.id: each.name for each in groups}
    score = (instance > 0).astype(np.float32)
    return LabelledPoints(points, instance, score, semantic, names=names)


@dataclass(frozen=True, eq=False)
class ObjectGroup:
    """An object of the annotation."""

    id: int
    """objectId + 1, where no other object has it."""
    name: str
    segments: Int64[np.ndarray, " segments"]


def object_groups(aggregation: Path) -> list[ObjectGroup]:
    """The objects of an aggregation, each once; InputError where it is not ScanNet's.

    Some aggregations list objects twice, and some count objectId from 0 again: of groups with
    the same segments the first is kept, and an objectId that is in use is replaced by a new one.
    """
    stored = read_groups(aggregation)
    unused = max((each["objectId"] + 1 for each in stored), default=0) + 1
    known: set[bytes] = set()
    groups: dict[int, ObjectGroup] = {}
    for each in stored:
        number, members = each["objectId"] + 1, np.unique(np.array(each["segments"], np.int64))
        if members.tobytes() in known:
            continue
        known.add(members.tobytes())
        if number in groups:
            number, unused = unused, unused + 1
        groups[number] = ObjectGroup(number, each.get("label", "").strip(), members)
    return list(groups.values())


def vertex_instances(
    segments: Path, groups: Iterable[ObjectGroup]
) -> Int32[np.ndarray, " vertices"]:
    """Object per vertex, 0 = none, from the segment each vertex is in."""
    known, of_vertex = np.unique(read_segments(segments), return_inverse=True)
    object_of = np.zeros(len(known), np.int32)
    for group in groups:
        # An aggregation may have segments that a cropped mesh lacks.
        object_of[np.isin(known, group.segments)] = group.id
    return object_of[of_vertex]


class Group(TypedDict):
    """An object of an aggregation."""

    objectId: int
    label: NotRequired[str]
    segments: list[int]


class Aggregation(TypedDict):
    """ScanNet's and ScanNet++'s file of objects."""

    segGroups: list[Group]


def read_segments(path: Path) -> Int64[np.ndarray, " vertices"]:
    """The segment of each vertex, from ScanNet's `segIndices`."""
    content = load_json(path, kind=dict)
    with reading(path, "ScanNet's segments"):
        segment = np.asarray(content["segIndices"])
        if segment.ndim != 1 or (segment.size and segment.dtype.kind != "i"):
            raise ValueError("segIndices is not a list of whole numbers")
    return segment.astype(np.int64)


def read_groups(path: Path) -> list[Group]:
    """The objects of ScanNet's aggregation."""
    content = conforming(load_json(path), Aggregation, path, "get it again")
    groups: list[Group] = content["segGroups"]
    for each in groups:
        if not 0 <= each["objectId"] < np.iinfo(np.int32).max:
            raise InputError(f"{path}: objectId {each['objectId']} is not a number of 32 bits")
    return groups


def vertex_normals(
    xyz: Float[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"]
) -> Float32[np.ndarray, "vertices 3"]:
    """Mean of the faces' normals, weighted by area; zeros for a vertex without faces."""
    a, b, c = (xyz[faces[:, i]].astype(np.float64) for i in range(3))
    normal = np.cross(b - a, c - a)
    total = np.stack(
        [
            sum(np.bincount(faces[:, i], normal[:, axis], len(xyz)) for i in range(3)) + 0.0
            for axis in range(3)
        ],
        axis=1,
    )
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.divide(total, length, out=np.zeros_like(total), where=length > 0).astype(np.float32)
