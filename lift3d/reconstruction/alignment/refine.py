"""Second-order refinement: cameras and depth together, against the matches (bundle adjustment).

Each match is used from both sides: the pixel of one image, lifted by that image's depth, must fall
on its partner in the other. A pixel's depth is its image's scale times its canonical depth times
the correction of its cell, so a cell is touched by one image only and is eliminated on its own
(Schur complement); what is left is one dense system over the cameras.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64
from scipy.spatial.transform import Rotation

from lift3d.reconstruction.alignment.kernels import CHUNKS, cell_steps, distances, normal_equations

PARAMETERS = 8
"""Of a camera: 3 of rotation, 3 of position, log focal length, log depth scale."""
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
    normal_equations(
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
    """A step of the cameras and, from it, of the cells; of the cells alone where all is fixed."""
    images = len(state.position)
    step = np.zeros(len(prior.column))
    if len(system.right):
        matrix = system.matrix.copy()
        diagonal = np.diagonal(matrix)
        least = 1e-9 * max(diagonal.max(), 1e-12)
        matrix[np.diag_indices_from(matrix)] += damping * diagonal + least
        unknown = np.linalg.solve(matrix, system.right)
        step = np.where(prior.column >= 0, unknown[prior.column], 0.0)
    cells = np.zeros_like(state.correction)
    touched = np.zeros(len(start) - 1)
    cell_steps(
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
    distances(*_arrays(state, looks), error)
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
