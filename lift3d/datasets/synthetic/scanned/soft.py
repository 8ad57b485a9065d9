"""Upholstered and hanging things: sofas, armchairs, beds, curtains, coats."""

from __future__ import annotations

import numpy as np

from lift3d.datasets.synthetic.furniture import DARK, METAL, pick, shade, wood
from lift3d.datasets.synthetic.scanned import clutter
from lift3d.datasets.synthetic.scanned.clutter import GREY, WHITE, fabric, worn
from lift3d.datasets.synthetic.scanned.shapes import mound, sheet, tube, waves
from lift3d.datasets.synthetic.shapes import Number, box, cone, cushion
from lift3d.datasets.synthetic.world import Builder, Material, place, tilt
from lift3d.scene import Transform


def sofa(build: Builder, at: Transform, x: Number) -> None:
    """A sofa of rounded cushions (one object) with loose cushions and perhaps a throw on it."""
    rng = build.rng
    item, material = build.add_object("sofa" if x > 1.1 else "armchair", at), fabric(rng)
    deep, seat, back, arm = rng.uniform(0.8, 1.0), rng.uniform(0.36, 0.46), 0.8, 0.2
    if rng.random() < 0.4:
        material = worn(rng, pick(rng, (DARK, WHITE, GREY, (0.35, 0.22, 0.15))))
    item.add(box(x - 0.04, deep - 0.06, seat - 0.22), material, place(0, 0, 0.08))
    for i in (-1, 1):
        round_arm = cushion(arm, deep, rng.uniform(0.5, 0.65), 0.3)
        item.add(round_arm, material, place(i * (x - arm) / 2, 0, 0.03))
    inner, count = x - 2 * arm, 1 if x < 1.1 else int(rng.integers(2, 4))
    for i in range(count):
        middle = (i + 0.5) * inner / count - inner / 2
        wide = inner / count
        item.add(cushion(wide, deep - 0.12, 0.2, 0.25), material, place(middle, 0.06, seat - 0.19))
        lean = place(middle, -deep / 2 + 0.3, seat - 0.04) @ tilt(1.35)
        item.add(cushion(wide, back - seat + 0.12, 0.22, 0.3), material, lean @ place(0, 0.2, 0))
    item.add(box(x - 0.1, 0.12, back - 0.1), material, place(0, -deep / 2 + 0.08, 0.08))
    for _ in range(int(rng.integers(0, 4 if x > 1.1 else 2))):
        spot = place(rng.uniform(-0.45, 0.45) * (inner - 0.35), rng.uniform(-0.1, 0.1), seat + 0.01)
        clutter.loose_cushion(build, at @ spot)
    if rng.random() < 0.4:
        edge = place(rng.uniform(-0.3, 0.3) * inner, deep / 2 - 0.01, seat + 0.012)
        clutter.draped(build, at @ edge, rng.uniform(0.4, 0.8))


def bed(build: Builder, at: Transform, x: Number = 2.05, y: Number = 1.3) -> None:
    """A bed with a rumpled blanket (a part of it), pillows and perhaps a heap of clothes."""
    rng = build.rng
    item = build.add_object("bed", at)
    frame = wood(rng)
    item.add(box(x, y, 0.22), frame, place(0, 0, 0.08))
    item.add(box(0.05, y, rng.uniform(0.6, 1.0)), frame, place(-x / 2 - 0.025, 0, 0))
    item.add(cushion(x - 0.04, y - 0.04, 0.3, 0.12), worn(rng, WHITE), place(0, 0, 0.26))
    long = x - rng.uniform(0.5, 0.8)
    v, u = np.mgrid[-1:1:40j, -1:1:60j]
    rim = np.clip((1 - np.maximum(np.abs(u), np.abs(v)) ** 8), 0, 1)
    height = 0.36 * rim + 0.05 * rim * (1 + waves(rng, u * long / 2, v * y / 2, 0.15))
    item.add(mound(height, long, y + 0.06), fabric(rng), place((x - long) / 2, 0, 0.2))
    for i in (-1, 1):
        turned = place(-x / 2 + 0.3, i * 0.3, 0.54, rng.uniform(-0.2, 0.2))
        build.add_object("pillow", at @ turned).add(
            cushion(0.42, 0.56, 0.16, 0.4), worn(rng, shade(rng, WHITE, 0.03))
        )
    if rng.random() < 0.5:
        clutter.heap(
            build, at @ place(rng.uniform(0.1, 0.6), rng.uniform(-0.2, 0.2), 0.56), 0.6, 0.5
        )


