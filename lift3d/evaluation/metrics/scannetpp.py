"""ScanNet++'s truth: a mesh, its segments, and the annotated objects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32

from lift3d.datasets.poses import numbers
from lift3d.datasets.scannet_surface import read_groups, read_segments
from lift3d.scene import NO_OFFSET, Offset
from lift3d.scene.errors import InputError
from lift3d.scene.guarded import load_text
from lift3d.scene.guarded.ply import load_ply

MESH, SEGMENTS, OBJECTS = "mesh_aligned_0.05.ply", "segments.json", "segments_anno.json"
MASKED = "mesh_aligned_0.05_mask.txt"
"""File with the vertices that are not evaluated: behind glass, badly scanned."""
CLASSES = ("metadata/semantic_benchmark/top100_instance.txt", "top100_instance.txt")
STRUCTURE = ("wall", "floor", "ceiling")


@dataclass(frozen=True, eq=False)
class ScanNetPlusPlus:
    """True objects on the evaluated vertices."""

    points: Float32[np.ndarray, "vertices 3"]
    instance: Int32[np.ndarray, " vertices"]
    """Ids from 1 in file order; 0 = no object or an object that is not evaluated."""
    protocol: str
    names: dict[int, str]
    notes: tuple[str, ...]


def is_scannetpp(folder: Path) -> Path | None:
    """The folder with the annotation: `folder` or its `scans`; None if neither has it."""
    places = (folder, folder / "scans")
    return next((each for each in places if (each / OBJECTS).is_file()), None)


def read_scannetpp(folder: Path, offset: Offset = NO_OFFSET) -> ScanNetPlusPlus:
    """The truth of one scene, without classes; points are relative to `offset`.

    A vertex of several objects is assigned to the smallest. The evaluated classes are read from
    `top100_instance.txt` in a folder above the scene; without that file, all objects except
    walls, floors and ceilings are evaluated.
    """
    xyz = load_ply(folder / MESH).local(offset)
    segment = read_segments(folder / SEGMENTS)
    groups = read_groups(folder / OBJECTS)
    names = {number: each.get("label", "") for number, each in enumerate(groups, start=1)}
    members = {
        number: np.isin(segment, each["segments"]) for number, each in enumerate(groups, start=1)
    }
    if len(segment) != len(xyz):
        raise InputError(f"{folder / SEGMENTS} has {len(segment)} entries, {MESH} {len(xyz)}")
    listed = _class_names(folder)
    evaluated = {n for n, name in names.items() if (name in listed if listed else _object(name))}
    instance = np.zeros(len(xyz), np.int32)
    sizes = {number: int(mask.sum()) for number, mask in members.items()}
    for number in sorted(members, key=lambda each: (-sizes[each], each)):
        instance[members[number]] = number
    several = int((np.sum(list(members.values()), axis=0) > 1).sum()) if members else 0
    notes = [f"{several:,} vertices of several objects given to the smallest"] if several else []
    instance[~np.isin(instance, list(evaluated))] = 0
    kept = np.ones(len(xyz), bool)
    if (folder / MASKED).is_file():
        masked = numbers(load_text(folder / MASKED), str(folder / MASKED))
        if not np.isin(masked, np.arange(len(xyz))).all():
            raise InputError(f"{folder / MASKED} names vertices that {MESH} has not")
        kept[masked.astype(np.int64)] = False
        notes.append(f"{int((~kept).sum()):,} vertices left out by {MASKED}")
    protocol = (
        f"class-agnostic ScanNet++: {len(listed)} instance classes folded into one"
        if listed
        else "class-agnostic ScanNet++: every annotated object but walls, floors and ceilings"
    )
    return ScanNetPlusPlus(xyz[kept], instance[kept], protocol, names, tuple(notes))


def _object(name: str) -> bool:
    return name.strip().lower() not in STRUCTURE


def _class_names(folder: Path) -> set[str]:
    here = folder.resolve()
    for place in (here, *list(here.parents)[:4]):
        for name in CLASSES:
            if (place / name).is_file():
                lines = load_text(place / name).splitlines()
                return {line.strip() for line in lines if line.strip()}
    return set()
