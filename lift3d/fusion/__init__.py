"""Depth maps to one point cloud: one file per backend; or the vertices of a given mesh."""

from lift3d.fusion.given import given_points
from lift3d.fusion.tsdf import TsdfConfig
from lift3d.fusion.voxel import VoxelConfig

__all__ = ["BACKENDS", "given_points"]

BACKENDS: dict[str, type] = {"voxel": VoxelConfig, "tsdf": TsdfConfig}
