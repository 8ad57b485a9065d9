"""Writers, one outside format per file."""
