"""Consistency H of the labels of all views (MastSAM, Eq. 4-6), exact, with its baselines."""

from lift3d.evaluation.consistency.counts import NeighbourCounts, neighbour_counts
from lift3d.evaluation.consistency.scenes import (
    SceneConsistency,
    scene_consistencies,
    scene_consistency,
)
from lift3d.evaluation.consistency.scoring import Consistency, Exclude, consistency, score

__all__ = [
    "Consistency",
    "Exclude",
    "NeighbourCounts",
    "SceneConsistency",
    "consistency",
    "neighbour_counts",
    "scene_consistencies",
    "scene_consistency",
    "score",
]
