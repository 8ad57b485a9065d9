"""One click on equal things side by side, on a mirror and behind glass, in pictures.

    python benchmarks/mirror.py --out out/mirror                  # depth of what the mirror shows
    python benchmarks/mirror.py --out out/mirror --depth holes    # no depth in the mirror
    python benchmarks/mirror.py --out out/glass --depth glass     # or behind, mixed

A made room: two equal chairs, two equal boxes that touch, a red box before a mirror in the wall.
What a mirror shows is a room behind the wall, so it is built there. With `glass`, `behind` and
`mixed` there is no mirror, and a pane of glass stands before the red box: a sensor measures the
pane, or what is behind it, or in each view some patches of the one and of the other (40 % each)
and nothing in the rest. Behind glass a thing keeps its pixels in the truth; the pane is no object.

Without weights; each thing by one click at its middle, and by its true mask, in one view. Prints
the mean IoU of the views that show it; `OUT/clicks.png` and `OUT/masks.png` have three views of
each answer, the prompted first.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from one_click_cases import Case, centre, prepared

from lift3d.correction.clicks.answering import ClickConfig, answer
from lift3d.datasets.synthetic.furniture import carton, chair
from lift3d.datasets.synthetic.render import Caster
from lift3d.datasets.synthetic.sensor import measured, photo
from lift3d.datasets.synthetic.shapes import box
from lift3d.datasets.synthetic.trajectory import look_at
from lift3d.datasets.synthetic.world import GRAIN, STRIPES, Builder, Material, SceneObject, place
from lift3d.scene import Camera, Prompt, Scene, View


@dataclass(frozen=True)
class Pane:
    """An upright rectangle across the room, metres."""

    y: float
    half: float
    """Half of its width; its middle has x = 0."""
    low: float
    high: float

    def crossed(self, camera: Camera, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixels whose ray goes through it before it hits anything, and its depth there."""
        column, row = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
        pixels = np.stack([column, row, np.ones_like(row)], -1)
        rays = pixels @ np.linalg.inv(camera.K).T @ camera.pose[:3, :3].T
        far = (self.y - camera.pose[1, 3]) / rays[..., 1]
        x, _, z = np.moveaxis(camera.pose[:3, 3] + far[..., None] * rays, -1, 0)
        inside = (abs(x) < self.half) & (z > self.low) & (z < self.high)
        return (far > 0) & inside & (depth > far - 0.001), far


WALL = 2.0
"""y of the wall at the back."""
MIRROR, GLASS = Pane(WALL, 0.6, 0.7, 1.7), Pane(0.85, 0.45, 0.0, 1.0)
THINGS = {3: "left chair", 4: "right chair", 5: "left box", 6: "right box", 7: "red box"}
MIRROR_ID = 100
VIEWS, ASKED, SHOWN = 14, "06", ("06", "02", "10")


def furniture(build: Builder, reflected: bool) -> None:
    """Chairs and boxes, or their reflections."""
    wood = Material((0.55, 0.38, 0.22), (0.4, 0.28, 0.16), GRAIN, 0.05)
    tan, red = Material((0.66, 0.52, 0.36)), Material((0.75, 0.2, 0.16))

    def at(x: float, y: float, turn: float = 0.0) -> np.ndarray:
        return place(x, 2 * WALL - y, 0, np.pi - turn) if reflected else place(x, y, 0, turn)

    for x in (-1.7, -1.1):
        chair(build, at(x, 1.2, 0.1), wood)
    for x in (1.3, 1.7):
        carton(build, at(x, 1.3), 0.4, 0.4, 0.4, tan)
    carton(build, at(0, 1.2), 0.35, 0.35, 0.75, red)


def walls(floor: SceneObject, wall: SceneObject, middle: float, back: float) -> None:
    """A floor of 6 × 4.5 m, a wall at its back and two at its sides."""
    planks = Material((0.55, 0.45, 0.35), (0.45, 0.36, 0.28), STRIPES, 0.12)
    white = Material((0.8, 0.78, 0.72))
    floor.add(box(6, 4.5, 0.02), planks, place(0, middle, -0.02))
    wall.add(box(6, 0.02, 2.5), white, place(0, back))
    for x in (-3, 3):
        wall.add(box(0.02, 4.5, 2.5), white, place(x, middle))


def room(mirror: bool) -> Caster:
    """The room, and behind its wall what the mirror shows."""
    build = Builder(np.random.default_rng(0))
    floor, wall = (build.add_object(each, place(0, 0)) for each in ("floor", "wall"))
    walls(floor, wall, -0.25, -2.5)
    white = Material((0.8, 0.78, 0.72))
    side = 3 - MIRROR.half
    around = (
        (-MIRROR.half - side / 2, side, 0, 2.5),
        (MIRROR.half + side / 2, side, 0, 2.5),
        (0, 2 * MIRROR.half, 0, MIRROR.low),
        (0, 2 * MIRROR.half, MIRROR.high, 2.5 - MIRROR.high),
    )
    for x, width, z, height in around if mirror else ((0, 6, 0, 2.5),):
        wall.add(box(width, 0.02, height), white, place(x, WALL + 0.01, z))
    furniture(build, reflected=False)
    if mirror:
        floor, wall = (build.add_object(each, place(0, 0)) for each in ("floor", "wall"))
        walls(floor, wall, 4.25, 6.5)
        furniture(build, reflected=True)
    return Caster(build.world(), np.array([0, 0, 2.2], np.float32))


