"""A run: the folder that a lift writes, its stages, and everything that opens it."""
