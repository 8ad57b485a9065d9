"""Read ground truth: true objects and classes on points, from any supported source."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32

from lift3d.datasets import read_scene
from lift3d.datasets.poses import numbers
from lift3d.datasets.scannet_surface import STRUCTURE
from lift3d.evaluation.metrics.annotation import Annotation, label_convention, read_annotation
from lift3d.evaluation.metrics.classes import BENCHMARKS
from lift3d.evaluation.metrics.scannetpp import is_scannetpp, read_scannetpp
from lift3d.reconstruction.fusion import given_points
from lift3d.scene import NO_OFFSET, LabelledPoints, Offset, Scene
from lift3d.scene.errors import InputError
from lift3d.scene.guarded import load_text
from lift3d.scene.guarded.arrays import load_npy
from lift3d.scene.guarded.ply import Ply, load_ply, whole_numbers
from lift3d.scene.local_origin import at_offset

OBJECTS = (
    *("instance", "instanceid", "instancelabel", "instances", "objectid", "object", "objid"),
    *("label", "labels", "id"),
)
"""Names of a property with true objects, as `_plain` gives them; the first found counts."""
CLASSES = (
    *("semantic", "semanticid", "semanticlabel", "class", "classid", "category", "categoryid"),
    *("nyu40", "nyu40id", "classification", "label"),
)
"""The same with true classes; `label` where the objects have a property of their own."""
NO_OBJECT = {
    *("", "none", "void", "background", "ignore", "unknown", "nan"),
    *("unlabelled", "unlabeled", "unannotated", "undefined"),
}
"""Names that stand for no object."""
MESH = "_vh_clean_2.ply"
RAW_STRUCTURE = (1, 3, 41)
"""Raw ScanNet ids of wall, floor and ceiling."""


@dataclass(frozen=True, eq=False)
class ProtocolTruth:
    """The true objects of one protocol."""

    protocol: str
    """The protocol in words; scores of different protocols are not comparable."""
    instance: Int32[np.ndarray, " vertices"]
    """0 is void: not evaluated."""


@dataclass(frozen=True, eq=False)
class Truth:
    """True objects on points."""

    points: Float32[np.ndarray, "vertices 3"]
    instance: Int32[np.ndarray, " vertices"]
    """0 is void: not evaluated."""
    protocol: str
    """The protocol in words."""
    everything: Int32[np.ndarray, " vertices"] | None = None
    """All ids, including those that `instance` excludes; None if not known."""
    semantic: Int32[np.ndarray, " vertices"] | None = None
    """True classes in the ids of the truth's source; None if it has no classes."""
    annotation: Annotation | None = None
    """Classes in the benchmarks' ids, if the truth is a ScanNet scan."""
    notes: tuple[str, ...] = ()
    """Remarks for the user, such as the convention of the labels."""
    scene: Scene | None = None
    """The scene, if its views may have true label maps."""

    @staticmethod
    def of_surface(surface: LabelledPoints, void_classes: tuple[int, ...]) -> Truth:
        """Every instance of the surface except those of `void_classes`.

        If `void_classes` are those of nyu40 but the labels are ScanNet's raw ids
        (`label_convention`), the raw ids of wall, floor and ceiling are used.
        """
        instance = surface.instance.copy()
        protocol = "class-agnostic, every true instance"
        if surface.semantic is not None and void_classes:
            if void_classes == STRUCTURE:
                names = surface.names or {}
                convention, _ = label_convention(surface.semantic, surface.instance, names)
                void_classes = RAW_STRUCTURE if convention == "raw" else STRUCTURE
            instance[np.isin(surface.semantic, void_classes)] = 0
            protocol += " but walls, floor and ceiling"
        xyz, semantic = surface.points.xyz, surface.semantic
        return Truth(xyz, instance, protocol, surface.instance, semantic)

    @staticmethod
    def of_annotation(annotation: Annotation) -> Truth:
        """The truth of a ScanNet scan, with labels in nyu40 or raw ids."""
        instance, protocol = annotation.instance.copy(), "class-agnostic, every true instance"
        for label, structure in ((annotation.nyu40, STRUCTURE), (annotation.raw, RAW_STRUCTURE)):
            if label is not None:
                instance[np.isin(label, structure)] = 0
                protocol = "class-agnostic, every true instance but walls, floor and ceiling"
                break
        return Truth(
            annotation.points.xyz,
            instance,
            protocol,
            annotation.instance,
            annotation=annotation,
            notes=annotation.notes,
        )

    def protocols(self) -> list[ProtocolTruth]:
        """The truth of every available class-agnostic protocol, the benchmarks' first."""
        found = []
        for benchmark in BENCHMARKS.values():
            label = None if self.annotation is None else self.annotation.classes(benchmark)
            if self.annotation is not None and label is not None:
                own = np.where(np.isin(label, benchmark.things), self.annotation.instance, 0)
                found.append(ProtocolTruth(benchmark.class_agnostic, own.astype(np.int32)))
        return [*found, ProtocolTruth(self.protocol, self.instance)]