def cameras() -> list[Camera]:
    """Along the room, looking at the mirror's wall."""
    focal = 160 / np.tan(np.radians(32))
    camera = Camera(np.array([[focal, 0, 159.5], [0, focal, 119.5], [0, 0, 1]]), 320, 240)
    found = []
    for i in range(VIEWS):
        position = np.array(
            [-1.8 + 3.6 * i / (VIEWS - 1), -1.4 + 0.5 * np.sin(i), 1.45 + 0.15 * np.cos(2 * i)]
        )
        x, y, z = np.array([0.25 * np.sin(3 * i), 1.6, 0.7]) - position
        found.append(camera.at(look_at(position, np.arctan2(y, x), np.arctan2(z, np.hypot(x, y)))))
    return found


def patches(shape: tuple[int, int], seed: int) -> np.ndarray:
    """Smooth random numbers, each share of the pixels as often: 0 to 1."""
    coarse = np.random.default_rng(seed).random((12, 16)).astype(np.float32)
    smooth = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC).ravel()
    return (smooth.argsort().argsort() / smooth.size).reshape(shape)


def case(kind: str) -> tuple[Case, dict[str, np.ndarray]]:
    """The scene with its truth, ready to be clicked, and its pictures."""
    mirror = kind in ("mirror", "holes")
    caster, views, maps, pictures = room(mirror), [], {}, {}
    for number, camera in enumerate(cameras()):
        exact, name = caster.render(camera), f"{number:02d}"
        depth = measured(exact, np.random.default_rng(100 + number))
        pane, away = (MIRROR if mirror else GLASS).crossed(camera, exact.depth)
        if kind == "holes":
            depth[pane] = 0
        elif kind == "glass":
            depth[pane] = away[pane]
        elif kind == "mixed":
            patch = patches(depth.shape, 200 + number)
            on, none = pane & (patch < 0.4), pane & (patch > 0.8)
            depth[on], depth[none] = away[on], 0
        pictures[name] = photo(exact, np.random.default_rng(number), True)
        maps[name] = np.where(pane, MIRROR_ID, exact.instances) if mirror else exact.instances
        image, measure = partial(np.copy, pictures[name]), partial(np.copy, depth)
        views.append(View(name, camera, image, load_depth=measure))
    named = {**THINGS, MIRROR_ID: "mirror"} if mirror else THINGS
    truth = {
        name: {view: labels == number for view, labels in maps.items()}
        for number, name in named.items()
    }
    scene = Scene(kind, tuple(views), metric=True, source="a room with a pane")
    return prepared(kind, scene, lambda: truth), pictures


def asked(own: Case, prompt: Prompt) -> dict[str, np.ndarray]:
    """The answer in all views."""
    return own.found(answer(own.place, [{ASKED: prompt}], None, ClickConfig()))


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--depth", choices=("mirror", "holes", "glass", "behind", "mixed"), default="mirror"
    )
    options = parser.parse_args(given)
    options.out.mkdir(parents=True, exist_ok=True)
    own, pictures = case(options.depth)
    one, two = np.array([True]), np.array([True, False])
    middle = {name: centre(truth[ASKED]) for name, truth in own.truth.items()}
    pair = np.stack([middle["left box"], middle["right box"]])
    no_click = (np.zeros((0, 2)), np.zeros(0, bool))
    prompts = {
        "clicks": [(name, Prompt(middle[name][None], one)) for name in own.truth]
        + [("left box", Prompt(pair, two))],
        "masks": [(name, Prompt(*no_click, truth[ASKED])) for name, truth in own.truth.items()],
    }
    for kind, questions in prompts.items():
        rows = []
        for name, prompt in questions:
            found, truth = asked(own, prompt), own.truth[name]
            seen = [view for view in truth if truth[view].mean() > 0.002]
            both = [(found[n] & truth[n]).sum() / (found[n] | truth[n]).sum() for n in seen]
            print(kind, name, f"{np.mean(both):.3f}", flush=True)
            line = [np.where(found[n][..., None], (0, 200, 0), pictures[n]) for n in SHOWN]
            rows.append(np.concatenate(line, 1).astype(np.uint8))
        cv2.imwrite(str(options.out / f"{kind}.png"), np.concatenate(rows)[..., ::-1])


if __name__ == "__main__":
    main()
