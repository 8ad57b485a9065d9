"""Second-order refinement of cameras and depth with the matches (bundle adjustment).

Each match is used in both directions: a pixel, lifted by its image's depth, must reproject onto
its partner in the other image. A pixel's depth is its image's scale times its canonical depth
times the correction of its cell. So each cell belongs to one image and is eliminated separately
(Schur complement), which leaves one dense system over the cameras.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64
from scipy.spatial.transform import Rotation

from lift3d.reconstruction.alignment.kernels import CHUNKS, cell_steps, distances, normal_equations

PARAMETERS = 8
"""Per camera: 3 of rotation, 3 of position, log focal length, log depth scale."""
WIDTHS = (0.03, 0.01)
"""Robust widths of the first rounds, while poses are rough; shares of the focal length. Chosen by
hand; not tuned on data."""
LEAST_WIDTH = 1.5
"""Minimum robust width in pixels. Chosen by hand; not tuned on data."""
INLIER_QUANTILE = 0.3
"""Quantile of the errors that estimates the noise: the median of the inliers if 40 % of the
matches are outliers. Chosen by hand; not tuned on data."""
LEAST_NOISE = 0.3
"""Minimum noise in pixels. Chosen by hand; not tuned on data."""
CELL_STEP = 0.3
"""Maximum change of a cell's log depth per step. Chosen by hand; not tuned on data."""


@dataclass(eq=False)
class State:
    """The refined parameters."""

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
class Observations:
    """Matches, one entry per direction, ordered by cell."""

    cell: Int64[np.ndarray, " observations"]
    image: Int32[np.ndarray, " observations"]
    other: Int32[np.ndarray, " observations"]
    pixel: Float64[np.ndarray, "observations 2"]
    """In `image`, relative to its principal point."""
    log_depth: Float64[np.ndarray, " observations"]
    """Log of the canonical depth at that pixel."""
    target: Float64[np.ndarray, "observations 2"]
    """In `other`, relative to its principal point."""
    weight: Float64[np.ndarray, " observations"]


@dataclass(frozen=True, eq=False)
class Prior:
    """Priors of the parameters; weights are 1 / sigma^2, parameters with sigma 0 are `frozen`."""

    cell_weight: Float64[np.ndarray, " cells"]
    """Weight of the prior that a correction is 0."""
    frozen: Bool[np.ndarray, "images parameters"]
    target: State
    """Means of the camera priors; its corrections are unused."""
    weight: Float64[np.ndarray, "images parameters"]
    shared_focal: bool = False
    column: Int64[np.ndarray, " all_parameters"] = field(init=False)
    """Index of each parameter in the linear system; -1 if frozen."""

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
    observations: Observations,
    prior: Prior,
    iterations: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[State, float, Float64[np.ndarray, " cells"]]:
    """The refined state, the median reprojection error in pixels, and the inverse variance of each
    cell's correction.

    Levenberg-Marquardt with Geman-McClure weights, whose width shrinks from `WIDTHS` to a few
    times the noise.
    """
    focal = float(np.exp(np.median(state.log_focal)))
    start = np.append(0, np.flatnonzero(np.diff(observations.cell)) + 1).astype(np.int64)
    start = np.append(start, len(observations.cell)).astype(np.int64)
    damping = 1e-4
    widths = [share * focal for share in WIDTHS]
    done, stage, width, noise = 0, 0, widths[0], 1.0
    while done < iterations:
        error = errors(state, observations)
        finite = error[np.isfinite(error)]
        # Up to half of the matches may be wrong: estimate the noise from the inlier half.
        noise = float(np.quantile(finite, INLIER_QUANTILE)) if len(finite) else 1.0
        noise = max(noise, LEAST_NOISE)
        if stage >= len(widths):
            width = max(LEAST_WIDTH, 4 * noise)
        state, damping, gain, taken = _minimise(
            state,
            observations,
            start,
            prior,
            width,
            noise,
            damping,
            4 if stage < len(widths) else 10,
        )
        done += taken
        if progress is not None:
            progress(min(done, iterations), iterations)
        if stage > len(widths) + 1 or (stage >= len(widths) and gain < 1e-5):
            break
        stage += 1
        if stage < len(widths):
            width = widths[stage]
    error = errors(state, observations)
    near = error[error < 4 * width]
    system = _linearise(state, observations, start, prior, width, noise)
    information = prior.cell_weight.copy()
    information[observations.cell[start[:-1]]] = system.cell_matrix / noise**2
    return state, float(np.median(near)) if len(near) else float("inf"), information


