"""Masks of single views to masks whose ids persist, one backend per file."""
