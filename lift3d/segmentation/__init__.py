"""Images to masks, one backend per file."""
