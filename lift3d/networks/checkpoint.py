"""Load PyTorch checkpoints safely: no code in the file is run, names and shapes are checked."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lift3d.scene.errors import InputError
from lift3d.scene.guarded import file_size
from lift3d.scene.printing import is_text

if TYPE_CHECKING:
    from torch import Tensor


def read_checkpoint(path: Path, advice: str, allowed: Sequence[type] = ()) -> Any:
    """The content of the file, with tensors memory-mapped; only the classes `allowed` are loaded.

    Raises InputError, ending with `advice`, where it is not a checkpoint or would run code.
    """
    import torch

    file_size(path, advice=advice)  # a pipe would be waited for
    try:
        mapped = zipfile.is_zipfile(path) and is_text(path)  # else torch cannot map it
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch.load may raise any exception for other files
        refused = re.search(r"Unsupported global: GLOBAL (\S+)", str(error))
        why = (
            f"it would run {refused[1]} while being read, and is refused"
            if refused
            else f"not a PyTorch checkpoint, or cut short ({type(error).__name__}); "
            "compare its size with the source and download it again"
        )
        raise InputError(f"{path}: {why}. {advice}") from error


def is_state(value: Any) -> bool:
    """Whether it is a table from names to tensors."""
    import torch

    return isinstance(value, dict) and all(
        isinstance(name, str) and torch.is_tensor(each) for name, each in value.items()
    )


def fit(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path, advice: str
) -> dict[str, Tensor]:
    """The weights of the names and shapes in `wanted`, in float32.

    Raises InputError, ending with `advice`, for missing or unknown names and for wrong shapes.
    """
    missing, extra = wanted.keys() - state.keys(), state.keys() - wanted.keys()
    for what, keys in (("missing", missing), ("unknown", extra)):
        if keys:
            raise InputError(
                f"{path}: {min(keys)} is {what}, of {len(wanted)} weights {len(keys)} are {what}. "
                f"{advice}"
            )
    for key, expected in wanted.items():
        if state[key].shape != expected.shape:
            raise InputError(
                f"{path}: {key} is {shape(state[key])}, expected {shape(expected)}; the weights "
                f"and their sizes do not belong together. {advice}"
            )
    return {key: state[key].float() for key in wanted}


def shape(tensor: Tensor) -> str:
    """The shape as text, such as 3x16x16."""
    return "x".join(map(str, tensor.shape)) or "a single number"
