"""Track masks of single views into label maps with persistent ids, one backend per file."""

from lift3d.scene.protocols import TrackerConfig
from lift3d.scene.registry import KINDS
from lift3d.segmentation.tracking.byocl import ByoclConfig
from lift3d.segmentation.tracking.given import GivenConfig
from lift3d.segmentation.tracking.independent import IndependentConfig
from lift3d.segmentation.tracking.mastsam import MastsamConfig
from lift3d.segmentation.tracking.vggt_s import VggtSConfig

BACKENDS = KINDS["tracking"].built_in(
    {
        "independent": IndependentConfig,
        "mastsam": MastsamConfig,
        "byocl": ByoclConfig,
        "vggt-s": VggtSConfig,
        "given": GivenConfig,
    },
    TrackerConfig,
)