def curtain(build: Builder, at: Transform, x: Number, z: Number) -> None:
    """A curtain of deep folds in front of a wall (y = 0), z metres from the floor to the rail."""
    rng = build.rng
    low = rng.uniform(0.0, 0.1) if rng.random() < 0.7 else rng.uniform(0.7, 1.0)
    count = int(x / 0.02)
    u, v = np.meshgrid(np.linspace(-0.5, 0.5, count), np.linspace(0, 1, 24))
    fold = rng.uniform(0.08, 0.16)
    folds = np.sin(2 * np.pi * (u * x / fold + 0.4 * waves(rng, u * x, v, 0.5)))
    out = 0.09 + (0.045 - 0.02 * v) * folds
    grid = np.stack([u * x * (1 - 0.06 * v), out, low + (z - low) * v], axis=-1)
    colour = shade(rng, pick(rng, (WHITE, WHITE, GREY, *clutter.FABRICS)), 0.05)
    item = build.add_object("curtain", at)
    item.add(sheet(grid, 0.004), worn(rng, colour) if rng.random() < 0.6 else fabric(rng))
    rail = np.array([[-0.55 * x, 0.09, z + 0.02], [0.55 * x, 0.09, z + 0.02]])
    item.add(tube(rail, 0.012), METAL)


def coats(build: Builder, at: Transform) -> None:
    """Coats on hooks in front of a wall (y = 0): each a hanging lump with folds."""
    rng = build.rng
    count = int(rng.integers(2, 5))
    board = build.add_object("shelf", at)
    board.add(box(0.3 * count, 0.02, 0.1), wood(rng), place(0, 0.01, 1.65))
    for i in range(count):
        wide, long = rng.uniform(0.24, 0.34), rng.uniform(0.6, 1.1)
        v, u = np.mgrid[0:1:30j, -1:1:26j]
        sides = np.sqrt(np.clip(1 - u**2, 0, 1)) * (0.25 + 0.75 * np.minimum(4 * (1 - v), 1))
        height = 0.09 * sides * (1 + 0.5 * waves(rng, u * wide / 2, 0.3 * v * long, 0.07)) + 0.01
        turned = place((i - (count - 1) / 2) * 0.28, 0.02, 1.7 - long / 2) @ tilt(-np.pi / 2)
        # The mound's height becomes the distance from the wall.
        item = build.add_object("clothes", at @ turned @ place(0, 0, 0, np.pi))
        item.add(mound(height, wide, long), fabric(rng))


def round_chair(build: Builder, at: Transform) -> None:
    """A chair of bent tubes with a shell for seat and back."""
    rng = build.rng
    item, own = (
        build.add_object("chair", at),
        worn(rng, pick(rng, (DARK, WHITE, GREY, *clutter.BRIGHT))),
    )
    along, across = np.meshgrid(np.linspace(-0.5, 0.5, 24), np.linspace(-1, 1, 12), indexing="ij")
    bend = 1 / (1 + np.exp(-along * 12))
    y = np.where(along < 0, -0.42 * along, -0.08 * along)
    z = 0.45 + 0.75 * np.maximum(along, 0) * bend + 0.03 * across**2
    grid = np.stack([0.21 * across, y, z], axis=-1)
    item.add(sheet(grid, 0.015), own)
    steel = Material((0.6, 0.6, 0.62), shine=rng.uniform(0, 0.4))
    # From the back of the seat to its front, down, and back along the floor.
    bent = np.array([[0, -0.02, 0.45], [0, 0.2, 0.44], [0, 0.22, 0.02], [0, -0.22, 0.02]])
    for side in (-1, 1):
        item.add(tube(bent + [0.19 * side, 0, 0], 0.012), steel)
    item.add(tube(np.array([[-0.19, -0.21, 0.02], [0.19, -0.21, 0.02]]), 0.012), steel)


def stool(build: Builder, at: Transform) -> None:
    """A stool: a round seat on a pole, or a pouf."""
    rng = build.rng
    item = build.add_object("chair", at)
    wide = rng.uniform(0.15, 0.22)
    if rng.random() < 0.4:
        item.add(cushion(2.2 * wide, 2.2 * wide, 0.4, 0.8), fabric(rng))
        return
    tall = rng.uniform(0.42, 0.75)
    item.add(cone(wide, 0.9 * wide, 0.02), METAL)
    item.add(cone(0.03, 0.03, tall, 10), METAL, place(0, 0, 0.02))
    item.add(
        cone(wide, wide, 0.06), worn(rng, pick(rng, (DARK, *clutter.BRIGHT))), place(0, 0, tall)
    )
