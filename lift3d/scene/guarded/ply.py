"""Read PLY files; the counts of the header are compared with the size of the file first."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int64, Shaped, UInt8

from lift3d.scene import Offset
from lift3d.scene.colours import eight_bit
from lift3d.scene.errors import InputError
from lift3d.scene.guarded import file_size, reading
from lift3d.scene.local_origin import local

_BYTES = {
    **dict.fromkeys(("char", "uchar", "int8", "uint8"), 1),
    **dict.fromkeys(("short", "ushort", "int16", "uint16"), 2),
    **dict.fromkeys(("int", "uint", "float", "int32", "uint32", "float32"), 4),
    **dict.fromkeys(("double", "float64"), 8),
}
_LONGEST_HEADER = 1 << 20
_FARTHEST = float(np.finfo(np.float32).max)
FARTHEST = 1e12
"""Largest coordinate: the square of more would leave float32 or the indices of cells."""
COARSEST = 0.001
"""Largest step between float32 coordinates, as a share of a cloud's extent. Chosen by hand."""
NORMALS = (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z"))
COLOURS = (
    ("red", "green", "blue"),
    ("r", "g", "b"),
    ("diffuse_red", "diffuse_green", "diffuse_blue"),
)
HARMONICS, HARMONIC = ("f_dc_0", "f_dc_1", "f_dc_2"), 0.28209479177387814
"""Colour of a splat: the harmonic of degree 0, and its constant."""


@dataclass(frozen=True, eq=False)
class Ply:
    """The elements of a PLY file."""

    path: Path
    elements: dict[str, np.ndarray]
    """One structured array per element; a property that is a list is an array of arrays."""
    comments: tuple[str, ...] = ()
    """Those of the header."""

    @property
    def vertex(self) -> np.ndarray:
        """The vertices; InputError where there is no such element."""
        if "vertex" not in self.elements:
            names = ", ".join(self.elements) or "none"
            raise InputError(f"{self.path} has no vertices (elements: {names})")
        return self.elements["vertex"]

    def names(self, element: str = "vertex") -> tuple[str, ...]:
        """The properties of an element; none where the file lacks it."""
        found = self.elements.get(element)
        return () if found is None else found.dtype.names or ()

    def column(self, name: str) -> Shaped[np.ndarray, " vertices"]:
        """A property of the vertices; InputError where it is absent or a list."""
        vertex = self.vertex
        if name not in self.names():
            raise InputError(
                f"{self.path}: vertices have {', '.join(self.names()) or 'nothing'}; "
                f"expected {name}"
            )
        if vertex.dtype[name].kind not in "biuf":
            raise InputError(f"{self.path}: {name} of the vertices is a list, not a number")
        return np.asarray(vertex[name])

    def columns(
        self, names: Sequence[str], kind: type = np.float64
    ) -> Shaped[np.ndarray, "vertices names"]:
        """Properties of the vertices side by side, as `kind`."""
        return np.stack([self.column(name).astype(kind) for name in names], axis=1)

    def first(self, choices: Collection[tuple[str, ...]]) -> tuple[str, ...] | None:
        """The first of several sets of properties that the vertices have as a whole."""
        return next((names for names in choices if set(names) <= set(self.names())), None)

    def xyz(self) -> Float64[np.ndarray, "vertices 3"]:
        """The coordinates as stored; InputError where one is absent, not finite, or too coarse."""
        names = self.vertex.dtype.names or ()
        if not set("xyz") <= set(names):
            have = ", ".join(names) or "nothing"
            raise InputError(f"{self.path}: vertices have {have}; expected x, y, z")
        xyz = self.columns("xyz")
        usable = (np.abs(xyz) <= _FARTHEST).all(1)  # False for NaN
        if not usable.all():
            bad = int(np.flatnonzero(~usable)[0])
            raise InputError(
                f"{self.path}: vertex {bad} is not finite ({xyz[bad].tolist()}); remove it"
            )
        far = np.flatnonzero((np.abs(xyz) > FARTHEST).any(1))
        if len(far):
            raise InputError(
                f"{self.path}: vertex {far[0]} is at {xyz[far[0]].tolist()}, "
                "farther than any scan; remove it"
            )
        self._check_steps(xyz)
        return xyz

    def _check_steps(self, xyz: Float64[np.ndarray, "vertices 3"]) -> None:
        """InputError where coordinates are too large for the float32 that they are stored in."""
        if not len(xyz) or self.column("x").dtype.itemsize > 4:
            return
        largest, extent = float(np.abs(xyz).max()), float(np.ptp(xyz, axis=0).max())
        step = float(np.spacing(np.float32(largest)))
        if step > COARSEST * extent > 0:
            raise InputError(
                f"{self.path} stores coordinates up to {largest:.0f} as float32, in steps of "
                f"{step:g}, and is only {extent:g} wide; save it with coordinates in double "
                "precision"
            )

    def local(self, offset: Offset) -> Float32[np.ndarray, "vertices 3"]:
        """The coordinates relative to a local origin."""
        return local(self.xyz(), offset)

    def rgb(self) -> UInt8[np.ndarray, "vertices 3"]:
        """Red, green and blue, of 8- or 16-bit or float colours, or of splats; mid grey without."""
        known = {name.lower(): name for name in reversed(self.names())}
        for names in COLOURS:
            if set(names) <= set(known):
                return eight_bit(np.stack([self.column(known[name]) for name in names], axis=1))
        if set(HARMONICS) <= set(known):
            share = 0.5 + HARMONIC * self.columns(HARMONICS)
            return eight_bit(np.clip(np.nan_to_num(share), 0, 1))
        return np.full((len(self.vertex), 3), 128, np.uint8)

    def normals(self) -> Float64[np.ndarray, "vertices 3"] | None:
        """The normals as stored, of any length; None where the vertices have none."""
        names = self.first(NORMALS)
        if names is None:
            return None
        return np.clip(np.nan_to_num(self.columns(names)), -_FARTHEST, _FARTHEST)

    def polygons(self) -> Shaped[np.ndarray, " faces"]:
        """The vertices of each face, an array of arrays; empty where there are no faces.

        InputError where a face has no such vertex.
        """
        names = self.names("face")
        name = next((name for name in ("vertex_indices", "vertex_index") if name in names), None)
        if name is None:
            return np.zeros(0, object)
        polygons = self.elements["face"][name]
        if polygons.dtype.kind != "O" or any(each.dtype.kind not in "iu" for each in polygons):
            raise InputError(f"{self.path}: {name} of the faces is not a list of whole numbers")
        corners = np.concatenate(polygons) if len(polygons) else np.zeros(0, np.int64)
        wrong = (corners < 0) | (corners >= len(self.vertex))
        if wrong.any():
            raise InputError(
                f"{self.path}: a face refers to vertex {corners[wrong][0]}, but there are "
                f"{len(self.vertex)} vertices; the mesh is damaged"
            )
        return polygons

    def triangles(self) -> Int64[np.ndarray, "triangles 3"]:
        """The faces, polygons as triangle fans; InputError where one has no such vertex."""
        polygons = self.polygons()
        sizes = np.fromiter(map(len, polygons), np.int64, len(polygons))
        fans = []
        for size in np.unique(sizes[sizes >= 3]):
            corner = np.stack(polygons[sizes == size]).astype(np.int64)
            first = np.broadcast_to(corner[:, :1], (len(corner), size - 2))
            fan = np.stack([first, corner[:, 1:-1], corner[:, 2:]], axis=-1)
            fans.append(fan.transpose(1, 0, 2).reshape(-1, 3))
        return np.concatenate(fans) if fans else np.zeros((0, 3), np.int64)

    def whole(self, name: str) -> Int64[np.ndarray, " vertices"]:
        """A property of the vertices as ids; InputError where they are no numbers of 32 bits."""
        return whole_numbers(self.column(name), f"{self.path}: {name} of the vertices")


def whole_numbers(values: np.ndarray, where: str) -> Int64[np.ndarray, "..."]:
    """Ids as integers; InputError where one has a fraction or does not fit into 32 bits.

    >>> whole_numbers(np.array([1.0, 2.0]), "a.npy")
    array([1, 2])
    """
    limits = np.iinfo(np.int32)
    fits = values.dtype.kind in "biuf" and bool(
        ((values >= limits.min) & (values <= limits.max) & (values == np.round(values))).all()
    )
    if not fits:
        raise InputError(f"{where} holds {values.dtype} {values.shape}; expected whole numbers")
    return values.astype(np.int64)


def unit_normals(
    normal: Float64[np.ndarray, "vertices 3"],
) -> Float32[np.ndarray, "vertices 3"]:
    """Normals scaled to length 1; those of length 0 stay."""
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    return np.divide(normal, length, out=np.zeros_like(normal), where=length > 0).astype(np.float32)


def load_ply(path: Path, expected: str = "PLY", advice: str = "") -> Ply:
    """The elements of a PLY file; InputError where it is damaged or not one."""
    import plyfile

    size = file_size(path, advice=advice)
    with reading(path, expected, advice=advice):
        _check_counts(path, size)
        found = plyfile.PlyData.read(str(path))
        elements = {each.name: each.data for each in found.elements}
        return Ply(path, elements, tuple(found.comments))


def _check_counts(path: Path, size: int) -> None:
    """ValueError where the file is too small for the numbers of elements in its header."""
    with path.open("rb") as file:
        header = file.read(_LONGEST_HEADER).partition(b"end_header")
    if not header[1]:
        raise ValueError("its header has no end_header")
    text, least, count = False, 0, 0
    for line in header[0].decode("latin1").splitlines():
        words = line.split()
        if words[:1] == ["format"]:
            text = words[1] == "ascii"
        elif words[:1] == ["element"]:
            count = int(words[2])
            if not 0 <= count <= size:
                raise ValueError(f"its header counts {count} of {words[1]}, it has {size} bytes")
        elif words[:1] == ["property"]:
            # Of a list, the file has at least its length. A number in a text has a separator.
            least += count * (2 if text else _BYTES[words[2 if words[1] == "list" else 1]])
    if least > size:
        raise ValueError(f"its header counts at least {least} bytes, it has {size}")
