"""Read ground truth: true objects and classes on points, from any supported source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32

from lift3d.datasets import read_scene
from lift3d.datasets.poses import numbers
from lift3d.datasets.scannet_surface import STRUCTURE
from lift3d.evaluation.metrics.annotation import Annotation, read_annotation
from lift3d.evaluation.metrics.classes import BENCHMARKS
from lift3d.evaluation.metrics.scannetpp import is_scannetpp, read_scannetpp
from lift3d.reconstruction.fusion import given_points
from lift3d.scene import LabelledPoints, Scene
from lift3d.scene.errors import InputError
from lift3d.scene.guarded import load_text
from lift3d.scene.guarded.arrays import load_npy
from lift3d.scene.guarded.ply import load_ply, whole_numbers

LABEL_PROPERTIES = ("instance", "label", "object_id", "objectId", "instance_id")
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

        If `void_classes` are those of nyu40 but labels exceed 40, the labels are ScanNet's raw ids
        and the raw ids of wall, floor and ceiling are used.
        """
        instance = surface.instance.copy()
        protocol = "class-agnostic, every true instance"
        if surface.semantic is not None and void_classes:
            if void_classes == STRUCTURE and surface.semantic.max(initial=0) > 40:
                void_classes = RAW_STRUCTURE
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
    """True ids on points, from a PLY, a list with one id per point of `cloud`, or a scan."""
    if path.is_dir() or not path.suffix:
        return _scan(path, table)
    semantic = None
    if path.suffix == ".ply":
        points, ids = given_points(path), _property(path, LABEL_PROPERTIES)
        semantic = _property(path, ("semantic",), needed=False)
    elif path.suffix in (".txt", ".npy") and cloud is not None:
        points, ids = cloud.points, read_ids(path)
        if len(ids) != len(points):
            raise InputError(
                f"{path} has {len(ids)} ids, but the run's cloud has {len(points)} points; "
                "expected one id per point in the cloud's order (lift with --cloud to keep the "
                "order of your own points)"
            )
    else:
        raise InputError(f"{path}: truth is a .ply, .txt, .npy or a ScanNet scene folder")
    assert ids is not None
    # Many datasets use negative ids for unlabelled points.
    ids = np.maximum(ids, 0)
    return Truth(points.xyz, ids, "class-agnostic, every id above 0", semantic=semantic)


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


def _scan(path: Path, table: Path | None) -> Truth:
    """The truth of a ScanNet or ScanNet++ folder, or of any scan with a true surface."""
    name, other = scannet_scene(path), is_scannetpp(path)
    if name is not None:
        return Truth.of_annotation(read_annotation(path, name, table))
    if other is not None:
        found = read_scannetpp(other)
        return Truth(found.points, found.instance, found.protocol, notes=found.notes)
    scene = read_scene(path)
    load: Callable[[], LabelledPoints] | None = scene.load_surface
    if load is None:
        raise InputError(
            f"{path} has no annotation; expected a ScanNet scene folder with "
            "*_vh_clean_2.ply, *.segs.json and *.aggregation.json, or a .ply, .txt or .npy"
        )
    return replace(Truth.of_surface(load(), scene.void_classes), scene=scene)


def _property(
    path: Path, names: tuple[str, ...], needed: bool = True
) -> Int32[np.ndarray, " vertices"] | None:
    """The first of the vertex properties `names` that a PLY has."""
    ply = load_ply(path)
    for name in names:
        if name in ply.names():
            return ply.whole(name).astype(np.int32)
    if not needed:
        return None
    raise InputError(
        f"{path}: vertices have {', '.join(ply.names())}; expected their ids as one "
        f"of {', '.join(names)}"
    )


def _integers(ids: np.ndarray, path: Path) -> Int32[np.ndarray, " ids"]:
    if ids.ndim != 1:
        raise InputError(f"{path}: expected one integer per point, got shape {ids.shape}")
    return whole_numbers(ids, str(path)).astype(np.int32)
