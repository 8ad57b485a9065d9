"""Built-in kitchens: cabinets flush with each other, one worktop, sink, appliances, things on it.

Each cabinet block, worktop, sink and appliance is an object, as people annotate them. The frame is
that of furniture.py: the back is towards -y, x runs along the wall; the middle is the origin.
"""

from __future__ import annotations

import numpy as np

from lift3d.datasets.synthetic.furniture import BRIGHT, DARK, METAL, WOODS, pick, shade
from lift3d.datasets.synthetic.scanned import clutter
from lift3d.datasets.synthetic.scanned.clutter import GREY, WHITE, worn
from lift3d.datasets.synthetic.scanned.shapes import tube
from lift3d.datasets.synthetic.shapes import Number, box, cone
from lift3d.datasets.synthetic.world import GRAIN, SPECKLE, Builder, Material, SceneObject, place
from lift3d.scene import Transform

PLINTH = 0.1
"""Metres from the floor to the cabinets."""


def front(rng: np.random.Generator) -> Material:
    """What the doors are made of."""
    colours = (WHITE, WHITE, GREY, DARK, *WOODS) if rng.random() < 0.8 else BRIGHT
    colour = shade(rng, pick(rng, colours), 0.05)
    if rng.random() < 0.3:
        darker = (colour[0] * 0.8, colour[1] * 0.8, colour[2] * 0.8)
        return Material(colour, shade(rng, darker), GRAIN, 0.05)
    return worn(rng, colour, rng.choice([0.0, 0.0, 0.15]))


def doors(
    build: Builder, item: SceneObject, at: Transform, x: Number, deep: Number, z: Number,
    columns: int, rows: int, material: Material, hollow: Number = 0.0,
) -> None:  # fmt: skip
    """A carcass of x by deep by z with a grid of doors or drawers and their handles.

    The uppermost `hollow` metres have no filling and no top, for a worktop with a sink.
    """
    rng = build.rng
    thick, gap = 0.018, rng.uniform(0.002, 0.005)
    inside = box(x - 0.004, deep - thick - 0.004, z - max(hollow, 0.004))
    item.add(inside, Material((0.2, 0.19, 0.18)), at @ place(0, -0.01, 0.001))
    sides = box(0.016, deep - thick, z)
    for i in (-1, 1):
        item.add(sides, material, at @ place(i * (x - 0.016) / 2, -thick / 2))
    if not hollow:
        item.add(box(x, deep - thick, 0.016), material, at @ place(0, -thick / 2, z - 0.016))
    item.add(box(x, deep - thick, 0.016), material, at @ place(0, -thick / 2, 0))
    wide, tall = x / columns, z / rows
    handles = int(rng.integers(3))
    for column in range(columns):
        for row in range(rows):
            middle = place((column + 0.5) * wide - x / 2, (deep - thick) / 2, row * tall + gap / 2)
            item.add(box(wide - gap, thick, tall - gap), material, at @ middle)
            if handles == 0:
                bar = box(min(0.16, 0.5 * wide), 0.02, 0.012)
                item.add(bar, METAL, at @ middle @ place(0, 0.02, tall - 0.06))
            elif handles == 1:
                knob = place((0.5 * wide - 0.05) * (-1 if column % 2 else 1), 0.02, 0.5 * tall)
                item.add(cone(0.012, 0.012, 0.024, 8), METAL, at @ middle @ knob)


