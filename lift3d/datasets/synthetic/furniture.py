"""Furniture: each function adds one piece of furniture, and the objects on it, to the builder.

The origin is on the floor under the centre of the piece; its back is towards -y. Sizes are metres.
"""

from __future__ import annotations

import numpy as np

from lift3d.datasets.synthetic.shapes import Number, box, cone, cushion, leaf, worn_box
from lift3d.datasets.synthetic.world import (
    CHECKER,
    CLOUDS,
    GRADIENT,
    GRAIN,
    STRIPES,
    Builder,
    Colour,
    Material,
    SceneObject,
    place,
    tilt,
)
from lift3d.scene import Transform

WOODS: tuple[Colour, ...] = ((0.55, 0.38, 0.22), (0.36, 0.23, 0.14), (0.74, 0.6, 0.42))
FABRICS: tuple[Colour, ...] = (
    (0.42, 0.45, 0.5),
    (0.5, 0.22, 0.2),
    (0.25, 0.36, 0.33),
    (0.62, 0.55, 0.45),
)
BRIGHT: tuple[Colour, ...] = (
    (0.75, 0.2, 0.16),
    (0.16, 0.36, 0.66),
    (0.85, 0.66, 0.15),
    (0.2, 0.5, 0.28),
    (0.88, 0.86, 0.8),
    (0.45, 0.2, 0.45),
)
DARK: Colour = (0.05, 0.05, 0.06)
METAL = Material((0.5, 0.5, 0.52), shine=0.45)
WORN = 0.004
"""Width in metres of the bevelled edges of cartons and books; furniture has sharp edges."""


def shade(rng: np.random.Generator, colour: Colour, spread: Number = 0.04) -> Colour:
    """A colour near `colour`."""
    near = np.clip(np.array(colour) + rng.uniform(-spread, spread), 0.03, 0.97)
    return (float(near[0]), float(near[1]), float(near[2]))


