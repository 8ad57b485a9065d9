"""Votes of the views on points: object ids, classes, features."""
