"""Photos to cameras and sparse points by COLMAP, and what its mappers leave joined."""

from lift3d.reconstruction.colmap.backend import Colmap, ColmapConfig

__all__ = ["Colmap", "ColmapConfig"]
