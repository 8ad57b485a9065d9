"""The graph of pieces: sums over each piece and each border, kept up to date by merges.

`SMALL_PIECE`, `THIN`, `GROUND`, `STANDING` and the limits of `attach_unsupported` are for surfels
of about 2 cm. They were chosen on synthetic rooms 100 to 109 while rules merged the pieces, and not
again for the classifiers.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Complex128, Float64, Int64

from lift3d.association.shape.borders import OWN, TURNED
from lift3d.association.shape.moments import moments
from lift3d.association.shape.surfels import Surfels
from lift3d.geometry.forest import tops

SMALL_PIECE = 27
"""Pieces with fewer surfels may merge with floor and walls."""
THIN = 0.56
"""Contacts narrower than this share of an object's width do not support it as a separate object."""
GROUND, GROUND_SHARE = 1000, 0.5
"""Minimum level surfels, and their minimum share, of a piece that supports objects as the floor
does: a rug, a table, a bed."""
STANDING = 0.15
"""Minimum width of the contact with floor, wall or ground, in widths of the object, to stand."""
ON_GROUND = 60
"""Objects up to this many surfels do not stand on ground other than floor and walls, and merge with
a neighbour along more than `FRAGMENT_CONTACT` of their border if they are smaller."""
FRAGMENT_CONTACT = 0.3
"""Minimum share of the border of such a small object along the neighbour that it merges with."""
SUPPORTED = 3000
"""Larger objects are never merged with their support."""
LEAST_CONTACT, MAIN_CONTACT = 3, 0.6
"""Minimum contact with a support in surfels, and as a share of all contacts but layout."""
LEVEL_COSINE, UPRIGHT_COSINE = 0.85, 0.3
"""Minimum cosine between normal and up of a level surfel, maximum of an upright one. Chosen by
hand; not tuned on data."""
LIGHTNESS_BIN, HUE_BIN, COLOURED = 12.5, 30, 15
"""Widths of the histogram's bins, in L* and degrees of hue, and chroma from which the hue counts
fully. Chosen by hand; not tuned on data."""

SIZE, LIGHT, LEVEL, UPRIGHT, BINS = 0, slice(1, 4), 4, 5, slice(6, 26)
"""Columns of the sums over a piece: surfels, CIELAB, level and upright surfels, histogram."""

Pairs: TypeAlias = list[tuple[int, int]]
PairProbability: TypeAlias = "Callable[[Pieces, Pairs], Float64[np.ndarray, ' pairs']]"
"""Predicts the probability that two neighbours are parts of one object, for each pair."""


class Pieces:
    """A graph of pieces. A merge costs time in the number of neighbours only."""

    def __init__(
        self,
        surface: Surfels,
        cell: float,
        piece: Int64[np.ndarray, " surfels"],
        is_layout: Bool[np.ndarray, " pieces"],
        borders: tuple[np.ndarray, np.ndarray, Float64[np.ndarray, "borders sums"]],
        up: Float64[np.ndarray, "3"],
        probability: PairProbability,
    ) -> None:
        count = len(is_layout)
        self.layout = is_layout.copy()
        self.probability = probability
        self.sums = _sums(surface, piece, count, up)
        self.moments = moments(surface, cell, piece, count)
        self.turn = _turn(surface, piece, count, up)
        self.parent = np.arange(count)
        self.alive = np.ones(count, bool)
        self.version = np.zeros(count, np.int64)
        self.edge: list[dict[int, np.ndarray]] = [{} for _ in range(count)]
        ends = zip(borders[0].tolist(), borders[1].tolist(), strict=True)
        for (one, other), sums in zip(ends, borders[2], strict=True):
            self.edge[one][other] = sums
            self.edge[other][one] = sums[TURNED]
        self.around = np.array([sum(e[OWN] for e in each.values()) for each in self.edge])

    def copy(self) -> Pieces:
        """The same graph, to be merged otherwise."""
        other = copy(self)
        for name in ("layout", "sums", "moments", "turn", "parent", "alive", "version", "around"):
            setattr(other, name, getattr(self, name).copy())
        other.edge = [dict(each) for each in self.edge]  # merges replace sums of a border
        return other

    def merge_probability(self, pairs: Pairs) -> Float64[np.ndarray, " pairs"]:
        """Probability that two neighbours are one object; 0 for layout and a large piece."""
        one, other = np.array(pairs, np.int64).T
        small = np.minimum(self.sums[one, SIZE], self.sums[other, SIZE])
        never = (self.layout[one] | self.layout[other]) & (small >= SMALL_PIECE)
        return np.where(never, 0.0, self.probability(self, pairs))

    def merge(self, one: int, other: int) -> int:
        """Merge two neighbours; returns the index that stays, that with more neighbours."""
        if len(self.edge[one]) < len(self.edge[other]):
            one, other = other, one
        self.around[one] += self.around[other]
        self.around[one] -= self.edge[one][other][OWN] + self.edge[other][one][OWN]
        self.sums[one] += self.sums[other]
        self.moments[one] += self.moments[other]
        self.turn[one] += self.turn[other]
        self.layout[one] |= self.layout[other]
        self.alive[other] = False
        self.parent[other] = one
        self.version[one] += 1
        del self.edge[one][other]
        for third, sums in self.edge[other].items():
            if third == one:
                continue
            back = self.edge[third].pop(other)
            if third in self.edge[one]:
                sums = sums + self.edge[one][third]
                back = back + self.edge[third][one]
            self.edge[one][third] = sums
            self.edge[third][one] = back
        self.edge[other] = {}
        return one

    def merge_groups(self, group: Int64[np.ndarray, " pieces"]) -> None:
        """Merge the connected pieces of each group."""
        for one in range(len(group)):
            while self.alive[one]:
                alike = next((q for q in self.edge[one] if group[q] == group[one]), None)
                if alike is None:
                    break
                one = self.merge(one, alike)

    def attach_unsupported(self) -> None:
        """Merge objects without a stand with their support, and fragments with their neighbour."""
        changed = True
        while changed:
            changed = False
            for one in np.argsort(self.sums[:, SIZE], kind="stable").tolist():
                if not self.alive[one] or self.layout[one] or self._stands(one):
                    continue
                contacts = [(e[OWN], q) for q, e in self.edge[one].items() if not self.layout[q]]
                if not contacts:
                    continue
                contact, other = max(contacts)
                size = self.sums[one, SIZE]
                fragment = size < ON_GROUND and contact > FRAGMENT_CONTACT * self.around[one]
                narrow = size < SUPPORTED and LEAST_CONTACT <= contact < THIN * np.sqrt(size)
                main = contact > MAIN_CONTACT * sum(each for each, _ in contacts)
                if fragment or (narrow and main):
                    self.merge(one, other)
                    changed = True

    def roots(self) -> Int64[np.ndarray, " pieces"]:
        """Index that stayed of all merges of each piece."""
        return tops(self.parent)

    def _stands(self, one: int) -> bool:
        size = self.sums[one, SIZE]
        on = 0.0
        for other, edge in self.edge[one].items():
            if self.layout[other] or (size > ON_GROUND and self._ground(other)):
                on += edge[OWN]
        return bool(on >= STANDING * np.sqrt(size))

    def _ground(self, one: int) -> bool:
        level = self.sums[one, LEVEL]
        return bool(level >= GROUND and level >= GROUND_SHARE * self.sums[one, SIZE])


