"""Choose among several layouts of the images by the number of agreeing matches."""

from __future__ import annotations

import numpy as np

from lift3d.reconstruction.alignment.frames import Context
from lift3d.reconstruction.alignment.inputs import Pair
from lift3d.reconstruction.alignment.relative import Frame, Relative, checked
from lift3d.reconstruction.alignment.view_graph import Layout, lay_out

MIN_SHARES = (0.0, 0.2, 0.35)
"""Minimum shares of agreeing matches per pair; one layout is tried for each. Chosen by hand; not
tuned on data."""


def best_layout(pairs: list[Relative], frames: list[Frame | None], context: Context) -> Layout:
    """The layout with the most agreeing matches, among one for each of `MIN_SHARES`.

    If many pairs are wrong, pairs with few agreeing matches may outvote the correct pairs.
    """
    best, most = None, -1
    for least in MIN_SHARES:
        selected = [pair for pair in pairs if pair.share >= least]
        if not selected:
            break
        layout = lay_out(len(frames), selected)
        agreeing = sum(agreeing_matches(layout, frames, context).values())
        if agreeing > most:
            best, most = layout, agreeing
    assert best is not None
    return best


def agreeing_matches(
    layout: Layout, frames: list[Frame | None], context: Context
) -> dict[Pair, int]:
    """Number of matches of each pair that agree with the layout; 0 if too few.

    A pair may agree even if its own geometry was not confirmed or contradicted other pairs.
    """
    config, members = context.config, set(layout.members)
    counts = {}
    for (a, b), each in context.matches.items():
        of_a, of_b = frames[a], frames[b]
        if not {a, b} <= members or of_a is None or of_b is None:
            continue
        to_a = layout.rotation[a].T
        pair = Relative(
            a,
            b,
            float(np.exp(layout.log_scale[b] - layout.log_scale[a])),
            to_a @ layout.rotation[b],
            to_a @ (layout.position[b] - layout.position[a]) / np.exp(layout.log_scale[a]),
        )
        pair, _ = checked(pair, of_a, of_b, each)
        enough = pair.agreeing >= config.min_matches and pair.share >= config.min_share
        counts[a, b] = pair.agreeing if enough else 0
    return counts
