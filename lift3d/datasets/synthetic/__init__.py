"""A synthetic furnished room with exact ground truth, for tests, demo and benchmarks."""

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
    """A ray-cast furnished room with ground truth: INPUT is `synthetic` or `synthetic:SEED`."""

    takes_words: ClassVar[bool] = True
    expects: ClassVar[str] = "the word `synthetic` or `synthetic:SEED` instead of a path"
    seed: int = 0
    """Seed of furniture, camera path and noise; `synthetic:SEED` sets it too."""
    views: int = 120
    """Pictures along the camera's two loops through the room."""
    width: int = 320
    """Image width in pixels."""
    height: int = 240
    """Image height in pixels."""
    noise: bool = True
    """Sensor noise, missing depth, blur; False gives exact depth and clean colour."""
    spacing: float = 0.02
    """Metres between points of the true surface."""

    def matches(self, path: Path) -> bool:
        """Whether `path` is the word `synthetic`, with or without a seed."""
        name, _, seed = str(path).partition(":")
        return name == NAME and (not seed or seed.isdecimal()) and not path.exists()

    def read(self, path: Path = Path(NAME)) -> Scene:
        """The scene; pictures are rendered when views load them."""
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
                f"{len(room.caster.world.objects)} objects in the room, including walls, floor "
                "and ceiling",
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
    """The room of a configuration, cached per process so that views are small when pickled."""
    from lift3d.datasets.synthetic.render import Caster
    from lift3d.datasets.synthetic.rooms import furnished
    from lift3d.datasets.synthetic.trajectory import walk

    rng = np.random.default_rng([config.seed, 0])
    world, rooms = furnished(rng)
    cx, cy = rooms[0].centre
    lamp = np.array([cx + 0.3, cy - 0.2, rooms[0].height - 0.3], np.float32)
    caster = Caster(world, lamp)
    # Horizontal field of view 60 degrees, as of phones and depth sensors.
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
def _rendered(config: SyntheticConfig, index: int) -> Exact:
    room = _room(config)
    return room.caster.render(room.cameras[index])


def _image(config: SyntheticConfig, index: int) -> Image:
    from lift3d.datasets.synthetic.sensor import photo

    rng = np.random.default_rng([config.seed, 1, index])
    return photo(_rendered(config, index), rng, config.noise)


def _depth(config: SyntheticConfig, index: int) -> Depth:
    from lift3d.datasets.synthetic.sensor import measured

    exact = _rendered(config, index)
    if not config.noise:
        return exact.depth.copy()
    return measured(exact, np.random.default_rng([config.seed, 2, index]))


def _instances(config: SyntheticConfig, index: int) -> LabelMap:
    return _rendered(config, index).instances.copy()


def _surface(config: SyntheticConfig) -> LabelledPoints:
    from lift3d.datasets.synthetic.surface import visible_surface

    room = _room(config)
    rng = np.random.default_rng([config.seed, 3])
    return visible_surface(room.caster, room.cameras, config.spacing, rng)