def read_truth(path: Path, cloud: LabelledPoints | None = None, table: Path | None = None) -> Truth:
    """True ids on points, from a PLY, a list with one id per point of `cloud`, or a scan.

    The source has world coordinates; the truth is relative to the local origin of `cloud`.
    """
    offset = NO_OFFSET if cloud is None else cloud.points.offset
    if path.is_dir() or not path.suffix:
        return _scan(path, table, offset)
    semantic: Int32[np.ndarray, " vertices"] | None = None
    notes: tuple[str, ...] = ()
    if path.suffix.lower() == ".ply":
        points = given_points(path, offset)
        ids, semantic, notes = _labels_of_ply(path)
    elif path.suffix in (".txt", ".npy") and cloud is not None:
        points = cloud.points
        ids, notes = _listed(path)
        if len(ids) != len(points):
            raise InputError(
                f"{path} has {len(ids)} ids, but the run's cloud has {len(points)} points; "
                "expected one id per point in the cloud's order (lift with --cloud to keep the "
                "order of your own points)"
            )
    else:
        raise InputError(f"{path}: truth is a .ply, .txt, .npy or a ScanNet scene folder")
    # Many datasets use negative ids for unlabelled points.
    ids = np.maximum(ids, 0)
    protocol = "class-agnostic, every id above 0"
    return Truth(points.xyz, ids, protocol, semantic=semantic, notes=notes)


def scannet_scene(path: Path) -> str | None:
    """The name of the ScanNet scan in this folder; None unless it has exactly one mesh."""
    meshes = sorted(path.glob(f"*{MESH}")) if path.is_dir() else []
    return meshes[0].name.removesuffix(MESH) if len(meshes) == 1 else None


def read_ids(path: Path) -> Int32[np.ndarray, " points"]:
    """Read ids from a text file with one integer per line, or from an .npy array."""
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    if path.suffix == ".npy":
        ids = load_npy(path)
    else:
        lines = (line.partition("#")[0] for line in load_text(path).splitlines())
        ids = numbers("\n".join(lines), str(path))
    return _integers(ids, path)


def _scan(path: Path, table: Path | None, offset: Offset) -> Truth:
    """The truth of a ScanNet or ScanNet++ folder, or of any scan with a true surface."""
    name, other = scannet_scene(path), is_scannetpp(path)
    if name is not None:
        return Truth.of_annotation(read_annotation(path, name, table, offset))
    if other is not None:
        found = read_scannetpp(other, offset)
        return Truth(found.points, found.instance, found.protocol, notes=found.notes)
    scene = at_offset(read_scene(path), offset)
    load: Callable[[], LabelledPoints] | None = scene.load_surface
    if load is None:
        raise InputError(
            f"{path} has no annotation; expected a ScanNet scene folder with "
            "*_vh_clean_2.ply, *.segs.json and *.aggregation.json, or a .ply, .txt or .npy"
        )
    return replace(Truth.of_surface(load(), scene.void_classes), scene=scene)


def _listed(path: Path) -> tuple[Int32[np.ndarray, " points"], tuple[str, ...]]:
    """Ids from a list of numbers or of names, with notes."""
    names = _names(path)
    if names is None:
        return read_ids(path), ()
    known = sorted({name for name in names if name.lower() not in NO_OBJECT})
    number = {name: index for index, name in enumerate(known, start=1)}
    few = ", ".join(known[:5]) + ", ..." * (len(known) > 5)
    note = f"{path.name}: {len(known)} names, each taken as one object ({few})"
    return np.array([number.get(name, 0) for name in names], np.int32), (note,)


def _names(path: Path) -> list[str] | None:
    """One name per point; None where the file has numbers."""
    if path.suffix == ".npy":
        stored = load_npy(path)
        if stored.dtype.kind not in "US" or stored.ndim != 1:
            return None
        names = [str(name).strip() for name in stored.astype(str)]
    else:
        names = [line.strip() for line in load_text(path).splitlines()]
    return names if any(names) and not any(map(_is_number, names)) else None


