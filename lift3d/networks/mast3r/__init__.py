"""The MASt3R network, written from published facts; loads the authors' weights unchanged."""
