"""The judges of what belongs together and what is an object, learned from rooms that are known.

`joining.npz` comes with the package (`pipelines/train_joining.py` makes it): boosted trees over the
cues of `cues`, some of which may only speak one way, and of `wholes`. Asking the first again after
every join is GALA's idea (Nunez-Iglesias et al. 2013, "Machine learning of hierarchical
clustering"); choosing from the tree of joins by a second is that of merge trees (Liu et al. 2014).
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
    """What a node of the hierarchy is worth, 0 to 1, from `wholes.CUES`: 0 where its IoU with the
    nearest object is 0.35 or less, 1 from 0.9 on."""


@lru_cache(maxsize=1)
def joining(path: Path = MODEL) -> Joining:
    """As it comes with the package."""
    with np.load(path) as arrays:
        return Joining(Trees.of_arrays(arrays, "join"), Trees.of_arrays(arrays, "whole"))
