"""Bundle adjustment of placed pictures with tracks as matches, by the code that MASt3R's uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from lift3d.networks.vggt.inference import Tracked
from lift3d.reconstruction.alignment.canonical import SINGLE_SIGMA, Canonical
from lift3d.reconstruction.alignment.cells import Cells, cell_size, observations_of
from lift3d.reconstruction.alignment.dense import corrected
from lift3d.reconstruction.alignment.inputs import AlignmentConfig, Known, Pair
from lift3d.reconstruction.alignment.known import prior_of
from lift3d.reconstruction.alignment.refine import Observations, State, errors, refine
from lift3d.reconstruction.alignment.relative import Frame
from lift3d.reconstruction.vggt.windows import Placed
from lift3d.scene import Matches

VISIBLE = 0.5
"""Least visibility of a tracked point. Chosen by hand; not tuned on data."""
ENOUGH = 30
"""Fewest matches in all to refine with."""


@dataclass(frozen=True, eq=False)
class Refined:
    """The pictures after bundle adjustment, or as they were where it did not help."""

    placed: Placed
    before: float
    """Median distance of a match from its partner in pixels of the network's input; inf where
    there were too few matches.
    """
    after: float


def matches_of(
    windows: Sequence[Sequence[int]], tracks: Sequence[Sequence[Tracked]]
) -> dict[Pair, Matches]:
    """Matches between each picture that was tracked from and all others of its window."""
    found: dict[Pair, list[Matches]] = {}
    for window, own in zip(windows, tracks, strict=True):
        for each in own:
            for k, number in enumerate(window):
                if k == each.query:
                    continue
                seen = each.visibility[k] >= VISIBLE
                xy = each.xy[each.query][seen], each.xy[k][seen]
                a, b = window[each.query], number
                if a > b:
                    a, b, xy = b, a, xy[::-1]
                sure = each.visibility[k][seen] * each.confidence[k][seen]
                found.setdefault((a, b), []).append(Matches(*xy, sure))
    return {
        pair: Matches(
            np.concatenate([each.xy_in_a for each in parts]),
            np.concatenate([each.xy_in_b for each in parts]),
            np.concatenate([each.confidence for each in parts]),
        )
        for pair, parts in sorted(found.items())
    }


def refined(
    placed: Placed,
    aspect: Float64[np.ndarray, " pictures"],
    matches: Mapping[Pair, Matches],
    known: Sequence[Known],
    iterations: int,
) -> Refined:
    """Cameras and depth that fit the matches better; known quantities keep their priors.

    `aspect` is the vertical focal length over the horizontal one in each picture: pixels of the
    original are square, those of the network nearly so. The adjustment is kept only where matches
    come closer to their partners.
    """
    shapes = [(each.shape[0], each.shape[1]) for each in placed.depth]
    members = list(range(len(shapes)))
    frames: list[Frame | None] = [_frame(placed, k, float(aspect[k]), known[k]) for k in members]
    config = AlignmentConfig()
    cells = Cells(shapes, members, cell_size(config, members))
    inside = {pair: _inside(each, shapes, pair) for pair, each in matches.items()}
    inside = {pair: each for pair, each in inside.items() if len(each)}
    if sum(map(len, inside.values())) < ENOUGH:
        return Refined(placed, float("inf"), float("inf"))
    observations = _square(observations_of(list(inside), frames, inside, cells), aspect)
    state = State(
        placed.world_from_camera[:, :3, :3].copy(),
        placed.world_from_camera[:, :3, 3].copy(),
        np.log([frame.own.focal for frame in frames if frame is not None]),
        np.zeros(len(members)),
        np.zeros(0),
    )
    for k in members:
        pose = known[k].world_from_camera
        if pose is not None:
            state.rotation[k], state.position[k] = pose[:3, :3], pose[:3, 3]
    prior = prior_of(state, frames, known, members, cells, shared_focal=False)
    before = float(np.median(errors(state, observations)))
    state, _, information = refine(state, observations, prior, iterations)
    after = float(np.median(errors(state, observations)))
    if not after < before:
        return Refined(placed, before, before)
    pose, K, depth = placed.world_from_camera.copy(), placed.K.copy(), []
    pose[:, :3, :3], pose[:, :3, 3] = state.rotation, state.position
    for k, own in enumerate(placed.depth):
        if known[k].K is None:
            focal = float(np.exp(state.log_focal[k]))
            K[k, 0, 0], K[k, 1, 1] = focal, focal * aspect[k]
        depth.append(
            corrected(
                own,
                float(np.exp(state.log_scale[k])),
                cells.of(k, state.correction),
                cells.of(k, information),
                cells.size,
            )
        )
    return Refined(replace(placed, world_from_camera=pose, K=K, depth=depth), before, after)


def _frame(placed: Placed, k: int, aspect: float, known: Known) -> Frame:
    """The picture as the alignment knows it, with one focal length, the horizontal one."""
    K = placed.K[k] if known.K is None else known.K
    own = Canonical(
        depth=placed.depth[k],
        confidence=placed.confidence[k],
        focal=float(np.sqrt(K[0, 0] * K[1, 1] / aspect)),
        sigma=SINGLE_SIGMA,
        log_scale=np.zeros(1),
        outlier=np.zeros(1, bool),
    )
    return Frame(own, K[:2, 2].copy())


def _square(observations: Observations, aspect: Float64[np.ndarray, " pictures"]) -> Observations:
    """The same with rows in the unit of columns, as one focal length needs."""
    pixel, target = observations.pixel.copy(), observations.target.copy()
    pixel[:, 1] /= aspect[observations.image]
    target[:, 1] /= aspect[observations.other]
    return replace(observations, pixel=pixel, target=target)


def _inside(matches: Matches, shapes: Sequence[tuple[int, int]], pair: Pair) -> Matches:
    """The matches whose pixels lie in both pictures."""
    kept = np.ones(len(matches), bool)
    for xy, number in zip((matches.xy_in_a, matches.xy_in_b), pair, strict=True):
        high = np.array(shapes[number][::-1]) - 1
        kept &= ((xy >= 0) & (xy <= high)).all(1)
    return Matches(matches.xy_in_a[kept], matches.xy_in_b[kept], matches.confidence[kept])
