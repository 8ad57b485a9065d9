"""The judge of what belongs together, learned from rooms whose objects are known.

`joining.npz` comes with the package (`pipelines/train_joining.py` makes it): boosted trees over the
few cues of `cues`, most of which may only speak one way, so that what was learned in synthetic
rooms holds in real ones. Asking such a judge again after every join is GALA's idea
(Nunez-Iglesias et al. 2013, "Machine learning of hierarchical clustering").
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from lift3d.association.shape.trees import Trees

MODEL = Path(__file__).with_name("joining.npz")


@dataclass(frozen=True, eq=False)
class Joining:
    """What was learned."""

    join: Trees
    """Whether two neighbours are parts of one thing, from `cues.cues`."""
    whole: Trees
    """Whether a thing is one of the truth's objects, from `cues.whole`."""


@lru_cache(maxsize=1)
def joining(path: Path = MODEL) -> Joining:
    """As it comes with the package."""
    with np.load(path) as arrays:
        return Joining(Trees.of_arrays(arrays, "join"), Trees.of_arrays(arrays, "whole"))
