"""Export a 3D Gaussian splat PLY, initialised from the cloud as in 3DGS.

One Gaussian per point, in the run's world and unit: centre at the point; colour by the degree-0
harmonic `f_dc = (rgb - 0.5) / 0.28209479`, other harmonics 0 (channel-major); scale the log of the
root mean square distance to the three nearest points; rotation the identity (w x y z); opacity the
logit of 0.1. Float32, binary little endian. There are no cameras, so no pixel origin.

Labels are written to `labels.npy`, one int32 per Gaussian in order, because some viewers fail on
unknown properties; --label-property also writes them as the last property `label`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float32

from lift3d.export.colmap import write_npy
from lift3d.export.content import Content, Format, Tick
from lift3d.scene import LabelledPoints
from lift3d.scene.errors import InputError
from lift3d.scene.storage import atomic

C0 = 0.28209479177387814
"""The constant of the harmonic of degree 0."""
OPACITY = 0.1
"""Initial opacity, as in 3DGS."""
NAMES = (
    *("x", "y", "z", "nx", "ny", "nz"),
    *(f"f_dc_{i}" for i in range(3)),
    *(f"f_rest_{i}" for i in range(45)),
    "opacity",
    *(f"scale_{i}" for i in range(3)),
    *(f"rot_{i}" for i in range(4)),
)
"""Properties of a 3DGS PLY of degree 3, in the order that readers expect."""


def write(content: Content, folder: Path, tick: Tick) -> list[str]:
    """Write `point_cloud.ply` and `labels.npy`."""
    write_splat(folder / "point_cloud.ply", content.cloud, content.options.label_property)
    write_npy(folder / "labels.npy", content.cloud.instance)
    tick(1, 1)
    return []


def write_splat(path: Path, cloud: LabelledPoints, label_property: bool = False) -> None:
    """Write the Gaussians of a cloud."""
    from plyfile import PlyData, PlyElement

    points = cloud.points
    kinds = [(name, "<f4") for name in NAMES] + [("label", "<i4")] * label_property
    vertex = np.zeros(len(cloud), np.dtype(kinds))
    for axis, name in enumerate("xyz"):
        vertex[name] = points.xyz[:, axis]
        vertex[f"f_dc_{axis}"] = (points.rgb[:, axis] / 255 - 0.5) / C0
        vertex[f"scale_{axis}"] = np.log(sizes(points.xyz)) if axis == 0 else vertex["scale_0"]
    vertex["opacity"] = np.log(OPACITY / (1 - OPACITY))
    vertex["rot_0"] = 1
    if label_property:
        vertex["label"] = cloud.instance
    with atomic(path) as part:
        PlyData([PlyElement.describe(vertex, "vertex")], byte_order="<").write(str(part))


def sizes(xyz: Float32[np.ndarray, "points 3"]) -> Float32[np.ndarray, " points"]:
    """Root mean square distance to the three nearest other points; always above 0."""
    from scipy.spatial import cKDTree

    distance, _ = cKDTree(xyz).query(xyz, k=range(2, min(4, len(xyz)) + 1))
    mean_square = np.maximum((np.asarray(distance) ** 2).mean(1), 1e-7)
    return np.sqrt(mean_square).astype(np.float32)


def check(content: Content) -> None:
    """Check that there are two points, as sizes come from the nearest points."""
    if len(content.cloud) < 2:
        raise InputError(f"splat: the cloud has {len(content.cloud)} points; expected 2 or more")


FORMAT = Format(
    name="splat",
    about="3DGS PLY initialised from the cloud, labels beside it",
    files="`point_cloud.ply` as 3DGS initialises it, `labels.npy`",
    frames="the run's world",
    first_pixel="no cameras",
    limits="2 points or more",
    read_by="3DGS viewers and trainers, plyfile",
    write=write,
    check=check,
)
