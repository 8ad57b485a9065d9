"""Classifiers of pairs of pieces and of nodes of the hierarchy, trained on synthetic rooms.

`joining.npz` is part of the package and written by `pipelines/train_joining.py`: boosted trees over
the features of `cues`, some with a constrained sign, and of `nodes`. Rating the neighbours again
after every merge is from GALA (Nunez-Iglesias et al. 2013, "Machine learning of hierarchical
clustering"); choosing nodes of the merge tree by a second classifier is from Liu et al. (2014).
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
    """The two classifiers."""

    join: Trees
    """Probability that two neighbours are parts of one object, from `cues.CUES`."""
    node: Trees
    """Worth of a node of the hierarchy, 0 to 1, from `nodes.CUES`: 0 for an IoU with the best
    object up to 0.35, 1 from 0.9 on (chosen on rooms 120 to 129)."""


@lru_cache(maxsize=1)
def joining(path: Path = MODEL) -> Joining:
    """The classifiers in the package; `whole` is the name of `node` in the file."""
    with np.load(path) as arrays:
        return Joining(Trees.of_arrays(arrays, "join"), Trees.of_arrays(arrays, "whole"))