def kitchen(build: Builder, at: Transform, x: Number, height: Number = 2.5) -> None:
    """A row of x metres along a wall: base units, tall units, wall units, worktop and things."""
    rng = build.rng
    deep, top, thick = rng.uniform(0.56, 0.64), rng.uniform(0.82, 0.9), rng.uniform(0.02, 0.045)
    base, wall = front(rng), front(rng)
    if rng.random() < 0.6:
        wall = base
    left, right = -x / 2, x / 2
    if rng.random() < 0.65:
        wide = rng.uniform(0.55, 0.68)
        tall_unit(build, at @ place(left + wide / 2, 0), wide, deep, base, height)
        left += wide + rng.uniform(0, 0.003)
    run = right - left
    middle = at @ place((left + right) / 2, 0)
    blocks(build, middle, run, deep, top - PLINTH, PLINTH, base, oven=True)
    worktop(build, middle @ place(0, 0, top), run, deep, thick)
    if rng.random() < 0.8:
        low = rng.uniform(1.3, 1.5)
        gone = rng.uniform(0, 0.4) * run
        over = middle @ place(rng.choice([-1, 1]) * gone / 2, -(deep - 0.34) / 2)
        blocks(
            build,
            over,
            run - gone,
            0.34,
            rng.uniform(0.5, min(0.95, height - low - 0.05)),
            low,
            wall,
        )
    if rng.random() < 0.5:
        clutter.draped(
            build, middle @ place(rng.uniform(-0.4, 0.4) * run, deep / 2 + 0.02, top + thick)
        )


def blocks(
    build: Builder, at: Transform, x: Number, deep: Number, z: Number, low: Number,
    material: Material, oven: bool = False,
) -> None:  # fmt: skip
    """A row of cabinets from `low` up, divided into objects of two to four doors.

    Of neighbours either the fronts differ (doors beside drawers) or a few millimetres part them.
    """
    rng = build.rng
    left, rows = -x / 2, int(rng.integers(1, 5))
    while left < x / 2 - 0.05:
        wide = min(rng.uniform(0.45, 1.3), x / 2 - left)
        if x / 2 - left - wide < 0.3:
            wide = x / 2 - left
        spot = at @ place(left + wide / 2, 0, low)
        if oven and wide > 0.9 and rng.random() < 0.7:
            wide = 0.6
            item = appliance(build, at @ place(left + wide / 2, 0, low), wide, deep, z)
            oven = False
        else:
            step = rng.choice([0.0, 0.0, 0.004, 0.012])
            item = build.add_object("cabinet", spot @ place(0, step))
            own = material if rng.random() < 0.8 else front(rng)
            rows = int(rng.choice([each for each in (1, 1, 2, 3, 4) if each != rows]))
            columns = max(round(wide / rng.uniform(0.35, 0.6)), 1)
            doors(build, item, place(0, 0), wide - 0.001, deep, z, columns, rows, own,
                  0.22 if low <= PLINTH else 0.0)  # fmt: skip
        if low <= PLINTH:
            plinth = box(wide, deep - 0.05, low)
            item.add(plinth, Material((0.12, 0.12, 0.12)), place(0, -0.03, -low))
        left += wide + rng.choice([0.0, 0.002, 0.006])


def tall_unit(
    build: Builder, at: Transform, x: Number, deep: Number, material: Material, height: Number
) -> None:
    """A fridge or a tall cabinet, of the same fronts or of its own."""
    rng = build.rng
    z = rng.uniform(1.5, min(2.2, height - 0.1))
    own = material if rng.random() < 0.5 else front(rng)
    item = build.add_object(str(rng.choice(["fridge", "cabinet"])), at)
    doors(build, item, place(0, 0, PLINTH), x, deep, z - PLINTH, 1, int(rng.integers(1, 4)), own)
    item.add(box(x, deep - 0.05, PLINTH), Material((0.12, 0.12, 0.12)), place(0, -0.03))


def appliance(build: Builder, at: Transform, x: Number, deep: Number, z: Number) -> SceneObject:
    """An oven or dishwasher: a frame, dark glass, a bar."""
    rng = build.rng
    item = build.add_object("oven", at)
    own = worn(rng, pick(rng, (WHITE, GREY, DARK)), rng.uniform(0, 0.3))
    item.add(box(x, deep - 0.02, z), own, place(0, -0.01))
    item.add(box(x - 0.004, 0.02, 0.75 * z), own, place(0, deep / 2 - 0.01))
    glass = Material(DARK, shine=0.5)
    item.add(box(0.75 * x, 0.004, 0.5 * z), glass, place(0, deep / 2 + 0.001, 0.1 * z))
    item.add(box(0.8 * x, 0.03, 0.02), METAL, place(0, deep / 2 + 0.025, 0.68 * z))
    item.add(box(x - 0.004, 0.02, 0.23 * z), own, place(0, deep / 2 - 0.01, 0.76 * z))
    return item


