"""Read PLY files; the counts of the header are compared with the size of the file first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from lift3d.scene.errors import InputError
from lift3d.scene.guarded import file_size, reading

_BYTES = {
    **dict.fromkeys(("char", "uchar", "int8", "uint8"), 1),
    **dict.fromkeys(("short", "ushort", "int16", "uint16"), 2),
    **dict.fromkeys(("int", "uint", "float", "int32", "uint32", "float32"), 4),
    **dict.fromkeys(("double", "float64"), 8),
}
_LONGEST_HEADER = 1 << 20


@dataclass(frozen=True, eq=False)
class Ply:
    """The elements of a PLY file."""

    path: Path
    elements: dict[str, np.ndarray]
    """One structured array per element; a property that is a list is an array of arrays."""

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


def load_ply(path: Path, expected: str = "a complete PLY mesh or cloud") -> Ply:
    """The elements of a PLY file; InputError where it is damaged or not one."""
    import plyfile

    size = file_size(path)
    with reading(path, expected):
        _check_counts(path, size)
        found = plyfile.PlyData.read(str(path))
        return Ply(path, {each.name: each.data for each in found.elements})


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
