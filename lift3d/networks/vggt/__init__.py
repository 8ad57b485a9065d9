"""The VGGT network, written from published facts; loads the authors' weights unchanged."""
