"""K from files and numbers, fitted to the actual image size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64

from lift3d.datasets.poses import numbers, read_headed
from lift3d.scene import Camera
from lift3d.scene.errors import InputError
from lift3d.scene.guarded import load_text, reading
from lift3d.scene.guarded.json_file import load_json

Size = tuple[int, int]
"""Width, height."""


def pinhole(
    values: tuple[float, ...] | Float[np.ndarray, " values"], where: str
) -> Float64[np.ndarray, "3 3"]:
    """K from `fx fy cx cy`, from 9 numbers or from the corner of 16, row by row."""
    v = np.asarray(values, np.float64)
    if len(v) == 4:
        K = np.array([[v[0], 0, v[2]], [0, v[1], v[3]], [0, 0, 1]])
    elif len(v) in (9, 16):
        side = 3 if len(v) == 9 else 4
        K = v.reshape(side, side)[:3, :3].copy()
    else:
        raise InputError(f"{where}: found {len(v)} numbers; K has 4 (fx fy cx cy), 9 or 16")
    if not np.isfinite(K).all() or min(K[0, 0], K[1, 1]) <= 0 or np.abs(K[2] - [0, 0, 1]).max():
        raise InputError(f"{where}: {K.tolist()} is not the K of a pinhole camera")
    return K


def read_intrinsics(root: Path, spec: str) -> tuple[Float64[np.ndarray, "3 3"], Size | None]:
    """K, and the image size it belongs to where the file has it.

    `spec` is a file inside `root`: numbers as `pinhole` takes them, Open3D's JSON, or
    `file#heading` for the matrix under that heading.
    """
    file, _, heading = spec.partition("#")
    path = root / file
    if not path.is_file():
        raise InputError(
            f"{path} is missing: the intrinsics are expected there; put fx fy cx cy into it, "
            "or give them as numbers"
        )
    if heading:
        blocks = read_headed(path)
        if heading not in blocks:
            raise InputError(f"{path} has no {heading!r} (it has: {', '.join(blocks)})")
        return pinhole(blocks[heading], f"{path} under {heading!r}"), None
    if path.suffix.lower() == ".json":
        return _from_json(path)
    return pinhole(numbers(load_text(path), str(path)), str(path)), None


def _from_json(path: Path) -> tuple[Float64[np.ndarray, "3 3"], Size | None]:
    content = load_json(path)
    with reading(path, "Open3D's width, height, intrinsic_matrix"):
        # Open3D stores the matrix column by column.
        K = np.array(content["intrinsic_matrix"], np.float64).reshape(3, 3).T
        size = (int(content["width"]), int(content["height"]))
        if min(size) < 1:
            raise ValueError(f"width and height are {size}")
    return pinhole(K.ravel(), str(path)), size


def fit(
    K: Float64[np.ndarray, "3 3"],
    made_for: Size | None,
    size: Size,
    what: str,
    distortion: tuple[float, ...] = (),
) -> tuple[Camera, str | None]:
    """The camera of images of `size`, and a note where K had to be rescaled to them.

    Without `made_for`, the size is taken from the principal point, which is near the centre: K is
    rescaled where that differs clearly from `size`. `what` names the images in the note.
    """
    if made_for is None:
        middle = (2 * K[0, 2] + 1, 2 * K[1, 2] + 1)
        ratios = (middle[0] / size[0], middle[1] / size[1])
        off = max(abs(np.log(max(r, 1e-6))) for r in ratios)
        # Both axes differ, and by the same factor: the image was resized, not cropped.
        resized = off > 0.25 and abs(np.log(ratios[0] / max(ratios[1], 1e-6))) < 0.1
        made_for = _native(middle) if resized else size
    if made_for == size:
        return Camera(K, *size, distortion=distortion), None
    note = (
        f"{what} images are {size[0]}x{size[1]} but their intrinsics belong to "
        f"{made_for[0]}x{made_for[1]}: intrinsics rescaled"
    )
    return Camera(K, *made_for, distortion=distortion).resized(*size), note


def _native(middle: tuple[float, float]) -> Size:
    """The common image size whose centre is near `middle` / 2, else the size it implies."""
    for size in ((1296, 968), (640, 480), (1280, 720), (1920, 1440), (1920, 1080)):
        if all(abs(m / s - 1) < 0.05 for m, s in zip(middle, size, strict=True)):
            return size
    return round(middle[0]), round(middle[1])
