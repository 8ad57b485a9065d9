"""The stages of global alignment, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float64

from lift3d.reconstruction.alignment.cells import Cells, cell_size, looks_of
from lift3d.reconstruction.alignment.dense import corrected
from lift3d.reconstruction.alignment.frames import (
    Context,
    Teller,
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
    """Cameras and depth that the predictions and matches of image pairs agree on.

    `shapes` are height and width of the images; `matches` are of pairs (a, b) with a < b.
    `known` says what is known of each image. The world's unit is that of the known poses or
    depth, else that of the predictions (metres with a metric checkpoint), its frame that of the
    known poses, else of the first image that is used.

    Each image's depth and focal length are averaged from its predictions; pairs are turned into
    similarities and checked by their matches; rotations, scales and positions are averaged over
    the graph of pairs; then everything is refined against the matches, and the depth maps are
    brought to the result. Raises InputError where no two images can be aligned.
    """
    known = [UNKNOWN] * len(shapes) if known is None else list(known)
    if len(known) != len(shapes):
        raise InputError(f"{len(known)} entries of what is known for {len(shapes)} images")
    matches = {pair: unmasked(each, known, pair) for pair, each in matches.items()}
    told = Teller(progress, len(shapes) + len(matches) + config.iterations)
    context = Context(shapes, predictions, matches, known, config, seed)
    frames, scales = image_frames(context, told)
    pairs = confirmed_pairs(list(matches), frames, scales, context, told)
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
    looks = looks_of(admitted, frames, matches, cells)
    prior = prior_of(state, frames, known, layout.members, cells, config.shared_focal)
    state, reprojection, information = refine(
        state, looks, prior, config.iterations, told.from_here()
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
    # A single known pose stays where it is: the world grows around it.
    posed = [i for i in layout.members if known[i].world_from_camera is not None]
    middle = state.position[posed].mean(0) if posed else np.zeros(3)
    for image, shape in enumerate(shapes):
        frame = frames[image]
        if not used[image] or frame is None:
            depth.append(np.zeros(shape, np.float32))
            confidence.append(np.zeros(shape, np.float32))
            reason[image] = (
                "no prediction of any pair has it"
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
        # MASt3R's confidence starts at 1; what is below 1 elsewhere is cut.
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
