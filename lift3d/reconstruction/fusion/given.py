"""Read the vertices of an existing mesh or cloud, in file order."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lift3d.datasets.scannet_surface import vertex_normals
from lift3d.scene import NO_OFFSET, Offset, Points
from lift3d.scene.errors import InputError
from lift3d.scene.guarded.ply import load_ply, unit_normals


def given_points(path: Path, offset: Offset = NO_OFFSET) -> Points:
    """Vertices of a PLY, in file order, so that labels can be written back to them.

    Normals come from the file, else from its faces (weighted by area), else they are zero.
    Colours of 16 bits or floats are scaled to 8 bits; without colours points are mid grey.
    Every point has confidence 1. The file has world coordinates, the result is relative to
    `offset`. Raises InputError if the file is no PLY with vertices, or if its coordinates are too
    large for the float32 that they are stored in.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a PLY with the points to label")
    ply = load_ply(path)
    xyz = ply.xyz()
    if not len(xyz):
        raise InputError(f"{path} has 0 vertices; expected the points to label")
    stored = ply.normals()
    # Relative to the offset: products of large coordinates would lose digits.
    normal = (
        vertex_normals(xyz - offset, ply.triangles()) if stored is None else unit_normals(stored)
    )
    return Points(ply.local(offset), ply.rgb(), normal, np.ones(len(xyz), np.float32), offset)
