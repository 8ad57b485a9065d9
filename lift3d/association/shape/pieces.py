"""Pieces of surface, what is known of each and of their borders, and joining them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Complex128, Float64, Int64

from lift3d.association.shape.borders import OWN, TURNED
from lift3d.association.shape.moments import moments
from lift3d.association.shape.surfels import Surfels

SMALL_PIECE = 27
"""Pieces under this many surfels may become part of floor and walls."""
THIN = 0.56
"""A thing cannot stand on a contact narrower than this share of its width."""
GROUND = 1000
"""Surfels of a level surface that carries things as the floor does: a rug, a table, a bed."""
STANDING = 0.15
"""Width of the contact with floor, wall or ground, in widths, that a thing stands by."""

SIZE, LIGHT, LEVEL, UPRIGHT, BINS = 0, slice(1, 4), 4, 5, slice(6, 26)
"""Sums over a piece: surfels, their CIELAB, level and upright ones, colour histogram."""

Pairs: TypeAlias = list[tuple[int, int]]
PairProbability: TypeAlias = "Callable[[Pieces, Pairs], Float64[np.ndarray, ' pairs']]"
"""The probability that two neighbours are parts of one thing."""


class Pieces:
    """A graph of pieces that are joined; sums are kept, so that a join costs its neighbours."""

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

    def merge_probability(self, pairs: Pairs) -> Float64[np.ndarray, " pairs"]:
        """Probability that two neighbours are one thing; only crumbs join floor and walls."""
        one, other = np.array(pairs, np.int64).T
        small = np.minimum(self.sums[one, SIZE], self.sums[other, SIZE])
        never = (self.layout[one] | self.layout[other]) & (small >= SMALL_PIECE)
        return np.where(never, 0.0, self.probability(self, pairs))

    def merge(self, one: int, other: int) -> int:
        """Make two one; the one with more neighbours stays. Returns which."""
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
        """Join all of one group that are neighbours, of each other or by others of the group."""
        for one in range(len(group)):
            while self.alive[one]:
                alike = next((q for q in self.edge[one] if group[q] == group[one]), None)
                if alike is None:
                    break
                one = self.merge(one, alike)

    def attach_unsupported(self) -> None:
        """What cannot stand alone joins what carries it; crumbs join what holds them."""
        changed = True
        while changed:
            changed = False
            for one in np.argsort(self.sums[:, SIZE], kind="stable").tolist():
                if not self.alive[one] or self.layout[one] or self._stands(one):
                    continue
                held = [(e[OWN], q) for q, e in self.edge[one].items() if not self.layout[q]]
                if not held:
                    continue
                contact, other = max(held)
                size = self.sums[one, SIZE]
                crumb = size < 60 and contact > 0.3 * self.around[one]
                carried = size < 3000 and 3 <= contact < THIN * np.sqrt(size)
                if crumb or (carried and contact > 0.6 * sum(each for each, _ in held)):
                    self.merge(one, other)
                    changed = True

    def roots(self) -> Int64[np.ndarray, " pieces"]:
        """What each piece became part of."""
        root = self.parent.copy()
        while (root[root] != root).any():
            root = root[root]
        return root

    def _stands(self, one: int) -> bool:
        size = self.sums[one, SIZE]
        on = 0.0
        for other, edge in self.edge[one].items():
            if self.layout[other] or (size > 60 and self._ground(other)):
                on += edge[OWN]
        return bool(on >= STANDING * np.sqrt(size))

    def _ground(self, one: int) -> bool:
        level = self.sums[one, LEVEL]
        return bool(level >= GROUND and level >= 0.5 * self.sums[one, SIZE])


def largest(
    root: Int64[np.ndarray, " pieces"], size: Float64[np.ndarray, " pieces"]
) -> Int64[np.ndarray, " pieces"]:
    """Of each root the largest of the pieces that became part of it, itself among them.

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
    """Half of each surfel to one of 8 bins of lightness, half to 12 of hue where it has one."""
    lab, along = surface.lab, surface.normal @ up
    sums = np.zeros((count, 26))
    sums[:, SIZE] = np.bincount(piece, minlength=count)
    for c in range(3):
        sums[:, LIGHT.start + c] = np.bincount(piece, lab[:, c], count)
    sums[:, LEVEL] = np.bincount(piece, along > 0.85, count)
    sums[:, UPRIGHT] = np.bincount(piece, np.abs(along) < 0.3, count)
    light = np.clip((lab[:, 0] / 12.5).astype(int), 0, 7)
    hue = (np.degrees(np.arctan2(lab[:, 2], lab[:, 1])) % 360 / 30).astype(int) % 12
    sure = np.minimum(np.hypot(lab[:, 1], lab[:, 2]) / 15, 1)
    np.add.at(sums, (piece, BINS.start + light), 0.5)
    np.add.at(sums, (piece, BINS.start + 8 + hue), 0.5 * sure)
    return sums


def _turn(
    surface: Surfels, piece: Int64[np.ndarray, " surfels"], count: int, up: np.ndarray
) -> Complex128[np.ndarray, " pieces"]:
    """Sum of exp(4i angle) over upright surfels: equal for all sides of a box."""
    first = np.cross(up, np.eye(3)[np.argmin(np.abs(up))])
    first /= max(float(np.linalg.norm(first)), 1e-9)
    second = np.cross(up, first)
    angle = np.arctan2(surface.normal @ second, surface.normal @ first)
    way = np.exp(4j * angle) * (np.abs(surface.normal @ up) < 0.3)
    return np.bincount(piece, way.real, count) + 1j * np.bincount(piece, way.imag, count)