def _is_number(text: str) -> bool:
    try:
        float(text.partition(" ")[0])
    except ValueError:
        return False
    return text.lower() not in NO_OBJECT


def _labels_of_ply(
    path: Path,
) -> tuple[Int32[np.ndarray, " vertices"], Int32[np.ndarray, " vertices"] | None, tuple[str, ...]]:
    """True objects and classes of the vertices, with notes on where they are from."""
    ply = load_ply(path)
    for element in ("vertex", "face"):
        objects = _found(ply.names(element), OBJECTS)
        if objects is None:
            continue
        classes = _found(ply.names(element), CLASSES)
        classes = None if classes == objects else classes
        notes: tuple[str, ...] = ()
        if element == "face":
            notes = (f"{path.name}: {objects} of the faces, given to their vertices by majority",)
        elif _plain(objects) not in OBJECTS:
            notes = (f"{path.name}: {objects} taken as the objects",)
        read = _of_faces if element == "face" else _of_vertices
        semantic = None if classes is None else read(ply, classes)
        return read(ply, objects), semantic, notes
    raise InputError(
        f"{path}: vertices have {', '.join(ply.names())}; expected their ids as one "
        "of instance, object_id, label, on vertices or faces, also as CloudCompare's scalar_label"
    )


def _plain(name: str) -> str:
    """A property's name without CloudCompare's prefix, case and underscores.

    >>> _plain("scalar_Instance_ID")
    'instanceid'
    """
    return re.sub(r"[_ ]", "", name.lower().removeprefix("scalar_"))


def _found(fields: Sequence[str], names: tuple[str, ...]) -> str | None:
    """The property with one of the names; for objects else the only scalar of CloudCompare."""
    plain = {_plain(field): field for field in reversed(fields)}
    known = next((plain[name] for name in names if name in plain), None)
    scalars = [field for field in fields if field.lower().startswith("scalar_")]
    if known is None and names is OBJECTS and len(scalars) == 1:
        return scalars[0]
    return known


def _of_vertices(ply: Ply, name: str) -> Int32[np.ndarray, " vertices"]:
    return _integers(ply.column(name), ply.path)


def _of_faces(ply: Ply, name: str) -> Int32[np.ndarray, " vertices"]:
    """Ids of the faces, given to their vertices."""
    ids, polygons = _integers(ply.elements["face"][name], ply.path), ply.polygons()
    if len(polygons) != len(ids):
        raise InputError(
            f"{ply.path}: its faces have no vertex_indices, so their ids cannot be placed"
        )
    return _at_vertices(ids, list(polygons), len(ply.vertex))


def _at_vertices(
    label: Int32[np.ndarray, " faces"], corners: list[np.ndarray], vertices: int
) -> Int32[np.ndarray, " vertices"]:
    """The most frequent label of the faces at each vertex, the smaller one of two; 0 without."""
    known, index = np.unique(label, return_inverse=True)
    kinds = max(len(known), 1)
    vertex = np.concatenate([*corners, np.zeros(0, np.int64)]).astype(np.int64)
    of_corner = np.repeat(index, [len(each) for each in corners])
    pairs, counts = np.unique(vertex * kinds + of_corner, return_counts=True)
    place, number = np.divmod(pairs, kinds)
    order = np.lexsort((-number, counts))  # the best is written last
    found = np.zeros(vertices, np.int32)
    found[place[order]] = known[number[order]]
    return found


def _integers(ids: np.ndarray, path: Path) -> Int32[np.ndarray, " ids"]:
    """Whole numbers as int32, larger ones numbered anew; NaN (CloudCompare: missing) is 0."""
    if ids.ndim != 1:
        raise InputError(f"{path}: expected one integer per point, got shape {ids.shape}")
    if ids.dtype.kind == "f":
        ids = np.where(np.isnan(ids), 0, ids)
    if ids.size and ids.dtype.kind in "uif" and bool((ids == np.round(ids)).all()):
        low, high = float(ids.min()), float(ids.max())
        if np.isfinite((low, high)).all() and not -(2**31) <= low <= high < 2**31:
            known, index = np.unique(np.maximum(ids, 0), return_inverse=True)
            return (index + (known[0] != 0)).astype(np.int32)
    return whole_numbers(ids, str(path)).astype(np.int32)
