"""Images to cameras and depth, one backend per file."""
