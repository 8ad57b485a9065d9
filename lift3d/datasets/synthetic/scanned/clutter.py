"""Small things that stand, lie and hang about; each function adds one object or a few.

Like furniture.py: the origin is under the middle of the thing, sizes are metres.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lift3d.datasets.synthetic.furniture import BRIGHT, DARK, FABRICS, WOODS, pick, shade
from lift3d.datasets.synthetic.scanned.shapes import lump, mound, sheet, tube, waves
from lift3d.datasets.synthetic.shapes import Number, box, cone, cushion, worn_box
from lift3d.datasets.synthetic.world import (
    CHECKER,
    CLOUDS,
    PLAIN,
    PRINT,
    STAINS,
    STRIPES,
    Builder,
    Colour,
    Material,
    place,
    tilt,
)
from lift3d.scene import Transform

WHITE: Colour = (0.85, 0.84, 0.81)
GREY: Colour = (0.45, 0.46, 0.48)


def worn(rng: np.random.Generator, colour: Colour, shine: Number = 0.0) -> Material:
    """A plain colour with wear: clouds or stains a little darker."""
    dark = rng.uniform(0.75, 0.97)
    second = shade(rng, (colour[0] * dark, colour[1] * dark, colour[2] * dark), 0.01)
    pattern = int(rng.choice([PLAIN, CLOUDS, STAINS]))
    return Material(colour, second, pattern, rng.uniform(0.05, 0.5), shine)


def fabric(rng: np.random.Generator) -> Material:
    """Woven cloth, plain or with a pattern."""
    colour = shade(rng, pick(rng, (*FABRICS, *BRIGHT, WHITE, DARK, GREY)), 0.06)
    if rng.random() < 0.6:
        return Material(colour, shade(rng, colour, 0.05), CLOUDS, rng.uniform(0.02, 0.2))
    pattern = int(rng.choice([CHECKER, STRIPES, PRINT]))
    return Material(colour, shade(rng, pick(rng, (*FABRICS, WHITE)), 0.1), pattern,
                    rng.uniform(0.015, 0.08))  # fmt: skip


def packet(build: Builder, at: Transform) -> None:
    """A printed box, or a row of them as one object."""
    rng = build.rng
    item = build.add_object("box", at)
    x, y, z = rng.uniform(0.06, 0.2), rng.uniform(0.04, 0.12), rng.uniform(0.08, 0.28)
    colour = shade(rng, pick(rng, (*BRIGHT, WHITE)), 0.05)
    label = Material(colour, shade(rng, pick(rng, BRIGHT), 0.1), PRINT, rng.uniform(0.015, 0.06))
    item.add(worn_box(x, y, z, 0.003), label)


def bottle(build: Builder, at: Transform) -> None:
    """A bottle, jar or can with a label."""
    rng = build.rng
    item = build.add_object("bottle", at)
    wide, tall = rng.uniform(0.025, 0.055), rng.uniform(0.09, 0.26)
    glass = worn(rng, pick(rng, (DARK, WHITE, (0.1, 0.25, 0.12), *BRIGHT)), rng.uniform(0, 0.25))
    item.add(cone(wide, wide, 0.65 * tall, 16), glass)
    label = Material(shade(rng, pick(rng, BRIGHT)), WHITE, PRINT, 0.03)
    item.add(cone(1.03 * wide, 1.03 * wide, 0.35 * tall, 16), label, place(0, 0, 0.15 * tall))
    neck = rng.uniform(0.35, 0.95) * wide
    item.add(cone(wide, neck, 0.12 * tall, 16), glass, place(0, 0, 0.65 * tall))
    item.add(cone(neck, 0.95 * neck, 0.23 * tall, 16), glass, place(0, 0, 0.77 * tall))


def cup(build: Builder, at: Transform) -> None:
    """A cup or paper roll, open at the top as far as a scan shows."""
    rng = build.rng
    item = build.add_object("mug", at)
    wide, tall = rng.uniform(0.035, 0.06), rng.uniform(0.08, 0.24)
    item.add(cone(0.9 * wide, wide, tall, 18), worn(rng, pick(rng, (WHITE, *BRIGHT))))
    dark = Material((0.2, 0.19, 0.18))
    item.add(cone(0.8 * wide, 0.85 * wide, 0.004, 18), dark, place(0, 0, tall - 0.002))


def bowl(build: Builder, at: Transform) -> None:
    """A bowl or basket of fruit: round things in a shallow container, one object."""
    rng = build.rng
    item = build.add_object("bowl", at)
    wide, tall = rng.uniform(0.11, 0.2), rng.uniform(0.05, 0.1)
    if rng.random() < 0.5:
        item.add(cone(0.6 * wide, wide, tall), worn(rng, pick(rng, (*WOODS, WHITE, *BRIGHT))))
    else:
        item.add(box(2 * wide, 1.4 * wide, tall), worn(rng, pick(rng, (*WOODS, *BRIGHT))))
    for _ in range(int(rng.integers(4, 10))):
        size = rng.uniform(0.05, 0.09)
        colour = shade(rng, pick(rng, ((0.8, 0.6, 0.1), (0.7, 0.2, 0.1), (0.5, 0.6, 0.2))))
        spot = rng.uniform(-0.45, 0.45, 2) * wide
        item.add(lump(rng, size, size, size, 0.06, 8), worn(rng, colour),
                 place(spot[0], spot[1], tall - 0.02))  # fmt: skip


def tray(build: Builder, at: Transform) -> None:
    """A flat thing: tray, board, laptop, sheet of paper."""
    rng = build.rng
    item = build.add_object("tray", at)
    x, y, z = rng.uniform(0.2, 0.42), rng.uniform(0.15, 0.3), rng.uniform(0.004, 0.035)
    item.add(box(x, y, z), worn(rng, pick(rng, (*WOODS, WHITE, GREY, DARK)), rng.uniform(0, 0.2)))


def bag(build: Builder, at: Transform, size: Number | None = None) -> None:
    """A bag or backpack: a dented lump with straps, or a bag of paper with creases."""
    rng = build.rng
    item = build.add_object("bag", at)
    size = rng.uniform(0.25, 0.5) if size is None else size
    material = fabric(rng)
    x, y = size * rng.uniform(0.6, 1), size * rng.uniform(0.35, 0.6)
    item.add(lump(rng, x, y, size, rng.uniform(0.06, 0.16), 20), material)
    for side in (-1, 1):
        turn = np.linspace(0, np.pi, 12)
        path = np.c_[0.25 * x * np.cos(turn), np.full(12, side * 0.2 * y),
                     0.75 * size + rng.uniform(0.1, 0.25) * np.sin(turn)]  # fmt: skip
        item.add(tube(path, 0.012), worn(rng, material.colour))


def plastic_bag(build: Builder, at: Transform) -> None:
    """A crumpled bag, bright and with sharp folds."""
    rng = build.rng
    size = rng.uniform(0.12, 0.35)
    mesh = lump(rng, size, size * rng.uniform(0.6, 1), size * rng.uniform(0.4, 0.9),
                rng.uniform(0.15, 0.3), 18)  # fmt: skip
    build.add_object("bag", at).add(mesh, worn(rng, WHITE, rng.uniform(0, 0.3)))


def heap(build: Builder, at: Transform, x: Number = 0.6, y: Number = 0.5) -> None:
    """A heap of clothes or blankets: a rumpled mound of several colours, one object."""
    rng = build.rng
    item = build.add_object("clothes", at)
    for _ in range(int(rng.integers(2, 5))):
        wide, deep = x * rng.uniform(0.5, 0.9), y * rng.uniform(0.5, 0.9)
        tall = rng.uniform(0.06, 0.2)
        v, u = np.mgrid[-1:1:25j, -1:1:25j]
        dome = np.clip(1 - (u**2 + v**2) * (0.8 + 0.2 * waves(rng, u, v, 0.5)), 0, 1) ** 0.6
        height = tall * dome * (1 + 0.3 * waves(rng, u * wide, v * deep, 0.08))
        spot = rng.uniform(-0.2, 0.2, 2) * [x, y]
        item.add(
            mound(height, wide, deep), fabric(rng), place(spot[0], spot[1], 0, rng.uniform(0, 6.28))
        )


def draped(build: Builder, at: Transform, wide: Number | None = None) -> None:
    """A cloth that lies on a surface and hangs over its front edge, which is the line y = 0."""
    rng = build.rng
    wide = rng.uniform(0.15, 0.4) if wide is None else wide
    lies, hangs, curve = rng.uniform(0.08, 0.25), rng.uniform(0.12, 0.4), 0.02
    along, across = np.meshgrid(
        np.linspace(-lies, hangs, 30), np.linspace(-0.5, 0.5, 16), indexing="ij"
    )
    bend = np.clip(along / curve, 0, np.pi / 2)
    y = np.where(along < 0, along, curve * np.sin(bend))
    down = np.where(
        along < 0, 0, curve * (1 - np.cos(bend)) + np.maximum(along - curve * np.pi / 2, 0)
    )
    folds = np.abs(waves(rng, across * wide, 0.2 * along, 0.07)) * 0.03
    out = folds * np.clip(along / hangs, 0.15, 1)
    spread = across * wide * (1 + 0.15 * np.clip(along, -0.1, 1))
    grid = np.stack([spread, y + out * (along > 0), 0.006 + out * (along <= 0) - down], axis=-1)
    build.add_object("cloth", at).add(sheet(grid, 0.006), fabric(rng))


def cable(build: Builder, at: Transform, long: Number = 1.0) -> None:
    """A cable that wanders over the floor or a board."""
    rng = build.rng
    step = np.linspace(-0.5, 0.5, 40)
    radius = rng.uniform(0.004, 0.012)
    wander = 0.12 * waves(rng, step * long, 0 * step, 0.3)
    path = np.c_[step * long, wander, np.full(40, radius)]
    build.add_object("cable", at).add(tube(path, radius, 6), worn(rng, pick(rng, (DARK, WHITE))))


def loose_cushion(build: Builder, at: Transform) -> None:
    """A cushion, flat or leaning."""
    rng = build.rng
    side = rng.uniform(0.3, 0.5)
    lean = place(0, 0, 0, rng.uniform(-0.5, 0.5)) @ tilt(rng.choice([0.0, 1.1, 1.3]))
    lift = place(0, 0, 0.0)
    mesh = cushion(side, side * rng.uniform(0.7, 1), rng.uniform(0.09, 0.18), rng.uniform(0.3, 0.7))
    build.add_object("pillow", at @ lift @ lean).add(mesh, fabric(rng))


def pot_plant(build: Builder, at: Transform, tall: Number | None = None) -> None:
    """A bushy plant of long bent leaves in a pot."""
    rng = build.rng
    tall = rng.uniform(0.2, 0.45) if tall is None else tall
    item = build.add_object("plant", at)
    pot = min(0.35 * tall, 0.3)
    wide = pot * rng.uniform(0.35, 0.55)
    item.add(cone(0.75 * wide, wide, pot), worn(rng, pick(rng, (DARK, WHITE, (0.6, 0.32, 0.22)))))
    green = shade(rng, (0.16, 0.36, 0.14), 0.08)
    stems = 1 if tall < 0.8 else int(rng.integers(2, 4))
    for _ in range(stems):
        top = (tall - pot) * rng.uniform(0.3, 0.75) if stems > 1 or rng.random() < 0.3 else 0.0
        foot = rng.uniform(-0.3, 0.3, 2) * wide
        if top:
            path = np.c_[np.full(6, foot[0]), np.full(6, foot[1]), np.linspace(0, top, 6)]
            item.add(tube(path, 0.015, 6), Material((0.3, 0.25, 0.16)), place(0, 0, pot))
        for _ in range(int(rng.integers(14, 30))):
            reach = (tall - pot) * rng.uniform(0.35, 0.7)
            step = np.linspace(0, 1, 6)
            lean = rng.uniform(0.2, 1.0)
            rise = reach * (step * np.cos(lean) - 0.45 * lean * step**2)
            out = reach * step * np.sin(lean)
            width = rng.uniform(0.02, 0.06) * (0.4 + tall) * np.sin(np.pi * (0.12 + 0.85 * step))
            middle = np.stack([0 * step, out, rise], axis=-1)
            grid = np.stack([middle - np.c_[width, 0 * step, 0 * step], middle,
                             middle + np.c_[width, 0 * step, 0 * step]])  # fmt: skip
            start = place(foot[0], foot[1], pot + top * rng.uniform(0.5, 1), rng.uniform(0, 6.28))
            item.add(sheet(grid, 0.003), Material(shade(rng, green, 0.05)), start)


ON_BOARDS: tuple[Callable[[Builder, Transform], None], ...] = (
    packet,
    bottle,
    bottle,
    cup,
    bowl,
    tray,
    plastic_bag,
    pot_plant,
)
"""What stands on tables, worktops and shelves."""


def things_on(
    build: Builder, at: Transform, x: Number, y: Number, count: int, tallest: Number = 0.5
) -> None:
    """Up to `count` small things on a board of x by y, its middle at `at`; some touch."""
    rng = build.rng
    taken: list[tuple[float, float]] = []
    for _ in range(count):
        spot = rng.uniform(-0.5, 0.5, 2) * [max(x - 0.25, 0.02), max(y - 0.2, 0.02)]
        if any(np.hypot(*(spot - other)) < 0.17 for other in taken):
            continue
        taken.append((float(spot[0]), float(spot[1])))
        makers = [each for each in ON_BOARDS if tallest > 0.3 or each is not pot_plant]
        make = makers[int(rng.integers(len(makers)))]
        make(build, at @ place(spot[0], spot[1], 0, rng.uniform(-0.5, 0.5)))
