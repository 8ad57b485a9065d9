"""Two views to correspondences, one backend per file."""

from lift3d.matching.depth import DepthMatcherConfig
from lift3d.matching.flow import FlowMatcherConfig

BACKENDS: dict[str, type] = {
    "depth": DepthMatcherConfig,
    "flow": FlowMatcherConfig,
}
