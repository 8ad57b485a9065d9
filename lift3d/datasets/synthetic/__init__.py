"""A furnished room that exists only in numbers: exact truth for tests, demo and benchmarks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from lift3d.scene import Camera, Depth, Image, LabelledPoints, LabelMap, Origin, Scene, View
from lift3d.scene.errors import InputError
from lift3d.scene.protocols import Reader

if TYPE_CHECKING:
    from lift3d.datasets.synthetic.render import Caster, Exact

NAME = "synthetic"


@dataclass(frozen=True)
class SyntheticConfig(Reader):
    """A furnished room, ray cast with exact truth: INPUT is `synthetic` or `synthetic:SEED`."""

    takes_words: ClassVar[bool] = True
    expects: ClassVar[str] = "no path but the word `synthetic`, or `synthetic:SEED`"
    seed: int = 0
    """Decides furniture, camera path and noise; `synthetic:SEED` sets it too."""
    views: int = 120
    """Pictures along the camera's two loops through the room."""
    width: int = 320
    """Pixels across."""
    height: int = 240
    """Pixels down."""
    noise: bool = True
    """Sensor noise, missing depth, blur; False gives exact depth and clean colour."""
    spacing: float = 0.02
    """Metres between points of the true surface."""

    def matches(self, path: Path) -> bool:
        """Whether `path` is the word `synthetic`, with or without a seed."""
        name, _, seed = str(path).partition(":")
        return name == NAME and (not seed or seed.isdecimal()) and not path.exists()

    def read(self, path: Path = Path(NAME)) -> Scene:
        """The scene; views are rendered when asked for."""
        name, _, seed = str(path).partition(":")
        if name != NAME or (seed and not seed.isdecimal()):
            raise InputError(f"{path} is not a synthetic scene; write `synthetic` or `synthetic:7`")
        config = replace(self, seed=int(seed)) if seed else self
        if config.views < 1 or min(config.width, config.height) < 8:
            raise InputError(
                f"a synthetic scene needs 1 view and 8x8 pixels or more, "
                f"not {config.views} of {config.width}x{config.height}"
            )
        room = _room(config)
        views = tuple(
            View(
                f"{index:04d}",
                camera,
                partial(_image, config, index),
                load_depth=partial(_depth, config, index),
                load_instances=partial(_instances, config, index),
            )
            for index, camera in enumerate(room.cameras)
        )
        return Scene(
            f"synthetic_{config.seed}",
            views,
            metric=True,
            source=f"synthetic room, seed {config.seed}",
            notes=(
                f"{len(room.caster.world.things)} things in the room, walls, floor and ceiling "
                "among them",
            ),
            load_surface=partial(_surface, config),
            void_classes=(1, 2, 3),  # world.STRUCTURE
            origin=Origin.of(Path(f"{NAME}:{config.seed}"), NAME, config),
        )


@dataclass(frozen=True, eq=False)
class _Room:
    caster: Caster
    cameras: tuple[Camera, ...]


@lru_cache(maxsize=2)
def _room(config: SyntheticConfig) -> _Room:
    """Built once per process, so that views stay small enough to travel."""
    from lift3d.datasets.synthetic.render import Caster
    from lift3d.datasets.synthetic.rooms import furnished
    from lift3d.datasets.synthetic.trajectory import walk

    rng = np.random.default_rng([config.seed, 0])
    world, rooms = furnished(rng)
    cx, cy = rooms[0].centre
    lamp = np.array([cx + 0.3, cy - 0.2, rooms[0].height - 0.3], np.float32)
    caster = Caster(world, lamp)
    # 60 degrees across, as phones and depth sensors have.
    focal = config.width / 2 / np.tan(np.radians(30))
    K = np.array(
        [
            [focal, 0, (config.width - 1) / 2],
            [0, focal, (config.height - 1) / 2],
            [0, 0, 1],
        ]
    )
    camera = Camera(K, config.width, config.height)
    poses = walk(rng, caster, rooms, config.views)
    return _Room(caster, tuple(camera.at(pose) for pose in poses))


@lru_cache(maxsize=4)
def _look(config: SyntheticConfig, index: int) -> Exact:
    room = _room(config)
    return room.caster.look(room.cameras[index])


def _image(config: SyntheticConfig, index: int) -> Image:
    from lift3d.datasets.synthetic.sensor import photo

    rng = np.random.default_rng([config.seed, 1, index])
    return photo(_look(config, index), rng, config.noise)


def _depth(config: SyntheticConfig, index: int) -> Depth:
    from lift3d.datasets.synthetic.sensor import measured

    exact = _look(config, index)
    if not config.noise:
        return exact.depth.copy()
    return measured(exact, np.random.default_rng([config.seed, 2, index]))


def _instances(config: SyntheticConfig, index: int) -> LabelMap:
    return _look(config, index).instances.copy()


def _surface(config: SyntheticConfig) -> LabelledPoints:
    from lift3d.datasets.synthetic.surface import seen_surface

    room = _room(config)
    rng = np.random.default_rng([config.seed, 3])
    return seen_surface(room.caster, room.cameras, config.spacing, rng)
