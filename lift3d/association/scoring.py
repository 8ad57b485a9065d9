"""How sure labels are: the confidence of objects, which ranks them, and the scores of points."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64, Int32

from lift3d.association.votes.ballot import Ballot

VOTES_COUNT = 0.15
"""Power of a point's share of votes in its score, where views confirm objects. Chosen on real scans
with damaged masks (AP 0.844; 1 gives 0.835), checked on synthetic rooms (0.536; 1 gives 0.530)."""


def scores(
    ballot: Ballot,
    label: Int32[np.ndarray, " points"],
    rank: Int32[np.ndarray, " objects"],
    confidence: dict[int, float],
    power: float = 1,
) -> Float32[np.ndarray, " points"]:
    """Share of the weight of all looks that voted for a point's object, times its confidence.

    Votes alone rank objects badly, above all pieces of one object. `power`: of the share.
    """
    voted, weight = ballot.top(8)
    ids = np.append(np.int32(0), rank)[voted]
    for_it = (weight * ((ids == label[:, None]) & (label[:, None] > 0))).sum(1)
    share = for_it / np.maximum(ballot.looked, 1e-9)
    sure = np.zeros(int(label.max(initial=0)) + 1)
    sure[list(confidence)] = list(confidence.values())
    return (np.minimum(share, 1) ** power * sure[label]).astype(np.float32)


def confidences(
    every: Float64[np.ndarray, " objects"], rank: Int32[np.ndarray, " objects"]
) -> dict[int, float]:
    """The confidence of the objects that are left, by their new ids."""
    return {int(r): round(float(every[i]), 6) for i, r in enumerate(rank) if r > 0}
