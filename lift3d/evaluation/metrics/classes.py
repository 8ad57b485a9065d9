"""The class lists of the benchmarks: ids and names of the evaluated classes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

Convention: TypeAlias = Literal["nyu40", "raw"]
"""Meaning of a ScanNet label: an id of nyu40, or the `id` of scannetv2-labels.combined.tsv."""


@dataclass(frozen=True)
class Benchmark:
    """The classes of a benchmark, in the ids of its truth and submissions."""

    name: str
    convention: Convention
    names: dict[int, str]
    """Every class of semantic labels, in the benchmark's order."""
    stuff: tuple[int, ...]
    """Classes without instances: wall and floor."""

    @cached_property
    def classes(self) -> tuple[int, ...]:
        """Ids of the semantic classes."""
        return tuple(self.names)

    @cached_property
    def things(self) -> tuple[int, ...]:
        """Ids of the instance classes."""
        return tuple(each for each in self.names if each not in self.stuff)

    @property
    def semantic(self) -> str:
        """Name of the protocol for instance AP with classes."""
        return f"{self.name}: {len(self.things)} instance classes"

    @property
    def class_agnostic(self) -> str:
        """Name of the protocol for instance AP without classes."""
        folded = f"{len(self.things)} instance classes folded into one"
        return f"class-agnostic {self._letter} {self.name}: {folded}"

    @property
    def _letter(self) -> str:
        return "(a)" if self.convention == "nyu40" else "(b)"


def _listed(ids: str, names: str) -> dict[int, str]:
    pairs = zip(ids.split(), names.split(","), strict=True)
    return {int(each): name.strip() for each, name in pairs}


SCANNET = Benchmark(
    "ScanNetV2",
    "nyu40",
    _listed(
        "1 2 3 4 5 6 7 8 9 10 11 12 14 16 24 28 33 34 36 39",
        "wall, floor, cabinet, bed, chair, sofa, table, door, window, bookshelf, picture, counter, "
        "desk, curtain, refrigerator, shower curtain, toilet, sink, bathtub, otherfurniture",
    ),
    (1, 2),
)
SCANNET200 = Benchmark(
    "ScanNet200",
    "raw",
    _listed(
        "1 2 3 4 5 6 7 8 9 10 11 13 14 15 16 17 18 19 21 22 23 24 26 27 28 29 31 32 33 34 35 36 "
        "38 39 40 41 42 44 45 46 47 48 49 50 51 52 54 55 56 57 58 59 62 63 64 65 66 67 68 69 70 "
        "71 72 73 74 75 76 77 78 79 80 82 84 86 87 88 89 90 93 95 96 97 98 99 100 101 102 103 104 "
        "105 106 107 110 112 115 116 118 120 121 122 125 128 130 131 132 134 136 138 139 140 141 "
        "145 148 154 155 156 157 159 161 163 165 166 168 169 170 177 180 185 188 191 193 195 202 "
        "208 213 214 221 229 230 232 233 242 250 261 264 276 283 286 300 304 312 323 325 331 342 "
        "356 370 392 395 399 408 417 488 540 562 570 572 581 609 748 776 1156 1163 1164 1165 1166 "
        "1167 1168 1169 1170 1171 1172 1173 1174 1175 1176 1178 1179 1180 1181 1182 1183 1184 "
        "1185 1186 1187 1188 1189 1190 1191",
        "wall, chair, floor, table, door, couch, cabinet, shelf, desk, office chair, bed, pillow, "
        "sink, picture, window, toilet, bookshelf, monitor, curtain, book, armchair, coffee "
        "table, box, refrigerator, lamp, kitchen cabinet, towel, clothes, tv, nightstand, "
        "counter, dresser, stool, cushion, plant, ceiling, bathtub, end table, dining table, "
        "keyboard, bag, backpack, toilet paper, printer, tv stand, whiteboard, blanket, shower "
        "curtain, trash can, closet, stairs, microwave, stove, shoe, computer tower, bottle, bin, "
        "ottoman, bench, board, washing machine, mirror, copier, basket, sofa chair, file "
        "cabinet, fan, laptop, shower, paper, person, paper towel dispenser, oven, blinds, rack, "
        "plate, blackboard, piano, suitcase, rail, radiator, recycling bin, container, wardrobe, "
        "soap dispenser, telephone, bucket, clock, stand, light, laundry basket, pipe, clothes "
        "dryer, guitar, toilet paper holder, seat, speaker, column, bicycle, ladder, bathroom "
        "stall, shower wall, cup, jacket, storage bin, coffee maker, dishwasher, paper towel "
        "roll, machine, mat, windowsill, bar, toaster, bulletin board, ironing board, fireplace, "
        "soap dish, kitchen counter, doorframe, toilet paper dispenser, mini fridge, fire "
        "extinguisher, ball, hat, shower curtain rod, water cooler, paper cutter, tray, shower "
        "door, pillar, ledge, toaster oven, mouse, toilet seat cover dispenser, furniture, cart, "
        "storage container, scale, tissue box, light switch, crate, power outlet, decoration, "
        "sign, projector, closet door, vacuum cleaner, candle, plunger, stuffed animal, "
        "headphones, dish rack, broom, guitar case, range hood, dustpan, hair dryer, water "
        "bottle, handicap bar, purse, vent, shower floor, water pitcher, mailbox, bowl, paper "
        "bag, alarm clock, music stand, projector screen, divider, laundry detergent, bathroom "
        "counter, object, bathroom vanity, closet wall, laundry hamper, bathroom stall door, "
        "ceiling light, trash bin, dumbbell, stair rail, tube, bathroom cabinet, cd case, closet "
        "rod, coffee kettle, structure, shower head, keyboard piano, case of water bottles, coat "
        "rack, storage organizer, folded chair, fire alarm, power strip, calendar, poster, potted "
        "plant, luggage, mattress",
    ),
    (1, 3),
)
BENCHMARKS: dict[str, Benchmark] = {"scannet": SCANNET, "scannet200": SCANNET200}

NYU40_NAMES: dict[str, int] = {
    name: each
    for each, name in _listed(
        " ".join(str(each) for each in range(1, 41)),
        "wall, floor, cabinet, bed, chair, sofa, table, door, window, bookshelf, picture, counter, "
        "blinds, desk, shelves, curtain, dresser, pillow, mirror, floor mat, clothes, ceiling, "
        "books, refrigerator, television, paper, towel, shower curtain, box, whiteboard, person, "
        "nightstand, toilet, sink, lamp, bathtub, bag, otherstructure, otherfurniture, otherprop",
    ).items()
}
"""nyu40 ids by class name; annotators' names that are no class of nyu40 are missing."""
RAW_NAMES: dict[str, int] = {name: each for each, name in SCANNET200.names.items()}
