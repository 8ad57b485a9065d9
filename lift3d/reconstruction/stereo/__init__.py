"""Depth of posed photos by multi-view stereo: no weights, no GPU.

Poses are adjusted to the pictures (`tracks.py`, `adjust.py`); each view is compared with a few
others (`neighbours.py`): first on planes through the scene (`sweep.py`), then on a slanted plane
per pixel (`refine.py`). Depth stays where other views confirm it (`consistency.py`).
"""

from lift3d.reconstruction.stereo.backend import (
    Answer,
    Estimated,
    StereoConfig,
    dense_views,
    densify,
)

__all__ = ["Answer", "Estimated", "StereoConfig", "dense_views", "densify"]
