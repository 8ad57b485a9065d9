"""lift3d: pictures of a static scene to a point cloud whose points carry object labels."""

__version__ = "0.1.0"
