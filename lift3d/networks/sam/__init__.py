"""Networks like SAM: an image is encoded once, then prompted many times."""
