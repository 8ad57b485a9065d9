"""Pairs of anchors between pieces of surface, and merges of pieces by the views' evidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from lift3d.geometry.linkage import agglomerate

PRIOR = 0.1
"""Views against a merge that are added to every pair of points, so that pairs that hardly any view
sees do not decide. Chosen by hand; not tuned on data."""


@dataclass(frozen=True, eq=False)
class Contacts:
    """Which pieces may merge, and the pairs of anchors whose evidence decides."""

    piece: Int32[np.ndarray, " anchors"]
    """From 0."""
    between: Bool[np.ndarray, " pairs"]
    """Whether the ends of each pair are in two pieces."""
    a: Int32[np.ndarray, " between"]
    """The ends of these pairs."""
    b: Int32[np.ndarray, " between"]
    contact: Int64[np.ndarray, " between"]
    """The contact that each pair is a part of."""
    one: Int32[np.ndarray, " contacts"]
    """The two pieces of each."""
    other: Int32[np.ndarray, " contacts"]

    @staticmethod
    def of(
        piece: Int32[np.ndarray, " anchors"],
        a: Int32[np.ndarray, " pairs"],
        b: Int32[np.ndarray, " pairs"],
    ) -> Contacts:
        """The contacts of the pieces, by pairs of anchors."""
        between = piece[a] != piece[b]
        a, b = a[between], b[between]
        span = int(piece.max(initial=0)) + 1
        low, high = np.minimum(piece[a], piece[b]), np.maximum(piece[a], piece[b])
        key, contact = np.unique(low.astype(np.int64) * span + high, return_inverse=True)
        one, other = (key // span).astype(np.int32), (key % span).astype(np.int32)
        return Contacts(piece, between, a, b, contact, one, other)

    def merged(
        self,
        agree: Float64[np.ndarray, " between"],
        total: Float64[np.ndarray, " between"],
        threshold: float,
    ) -> Int32[np.ndarray, " anchors"]:
        """Cluster of each anchor, by the evidence of the pairs."""
        contacts = len(self.one)  # counts of nothing are integers
        return agglomerate(
            int(self.piece.max(initial=-1)) + 1,
            self.one,
            self.other,
            np.bincount(self.contact, agree, contacts).astype(np.float64),
            np.bincount(self.contact, total + PRIOR, contacts).astype(np.float64),
            threshold,
        )[self.piece]
