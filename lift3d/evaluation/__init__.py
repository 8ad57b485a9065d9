"""Quality of a result: consistency of the views (H), reprojection, and scores against truth."""
