"""Depth maps to one point cloud, one file per backend; or the vertices of a given mesh."""

from lift3d.reconstruction.fusion.given import given_points
from lift3d.reconstruction.fusion.tsdf import TsdfConfig
from lift3d.reconstruction.fusion.voxel import VoxelConfig
from lift3d.scene.protocols import FuserConfig
from lift3d.scene.registry import KINDS

__all__ = ["BACKENDS", "given_points"]

BACKENDS = KINDS["fusion"].built_in(
    {"voxel": VoxelConfig, "tsdf": TsdfConfig},
    FuserConfig,
)