def largest(
    root: Int64[np.ndarray, " pieces"], size: Float64[np.ndarray, " pieces"]
) -> Int64[np.ndarray, " pieces"]:
    """The largest of the pieces merged into each root, the root included.

    >>> largest(np.array([0, 0, 2]), np.array([5.0, 40, 7]))[[0, 2]].tolist()
    [1, 2]
    """
    order = np.argsort(size, kind="stable")  # the largest is written last
    found = np.zeros(len(root), np.int64)
    found[root[order]] = order
    return found


def _sums(
    surface: Surfels, piece: Int64[np.ndarray, " surfels"], count: int, up: np.ndarray
) -> Float64[np.ndarray, "pieces sums"]:
    """Columns as above; a surfel adds 0.5 to a bin of lightness and up to 0.5 to one of hue."""
    lab, along = surface.lab, surface.normal @ up
    sums = np.zeros((count, 26))
    sums[:, SIZE] = np.bincount(piece, minlength=count)
    for c in range(3):
        sums[:, LIGHT.start + c] = np.bincount(piece, lab[:, c], count)
    sums[:, LEVEL] = np.bincount(piece, along > LEVEL_COSINE, count)
    sums[:, UPRIGHT] = np.bincount(piece, np.abs(along) < UPRIGHT_COSINE, count)
    light = np.clip((lab[:, 0] / LIGHTNESS_BIN).astype(int), 0, 7)
    hue = (np.degrees(np.arctan2(lab[:, 2], lab[:, 1])) % 360 / HUE_BIN).astype(int) % 12
    coloured = np.minimum(np.hypot(lab[:, 1], lab[:, 2]) / COLOURED, 1)
    np.add.at(sums, (piece, BINS.start + light), 0.5)
    np.add.at(sums, (piece, BINS.start + 8 + hue), 0.5 * coloured)
    return sums


def _turn(
    surface: Surfels, piece: Int64[np.ndarray, " surfels"], count: int, up: np.ndarray
) -> Complex128[np.ndarray, " pieces"]:
    """Sum of exp(4i angle) over upright surfels: equal for all sides of a box."""
    first = np.cross(up, np.eye(3)[np.argmin(np.abs(up))])
    first /= max(float(np.linalg.norm(first)), 1e-9)
    second = np.cross(up, first)
    angle = np.arctan2(surface.normal @ second, surface.normal @ first)
    way = np.exp(4j * angle) * (np.abs(surface.normal @ up) < UPRIGHT_COSINE)
    return np.bincount(piece, way.real, count) + 1j * np.bincount(piece, way.imag, count)
