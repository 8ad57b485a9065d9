"""Two views to correspondences, one backend per file."""
