"""Images to masks, one backend per file."""

from lift3d.scene.protocols import SegmentationConfig
from lift3d.scene.registry import KINDS
from lift3d.segmentation.folder import FolderConfig
from lift3d.segmentation.regions import RegionsConfig
from lift3d.segmentation.sam import SamConfig
from lift3d.segmentation.sam_transformers import SamTransformersConfig
from lift3d.segmentation.simulated import SimulatedConfig

BACKENDS = KINDS["segmentation"].built_in(
    {
        "regions": RegionsConfig,
        "folder": FolderConfig,
        "sam": SamConfig,
        "sam-hf": SamTransformersConfig,
        "simulated": SimulatedConfig,
    },
    SegmentationConfig,
)
