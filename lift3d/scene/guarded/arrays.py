"""Read .npy and .npz files: no pickles, and no more memory than the file can fill."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lift3d.scene.errors import InputError
from lift3d.scene.guarded import UNPACKED, file_size, reading

ADVICE = "write it again with np.save"


def load_npy(path: Path, error: type[InputError] = InputError, advice: str = ADVICE) -> np.ndarray:
    """The array in an .npy file; `error` where it is damaged or not one."""
    size = file_size(path, error, advice)
    with reading(path, "an .npy array", error, advice), path.open("rb") as file:
        _declared(file, size)
        file.seek(0)
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def npy_shape(path: Path, error: type[InputError] = InputError) -> tuple[int, ...]:
    """The shape of the array in an .npy file, from its header."""
    size = file_size(path, error)
    with reading(path, "an .npy array", error, ADVICE), path.open("rb") as file:
        return _declared(file, size)[0]


def load_npz(
    path: Path,
    names: Sequence[str] | None = None,
    error: type[InputError] = InputError,
    advice: str = ADVICE,
) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, all or those of `names` that it has, in the order of the file."""
    size = file_size(path, error, advice)
    arrays = {}
    with reading(path, "an .npz of arrays", error, advice), zipfile.ZipFile(path) as archive:
        total = 0
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if names is not None and name not in names:
                continue
            total += member.file_size
            if total > max(UNPACKED, size):
                raise ValueError(
                    f"its arrays take more than {UNPACKED >> 30} GB when unpacked; save it with "
                    "np.savez, uncompressed"
                )
            with archive.open(member) as file:
                _declared(file, member.file_size)
            with archive.open(member) as file:
                arrays[name] = np.asarray(np.lib.format.read_array(file, allow_pickle=False))
    return arrays


def _declared(file: Any, size: int) -> tuple[tuple[int, ...], Any]:
    """Shape and dtype by the header; ValueError where `size` bytes cannot hold them."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version[0]}.{version[1]} is not an array of numbers")
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, _, dtype = read(file)
    if dtype.kind not in "?biufcSU":
        raise ValueError(f"it holds {dtype}; expected numbers")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > size - file.tell():
        raise ValueError(f"its header says {dtype} {shape}, but it has {size} bytes")
    return shape, dtype
