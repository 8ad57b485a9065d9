"""Images to cameras and depth: one file per backend."""

from lift3d.reconstruction.colmap import ColmapConfig
from lift3d.reconstruction.mast3r import Mast3rConfig
from lift3d.reconstruction.sensor import SensorConfig
from lift3d.reconstruction.vggt import VggtReconstructionConfig
from lift3d.scene.protocols import ReconstructorConfig
from lift3d.scene.registry import KINDS

BACKENDS = KINDS["reconstruction"].built_in(
    {
        "sensor": SensorConfig,
        "colmap": ColmapConfig,
        "mast3r": Mast3rConfig,
        "vggt": VggtReconstructionConfig,
    },
    ReconstructorConfig,
)
