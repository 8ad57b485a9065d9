"""Of several layouts of the images the one that most matches agree with."""

from __future__ import annotations

import numpy as np

from lift3d.reconstruction.alignment.frames import Context
from lift3d.reconstruction.alignment.inputs import Pair
from lift3d.reconstruction.alignment.relative import Frame, Relative, checked
from lift3d.reconstruction.alignment.view_graph import Layout, lay_out

SURE = (0.0, 0.2, 0.35)
"""Least shares of matches that confirm a pair, for the layouts that are tried."""


def best_layout(pairs: list[Relative], frames: list[Frame | None], context: Context) -> Layout:
    """Of layouts by all pairs and by the surer ones alone, what most matches agree with.

    Where many pairs are wrong, those that few of their matches confirm may outvote the others.
    """
    best, most = None, -1
    for least in SURE:
        sure = [pair for pair in pairs if pair.share >= least]
        if not sure:
            break
        layout = lay_out(len(frames), sure)
        agreeing = sum(agreeing_matches(layout, frames, context).values())
        if agreeing > most:
            best, most = layout, agreeing
    assert best is not None
    return best


def agreeing_matches(
    layout: Layout, frames: list[Frame | None], context: Context
) -> dict[Pair, int]:
    """How many matches of each pair agree with the layout; 0 where too few do.

    Pairs that did not confirm their own geometry, or contradict the others, may all the same.
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
