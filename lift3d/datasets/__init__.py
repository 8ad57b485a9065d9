"""Readers, one outside format per file."""
