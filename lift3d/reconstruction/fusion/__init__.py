"""Depth maps to one point cloud: one file per backend; or the vertices of a given mesh."""

from lift3d.reconstruction.fusion.given import given_points
from lift3d.reconstruction.fusion.tsdf import TsdfConfig
from lift3d.reconstruction.fusion.voxel import VoxelConfig

__all__ = ["BACKENDS", "given_points"]

BACKENDS: dict[str, type] = {"voxel": VoxelConfig, "tsdf": TsdfConfig}