def pick(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    """One of `colours`."""
    return colours[int(rng.integers(len(colours)))]


def wood(rng: np.random.Generator) -> Material:
    """Wood with grain."""
    colour = pick(rng, WOODS)
    return Material(colour, shade(rng, (colour[0] * 0.75, colour[1] * 0.75, colour[2] * 0.75)),
                    GRAIN, 0.05)  # fmt: skip


def legs(
    item: SceneObject, x: Number, y: Number, height: Number, wide: Number, material: Material
) -> None:
    """Four legs under a board of x by y."""
    for i in (-1, 1):
        for j in (-1, 1):
            at = place(i * (x - wide) / 2, j * (y - wide) / 2)
            item.add(box(wide, wide, height), material, at)


def table(build: Builder, at: Transform, x: Number = 1.35, y: Number = 0.8) -> None:
    """A table on thin legs with a vase and a box on it."""
    rng = build.rng
    material = wood(rng)
    item = build.add_object("table", at)
    legs(item, x - 0.08, y - 0.08, 0.72, 0.045, material)
    item.add(box(x, y, 0.03), material, place(0, 0, 0.72))
    vase(build, at @ place(rng.uniform(-0.4, -0.1), rng.uniform(-0.15, 0.15), 0.75))
    carton(build, at @ place(0.35, 0.1, 0.75, rng.uniform(0, 1)), 0.26, 0.18, 0.12,
           Material(pick(rng, BRIGHT)))  # fmt: skip


def chair(build: Builder, at: Transform, material: Material) -> None:
    """A chair on thin legs; slats between seat and back."""
    item = build.add_object("chair", at)
    legs(item, 0.42, 0.42, 0.44, 0.032, material)
    item.add(box(0.44, 0.44, 0.03), material, place(0, 0, 0.44))
    for i in (-1, 1):
        item.add(box(0.032, 0.032, 0.46), material, place(i * 0.194, -0.194, 0.47))
    for height in (0.56, 0.68, 0.8):
        item.add(box(0.37, 0.018, 0.075), material, place(0, -0.194, height))


def shelf(build: Builder, at: Transform, x: Number = 1.0, height: Number = 1.85) -> None:
    """A shelf with touching books, touching boxes of one colour, and a vase."""
    rng, deep, thick, rows = build.rng, 0.34, 0.022, 5
    material = wood(rng)
    item = build.add_object("shelf", at)
    for i in (-1, 1):
        item.add(box(thick, deep, height), material, place(i * (x - thick) / 2, 0))
    item.add(box(x - 2 * thick, 0.01, height), material, place(0, -deep / 2 + 0.005))
    step = (height - thick) / rows
    inner = x - 2 * thick
    for row in range(rows + 1):
        item.add(box(inner, deep - 0.012, thick), material, place(0, 0.006, row * step))
    filling = rng.permutation(["books", "one colour", "boxes", "vase", "row"])
    for row, what in enumerate(filling):
        base = at @ place(0, 0, row * step + thick)
        if what == "books":
            books(build, base, inner, step - thick, None)
        elif what == "one colour":
            books(build, base, inner, step - thick, pick(rng, BRIGHT))
        elif what == "boxes":
            colour = pick(rng, FABRICS)
            for i in range(3):
                middle = (i - 1) * 0.3
                carton(build, base @ place(middle, 0.01), 0.3, 0.28, 0.2 + 0.03 * i,
                       Material(shade(rng, colour, 0.015)))  # fmt: skip
        elif what == "vase":
            vase(build, base @ place(rng.uniform(-0.3, 0.3), 0.02))
        else:
            book_row(build, base, inner, step - thick)


def books(
    build: Builder, at: Transform, width: Number, height: Number, colour: Colour | None
) -> None:
    """Thick books and binders side by side, touching, each one object."""
    rng, left = build.rng, -width / 2 + 0.01
    for _ in range(int(rng.integers(4, 7))):
        thick, tall, deep = rng.uniform(0.06, 0.1), rng.uniform(0.72, 0.92), rng.uniform(0.22, 0.28)
        own = shade(rng, pick(rng, BRIGHT)) if colour is None else shade(rng, colour, 0.01)
        if left + thick > width / 2:
            break
        item = build.add_object("book", at)
        where = place(left + thick / 2, 0.02)
        item.add(worn_box(thick, deep, tall * height, WORN), Material(own, shine=0.05), where)
        left += thick


def book_row(build: Builder, at: Transform, width: Number, height: Number) -> None:
    """Thin books of many colours that form one object, with colour edges inside it."""
    rng, left = build.rng, -width / 2 + 0.01
    item = build.add_object("book", at)
    end = width * rng.uniform(0.1, 0.45)
    while left < end:
        thick = rng.uniform(0.02, 0.045)
        size = worn_box(thick, rng.uniform(0.17, 0.22), height * rng.uniform(0.6, 0.85), WORN)
        item.add(size, Material(shade(rng, pick(rng, BRIGHT), 0.1)), place(left + thick / 2, 0.03))
        left += thick


def carton(
    build: Builder, at: Transform, x: Number, y: Number, z: Number, material: Material
) -> None:
    """A plain box."""
    build.add_object("box", at).add(worn_box(x, y, z, WORN), material)


def cartons(build: Builder, at: Transform) -> None:
    """Boxes of one colour, stacked and touching."""
    rng = build.rng
    colour = (0.66, 0.52, 0.36)

    def material() -> Material:
        own = shade(rng, colour, 0.02)
        return Material(own, shade(rng, own, 0.05), CLOUDS, 0.2)

    carton(build, at @ place(-0.22, 0, 0), 0.42, 0.4, 0.36, material())
    carton(build, at @ place(0.19, 0, 0), 0.4, 0.42, 0.3, material())
    carton(build, at @ place(-0.2, 0.02, 0.36, rng.uniform(-0.3, 0.3)), 0.34, 0.3, 0.26, material())
    if rng.random() < 0.6:
        carton(build, at @ place(0.2, 0, 0.3, rng.uniform(-0.2, 0.2)), 0.32, 0.3, 0.24, material())


def vase(build: Builder, at: Transform) -> None:
    """A vase, or a bowl."""
    rng = build.rng
    colour = pick(rng, BRIGHT)
    item = build.add_object("vase", at)
    wide, tall = rng.uniform(0.07, 0.1), rng.uniform(0.14, 0.2)
    material = Material(colour, shade(rng, colour, 0.2), STRIPES, 0.04, shine=0.15)
    item.add(cone(wide * 0.7, wide, tall * 0.6), material)
    item.add(cone(wide, wide * 0.5, tall * 0.4), material, place(0, 0, tall * 0.6))


def floor_lamp(build: Builder, at: Transform) -> None:
    """A thin pole with a shade."""
    item = build.add_object("lamp", at)
    item.add(cone(0.15, 0.15, 0.02), METAL)
    item.add(cone(0.013, 0.013, 1.4, 10), METAL, place(0, 0, 0.02))
    item.add(cone(0.2, 0.13, 0.26), Material((0.92, 0.88, 0.76)), place(0, 0, 1.38))


def sofa(build: Builder, at: Transform, x: Number = 1.9) -> None:
    """A sofa with loose, touching pillows of nearly its colour."""
    rng = build.rng
    colour = pick(rng, FABRICS)
    material = Material(colour, shade(rng, colour, 0.03), CLOUDS, 0.15)
    item = build.add_object("sofa", at)
    item.add(box(x, 0.85, 0.24), material, place(0, 0, 0.06))
    item.add(box(x, 0.2, 0.48), material, place(0, -0.325, 0.3))
    for i in (-1, 1):
        item.add(box(0.18, 0.65, 0.3), material, place(i * (x - 0.18) / 2, 0.1, 0.3))
        item.add(box((x - 0.37) / 2, 0.64, 0.13), material, place(i * (x - 0.36) / 4, 0.1, 0.3))
    first = -(x - 0.36) / 2 + 0.24
    for i in range(int(rng.integers(2, 4))):
        own = Material(shade(rng, colour, 0.05))
        lean = place(first + i * 0.41, -0.12, 0.42) @ tilt(-1.2 + np.pi)
        build.add_object("pillow", at @ lean).add(
            cushion(0.42, 0.38, 0.14), own, place(0, -0.19, -0.07)
        )


def bed(build: Builder, at: Transform, x: Number = 2.05, y: Number = 1.3) -> None:
    """A bed along the wall, pillows at its -x end."""
    rng = build.rng
    item = build.add_object("bed", at)
    material = wood(rng)
    legs(item, x, y, 0.2, 0.07, material)
    item.add(box(x, y, 0.08), material, place(0, 0, 0.2))
    item.add(box(0.05, y, 0.65), material, place(-x / 2 - 0.025, 0, 0.2))
    white: Colour = (0.86, 0.85, 0.82)
    item.add(box(x - 0.04, y - 0.06, 0.18), Material(white), place(0, 0, 0.28))
    blanket = pick(rng, FABRICS)
    pattern = int(rng.choice([CHECKER, STRIPES, CLOUDS]))
    cover = Material(blanket, shade(rng, pick(rng, FABRICS), 0.1), pattern, 0.18)
    item.add(box(x - 0.65, y + 0.03, 0.2), cover, place(0.32, 0, 0.285))
    for i in (-1, 1):
        build.add_object("pillow", at @ place(-x / 2 + 0.3, i * 0.31, 0.455)).add(
            cushion(0.42, 0.58, 0.13), Material(shade(rng, white, 0.03))
        )


def desk(build: Builder, at: Transform, x: Number = 1.4) -> None:
    """A desk with drawers, a monitor, a keyboard and a mug; a stool with wheels in front."""
    rng = build.rng
    material = wood(rng)
    item = build.add_object("desk", at)
    item.add(box(x, 0.68, 0.03), material, place(0, 0, 0.71))
    item.add(box(0.4, 0.6, 0.71), material, place(x / 2 - 0.22, 0))
    for height in (0.16, 0.38, 0.6):
        handle = place(x / 2 - 0.22, 0.307, height)
        item.add(box(0.14, 0.015, 0.02), METAL, handle)
    for j in (-1, 1):
        item.add(box(0.045, 0.045, 0.71), material, place(-x / 2 + 0.05, j * 0.3))
    where = at @ place(-0.15, -0.1, 0.74, rng.uniform(-0.2, 0.2))
    screen = build.add_object("monitor", where)
    screen.add(cone(0.11, 0.11, 0.012), Material(DARK, shine=0.3))
    screen.add(box(0.04, 0.03, 0.2), Material(DARK, shine=0.3), place(0, -0.03, 0.012))
    screen.add(box(0.56, 0.03, 0.34), Material(DARK, shine=0.4), place(0, 0, 0.14))
    lit = Material((0.1, 0.25, 0.5), (0.5, 0.75, 0.9), GRADIENT, 0.5, shine=0.6)
    screen.add(box(0.52, 0.004, 0.3), lit, place(0, 0.016, 0.16))
    build.add_object("keyboard", at @ place(-0.15, 0.18, 0.74)).add(
        box(0.44, 0.14, 0.02), Material((0.2, 0.2, 0.21), (0.45, 0.45, 0.45), CHECKER, 0.018)
    )
    mug = build.add_object("mug", at @ place(0.42, 0.12, 0.74))
    mug.add(cone(0.045, 0.045, 0.1), Material(pick(rng, BRIGHT), shine=0.1))
    office_chair(build, at @ place(-0.2, 0.55, 0, np.pi + rng.uniform(-0.5, 0.5)))


def office_chair(build: Builder, at: Transform) -> None:
    """Five thin feet, a column, seat and back."""
    item = build.add_object("chair", at)
    material = Material(
        (0.13, 0.13, 0.15), shade(build.rng, (0.16, 0.16, 0.18)), CLOUDS, 0.05, 0.15
    )
    for i in range(5):
        item.add(box(0.28, 0.035, 0.03), METAL, place(0, 0, 0.04, i * 1.2566) @ place(0.14, 0))
    item.add(cone(0.025, 0.025, 0.36, 10), METAL, place(0, 0, 0.05))
    item.add(cushion(0.48, 0.46, 0.1), material, place(0, 0, 0.4))
    item.add(box(0.06, 0.025, 0.3), METAL, place(0, -0.25, 0.42))
    item.add(cushion(0.44, 0.08, 0.5), material, place(0, -0.22, 0.55))


def cabinet(build: Builder, at: Transform, x: Number = 1.1) -> None:
    """A low cabinet with doors, a lamp and a box on top."""
    rng = build.rng
    colour: Colour = pick(rng, ((0.8, 0.79, 0.76), *WOODS))
    material = Material(colour)
    item = build.add_object("cabinet", at)
    item.add(box(x, 0.42, 0.74), material, place(0, 0, 0.05))
    item.add(box(x - 0.1, 0.34, 0.05), Material(DARK))
    for i in (-1, 1):
        panel = Material(shade(rng, colour, 0.03))
        item.add(box(x / 2 - 0.03, 0.015, 0.66), panel, place(i * x / 4, 0.217, 0.09))
        item.add(box(0.015, 0.02, 0.12), METAL, place(i * 0.05, 0.234, 0.4))
    lamp = build.add_object("lamp", at @ place(-0.35, 0, 0.79))
    lamp.add(cone(0.09, 0.03, 0.05), Material(pick(rng, BRIGHT), shine=0.2))
    lamp.add(cone(0.015, 0.015, 0.16, 8), METAL, place(0, 0, 0.05))
    lamp.add(cone(0.15, 0.1, 0.18), Material((0.92, 0.88, 0.78)), place(0, 0, 0.2))
    turn = rng.uniform(-0.4, 0.4)
    carton(build, at @ place(0.1, 0.02, 0.79, turn), 0.32, 0.24, 0.2, Material(pick(rng, BRIGHT)))
    if rng.random() < 0.7:
        vase(build, at @ place(0.42, 0, 0.79))


def plant(build: Builder, at: Transform) -> None:
    """A pot and many small leaves, as one object."""
    rng = build.rng
    item = build.add_object("plant", at)
    pot = pick(rng, ((0.6, 0.32, 0.22), (0.85, 0.84, 0.8), (0.25, 0.27, 0.3)))
    item.add(cone(0.12, 0.17, 0.3), Material(pot))
    for _ in range(6):
        stem = place(0, 0, 0.28, rng.uniform(0, 6.28)) @ tilt(rng.uniform(0.05, 0.35))
        tall = rng.uniform(0.4, 0.75)
        item.add(cone(0.007, 0.005, tall, 6), Material((0.3, 0.33, 0.16)), stem)
        for step in range(9):
            green = shade(rng, (0.2, 0.42, 0.17), 0.07)
            up = stem @ place(0, 0, tall * (0.3 + 0.08 * step), step * 2.4)
            item.add(leaf(rng.uniform(0.13, 0.22), 0.07), Material(green),
                      up @ tilt(rng.uniform(-0.5, 0.5)))  # fmt: skip


def waste_bin(build: Builder, at: Transform) -> None:
    """A bin."""
    colour = pick(build.rng, (DARK, (0.6, 0.6, 0.6), BRIGHT[1]))
    build.add_object("bin", at).add(cone(0.12, 0.15, 0.34), Material(colour, shine=0.2))


def picture(build: Builder, at: Transform) -> None:
    """A frame on the wall, its back at y = 0."""
    rng = build.rng
    x, z = rng.uniform(0.4, 0.8), rng.uniform(0.35, 0.6)
    item = build.add_object("picture", at)
    item.add(box(x, 0.03, z), Material(pick(rng, (DARK, *WOODS))), place(0, 0.015, -z / 2))
    pattern = int(rng.choice([CHECKER, STRIPES, CLOUDS, GRADIENT]))
    art = Material(pick(rng, BRIGHT), pick(rng, BRIGHT), pattern, rng.uniform(0.06, 0.25))
    item.add(box(x - 0.06, 0.006, z - 0.06), art, place(0, 0.033, -z / 2 + 0.03))


def rug(build: Builder, at: Transform, x: Number, y: Number) -> None:
    """A patterned rug."""
    rng = build.rng
    pattern = int(rng.choice([CHECKER, STRIPES, CLOUDS]))
    material = Material(pick(rng, FABRICS), pick(rng, FABRICS), pattern, rng.uniform(0.12, 0.3))
    build.add_object("rug", at).add(box(x, y, 0.012), material)


def door(build: Builder, at: Transform) -> None:
    """A closed door on the wall, its back at y = 0."""
    item = build.add_object("door", at)
    material = Material(pick(build.rng, ((0.85, 0.84, 0.8), *WOODS)))
    item.add(box(0.9, 0.04, 2.05), material, place(0, 0.02))
    item.add(box(0.13, 0.05, 0.02), METAL, place(0.34, 0.065, 1.0))
