"""A run: the folder that a lift leaves, its stages, and everything that opens it."""
