"""The MASt3R network, written from published facts, key for key with the authors' weights."""
