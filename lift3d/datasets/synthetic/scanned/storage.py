"""Wall units, loaded shelves, counters and wardrobes, with things in and on them."""

from __future__ import annotations

import numpy as np

from lift3d.datasets.synthetic.furniture import books, pick, wood
from lift3d.datasets.synthetic.scanned import clutter, kitchen
from lift3d.datasets.synthetic.scanned.clutter import GREY, WHITE, worn
from lift3d.datasets.synthetic.shapes import Number, box
from lift3d.datasets.synthetic.world import Builder, place
from lift3d.scene import Transform


def open_shelf(build: Builder, at: Transform, x: Number, deep: Number, z: Number) -> None:
    """A bookcase, with or without a back, its boards full of books, boxes, bags and bottles."""
    rng = build.rng
    material = wood(rng) if rng.random() < 0.6 else worn(rng, pick(rng, (WHITE, GREY)))
    item, thick = build.add_object("shelf", at), 0.02
    rows = max(round(z / rng.uniform(0.3, 0.42)), 1)
    for i in (-1, 1):
        item.add(box(thick, deep, z), material, place(i * (x - thick) / 2, 0))
    if rng.random() < 0.7:
        item.add(box(x - 2 * thick, 0.008, z), material, place(0, -deep / 2 + 0.004))
    step = (z - thick) / rows
    for row in range(rows + 1):
        item.add(box(x - 2 * thick, deep - 0.01, thick), material, place(0, 0.004, row * step))
    for row in range(rows):
        board = at @ place(0, 0, row * step + thick)
        fill = rng.random()
        if fill < 0.4:
            books(build, board, x - 2 * thick, step - thick, None)
        elif fill < 0.9:
            clutter.things_on(build, board, x, deep, int(rng.integers(1, 5)), step - 0.05)
    clutter.things_on(build, at @ place(0, 0, z), x, deep, int(rng.integers(0, 3)))


def wall_unit(build: Builder, at: Transform, x: Number) -> None:
    """Closed cabinets, a wardrobe and open shelves side by side, all touching."""
    rng = build.rng
    left, deep, fronts = -x / 2, rng.uniform(0.32, 0.5), kitchen.front(rng)
    while left < x / 2 - 0.4:
        wide = min(rng.uniform(0.5, 1.1), x / 2 - left)
        spot, kind = at @ place(left + wide / 2, 0), rng.random()
        if kind < 0.35:
            own_deep = min(deep, 0.36)
            back = spot @ place(0, -(deep - own_deep) / 2)
            open_shelf(build, back, wide, own_deep, rng.uniform(1.2, 2.1))
        else:
            tall = rng.uniform(1.7, 2.2) if kind < 0.6 else rng.uniform(0.4, 1.1)
            item = build.add_object("cabinet", spot)
            columns, rows = max(round(wide / 0.5), 1), int(rng.integers(1, 4))
            own = fronts if rng.random() < 0.7 else kitchen.front(rng)
            kitchen.doors(build, item, place(0, 0), wide, deep, tall, columns, rows, own)
            clutter.things_on(build, spot @ place(0, 0, tall), wide, deep, int(rng.integers(0, 4)))
        left += wide + rng.choice([0.0, 0.002, 0.01])


def counter(build: Builder, at: Transform, x: Number) -> None:
    """A free-standing counter with a board that overhangs, and things on it."""
    rng = build.rng
    deep, top = rng.uniform(0.5, 0.7), rng.uniform(0.8, 1.05)
    item = build.add_object("cabinet", at)
    kitchen.doors(build, item, place(0, 0), x, deep, top, max(int(x / 0.5), 1), 1,
                  kitchen.front(rng))  # fmt: skip
    board = build.add_object("worktop", at @ place(0, 0, top))
    material = wood(rng) if rng.random() < 0.5 else worn(rng, pick(rng, (WHITE, GREY)))
    board.add(box(x + 0.06, deep + 0.1, 0.035), material)
    up = at @ place(0, 0, top + 0.035)
    clutter.things_on(build, up, x, deep, int(rng.integers(3, 8)))
    if rng.random() < 0.5:
        clutter.draped(build, up @ place(rng.uniform(-0.3, 0.3) * x, deep / 2 + 0.05))


def wall_shelf(build: Builder, at: Transform, x: Number) -> None:
    """A board on the wall (its back at y = 0) with things on it."""
    rng = build.rng
    deep = rng.uniform(0.16, 0.28)
    item = build.add_object("shelf", at)
    item.add(box(x, deep, 0.025), wood(rng), place(0, deep / 2))
    top = at @ place(0, deep / 2, 0.025)
    if rng.random() < 0.5:
        books(build, top, x * rng.uniform(0.4, 1), 0.3, None)
    else:
        clutter.things_on(build, top, x, deep, int(rng.integers(1, 5)), 0.3)


def radiator(build: Builder, at: Transform) -> None:
    """A ribbed radiator, its back at y = 0."""
    rng = build.rng
    x, z = rng.uniform(0.5, 1.3), rng.uniform(0.4, 0.7)
    item, material = build.add_object("radiator", at), worn(rng, WHITE)
    item.add(box(x, 0.05, z), material, place(0, 0.055, 0.12))
    for left in np.arange(-x / 2 + 0.03, x / 2 - 0.02, 0.06):
        item.add(box(0.03, 0.02, z - 0.05), material, place(left, 0.088, 0.145))
