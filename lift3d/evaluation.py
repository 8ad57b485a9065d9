"""A run against the truth: what to compare with, and how labels get to its vertices."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from lift3d.datasets.scannet_surface import STRUCTURE, surface_loader
from lift3d.errors import InputError
from lift3d.export.ply import read_cloud
from lift3d.fusion import given_points
from lift3d.metrics.scannet import class_agnostic
from lift3d.runs import read_json
from lift3d.scene import LabelledPoints
from lift3d.selection import open_scene
from lift3d.storage import atomic

LABEL_PROPERTIES = ("instance", "label", "object_id", "objectId", "instance_id")
REACH = 0.1
"""A vertex further than this from every point of the cloud (in metres) stays unlabelled."""


@dataclass(frozen=True, eq=False)
class Truth:
    """True objects on points."""

    points: Float32[np.ndarray, "vertices 3"]
    instance: Int32[np.ndarray, " vertices"]
    """0 is void: nothing is asked there."""
    protocol: str
    """What is asked for, in words."""

    @staticmethod
    def of_surface(surface: LabelledPoints, void_classes: tuple[int, ...]) -> Truth:
        """Every instance of the surface but those of `void_classes`."""
        instance = surface.instance.copy()
        protocol = "class-agnostic, every true instance"
        if surface.semantic is not None and void_classes:
            instance[np.isin(surface.semantic, void_classes)] = 0
            protocol += " but walls, floor and ceiling"
        return Truth(surface.points.xyz, instance, protocol)


def evaluate(folder: Path, truth: Path) -> dict[str, Any]:
    """Scores of the run in `folder`, also written to `evaluation.json` there."""
    consistency = read_json(folder, "consistency.json")
    cloud = read_cloud(folder / "cloud.ply")
    found = {
        "truth": str(truth),
        **score(cloud, confidences(folder / "instances.json"), read_truth(truth, cloud)),
        "consistency": consistency["printed"],
    }
    with atomic(folder / "evaluation.json") as part:
        part.write_text(json.dumps(found, indent=1))
    return found


def score(cloud: LabelledPoints, confidence: dict[int, float], truth: Truth) -> dict[str, Any]:
    """AP, AP50, AP25 and the protocol in words; None where there is nothing to find."""
    predicted = at_vertices(cloud, truth.points)
    found = class_agnostic(truth.instance, predicted, confidence, _protocol(truth))
    return found.summary()


def _protocol(truth: Truth) -> str:
    objects = len(np.unique(truth.instance[truth.instance > 0]))
    return f"{truth.protocol} ({objects}), on {len(truth.points):,} true points"


def confidences(path: Path) -> dict[int, float]:
    """How well the views support each instance, from `instances.json`."""
    listed = read_json(path.parent, path.name)
    return {int(each["id"]): float(each["confidence"]) for each in listed["instances"]}


def read_truth(path: Path, cloud: LabelledPoints) -> Truth:
    """True ids on points: of a PLY, of a list with one id per point of `cloud`, of ScanNet."""
    if path.is_dir() or not path.suffix:
        return _surface(path)
    if path.suffix == ".ply":
        points, ids = given_points(path), _property(path)
    elif path.suffix in (".txt", ".npy"):
        points, ids = cloud.points, _listed(path)
        if len(ids) != len(points):
            raise InputError(
                f"{path} has {len(ids)} ids, but the run's cloud has {len(points)} points; "
                "expected one id per point in the cloud's order (lift with --cloud to keep the "
                "order of your own points)"
            )
    else:
        raise InputError(f"{path}: truth is a .ply, .txt, .npy or a ScanNet scene folder")
    # Below 0 is nothing in many sets.
    return Truth(points.xyz, np.maximum(ids, 0), "class-agnostic, every id above 0")


def _surface(path: Path) -> Truth:
    """The surface of a ScanNet folder, or of any scan whose reader knows one."""
    meshes = sorted(path.glob("*_vh_clean_2.ply")) if path.is_dir() else []
    if len(meshes) == 1:
        load = surface_loader(path, meshes[0].name.removesuffix("_vh_clean_2.ply"))
        void_classes: tuple[int, ...] = STRUCTURE
    else:
        scene = open_scene(path)
        load, void_classes = scene.load_surface, scene.void_classes
    if load is None:
        raise InputError(
            f"{path} has no annotation; expected a ScanNet scene folder with "
            "*_vh_clean_2.ply, *.segs.json and *.aggregation.json, or a .ply, .txt or .npy"
        )
    return Truth.of_surface(load(), void_classes)


def _property(path: Path) -> Int32[np.ndarray, " vertices"]:
    """The ids that the vertices of a PLY carry."""
    from plyfile import PlyData

    vertex = PlyData.read(str(path))["vertex"].data
    for name in LABEL_PROPERTIES:
        if name in (vertex.dtype.names or ()):
            return _whole(np.asarray(vertex[name]), path)
    raise InputError(
        f"{path}: vertices have {', '.join(vertex.dtype.names or ())}; expected their ids as one "
        f"of {', '.join(LABEL_PROPERTIES)}"
    )


def _listed(path: Path) -> Int32[np.ndarray, " points"]:
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    try:
        ids = np.load(path) if path.suffix == ".npy" else np.loadtxt(path, ndmin=1)
    except ValueError as error:
        raise InputError(f"{path}: expected one whole number per line ({error})") from error
    return _whole(ids, path)


def _whole(ids: np.ndarray, path: Path) -> Int32[np.ndarray, " ids"]:
    if ids.ndim != 1 or not np.array_equal(ids, np.round(ids)):
        raise InputError(f"{path}: expected one whole number per point, got shape {ids.shape}")
    return ids.astype(np.int32)


def at_vertices(
    cloud: LabelledPoints, xyz: Float32[np.ndarray, "vertices 3"]
) -> Int32[np.ndarray, " vertices"]:
    """The instance of the nearest point of the cloud at each vertex; 0 where none is near."""
    from scipy.spatial import cKDTree

    if np.array_equal(cloud.points.xyz, xyz):
        return cloud.instance
    distance, nearest = cKDTree(cloud.points.xyz).query(xyz, distance_upper_bound=REACH)
    found = np.isfinite(distance)
    instance = np.zeros(len(xyz), np.int32)
    instance[found] = cloud.instance[nearest[found]]
    return instance
