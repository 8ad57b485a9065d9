"""Correspondences between two views, one backend per file."""

from lift3d.scene.protocols import MatcherConfig
from lift3d.scene.registry import KINDS
from lift3d.segmentation.matching.depth import DepthMatcherConfig
from lift3d.segmentation.matching.flow import FlowMatcherConfig
from lift3d.segmentation.matching.mast3r import Mast3rMatcherConfig
from lift3d.segmentation.matching.vggt import VggtMatcherConfig

BACKENDS = KINDS["matching"].built_in(
    {
        "depth": DepthMatcherConfig,
        "flow": FlowMatcherConfig,
        "mast3r": Mast3rMatcherConfig,
        "vggt": VggtMatcherConfig,
    },
    MatcherConfig,
)
