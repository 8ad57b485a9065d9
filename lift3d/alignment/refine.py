"""Second-order refinement: cameras and depth together, against the matches (bundle adjustment).

Each match is used from both sides: the pixel of one image, lifted by that image's depth, must fall
on its partner in the other. A pixel's depth is its image's scale times its canonical depth times
the correction of its cell, so a cell is touched by one image only and is eliminated on its own
(Schur complement); what is left is one dense system over the cameras.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64
from scipy.spatial.transform import Rotation

PARAMETERS = 8
"""Of a camera: 3 of rotation, 3 of position, log focal length, log depth scale."""
CHUNKS = 8
"""Cells are worked through in this many pieces, whatever the number of threads: sums, and so
results, do not depend on it."""
WIDTHS = (0.03, 0.01)
"""Share of the focal length that a match may be off and still pull, while poses are rough."""
LEAST_WIDTH = 1.5
"""Pixels; below this no match is called an outlier."""


@dataclass(eq=False)
class State:
    """What is refined."""

    rotation: Float64[np.ndarray, "images 3 3"]
    position: Float64[np.ndarray, "images 3"]
    log_focal: Float64[np.ndarray, " images"]
    log_scale: Float64[np.ndarray, " images"]
    correction: Float64[np.ndarray, " cells"]
    """Log of each cell's depth over the canonical one."""

    def moved(
        self, step: Float64[np.ndarray, "images parameters"], cells: Float64[np.ndarray, " cells"]
    ) -> State:
        """The state after a step."""
        turn = Rotation.from_rotvec(step[:, :3]).as_matrix()
        return State(
            turn @ self.rotation,
            self.position + step[:, 3:6],
            self.log_focal + step[:, 6],
            self.log_scale + step[:, 7],
            self.correction + cells,
        )


@dataclass(frozen=True, eq=False)
class Looks:
    """Matches, each from one side, ordered by cell."""

    cell: Int64[np.ndarray, " looks"]
    image: Int32[np.ndarray, " looks"]
    other: Int32[np.ndarray, " looks"]
    pixel: Float64[np.ndarray, "looks 2"]
    """In `image`, from its principal point."""
    log_depth: Float64[np.ndarray, " looks"]
    """Canonical, at that pixel."""
    target: Float64[np.ndarray, "looks 2"]
    """In `other`, from its principal point."""
    weight: Float64[np.ndarray, " looks"]


@dataclass(frozen=True, eq=False)
class Prior:
    """What is known beforehand; weights are 1 / sigma^2, infinite ones are in `frozen`."""

    cell_weight: Float64[np.ndarray, " cells"]
    """On a correction of 0."""
    frozen: Bool[np.ndarray, "images parameters"]
    target: State
    """Where the camera priors pull to; its corrections are not looked at."""
    weight: Float64[np.ndarray, "images parameters"]
    shared_focal: bool = False
    column: Int64[np.ndarray, " all_parameters"] = field(init=False)
    """Place of each parameter in the system that is solved; -1 where frozen."""

    def __post_init__(self) -> None:
        images = len(self.frozen)
        column = np.full((images, PARAMETERS), -1)
        free = ~self.frozen
        if self.shared_focal:
            free[:, 6] = False
        column[free] = np.arange(free.sum())
        if self.shared_focal and not self.frozen[:, 6].all():
            column[~self.frozen[:, 6], 6] = free.sum()
        object.__setattr__(self, "column", column.ravel().astype(np.int64))