def worktop(build: Builder, at: Transform, x: Number, deep: Number, thick: Number) -> None:
    """The worktop with a sink let in, perhaps a hob, a splashback rim, and things on it."""
    rng = build.rng
    stone = shade(rng, pick(rng, (WHITE, GREY, DARK, (0.4, 0.34, 0.28))), 0.05)
    material = Material(stone, shade(rng, stone, 0.15), SPECKLE, rng.uniform(0.01, 0.03))
    if rng.random() < 0.5:
        wood = pick(rng, WOODS)
        material = Material(wood, shade(rng, wood, 0.08), GRAIN, 0.05)
    item, over = build.add_object("worktop", at), rng.uniform(0, 0.03)
    depth = deep + over
    hole_x, hole_y = rng.uniform(0.35, 0.7), 0.4
    middle = rng.uniform(-0.5, 0.5) * max(x - hole_x - 0.3, 0)
    shift, sink = over / 2, x > 1.2
    if sink:
        low, high = middle - hole_x / 2, middle + hole_x / 2
        item.add(box(low + x / 2, depth, thick), material, place((low - x / 2) / 2, shift))
        item.add(box(x / 2 - high, depth, thick), material, place((high + x / 2) / 2, shift))
        for side in (-1, 1):
            strip = (depth - hole_y) / 2
            spot = place(middle, shift + side * (depth - strip) / 2)
            item.add(box(hole_x, strip, thick), material, spot)
        basin(build, at @ place(middle, shift, thick), hole_x, hole_y)
    else:
        item.add(box(x, depth, thick), material, place(0, shift))
    if rng.random() < 0.4:
        item.add(box(x, 0.02, 0.06), material, place(0, -deep / 2 + 0.01, thick))
    for side in (-1, 1):
        low, high = (-x / 2, middle - hole_x / 2) if side < 0 else (middle + hole_x / 2, x / 2)
        if not sink:
            low, high = (-x / 2, 0) if side < 0 else (0, x / 2)
        room = high - low
        if room < 0.25:
            continue
        spot = at @ place((low + high) / 2, 0, thick)
        if room > 0.75 and rng.random() < 0.4:
            hob = build.add_object("oven", spot)
            hob.add(box(0.58, 0.5, 0.006), Material(DARK, shine=0.35))
        else:
            clutter.things_on(build, spot, room, deep, int(rng.integers(1, 4 + int(3 * room))))


def basin(build: Builder, at: Transform, x: Number, y: Number) -> None:
    """A sink of steel or white, let in, its rim a few millimetres above the worktop; with a tap."""
    rng = build.rng
    item = build.add_object("sink", at)
    own = worn(rng, pick(rng, (GREY, (0.62, 0.63, 0.64), WHITE)), rng.uniform(0, 0.35))
    deep, rim = rng.uniform(0.12, 0.2), 0.015
    item.add(box(x, y, 0.004), own, place(0, 0, -deep))
    for side in (-1, 1):
        item.add(box(rim, y, deep + 0.004), own, place(side * (x - rim) / 2, 0, -deep))
        item.add(box(x, rim, deep + 0.004), own, place(0, side * (y - rim) / 2, -deep))
    turn = np.linspace(0, np.pi, 10)
    arc = np.c_[0 * turn, -0.03 + 0.08 * (1 - np.cos(turn)), 0.2 + 0.08 * np.sin(turn)]
    path = np.concatenate([[[0, -0.03, 0], [0, -0.03, 0.1]], arc])
    item.add(tube(path, 0.012), METAL, place(0, -y / 2 + 0.02))
