"""Pieces of surface are joined to things.

The constants were searched one by one on ten synthetic rooms (seeds 100 to 109), the limits on
colour and contact then tightened by what two real scans showed to be wrong.
"""

from __future__ import annotations

import heapq

import numpy as np
from jaxtyping import Bool, Complex128, Float64, Int64

from lift3d.association.shape.borders import (
    AGREED,
    ASKED,
    INWARD,
    OUTWARD,
    OWN,
    PAIRS,
    RISE,
    RISE_BACK,
    STEP,
    TURNED,
)
from lift3d.association.shape.surfels import Surfels

HUE, TINT = 6.0, 25.0
"""Distance in a*b*, and in all of CIELAB, at which two pieces no longer look alike."""
OVERLAP = 0.525
"""Share of two pieces' colour histograms that is the same where they still look alike."""
CONCAVE, HALF_STEP, RISING = 0.06, 0.8, 0.21
"""What a border without interruption stays under: mean 1 - cosine of inward bends, mean step in
half cells, and the share of it where one piece rises from the other, which lies flat."""
STRICT, STRICTER = 0.2, 0.45
"""Added to the difference of pieces that look alike where they meet in an inward right angle; the
second besides where they meet along a broad contact."""
PATCH = 0.28
"""Added per unit of unlikeness where a border goes on: patterns are joined late."""
CONVEX = 0.15
"""Mean 1 - cosine of outward bends from which a border is a box's own edge."""
DOUBT, VETO, VETO_PATCH = 0.5, 1.5, 0.4
"""Two pieces are kept apart where fewer of the views put them into one mask; what that adds at most
to the difference of pieces that look alike, and of a pattern's."""
SURE, TRUST = 0.8, 0.3
"""Where more of the views put two pieces into one mask, this much is taken off where it is flat:
sun and shadow are no objects."""
BROAD, LONG = (0.63, 3.0), (45.0, 90.0)
"""Contact in widths of the smaller piece, and in surfels, from which on, and up to which, doubts
grow: the parts of a chair touch along a neck, whatever the masks say."""
ASKEW, ASKEW_BY = 2.0, (4.0, 10.0)
"""Added where both are boxes and one is turned on the other by so many degrees: loose things."""
SQUARE = 0.85
"""How much alike the directions of a box's sides are, modulo right angles; 20 surfels at least."""
TOUCH = 0.14
"""A contact narrower than this share of the smaller piece's width is an accident."""
CRUMB = 27
"""Pieces under this many surfels are joined early."""
THIN = 0.56
"""A thing cannot stand on a contact narrower than this share of its width."""
GROUND = 1000
"""Surfels of a level surface that carries things as the floor does: a rug, a table, a bed."""
STANDING = 0.15
"""Width of the contact with floor, wall or ground, in widths, that a thing stands by."""

SIZE, LIGHT, LEVEL, UPRIGHT, BINS = 0, slice(1, 4), 4, 5, slice(6, 26)
"""Sums over a piece: surfels, their CIELAB, level and upright ones, colour histogram."""


