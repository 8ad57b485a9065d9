"""Networks of SAM's kind: an image is encoded once, then prompted many times."""
