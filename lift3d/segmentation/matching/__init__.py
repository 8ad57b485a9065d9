"""Two views to correspondences, one backend per file."""

from lift3d.segmentation.matching.depth import DepthMatcherConfig
from lift3d.segmentation.matching.flow import FlowMatcherConfig
from lift3d.segmentation.matching.mast3r import Mast3rMatcherConfig

BACKENDS: dict[str, type] = {
    "depth": DepthMatcherConfig,
    "flow": FlowMatcherConfig,
    "mast3r": Mast3rMatcherConfig,
}