class Pieces:
    """A graph of pieces that are joined; sums are kept, so that a join costs its neighbours."""

    def __init__(
        self,
        surface: Surfels,
        piece: Int64[np.ndarray, " surfels"],
        is_layout: Bool[np.ndarray, " pieces"],
        borders: tuple[np.ndarray, np.ndarray, Float64[np.ndarray, "borders sums"]],
        up: Float64[np.ndarray, "3"],
    ) -> None:
        count = len(is_layout)
        self.layout = is_layout.copy()
        self.sums = _sums(surface, piece, count, up)
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

    def difference(self, pairs: list[tuple[int, int]]) -> Float64[np.ndarray, " pairs"]:
        """How different two neighbours are; under 1 they are one thing."""
        one, other = np.array(pairs, np.int64).T
        sums = np.array([self.edge[p][q] for p, q in pairs])
        turn = self.sums[one, SIZE] > self.sums[other, SIZE]
        small, large = np.where(turn, other, one), np.where(turn, one, other)
        sums = np.where(turn[:, None], sums[:, TURNED], sums)
        size, contact, border = self.sums[small, SIZE], sums[:, OWN], sums[:, PAIRS]
        broad = np.maximum(_ramp(contact / np.sqrt(size), BROAD), _ramp(contact, LONG))
        inward = sums[:, INWARD] / border
        convex = np.minimum(sums[:, OUTWARD] / border / CONVEX, 1)
        agreed = np.where(sums[:, ASKED] > 0, sums[:, AGREED] / np.maximum(sums[:, ASKED], 1e-9), 1)
        doubt = broad * np.maximum(1 - agreed / DOUBT, 0)
        trust = broad * _ramp(agreed, (SURE, 1.0)) * (sums[:, ASKED] > 0)

        unlike = self._unlike(small, large)
        fold = np.minimum(2 * inward, 1)
        alike = unlike + (STRICT + STRICTER * broad) * fold
        alike += VETO * doubt - TRUST * trust * (1 - fold)
        alike += ASKEW * self._askew(small, large)

        rise = np.maximum(sums[:, RISE], sums[:, RISE_BACK]) / border
        broken = np.maximum(inward / CONCAVE, sums[:, STEP] / border / HALF_STEP)
        broken = np.maximum(broken, rise / RISING)
        enclosed = contact / np.maximum(self.around[small], 1)
        patch = PATCH * np.minimum(unlike, 3) * np.maximum(1 - enclosed, 0.4)
        going_on = broken + patch + VETO_PATCH * doubt * (1 - convex) * np.minimum(unlike, 1)

        crumb = size < CRUMB
        accident = (contact < 3) | (contact < TOUCH * np.sqrt(size))
        found = np.minimum(alike, going_on) + (accident & ~crumb)
        found = np.where(crumb, 0.6 * found, found)
        with_layout = np.where(crumb, np.maximum(going_on, unlike) + 0.2, np.inf)
        return np.where(self.layout[small] | self.layout[large], with_layout, found)

    def join(self) -> None:
        """The least different neighbours first, until none differ by less than 1."""
        heap: list[tuple[float, int, int, int, int]] = []
        self._offer(heap, [(p, q) for p, each in enumerate(self.edge) for q in each if p < q])
        while heap:
            _, one, other, *versions = heapq.heappop(heap)
            if not (self.alive[one] and self.alive[other]):
                continue
            if versions != [self.version[one], self.version[other]]:
                continue
            kept = self._merge(one, other)
            self._offer(heap, [(min(kept, q), max(kept, q)) for q in self.edge[kept]])

    def carry(self) -> None:
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
                    self._merge(one, other)
                    changed = True

    def roots(self) -> Int64[np.ndarray, " pieces"]:
        """What each piece became part of."""
        root = self.parent.copy()
        while (root[root] != root).any():
            root = root[root]
        return root

    def against_layout(self, one: int) -> float:
        """Share of a piece's border that runs along floor and walls."""
        along = sum(e[OWN] for q, e in self.edge[one].items() if self.layout[q])
        return float(along / max(self.around[one], 1))

    def _unlike(self, small: np.ndarray, large: np.ndarray) -> Float64[np.ndarray, " pairs"]:
        """Difference of colour, from 0; 1 where two pieces no longer look alike."""
        lab = [self.sums[each, LIGHT] / self.sums[each, SIZE][:, None] for each in (small, large)]
        hue = np.linalg.norm(lab[0][:, 1:] - lab[1][:, 1:], axis=1)
        mean = np.maximum(hue / HUE, np.linalg.norm(lab[0] - lab[1], axis=1) / TINT)
        bins = [self.sums[each, BINS] for each in (small, large)]
        share = [each / np.maximum(each.sum(1, keepdims=True), 1e-9) for each in bins]
        shared = np.minimum(*share).sum(1)
        return np.minimum(mean, np.maximum((1 - shared) / (1 - OVERLAP), hue / 10))

    def _askew(self, one: np.ndarray, other: np.ndarray) -> Float64[np.ndarray, " pairs"]:
        """0 where two boxes are aligned, 1 where one is turned on the other."""
        turn, known = [], np.ones(len(one), bool)
        for each in (one, other):
            upright = self.sums[each, UPRIGHT]
            turn.append(self.turn[each])
            known &= (upright >= 20) & (np.abs(self.turn[each]) > SQUARE * upright)
        degrees = np.degrees(np.abs(np.angle(turn[0] * turn[1].conj()))) / 4
        return known * _ramp(degrees, ASKEW_BY)

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

    def _offer(
        self, heap: list[tuple[float, int, int, int, int]], pairs: list[tuple[int, int]]
    ) -> None:
        pairs = [(p, q) for p, q in pairs if not (self.layout[p] and self.layout[q])]
        if not pairs:
            return
        for (p, q), each in zip(pairs, self.difference(pairs).tolist(), strict=True):
            if each < 1:
                heapq.heappush(heap, (each, p, q, int(self.version[p]), int(self.version[q])))

    def _merge(self, one: int, other: int) -> int:
        """Make two one; the one with more neighbours stays. Returns which."""
        if len(self.edge[one]) < len(self.edge[other]):
            one, other = other, one
        self.around[one] += self.around[other]
        self.around[one] -= self.edge[one][other][OWN] + self.edge[other][one][OWN]
        self.sums[one] += self.sums[other]
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


def _ramp(value: np.ndarray, between: tuple[float, float]) -> np.ndarray:
    """From 0 to 1 between the two."""
    low, high = between
    return np.asarray(np.clip((value - low) / (high - low), 0, 1))


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
