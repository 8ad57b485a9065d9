"""Global alignment: cameras and dense depth from pairwise point maps and matches."""

from lift3d.reconstruction.alignment.inputs import (
    Aligned,
    AlignmentConfig,
    Known,
    PairPrediction,
    Predictions,
)
from lift3d.reconstruction.alignment.solve import align

__all__ = ["Aligned", "AlignmentConfig", "Known", "PairPrediction", "Predictions", "align"]
