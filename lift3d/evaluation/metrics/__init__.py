"""Scores against a truth, one benchmark per file."""
