"""Votes of the views on points: object ids, classes, features.

Every view votes for the points that it sees, with the weight of `weight.vote_weight`. Where votes
decide: classes (`classes`); object ids with `--association.trust-ids`; with masks of things, the
ids of points on which nearly all looks agree (`association._decide`). Where they do not: with masks
of surfaces (`regions`) and dense depth the fused surface decides which object a point belongs to,
and votes only give its score.
"""
