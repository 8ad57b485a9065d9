"""MASt3R: two pictures to points, confidences and descriptors, by our own network."""
