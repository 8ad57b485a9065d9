"""Two views to correspondences, one backend per file."""

from lift3d.matching.depth import DepthMatcherConfig

BACKENDS: dict[str, type] = {
    "depth": DepthMatcherConfig,
}
