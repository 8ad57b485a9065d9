"""Show a run in 3D."""
