"""Export for ObjectGS: `images/`, `object_mask/`, `sparse/0/` with labelled `points3D_corr.ply`.

Poses and pixels are as in a COLMAP project (camera-from-world, OpenCV axes, first pixel centre at
0.5), PINHOLE cameras only. ObjectGS starts from the cloud `sparse/0/points3D_corr.ply`: x y z,
normals, colours and an 8-bit `label`, in the run's world. (If the folder's path contains `scannet`
or `mipnerf360`, ObjectGS reads `points3D.ply` instead: rename the folder.)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lift3d.export.content import Content, Format, Tick, small_ids
from lift3d.export.frames import Limits, check_frames
from lift3d.export.object_masks import WIDEST, renumbered, write_masks
from lift3d.export.ply import NORMAL, RGB, XYZ
from lift3d.scene.storage import atomic

LIMITS = Limits("objectgs", coefficients=0, widest=WIDEST)


def write(content: Content, folder: Path, tick: Tick) -> list[str]:
    """Write the training folder."""
    from plyfile import PlyData, PlyElement

    numbers, notes = write_masks(content, folder, LIMITS, tick)
    points = content.cloud.points
    kinds = [(name, "<f4") for name in (*XYZ, *NORMAL)] + [(name, "u1") for name in (*RGB, "label")]
    vertex = np.empty(len(points), np.dtype(kinds))
    for names, values in ((XYZ, points.xyz), (NORMAL, points.normal), (RGB, points.rgb)):
        for column, name in enumerate(names):
            vertex[name] = values[:, column]
    vertex["label"] = renumbered(content.cloud.instance, numbers)
    with atomic(folder / "sparse/0/points3D_corr.ply") as part:
        PlyData([PlyElement.describe(vertex, "vertex")], byte_order="<").write(str(part))
    return notes


def check(content: Content) -> None:
    """Check cameras and ids."""
    check_frames(content, LIMITS)
    small_ids(content, LIMITS.where)


FORMAT = Format(
    name="objectgs",
    about="COLMAP project with object_mask/ and a labelled start cloud, 8-bit",
    files="the same, and `sparse/0/points3D_corr.ply` with `label`",
    frames="as `colmap`",
    first_pixel="0.5, 0.5",
    limits="255 objects; undistorted; 1600 pixels wide",
    read_by="ObjectGS",
    write=write,
    check=check,
    pictures=True,
)
