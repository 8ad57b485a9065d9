"""The stages of global alignment, in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float64

from lift3d.reconstruction.alignment.cells import Cells, cell_size, observations_of
from lift3d.reconstruction.alignment.dense import corrected
from lift3d.reconstruction.alignment.frames import (
    Context,
    Progress,
    confirmed_pairs,
    image_frames,
    reconsidered,
    unmasked,
)
from lift3d.reconstruction.alignment.inputs import (
    UNKNOWN,
    Aligned,
    AlignmentConfig,
    Known,
    Pair,
    Predictions,
)
from lift3d.reconstruction.alignment.known import prior_of, starting_state, unit_of
from lift3d.reconstruction.alignment.layouts import agreeing_matches, best_layout
from lift3d.reconstruction.alignment.refine import State, refine
from lift3d.reconstruction.alignment.relative import Frame
from lift3d.reconstruction.alignment.view_graph import Layout
from lift3d.scene import Matches
from lift3d.scene.errors import InputError


def align(
    shapes: Sequence[tuple[int, int]],
    predictions: Predictions,
    matches: Mapping[Pair, Matches],
    known: Sequence[Known] | None = None,
    config: AlignmentConfig = AlignmentConfig(),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Aligned:
    """Estimate cameras and depth from predictions and matches of image pairs.

    `shapes` are height and width of the images; `matches` are of pairs (a, b) with a < b;
    `known` holds the known quantities of each image. The world's unit is that of the known poses
    or depth, else of the predictions (metres with a metric checkpoint). Its frame is that of the
    known poses, else of the first used image.

    Each image's depth and focal length are averaged from its predictions. Pairs are converted to
    similarities and checked with their matches. Rotations, scales and positions are averaged over
    the graph of pairs. Then all parameters are refined with the matches, and the dense depth maps
    are corrected. Raises InputError if no two images can be aligned.
    """
    known = [UNKNOWN] * len(shapes) if known is None else list(known)
    if len(known) != len(shapes):
        raise InputError(
            f"`known` has {len(known)} entries for {len(shapes)} images; expected one per image"
        )
    matches = {pair: unmasked(each, known, pair) for pair, each in matches.items()}
    count = Progress(progress, len(shapes) + len(matches) + config.iterations)
    context = Context(shapes, predictions, matches, known, config, seed)
    frames, scales = image_frames(context, count)
    pairs = confirmed_pairs(list(matches), frames, scales, context, count)
    pairs = reconsidered(pairs, frames, scales, context)
    if not pairs:
        raise InputError(
            "no two images could be aligned: no pair has "
            f"{config.min_matches} matches that agree with its geometry; do the pictures overlap?"
        )
    layout = best_layout(pairs, frames, context)
    admitted = [
        pair for pair, agreeing in agreeing_matches(layout, frames, context).items() if agreeing
    ]
    state = starting_state(layout, frames, known, config.shared_focal)
    cells = Cells(shapes, layout.members, cell_size(config, layout.members))
    observations = observations_of(admitted, frames, matches, cells)
    prior = prior_of(state, frames, known, layout.members, cells, config.shared_focal)
    state, reprojection, information = refine(
        state, observations, prior, config.iterations, count.from_here()
    )
    factor = unit_of(state, frames, known, layout.members)
    return _finished(layout, state, frames, shapes, known, cells, information, factor, reprojection)


def _finished(
    layout: Layout,
    state: State,
    frames: list[Frame | None],
    shapes: Sequence[tuple[int, int]],
    known: Sequence[Known],
    cells: Cells,
    information: Float64[np.ndarray, " cells"],
    factor: float,
    reprojection: float,
) -> Aligned:
    images = len(shapes)
    used: Bool[np.ndarray, " images"] = np.zeros(images, bool)
    used[layout.members] = True
    K, pose = np.tile(np.eye(3), (images, 1, 1)), np.tile(np.eye(4), (images, 1, 1))
    depth, confidence, reason = [], [], {}
    # Scale about the known poses, so that a single known pose stays fixed.
    posed = [i for i in layout.members if known[i].world_from_camera is not None]
    middle = state.position[posed].mean(0) if posed else np.zeros(3)
    for image, shape in enumerate(shapes):
        frame = frames[image]
        if not used[image] or frame is None:
            depth.append(np.zeros(shape, np.float32))
            confidence.append(np.zeros(shape, np.float32))
            reason[image] = (
                "no prediction has it as the reference"
                if frame is None
                else "no pair connects it to the other images: does it overlap with them?"
            )
            continue
        about, focal = known[image], float(np.exp(state.log_focal[image]))
        K[image] = [[focal, 0, frame.centre[0]], [0, focal, frame.centre[1]], [0, 0, 1]]
        if about.K is not None and about.focal_sigma == 0:
            K[image] = about.K
        pose[image, :3, :3] = state.rotation[image]
        pose[image, :3, 3] = middle + (state.position[image] - middle) * factor
        depth.append(
            corrected(
                frame.own.depth,
                float(np.exp(state.log_scale[image])) * factor,
                cells.of(image, state.correction),
                cells.of(image, information),
                cells.size,
            )
        )
        # Map confidence c >= 0 to [0, 1) by c / (1 + c).
        raw = np.maximum(frame.own.confidence, 0)
        confidence.append((raw / (1 + raw)).astype(np.float32))
    return Aligned(
        used=used,
        K=K,
        world_from_camera=pose,
        depth=depth,
        confidence=confidence,
        reason=reason,
        dropped_pairs=tuple((pair.a, pair.b) for pair in layout.dropped),
        reprojection=reprojection,
    )