def _minimise(
    state: State,
    observations: Observations,
    start: Int64[np.ndarray, " touched_and_one"],
    prior: Prior,
    width: float,
    noise: float,
    damping: float,
    most: int,
) -> tuple[State, float, float, int]:
    """Minimise at one width until the gain is small.

    Returns the state, the damping, the last relative gain and the number of steps.
    """
    cost = _cost(state, observations, prior, width, noise)
    gain, taken = 1.0, 0
    while taken < most:
        taken += 1
        system = _linearise(state, observations, start, prior, width, noise)
        gain = 0.0
        for _ in range(6):
            moved = state.moved(*_solve(state, observations, start, prior, system, width, damping))
            now = _cost(moved, observations, prior, width, noise)
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
    """Normal equations of the cameras, and of each observed cell."""

    matrix: Float64[np.ndarray, "unknowns unknowns"]
    right: Float64[np.ndarray, " unknowns"]
    cell_matrix: Float64[np.ndarray, " touched"]
    cell_right: Float64[np.ndarray, " touched"]


def _linearise(
    state: State,
    observations: Observations,
    start: np.ndarray,
    prior: Prior,
    width: float,
    noise: float,
) -> _System:
    images = len(state.position)
    touched = len(start) - 1
    unknowns = int(prior.column.max()) + 1
    matrix = np.zeros((CHUNKS, unknowns, unknowns))
    right = np.zeros((CHUNKS, unknowns))
    cell_matrix, cell_right = np.zeros(touched), np.zeros(touched)
    cell_prior = prior.cell_weight[observations.cell[start[:-1]]] * noise**2
    normal_equations(
        *_arrays(state, observations),
        *(start, cell_prior, width, prior.column, images),
        *(matrix, right, cell_matrix, cell_right),
    )
    total, vector = matrix.sum(0), right.sum(0)
    off = _camera_offsets(state, prior) * prior.weight * noise**2
    flat, weight = off.ravel(), (prior.weight * noise**2).ravel()
    free = prior.column >= 0
    np.add.at(vector, prior.column[free], -flat[free])
    np.add.at(total, (prior.column[free], prior.column[free]), weight[free])
    return _System(total, vector, cell_matrix, cell_right)


def _solve(
    state: State,
    observations: Observations,
    start: np.ndarray,
    prior: Prior,
    system: _System,
    width: float,
    damping: float,
) -> tuple[Float64[np.ndarray, "images parameters"], Float64[np.ndarray, " cells"]]:
    """The damped step of cameras and cells; cameras do not move if all are frozen."""
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
        *_arrays(state, observations),
        *(start, width, step, system.cell_matrix, system.cell_right, touched),
    )
    cells[observations.cell[start[:-1]]] = touched
    return step.reshape(images, PARAMETERS), np.clip(cells, -CELL_STEP, CELL_STEP)


def _camera_offsets(state: State, prior: Prior) -> Float64[np.ndarray, "images parameters"]:
    """Difference of each camera parameter from its prior mean."""
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


def _cost(
    state: State, observations: Observations, prior: Prior, width: float, noise: float
) -> float:
    square = errors(state, observations) ** 2
    with np.errstate(invalid="ignore"):
        share = np.where(np.isfinite(square), square / (square + width**2), 1.0)
    camera = (prior.weight * _camera_offsets(state, prior) ** 2)[~prior.frozen].sum()
    cells = (prior.cell_weight * state.correction**2).sum()
    return float(width**2 * (observations.weight * share).sum() + noise**2 * (camera + cells))


def errors(state: State, observations: Observations) -> Float64[np.ndarray, " observations"]:
    """Reprojection error of each observation in pixels; inf behind the other camera."""
    error = np.empty(len(observations.cell))
    distances(*_arrays(state, observations), error)
    return error


def _arrays(state: State, observations: Observations) -> tuple[np.ndarray, ...]:
    return (
        np.ascontiguousarray(state.rotation),
        state.position,
        np.exp(state.log_focal),
        np.exp(state.log_scale),
        np.exp(state.correction),
        observations.cell,
        observations.image,
        observations.other,
        observations.pixel,
        np.exp(observations.log_depth),
        observations.target,
        observations.weight,
    )
