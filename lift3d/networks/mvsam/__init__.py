"""MV-SAM (Jeong et al. 2026, arXiv 2601.17866): SAM 2 with positional codes of 3D points.

Every view is decoded alone against the prompts of all views; what they share are the codes of the
3D points of their pixels. Neither code nor weights are published. This follows the paper as far as
it could be read; what no source settles is an option of `sizes.MvSamConfig`, with the reading that
was chosen.
"""