def refine(
    state: State,
    looks: Looks,
    prior: Prior,
    iterations: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[State, float, Float64[np.ndarray, " cells"]]:
    """The state that matches and priors agree on, the median reprojection error in pixels, and
    what is known of each cell's correction: 1 / variance.

    Levenberg-Marquardt with Geman-McClure weights, whose width shrinks from `WIDTHS` to a few
    times the median error.
    """
    focal = float(np.exp(np.median(state.log_focal)))
    start = np.append(0, np.flatnonzero(np.diff(looks.cell)) + 1).astype(np.int64)
    start = np.append(start, len(looks.cell)).astype(np.int64)
    damping = 1e-4
    widths = [share * focal for share in WIDTHS]
    done, stage, width, noise = 0, 0, widths[0], 1.0
    while done < iterations:
        error = _errors(state, looks)
        finite = error[np.isfinite(error)]
        # Half of the matches may be wrong; the good half tells the noise.
        noise = max(float(np.quantile(finite, 0.3)) if len(finite) else 1.0, 0.3)
        if stage >= len(widths):
            width = max(LEAST_WIDTH, 4 * noise)
        state, damping, gain, taken = _settle(
            state, looks, start, prior, width, noise, damping, 4 if stage < len(widths) else 10
        )
        done += taken
        if progress is not None:
            progress(min(done, iterations), iterations)
        if stage > len(widths) + 1 or (stage >= len(widths) and gain < 1e-5):
            break
        stage += 1
        if stage < len(widths):
            width = widths[stage]
    error = _errors(state, looks)
    near = error[error < 4 * width]
    system = _linearise(state, looks, start, prior, width, noise)
    information = prior.cell_weight.copy()
    information[looks.cell[start[:-1]]] = system.cell_matrix / noise**2
    return state, float(np.median(near)) if len(near) else float("inf"), information


def _settle(
    state: State,
    looks: Looks,
    start: Int64[np.ndarray, " touched_and_one"],
    prior: Prior,
    width: float,
    noise: float,
    damping: float,
    most: int,
) -> tuple[State, float, float, int]:
    """Steps at one width until little is gained; with the last relative gain and their number."""
    cost = _cost(state, looks, prior, width, noise)
    gain, taken = 1.0, 0
    while taken < most:
        taken += 1
        system = _linearise(state, looks, start, prior, width, noise)
        gain = 0.0
        for _ in range(6):
            moved = state.moved(*_solve(state, looks, start, prior, system, width, damping))
            now = _cost(moved, looks, prior, width, noise)
            if now < cost:
                gain = (cost - now) / cost
                state, cost, damping = moved, now, max(damping / 8, 1e-9)
                break
            damping *= 10
        if gain < 1e-4:
            break
    return state, damping, gain, taken


@dataclass(frozen=True, eq=False)
class _System:
    """Normal equations: of the cameras, and of each touched cell."""

    matrix: Float64[np.ndarray, "unknowns unknowns"]
    right: Float64[np.ndarray, " unknowns"]
    cell_matrix: Float64[np.ndarray, " touched"]
    cell_right: Float64[np.ndarray, " touched"]


def _linearise(
    state: State, looks: Looks, start: np.ndarray, prior: Prior, width: float, noise: float
) -> _System:
    images = len(state.position)
    touched = len(start) - 1
    unknowns = int(prior.column.max()) + 1
    matrix = np.zeros((CHUNKS, unknowns, unknowns))
    right = np.zeros((CHUNKS, unknowns))
    cell_matrix, cell_right = np.zeros(touched), np.zeros(touched)
    cell_prior = prior.cell_weight[looks.cell[start[:-1]]] * noise**2
    _normal_equations(
        *_arrays(state, looks),
        *(start, cell_prior, width, prior.column, images),
        *(matrix, right, cell_matrix, cell_right),
    )
    whole, vector = matrix.sum(0), right.sum(0)
    off = _camera_offsets(state, prior) * prior.weight * noise**2
    flat, weight = off.ravel(), (prior.weight * noise**2).ravel()
    free = prior.column >= 0
    np.add.at(vector, prior.column[free], -flat[free])
    np.add.at(whole, (prior.column[free], prior.column[free]), weight[free])
    return _System(whole, vector, cell_matrix, cell_right)


def _solve(
    state: State,
    looks: Looks,
    start: np.ndarray,
    prior: Prior,
    system: _System,
    width: float,
    damping: float,
) -> tuple[Float64[np.ndarray, "images parameters"], Float64[np.ndarray, " cells"]]:
    """A step of the cameras and, from it, of the cells."""
    images = len(state.position)
    matrix = system.matrix.copy()
    diagonal = np.diagonal(matrix)
    matrix[np.diag_indices_from(matrix)] += damping * diagonal + 1e-9 * max(diagonal.max(), 1e-12)
    unknown = np.linalg.solve(matrix, system.right)
    step = np.where(prior.column >= 0, unknown[prior.column], 0.0)
    cells = np.zeros_like(state.correction)
    touched = np.zeros(len(start) - 1)
    _cell_steps(
        *_arrays(state, looks),
        *(start, width, step, system.cell_matrix, system.cell_right, touched),
    )
    cells[looks.cell[start[:-1]]] = touched
    return step.reshape(images, PARAMETERS), np.clip(cells, -0.3, 0.3)


def _camera_offsets(state: State, prior: Prior) -> Float64[np.ndarray, "images parameters"]:
    """How far each parameter is from where its prior has it."""
    target = prior.target
    turn = Rotation.from_matrix(state.rotation @ target.rotation.transpose(0, 2, 1)).as_rotvec()
    return np.concatenate(
        [
            turn,
            state.position - target.position,
            (state.log_focal - target.log_focal)[:, None],
            (state.log_scale - target.log_scale)[:, None],
        ],
        axis=1,
    )


def _cost(state: State, looks: Looks, prior: Prior, width: float, noise: float) -> float:
    square = _errors(state, looks) ** 2
    with np.errstate(invalid="ignore"):
        share = np.where(np.isfinite(square), square / (square + width**2), 1.0)
    camera = (prior.weight * _camera_offsets(state, prior) ** 2)[~prior.frozen].sum()
    cells = (prior.cell_weight * state.correction**2).sum()
    return float(width**2 * (looks.weight * share).sum() + noise**2 * (camera + cells))


def _errors(state: State, looks: Looks) -> Float64[np.ndarray, " looks"]:
    """Distance in pixels of each look; infinite where a point falls behind the other camera."""
    error = np.empty(len(looks.cell))
    _distances(*_arrays(state, looks), error)
    return error


def _arrays(state: State, looks: Looks) -> tuple[np.ndarray, ...]:
    return (
        np.ascontiguousarray(state.rotation),
        state.position,
        np.exp(state.log_focal),
        np.exp(state.log_scale),
        np.exp(state.correction),
        looks.cell,
        looks.image,
        looks.other,
        looks.pixel,
        np.exp(looks.log_depth),
        looks.target,
        looks.weight,
    )


@numba.njit(cache=True)
@no_type_check
def _place(rotation, position, focal, scale, correction, cell, image, other, pixel, depth, k, out):
    """Fill `out` with the point in the image's frame, turned, and in the other's; see callers."""
    i, j = image[k], other[k]
    z = scale[i] * correction[cell[k]] * depth[k]
    x, y = pixel[k, 0] / focal[i] * z, pixel[k, 1] / focal[i] * z
    for row in range(3):
        flat = rotation[i, row, 0] * x + rotation[i, row, 1] * y
        out[row] = flat + rotation[i, row, 2] * z  # R_i X_i
        out[3 + row] = flat  # R_i (X, Y, 0)
        out[6 + row] = out[row] + position[i, row] - position[j, row]  # X_w - c_j
    for row in range(3):
        out[9 + row] = (
            rotation[j, 0, row] * out[6]
            + rotation[j, 1, row] * out[7]
            + rotation[j, 2, row] * out[8]
        )  # in the other's frame


@numba.njit(cache=True, parallel=True)
@no_type_check
def _distances(
    rotation, position, focal, scale, correction,
    cell, image, other, pixel, depth, target, weight, error,
):  # fmt: skip
    for piece in numba.prange(CHUNKS):
        out = np.empty(12)
        first, last = len(cell) * piece // CHUNKS, len(cell) * (piece + 1) // CHUNKS
        for k in range(first, last):
            _place(
                rotation, position, focal, scale, correction, cell, image, other, pixel, depth,
                k, out,
            )  # fmt: skip
            if out[11] < 1e-6:
                error[k] = np.inf
                continue
            f = focal[other[k]] / out[11]
            error[k] = np.hypot(f * out[9] - target[k, 0], f * out[10] - target[k, 1])


@numba.njit(cache=True)
@no_type_check
def _jacobian(rotation, focal, i, j, out, target_x, target_y, jac, residual):
    """Derivatives of both residuals: 8 of the image, 8 of the other, 1 of the cell."""
    inverse = 1.0 / out[11]
    u, v = out[9] * inverse, out[10] * inverse
    f = focal[j]
    residual[0], residual[1] = f * u - target_x, f * v - target_y
    for row in range(2):
        # d residual / d X_w: the rows of f/z [1 0 -u; 0 1 -v] R_j^T.
        lead = u if row == 0 else v
        a = f * inverse * (rotation[j, 0, row] - lead * rotation[j, 0, 2])
        b = f * inverse * (rotation[j, 1, row] - lead * rotation[j, 1, 2])
        c = f * inverse * (rotation[j, 2, row] - lead * rotation[j, 2, 2])
        # exp(w) R_i X_i: w x p; the row times (w x p) is w . (p x row).
        jac[row, 0] = out[1] * c - out[2] * b
        jac[row, 1] = out[2] * a - out[0] * c
        jac[row, 2] = out[0] * b - out[1] * a
        jac[row, 3], jac[row, 4], jac[row, 5] = a, b, c
        jac[row, 6] = -(a * out[3] + b * out[4] + c * out[5])
        along = a * out[0] + b * out[1] + c * out[2]
        jac[row, 7] = along
        jac[row, 8] = -(out[7] * c - out[8] * b)
        jac[row, 9] = -(out[8] * a - out[6] * c)
        jac[row, 10] = -(out[6] * b - out[7] * a)
        jac[row, 11], jac[row, 12], jac[row, 13] = -a, -b, -c
        jac[row, 14] = f * lead
        jac[row, 15] = 0.0
        jac[row, 16] = along


@numba.njit(cache=True, parallel=True)
@no_type_check
def _normal_equations(
    rotation, position, focal, scale, correction,
    cell, image, other, pixel, depth, target, weight,
    start, cell_prior, width, column, images,
    matrix, right, cell_matrix, cell_right,
):  # fmt: skip
    touched = len(start) - 1
    for piece in numba.prange(CHUNKS):
        out, jac, residual = np.empty(12), np.empty((2, 17)), np.empty(2)
        columns = np.empty(16, np.int64)
        place = np.full(images, -1, np.int64)  # of an image among those that look at this cell
        looking = np.empty(images, np.int64)
        cross = np.empty((images, 8))
        for t in range(touched * piece // CHUNKS, touched * (piece + 1) // CHUNKS):
            begin, end = start[t], start[t + 1]
            i = image[begin]
            count = 1
            looking[0], place[i] = i, 0
            cross[0] = 0.0
            own = cell_prior[t]
            pull = -cell_prior[t] * np.log(correction[cell[begin]])
            for k in range(begin, end):
                j = other[k]
                _place(
                    rotation, position, focal, scale, correction, cell, image, other, pixel,
                    depth, k, out,
                )  # fmt: skip
                if out[11] < 1e-6:
                    continue
                _jacobian(rotation, focal, i, j, out, target[k, 0], target[k, 1], jac, residual)
                square = residual[0] ** 2 + residual[1] ** 2
                w = weight[k] / (1 + square / width**2) ** 2
                if place[j] < 0:
                    place[j] = count
                    looking[count] = j
                    cross[count] = 0.0
                    count += 1
                at = place[j]
                for p in range(8):
                    columns[p], columns[8 + p] = column[8 * i + p], column[8 * j + p]
                for row in range(2):
                    cell_way = jac[row, 16]
                    own += w * cell_way * cell_way
                    pull -= w * cell_way * residual[row]
                    for p in range(16):
                        cp = columns[p]
                        if cp < 0:
                            continue
                        value = w * jac[row, p]
                        right[piece, cp] -= value * residual[row]
                        if p < 8:
                            cross[0, p] += value * cell_way
                        else:
                            cross[at, p - 8] += value * cell_way
                        for q in range(16):
                            if columns[q] >= 0:
                                matrix[piece, cp, columns[q]] += value * jac[row, q]
            own = max(own, 1e-12)
            cell_matrix[t], cell_right[t] = own, pull
            # Eliminate the cell.
            for m in range(count):
                for p in range(8):
                    cp = column[8 * looking[m] + p]
                    if cp < 0:
                        continue
                    value = cross[m, p] / own
                    right[piece, cp] -= value * pull
                    for n in range(count):
                        for q in range(8):
                            cq = column[8 * looking[n] + q]
                            if cq >= 0:
                                matrix[piece, cp, cq] -= value * cross[n, q]
            for m in range(count):
                place[looking[m]] = -1


@numba.njit(cache=True, parallel=True)
@no_type_check
def _cell_steps(
    rotation, position, focal, scale, correction,
    cell, image, other, pixel, depth, target, weight,
    start, width, step, cell_matrix, cell_right, touched_step,
):  # fmt: skip
    touched = len(start) - 1
    for piece in numba.prange(CHUNKS):
        out, jac, residual = np.empty(12), np.empty((2, 17)), np.empty(2)
        for t in range(touched * piece // CHUNKS, touched * (piece + 1) // CHUNKS):
            total = cell_right[t]
            for k in range(start[t], start[t + 1]):
                i, j = image[k], other[k]
                _place(
                    rotation, position, focal, scale, correction, cell, image, other, pixel,
                    depth, k, out,
                )  # fmt: skip
                if out[11] < 1e-6:
                    continue
                _jacobian(rotation, focal, i, j, out, target[k, 0], target[k, 1], jac, residual)
                square = residual[0] ** 2 + residual[1] ** 2
                w = weight[k] / (1 + square / width**2) ** 2
                for row in range(2):
                    along = 0.0
                    for p in range(8):
                        along += jac[row, p] * step[8 * i + p] + jac[row, 8 + p] * step[8 * j + p]
                    total -= w * jac[row, 16] * along
            touched_step[t] = total / cell_matrix[t]
