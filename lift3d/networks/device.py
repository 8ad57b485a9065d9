"""Device and precision of all networks."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from lift3d.networks import Precision
from lift3d.scene.errors import InputError


def choose_device(name: str) -> torch.device:
    """The device of that name; auto is a GPU where there is one. InputError where unavailable."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            f"device {name!r} cannot be used ({str(error).splitlines()[0]}); "
            "use 'auto', 'cpu' or a GPU that is there, such as 'cuda'"
        ) from error
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The type of that name; auto is bfloat16 with hardware support, else float32."""
    if name == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            native = device.type == "cpu" and _cpu_has_bfloat16()
        return torch.bfloat16 if native else torch.float32
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in known:
        raise InputError(f"precision is {name!r}; expected auto, {', '.join(known)}")
    return known[name]


def encoder_precision(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """A context in which an image encoder computes in `precision`.

    auto is float32 on a CPU; on a GPU bfloat16, or float16 where the GPU has no bfloat16.
    Mask decoders stay in float32: they are small, and scores and boundaries depend on them.
    """
    if precision == "auto" and device.type == "cuda":
        precision = "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    if precision in ("auto", "float32"):
        return nullcontext()
    return torch.autocast(device.type, getattr(torch, precision))


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out; the CPU's allocator raises a plain RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        "DefaultCPUAllocator" in str(error) and "memory" in str(error)
    )


def _cpu_has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether /proc/cpuinfo lists the instructions; False on systems without that file."""
    try:
        flags = set(cpuinfo.read_text().split())
    except OSError:
        return False
    return bool(flags & {"avx512_bf16", "amx_bf16"})
