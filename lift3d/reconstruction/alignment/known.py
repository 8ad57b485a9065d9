"""Use of known quantities: start of refinement, priors, fixed parameters, and the unit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lift3d.reconstruction.alignment.cells import Cells
from lift3d.reconstruction.alignment.inputs import Known
from lift3d.reconstruction.alignment.refine import PARAMETERS, Prior, State
from lift3d.reconstruction.alignment.relative import Frame
from lift3d.reconstruction.alignment.view_graph import Layout

FOCAL_SIGMA = 0.03
"""Relative standard deviation of the focal length estimated from point maps. Chosen by hand; not
tuned on data."""
CORRELATION = 2.0
"""Factor on the cells' sigma, as errors of neighbouring cells are correlated. Chosen by hand; not
tuned on data."""


def starting_state(
    layout: Layout, frames: list[Frame | None], known: Sequence[Known], shared_focal: bool
) -> State:
    """The layout in the frame and unit of the known poses and depth."""
    focal = np.array([1.0 if frame is None else frame.own.focal for frame in frames])
    log_focal = np.log(focal)
    if shared_focal:
        log_focal[:] = np.median(log_focal[layout.members])
    state = State(
        layout.rotation.copy(), layout.position.copy(), log_focal, layout.log_scale.copy(),
        np.zeros(0),
    )  # fmt: skip
    measured = [i for i in layout.members if known[i].depth is not None]
    posed = [i for i in layout.members if known[i].world_from_camera is not None]
    if measured:
        _rescale(state, -float(np.median(state.log_scale[measured])))
    if posed:
        _move_to(state, posed, known, rescale=len(posed) > 1 and not measured)
    elif layout.members:
        first = layout.members[0]
        turn, at = state.rotation[first].T.copy(), state.position[first].copy()
        state.rotation = turn @ state.rotation
        state.position = (state.position - at) @ turn.T
    if measured:
        state.log_scale[measured] = 0.0
    return state


def _rescale(state: State, log_factor: float) -> None:
    state.position *= np.exp(log_factor)
    state.log_scale += log_factor


def _move_to(state: State, posed: list[int], known: Sequence[Known], rescale: bool) -> None:
    """Transform the state to fit the known cameras best, then set these to their known poses."""
    poses = np.array([known[i].world_from_camera for i in posed])
    left, _, right = np.linalg.svd((poses[:, :3, :3] @ state.rotation[posed].mT).sum(0))
    turn = left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right
    if rescale:
        there = np.linalg.norm(poses[:, :3, 3] - poses[:, :3, 3].mean(0), axis=1)
        here = np.linalg.norm(state.position[posed] - state.position[posed].mean(0), axis=1)
        if here.sum() > 0 and there.sum() > 0:
            _rescale(state, float(np.log(there.sum() / here.sum())))
    state.rotation = turn @ state.rotation
    state.position = state.position @ turn.T
    state.position += poses[:, :3, 3].mean(0) - state.position[posed].mean(0)
    state.rotation[posed] = poses[:, :3, :3]
    state.position[posed] = poses[:, :3, 3]


def prior_of(
    state: State,
    frames: list[Frame | None],
    known: Sequence[Known],
    members: list[int],
    cells: Cells,
    shared_focal: bool,
) -> Prior:
    """Prior weights and frozen parameters; also sets the corrections in `state` to 0."""
    images = len(frames)
    state.correction = np.zeros(cells.count)
    cell_weight = np.zeros(cells.count)
    frozen = np.ones((images, PARAMETERS), bool)
    weight = np.zeros((images, PARAMETERS))
    fixed_unit = fixed_place = False
    posed = 0
    for image in members:
        frame, about = frames[image], known[image]
        assert frame is not None
        cells.of(image, cell_weight)[:] = 1 / (CORRELATION * frame.own.sigma) ** 2
        frozen[image] = False
        for columns, given, sigma in (
            (slice(0, 3), about.world_from_camera is not None, about.rotation_sigma),
            (slice(3, 6), about.world_from_camera is not None, about.position_sigma),
            (slice(6, 7), about.K is not None, about.focal_sigma),
        ):
            if given:
                frozen[image, columns] = sigma == 0
                weight[image, columns] = 0 if sigma == 0 else 1 / sigma**2
        if about.K is None:
            weight[image, 6] = 1 / FOCAL_SIGMA**2
        if about.depth is not None:
            frozen[image, 7] = fixed_unit = True
        if about.world_from_camera is not None:
            fixed_place = True
            posed += 1
    if not fixed_place:
        frozen[members[0], :6] = True
    if not fixed_unit and posed < 2:
        frozen[members[0], 7] = True
    target = State(
        state.rotation.copy(), state.position.copy(), state.log_focal.copy(),
        state.log_scale.copy(), np.zeros(0),
    )  # fmt: skip
    return Prior(cell_weight, frozen, target, weight, shared_focal)


def unit_of(
    state: State, frames: list[Frame | None], known: Sequence[Known], members: list[int]
) -> float:
    """Factor from the state's unit to the predictions'; 1 if poses or depth define the unit."""
    posed = sum(known[i].world_from_camera is not None for i in members)
    if posed > 1 or any(known[i].depth is not None for i in members):
        return 1.0
    ratios = []
    for image in members:
        frame = frames[image]
        assert frame is not None
        ratios.append(frame.own.log_scale[~frame.own.outlier] - state.log_scale[image])
    return float(np.exp(np.median(np.concatenate(ratios))))
