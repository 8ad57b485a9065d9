"""Layout of a furnished room: floor, walls, furniture along them, a table in the middle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from lift3d.datasets.synthetic import furniture
from lift3d.datasets.synthetic.shapes import Number, box
from lift3d.datasets.synthetic.world import (
    CHECKER,
    CLOUDS,
    GRAIN,
    STRIPES,
    Builder,
    Material,
    World,
    place,
)
from lift3d.scene import Transform

THICK = 0.12
"""Thickness of walls, metres."""
APART = 1.0
"""Minimum distance in metres between the centres of doors and pictures, so that none overlap."""


@dataclass
class Room:
    """A rectangular floor, with the areas that are in use."""

    x0: Number
    y0: Number
    x1: Number
    y1: Number
    height: Number
    taken: list[tuple[float, float, float, float]] = field(default_factory=list)
    hung: list[np.ndarray] = field(default_factory=list)
    """Positions (x, y) of doors and pictures on the walls."""

    @property
    def centre(self) -> tuple[float, float]:
        """Centre of the floor."""
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    def take(self, x0: Number, y0: Number, x1: Number, y1: Number) -> bool:
        """Reserve a rectangle; False where it overlaps a reserved one."""
        for a0, b0, a1, b1 in self.taken:
            if x0 < a1 and a0 < x1 and y0 < b1 and b0 < y1:
                return False
        self.taken.append((x0, y0, x1, y1))
        return True

    def against_wall(
        self, rng: np.random.Generator, wide: Number, deep: Number, gap: Number = 0.02
    ) -> Transform | None:
        """world_from_object at a free place with its back to a random wall; None without one."""
        for _ in range(150):
            side = int(rng.integers(4))
            along_x = side % 2 == 0
            low, high = (self.x0, self.x1) if along_x else (self.y0, self.y1)
            if high - low < wide + 0.1:
                continue
            middle = rng.uniform(low + wide / 2 + 0.05, high - wide / 2 - 0.05)
            off = gap + deep / 2
            x, y, turn = [
                (middle, self.y0 + off, 0.0),
                (self.x1 - off, middle, np.pi / 2),
                (middle, self.y1 - off, np.pi),
                (self.x0 + off, middle, -np.pi / 2),
            ][side]
            half = (wide / 2 + 0.04, off) if along_x else (off, wide / 2 + 0.04)
            if self.take(x - half[0], y - half[1], x + half[0], y + half[1]):
                return place(x, y, 0, turn)
        return None


def furnished(rng: np.random.Generator) -> tuple[World, list[Room]]:
    """The world of a furnished room, and its floor plan."""
    build = Builder(rng)
    wide, deep = rng.uniform(5.0, 5.8), rng.uniform(4.4, 5.0)
    room = Room(0.0, 0.0, wide, deep, rng.uniform(2.5, 2.8))
    structure(build, room)
    furnish(build, room)
    return build.world(), [room]


def structure(build: Builder, room: Room) -> None:
    """Floor, ceiling and four walls."""
    rng = build.rng
    x, y = room.x1 - room.x0, room.y1 - room.y0
    at = place(*room.centre)
    pattern = int(rng.choice([CHECKER, STRIPES, GRAIN]))
    planks = furniture.pick(rng, furniture.WOODS)
    darker = furniture.shade(rng, (planks[0] * 0.85, planks[1] * 0.85, planks[2] * 0.85))
    floor = Material(planks, darker, pattern, rng.uniform(0.12, 0.3))
    build.add_object("floor", at).add(box(x, y, 0.1), floor, place(0, 0, -0.1))
    white = Material((0.9, 0.9, 0.88))
    build.add_object("ceiling", at).add(box(x, y, 0.1), white, place(0, 0, room.height))
    paint = furniture.shade(rng, (0.78, 0.76, 0.7), 0.08)
    for side in range(4):
        size, half = (x, y / 2) if side % 2 == 0 else (y, x / 2)
        own = furniture.shade(rng, paint, 0.02)
        material = Material(own, furniture.shade(rng, own, 0.03), CLOUDS, 0.8)
        where = place(0, 0, 0, side * np.pi / 2) @ place(0, -half - THICK / 2)
        build.add_object("wall", at).add(box(size, THICK, room.height), material, where)


def furnish(build: Builder, room: Room) -> None:
    """Place the furniture, large pieces first, so that they find a place."""
    rng = build.rng
    cx, cy = room.centre
    turn = rng.uniform(-0.15, 0.15)
    middle = place(cx + rng.uniform(-0.2, 0.2), cy + rng.uniform(-0.1, 0.1), 0, turn)
    dining(build, room, middle)
    along_wall: list[tuple[float, float, Callable[[Builder, Transform], None]]] = [
        (2.15, 1.35, furniture.bed),
        (1.95, 0.9, furniture.sofa),
        (1.5, 0.72, furniture.desk),
        (1.05, 0.36, furniture.shelf),
        (1.15, 0.46, furniture.cabinet),
        (0.9, 0.5, furniture.cartons),
        (0.5, 0.5, furniture.floor_lamp),
        (0.6, 0.6, furniture.plant),
        (0.34, 0.34, furniture.waste_bin),
    ]
    in_front = room.against_wall(rng, 0.95, 0.8, 0.0)
    if in_front is not None:
        furniture.door(build, in_front @ place(0, -0.4))
        room.hung.append((in_front @ place(0, -0.4))[:2, 3])
    for wide, deep, make in along_wall:
        where = room.against_wall(rng, wide, deep)
        if where is not None:
            make(build, where)
    for _ in range(3):
        hang(build, room)


def dining(build: Builder, room: Room, middle: Transform) -> None:
    """A table on a rug with chairs partly under it."""
    rng = build.rng
    x, y = rng.uniform(1.2, 1.5), rng.uniform(0.75, 0.9)
    furniture.rug(build, middle, x + 0.9, y + 1.1)
    up = middle @ place(0, 0, 0.012)
    furniture.table(build, up, x, y)
    material = furniture.wood(rng)
    for i in (-1, 1):
        for j in (-1, 1):
            if rng.random() < 0.8:
                # The back is towards -y, so the chair at +y turns to face the table.
                spot = place(
                    i * x / 4 + rng.uniform(-0.03, 0.03),
                    j * (y / 2 + rng.uniform(-0.08, 0.16)),
                    0,
                    (0 if j < 0 else np.pi) + rng.uniform(-0.12, 0.12),
                )
                furniture.chair(build, up @ spot, material)
    reach = np.hypot(x / 2, y / 2 + 0.4) * 0.9
    cx, cy = middle[0, 3], middle[1, 3]
    room.take(cx - x / 2 - 0.2, cy - reach, cx + x / 2 + 0.2, cy + reach)


def hang(build: Builder, room: Room) -> None:
    """A picture on a wall, above the low furniture."""
    rng = build.rng
    x, y = room.x1 - room.x0, room.y1 - room.y0
    for _ in range(50):
        side = int(rng.integers(4))
        size, half = (x, y / 2) if side % 2 == 0 else (y, x / 2)
        along = rng.uniform(-size / 2 + 0.6, size / 2 - 0.6)
        spot = place(0, 0, 0, side * np.pi / 2) @ place(along, -half, rng.uniform(1.5, 1.75))
        at = place(*room.centre) @ spot
        if all(np.hypot(*(at[:2, 3] - other)) > APART for other in room.hung):
            room.hung.append(at[:2, 3])
            furniture.picture(build, at)
            return
