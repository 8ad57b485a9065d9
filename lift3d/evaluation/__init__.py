"""How good a result is: consistency of the views (H), reprojection, and scores against truth."""
