"""Layout of a room that resembles scanned ones: built-in walls, furniture in use, clutter."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from lift3d.datasets.synthetic import furniture
from lift3d.datasets.synthetic.furniture import FABRICS, WOODS, pick, shade
from lift3d.datasets.synthetic.rooms import THICK, Room
from lift3d.datasets.synthetic.scanned import clutter, kitchen, soft, storage
from lift3d.datasets.synthetic.scanned.clutter import GREY, WHITE, worn
from lift3d.datasets.synthetic.shapes import Number, box
from lift3d.datasets.synthetic.world import (
    CHECKER,
    CLOUDS,
    GRAIN,
    PRINT,
    SPECKLE,
    STAINS,
    STRIPES,
    Builder,
    Material,
    World,
    place,
)
from lift3d.scene import Transform


def scanned_room(rng: np.random.Generator) -> tuple[World, list[Room]]:
    """The world of such a room, and its floor plan."""
    build = Builder(rng)
    room = Room(0.0, 0.0, rng.uniform(3.6, 6.2), rng.uniform(3.4, 5.0), rng.uniform(2.4, 3.0))
    structure(build, room)
    built_in(build, room)
    furnish(build, room)
    on_walls(build, room)
    return build.world(), [room]


def structure(build: Builder, room: Room) -> None:
    """Floor, ceiling and walls, worn, with skirting boards that belong to the walls."""
    rng = build.rng
    x, y = room.x1 - room.x0, room.y1 - room.y0
    at = place(*room.centre)
    colour = shade(rng, pick(rng, (*WOODS, *FABRICS, GREY, WHITE, (0.15, 0.3, 0.5))), 0.06)
    pattern = int(rng.choice([CHECKER, STRIPES, GRAIN, GRAIN, SPECKLE, CLOUDS, STAINS]))
    near = rng.uniform(0.7, 0.95)
    second = shade(rng, (colour[0] * near, colour[1] * near, colour[2] * near), 0.02)
    floor = Material(colour, second, pattern, rng.uniform(0.03, 0.4))
    build.add_object("floor", at).add(box(x, y, 0.1), floor, place(0, 0, -0.1))
    build.add_object("ceiling", at).add(box(x, y, 0.1), worn(rng, WHITE), place(0, 0, room.height))
    paint = shade(rng, pick(rng, (WHITE, WHITE, GREY, (0.7, 0.66, 0.55), *FABRICS)), 0.08)
    skirting = rng.random() < 0.6
    for side in range(4):
        size, half = (x, y / 2) if side % 2 == 0 else (y, x / 2)
        own = paint if rng.random() < 0.75 else shade(rng, pick(rng, FABRICS), 0.1)
        material = Material(own, shade(rng, own, 0.04), int(rng.choice([CLOUDS, STAINS])),
                            rng.uniform(0.3, 1.2))  # fmt: skip
        where = place(0, 0, 0, side * np.pi / 2) @ place(0, -half - THICK / 2)
        item = build.add_object("wall", at)
        item.add(box(size, THICK, room.height), material, where)
        if skirting:
            board = box(size, 0.014, 0.08)
            item.add(
                board, worn(rng, pick(rng, (WHITE, *WOODS))), where @ place(0, THICK / 2 + 0.007)
            )


def along(room: Room, side: int) -> tuple[Transform, float]:
    """Frame of a wall (x along it, y into the room, origin at its middle on the floor), length."""
    x, y = room.x1 - room.x0, room.y1 - room.y0
    size, half = (x, y / 2) if side % 2 == 0 else (y, x / 2)
    return place(*room.centre) @ place(0, 0, 0, side * np.pi / 2) @ place(0, -half), size


def built_in(build: Builder, room: Room) -> None:
    """A kitchen, a wall unit, or both, along whole walls; and curtains."""
    rng = build.rng
    sides = rng.permutation(4)
    kind = rng.random()
    if kind < 0.7:
        _row(build, room, int(sides[0]), 0.66, rng.uniform(1.8, 3.4),
             partial(kitchen.kitchen, height=room.height), 0.62)  # fmt: skip
    if kind > 0.4:
        _row(build, room, int(sides[1]), 0.5, rng.uniform(1.5, 3.2), storage.wall_unit, 0.5)
    if rng.random() < 0.55:
        frame, size = along(room, int(sides[2]))
        x = rng.uniform(0.8, 1.8)
        spot = frame @ place(rng.uniform(-0.5, 0.5) * (size - x - 0.2), 0)
        if _reserve(room, spot, x, 0.2):
            window = build.add_object("window", spot)
            frame_of = worn(rng, pick(rng, (WHITE, *WOODS)))
            window.add(box(x * 0.8, 0.02, 1.2), frame_of, place(0, 0.01, 0.9))
            pane = Material((0.75, 0.82, 0.9), (0.5, 0.6, 0.6), CLOUDS, 0.3, shine=0.9)
            window.add(box(x * 0.8 - 0.12, 0.004, 1.08), pane, place(0, 0.022, 0.96))
            half, tall = rng.uniform(0.35, 0.6), rng.uniform(2.1, 2.35)
            for end in (-1, 1) if rng.random() < 0.6 else (1,):
                soft.curtain(build, spot @ place(end * (x - half) / 2, 0), half, tall)


def _row(
    build: Builder, room: Room, side: int, deep: float, wide: float,
    make: Callable[[Builder, Transform, float], None], reach: float,
) -> None:  # fmt: skip
    """Something along a wall, often into its corner."""
    rng = build.rng
    frame, size = along(room, side)
    wide = min(wide, size - 0.05)
    free = (size - wide) / 2 - 0.01
    middle = rng.choice([-free, free, rng.uniform(-free, free)])
    spot = frame @ place(middle, 0)
    if _reserve(room, spot, wide, deep + 0.1):
        make(build, spot @ place(0, 0.005 + reach / 2), wide)


def _reserve(room: Room, spot: Transform, wide: Number, deep: Number) -> bool:
    """Take a rectangle of the floor in front of a place at a wall."""
    corner = np.array([[-wide / 2, 0.0, 0, 1], [wide / 2, deep, 0, 1]]) @ spot.T
    low, high = corner.min(0), corner.max(0)
    return room.take(low[0], low[1], high[0], high[1])


def furnish(build: Builder, room: Room) -> None:
    """A table or none, and a random choice of the rest, large pieces first."""
    rng = build.rng
    cx, cy = room.centre
    if rng.random() < 0.75:
        table(build, room, place(cx + rng.uniform(-0.4, 0.4), cy + rng.uniform(-0.3, 0.3), 0,
                                 rng.uniform(-0.3, 0.3)))  # fmt: skip
    long = rng.uniform(1.6, 2.2)
    choice: list[tuple[float, float, float, Callable[[Builder, Transform], None]]] = [
        (0.5, 2.15, 1.36, soft.bed),
        (0.6, long, 1.0, partial(soft.sofa, x=long)),
        (0.3, 1.3, 0.75, partial(storage.counter, x=1.2)),
        (0.4, 1.5, 0.72, furniture.desk),
        (0.4, 0.95, 0.95, partial(soft.sofa, x=0.9)),
        (0.4, 0.9, 0.36, partial(storage.open_shelf, x=0.85, deep=0.32, z=rng.uniform(0.8, 2.0))),
        (0.3, 1.15, 0.46, furniture.cabinet),
        (0.4, 0.9, 0.5, furniture.cartons),
        (0.5, 0.6, 0.6, partial(clutter.pot_plant, tall=rng.uniform(0.6, 1.7))),
        (0.3, 0.6, 0.6, partial(clutter.pot_plant, tall=rng.uniform(0.5, 1.2))),
        (0.4, 0.7, 0.6, clutter.heap),
        (0.6, 0.5, 0.4, clutter.bag),
        (0.4, 0.5, 0.4, clutter.bag),
        (0.3, 0.5, 0.5, furniture.floor_lamp),
        (0.4, 0.5, 0.5, soft.round_chair),
        (0.4, 0.5, 0.5, soft.stool),
        (0.5, 0.34, 0.34, furniture.waste_bin),
        (0.4, 1.1, 0.3, clutter.cable),
        (0.3, 0.4, 0.4, clutter.plastic_bag),
    ]
    for often, wide, deep, make in choice:
        if rng.random() < often:
            where = room.against_wall(rng, wide, deep, rng.uniform(0.0, 0.05))
            if where is not None:
                make(build, where)


def table(build: Builder, room: Room, middle: Transform) -> None:
    """A table with things and a cloth on it, chairs round it, perhaps a rug and a bag below."""
    rng = build.rng
    x, y, top = rng.uniform(0.9, 1.7), rng.uniform(0.7, 0.95), rng.uniform(0.42, 0.76)
    cx, cy = middle[0, 3], middle[1, 3]
    if not room.take(cx - x / 2 - 0.3, cy - y / 2 - 0.4, cx + x / 2 + 0.3, cy + y / 2 + 0.4):
        return
    if rng.random() < 0.5:
        material = Material(shade(rng, pick(rng, FABRICS)), pick(rng, FABRICS),
                            int(rng.choice([CHECKER, STRIPES, CLOUDS, PRINT])),
                            rng.uniform(0.05, 0.3))  # fmt: skip
        build.add_object("rug", middle).add(box(x + 0.8, y + 0.9, 0.008), material)
    material = furniture.wood(rng) if rng.random() < 0.6 else worn(rng, pick(rng, (WHITE, GREY)))
    item = build.add_object("table", middle @ place(0, 0, 0.008))
    furniture.legs(item, x - 0.06, y - 0.06, top - 0.03, rng.uniform(0.035, 0.08), material)
    item.add(box(x, y, 0.03), material, place(0, 0, top - 0.03))
    up = middle @ place(0, 0, top + 0.008)
    clutter.things_on(build, up, x, y, int(rng.integers(2, 9)))
    if rng.random() < 0.35:
        clutter.draped(build, up @ place(rng.uniform(-0.3, 0.3) * x, y / 2), rng.uniform(0.3, 0.6))
    own = furniture.wood(rng)
    if top > 0.6:
        shell = rng.random() < 0.5
        for i in (-1, 1):
            for j in (-1, 1):
                if rng.random() < 0.65:
                    spot = place(i * x / 4, j * (y / 2 + rng.uniform(-0.1, 0.2)), 0.008,
                                 (0 if j < 0 else np.pi) + rng.uniform(-0.4, 0.4))  # fmt: skip
                    if shell:
                        soft.round_chair(build, middle @ spot)
                    else:
                        furniture.chair(build, middle @ spot, own)


def on_walls(build: Builder, room: Room) -> None:
    """Doors, posters, signs, coats, wall shelves and radiators, where the wall is free."""
    rng = build.rng
    makers: list[tuple[float, float, float, Callable[[Builder, Transform], None]]] = [
        (0.8, 0.95, 0.1, furniture.door),
        (0.4, 1.1, 0.35, soft.coats),
        (0.5, 1.3, 0.16, storage.radiator),
        (0.5, 0.9, 0.3, lambda b, at: storage.wall_shelf(b, at @ place(0, 0, 1.4), 0.8)),
        (0.7, 0.9, 0.05, poster),
        (0.5, 0.8, 0.05, poster),
        (0.4, 0.8, 0.05, lambda b, at: furniture.picture(b, at @ place(0, 0, 1.6))),
        (0.4, 0.3, 0.05, sign),
        (0.4, 0.3, 0.05, sign),
    ]
    for often, wide, deep, make in makers:
        if rng.random() < often:
            where = room.against_wall(rng, wide, deep, 0.0)
            if where is not None:
                make(build, where @ place(0, -deep / 2))


def poster(build: Builder, at: Transform) -> None:
    """A print flat on the wall (y = 0), or a dark screen that stands out a little."""
    rng = build.rng
    x, z = rng.uniform(0.4, 0.85), rng.uniform(0.4, 1.0)
    screen = rng.random() < 0.25
    item = build.add_object("picture", at @ place(0, 0, rng.uniform(0.9, 1.3)))
    colours = pick(rng, clutter.BRIGHT), pick(rng, (WHITE, *clutter.BRIGHT))
    print_on = Material(*colours, int(rng.choice([PRINT, CLOUDS])), rng.uniform(0.04, 0.15))
    material = Material((0.05, 0.05, 0.06), shine=0.3) if screen else print_on
    item.add(box(x, 0.05 if screen else 0.004, z), material, place(0, 0.025 if screen else 0.002))


def sign(build: Builder, at: Transform) -> None:
    """A small sheet, a switch or a dispenser on the wall (y = 0)."""
    rng = build.rng
    item = build.add_object("picture", at @ place(0, 0, rng.uniform(1.1, 1.7)))
    x, z, deep = rng.uniform(0.1, 0.25), rng.uniform(0.15, 0.3), rng.choice([0.003, 0.02, 0.09])
    item.add(
        box(x, deep, z), worn(rng, pick(rng, (WHITE, GREY, *clutter.BRIGHT))), place(0, deep / 2)
    )
