"""Camera poses from text files: formats, conventions, and checks."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from lift3d.scene import Transform
from lift3d.scene.errors import InputError
from lift3d.scene.guarded import load_text

Poses = dict[str, Transform]
"""Frame key -> matrix as stored; conventions are applied afterwards."""

OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


def numbers(text: str, where: str) -> Float64[np.ndarray, " values"]:
    """All numbers of a text, separated by white space or commas.

    Microsoft's `-1.#INF` and `1.#IND`, which occur in ScanNet exports, become NaN.
    """
    words = text.replace(",", " ").split()
    try:
        return np.array([np.nan if "#" in word else float(word) for word in words])
    except ValueError as error:
        raise InputError(
            f"{where}: expected numbers, found {str(error).rpartition(': ')[2]:.40}"
        ) from error


def matrix4(values: Float64[np.ndarray, " values"], where: str) -> Transform:
    """16 or 12 numbers (without the last row), row by row, as a 4x4 matrix."""
    if len(values) == 12:
        values = np.concatenate([values, [0, 0, 0, 1]])
    if len(values) != 16:
        raise InputError(f"{where}: found {len(values)} numbers, a pose has 16 (or 12)")
    return values.reshape(4, 4)


def read_matrix(path: Path) -> Transform:
    """One 4x4 (or 3x4) matrix in a text file."""
    return matrix4(numbers(load_text(path), str(path)), str(path))


def read_rows(path: Path) -> list[Transform]:
    """One flattened matrix per line; `#` starts a comment."""
    lines = [line.partition("#")[0].strip() for line in load_text(path).splitlines()]
    return [
        matrix4(numbers(line, f"{path} line {i + 1}"), f"{path} line {i + 1}")
        for i, line in enumerate(lines)
        if line
    ]


def read_log(path: Path) -> Poses:
    """Open3D's .log: three integers per pose (the first is the frame), then a 4x4 matrix."""
    values = numbers(load_text(path), str(path))
    if len(values) % 19 or not len(values):
        raise InputError(
            f"{path}: found {len(values)} numbers; an Open3D .log has 19 a pose (3 + 16)"
        )
    blocks = values.reshape(-1, 19)
    if not np.isfinite(blocks[:, 0]).all():
        raise InputError(f"{path}: a frame number is not finite; expected whole numbers")
    return {str(int(block[0])): block[3:].reshape(4, 4) for block in blocks}


def read_headed(path: Path) -> dict[str, Float64[np.ndarray, " values"]]:
    """Numbers under `# heading` lines, by heading (as in the APC scans' cam.info.txt)."""
    pieces = re.split(r"^#[ \t]*(.*)$", load_text(path), flags=re.MULTILINE)
    blocks = {}
    for heading, body in zip(pieces[1::2], pieces[2::2], strict=True):
        if body.strip():
            blocks[heading.strip()] = numbers(body, f"{path} under {heading.strip()!r}")
    return blocks


def read_tum(path: Path) -> tuple[Float64[np.ndarray, " poses"], Float64[np.ndarray, "poses 4 4"]]:
    """TUM trajectory `time tx ty tz qx qy qz qw`: times ascending, and matrices."""
    lines = (line.partition("#")[0] for line in load_text(path).splitlines())
    values = numbers(" ".join(lines), str(path))
    if len(values) % 8 or not len(values):
        raise InputError(f"{path}: found {len(values)} numbers; a TUM trajectory has 8 a line")
    table = values.reshape(-1, 8)
    table = table[np.argsort(table[:, 0], kind="stable")]
    matrices = np.tile(np.eye(4), (len(table), 1, 1))
    matrices[:, :3, 3] = table[:, 1:4]
    matrices[:, :3, :3] = rotations_from_quaternions(table[:, 4:])
    return table[:, 0], matrices


def nearest(times: Float64[np.ndarray, " known"], at: float, tolerance: float) -> int | None:
    """Index of the time nearest to `at` (times ascending); None beyond `tolerance`."""
    right = int(np.searchsorted(times, at))
    best = min(
        (i for i in (right - 1, right) if 0 <= i < len(times)),
        key=lambda i: abs(times[i] - at),
        default=None,
    )
    return best if best is not None and abs(times[best] - at) <= tolerance else None


def faults(stack: Float64[np.ndarray, "poses 4 4"]) -> list[str | None]:
    """The reason why each pose is invalid; None for valid ones."""
    finite = np.isfinite(stack).all((1, 2))
    safe = np.where(finite[:, None, None], stack, np.eye(4))
    rotation = safe[:, :3, :3]
    with np.errstate(over="ignore", invalid="ignore"):
        determinant, whole = np.linalg.det(rotation), np.linalg.det(safe)
        skew = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max((1, 2))
    last_row = np.abs(safe[:, 3] - [0, 0, 0, 1]).max(1)
    # The first true reason is reported. Same tolerances as is_rigid, for all poses at once.
    # Negated, so that NaN is a fault: numbers above 1e154 overflow when they are squared.
    reasons = (
        (~finite, "pose is not finite"),
        (~(np.abs(whole) >= 1e-6), "pose is not invertible"),
        (~(last_row <= 1e-6), "the last row of the pose is not 0 0 0 1"),
        (~(determinant >= 0), "pose mirrors (determinant below 0)"),
        (~(skew <= 1e-2), "pose is not a rotation and a translation"),
    )
    return [next((text for wrong, text in reasons if wrong[i]), None) for i in range(len(stack))]


def fault(matrix: Transform) -> str | None:
    """The reason why a pose is invalid; None for a valid one."""
    return faults(matrix[None])[0]


def rigid_option(values: tuple[float, ...], what: str) -> Transform:
    """A transform given as an option, 16 numbers row by row; identity where it is unset."""
    if not values:
        return np.eye(4)
    matrix = matrix4(np.array(values, np.float64), f"option {what}")
    reason = fault(matrix)
    if reason:
        raise InputError(f"option {what}: {reason}")
    return world_from_camera(matrix[None])[0]


def world_from_camera(
    stack: Float64[np.ndarray, "poses 4 4"], inverted: bool = False, opengl: bool = False
) -> Float64[np.ndarray, "poses 4 4"]:
    """Valid stored poses in our convention, with the nearest exact rotations (by SVD).

    `inverted`: stored as camera_from_world. `opengl`: camera axes x right, y up, z backward.
    """
    left, _, right = np.linalg.svd(stack[:, :3, :3])
    rigid = np.tile(np.eye(4), (len(stack), 1, 1))
    rigid[:, :3, :3] = left @ right  # a rotation: faults() excludes reflections
    rigid[:, :3, 3] = stack[:, :3, 3]
    if inverted:
        rotation = rigid[:, :3, :3].transpose(0, 2, 1).copy()
        rigid[:, :3, 3] = -(rotation @ rigid[:, :3, 3:])[..., 0]
        rigid[:, :3, :3] = rotation
    return rigid @ OPENCV_FROM_OPENGL if opengl else rigid


def rotations_from_quaternions(
    xyzw: Float64[np.ndarray, "poses 4"],
) -> Float64[np.ndarray, "poses 3 3"]:
    """Rotation matrices of quaternions (x, y, z, w), in TUM's order with the real part last.

    They are normalised first; a zero quaternion gives NaN.

    >>> rotations_from_quaternions(np.array([[0.0, 0.0, 1.0, 1.0]])).round(9)[0, :, 0].tolist()
    [0.0, 1.0, 0.0]
    """
    with np.errstate(invalid="ignore"):
        x, y, z, w = (xyzw / np.linalg.norm(xyzw, axis=1, keepdims=True)).T
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    ).transpose(2, 0, 1)
