"""Read the vertices of an existing mesh or cloud, in file order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64

from lift3d.datasets.vertices import check_steps, columns, vertex_colours
from lift3d.scene import NO_OFFSET, Offset, Points
from lift3d.scene.errors import InputError

NORMALS = (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z"))


def given_points(path: Path, offset: Offset = NO_OFFSET) -> Points:
    """Vertices of a PLY, in file order, so that labels can be written back to them.

    Normals come from the file, else from its faces (weighted by area), else they are zero.
    Colours of 16 bits or floats are scaled to 8 bits; without colours points are mid grey.
    Every point has confidence 1. The file has world coordinates, the result is relative to
    `offset`. Raises InputError if the file is no PLY with vertices, or if its coordinates are too
    large for the float32 that they are stored in.
    """
    import plyfile

    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a PLY with the points to label")
    try:
        ply = plyfile.PlyData.read(str(path))
    except (plyfile.PlyParseError, UnicodeDecodeError, ValueError, EOFError) as error:
        raise InputError(
            f"{path} cannot be read as PLY ({error}); expected a complete .ply mesh or cloud"
        ) from error
    names = [element.name for element in ply.elements]
    if "vertex" not in names:
        raise InputError(f"{path} has no vertices (elements: {', '.join(names) or 'none'})")
    vertex = ply["vertex"].data
    fields = vertex.dtype.names or ()
    if not {"x", "y", "z"} <= set(fields):
        raise InputError(f"{path}: vertices have {', '.join(fields)}; expected x, y, z")
    if not len(vertex):
        raise InputError(f"{path} has 0 vertices; expected the points to label")
    xyz = columns(vertex, ("x", "y", "z"))
    if not np.isfinite(xyz).all():
        bad = int(np.flatnonzero(~np.isfinite(xyz).all(1))[0])
        raise InputError(f"{path}: vertex {bad} is not finite ({xyz[bad].tolist()}); remove it")
    check_steps(path, vertex, xyz)
    xyz = xyz - offset
    return Points(
        xyz.astype(np.float32),
        vertex_colours(vertex),
        _normals(path, ply, xyz, names),
        np.ones(len(xyz), np.float32),
        offset,
    )


def _normals(
    path: Path, ply: Any, xyz: Float64[np.ndarray, "points 3"], elements: list[str]
) -> Float32[np.ndarray, "points 3"]:
    vertex = ply["vertex"].data
    normal = np.zeros((len(xyz), 3))
    for names in NORMALS:
        if set(names) <= set(vertex.dtype.names or ()):
            normal = np.nan_to_num(columns(vertex, names))
            break
    else:
        if "face" in elements:
            triangles = _triangles(ply["face"])
            if triangles.size and not (triangles.min() >= 0 and triangles.max() < len(xyz)):
                raise InputError(
                    f"{path}: a face refers to vertex {triangles.max()}, but there are "
                    f"{len(xyz)} vertices; the mesh is damaged"
                )
            a, b, c = (xyz[triangles[:, k]] for k in range(3))
            for axis, area in enumerate(np.cross(b - a, c - a).T):
                for corner in triangles.T:
                    normal[:, axis] += np.bincount(corner, area, minlength=len(xyz))
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    unit = np.divide(normal, length, out=np.zeros_like(normal), where=length > 0)
    return unit.astype(np.float32)


def _triangles(face: Any) -> Int64[np.ndarray, "triangles 3"]:
    """The faces; polygons are split into triangle fans."""
    names = face.data.dtype.names or ()
    name = next((name for name in ("vertex_indices", "vertex_index") if name in names), None)
    if name is None or not len(face.data):
        return np.zeros((0, 3), np.int64)
    polygons = face.data[name]
    sizes = np.fromiter(map(len, polygons), np.int64, len(polygons))
    fans = []
    for size in np.unique(sizes[sizes >= 3]):
        group = np.stack(polygons[sizes == size]).astype(np.int64)
        fans += [group[:, [0, k, k + 1]] for k in range(1, size - 1)]
    return np.concatenate(fans) if fans else np.zeros((0, 3), np.int64)
