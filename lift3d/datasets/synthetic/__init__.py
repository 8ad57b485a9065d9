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
    from lift3d.datasets.synthetic.scanned.resurfaced import Resurfaced
    from lift3d.datasets.synthetic.scanned.scanner import Scanner

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
    scanned: bool = False
    """A room that resembles real scans: built-in and soft furniture, clutter, a random sensor with
    systematic errors, poses that drift by 1 to 2 cm, changing exposure, and for some seeds pictures
    rendered from the colours of the fused surface. `noise` False leaves the errors out."""

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
            for index, camera in enumerate(room.stated)
        )
        return Scene(
            f"{'scanned' if config.scanned else 'synthetic'}_{config.seed}",
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
    """Where pictures are taken from."""
    stated: tuple[Camera, ...]
    """What the scene says of that: the same, or drifted."""
    scanner: Scanner | None


@lru_cache(maxsize=2)
def _room(config: SyntheticConfig) -> _Room:
    """The room of a configuration, cached per process so that views are small when pickled."""
    from lift3d.datasets.synthetic.render import Caster
    from lift3d.datasets.synthetic.rooms import furnished
    from lift3d.datasets.synthetic.scanned.drift import drifted
    from lift3d.datasets.synthetic.scanned.rooms import scanned_room
    from lift3d.datasets.synthetic.scanned.scanner import scanner
    from lift3d.datasets.synthetic.trajectory import walk

    rng = np.random.default_rng([config.seed, 0])
    world, rooms = scanned_room(rng) if config.scanned else furnished(rng)
    cx, cy = rooms[0].centre
    lamp = np.array([cx + 0.3, cy - 0.2, rooms[0].height - 0.3], np.float32)
    if config.scanned:
        reach = [rooms[0].x1 / 2 - 0.3, rooms[0].y1 / 2 - 0.3, 0.15]
        lamp += (rng.uniform(-0.8, 0.8, 3) * reach).astype(np.float32)
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
    cameras = tuple(camera.at(pose) for pose in poses)
    if not (config.scanned and config.noise):
        return _Room(caster, cameras, cameras, None)
    made = scanner(np.random.default_rng([config.seed, 4]))
    poses = drifted(poses, made.drift, np.random.default_rng([config.seed, 5]))
    return _Room(caster, cameras, tuple(camera.at(pose) for pose in poses), made)


@lru_cache(maxsize=4)
def _rendered(config: SyntheticConfig, index: int) -> Exact:
    room = _room(config)
    return room.caster.render(room.cameras[index])


@lru_cache(maxsize=1)
def _resurfaced(config: SyntheticConfig, voxel: float) -> Resurfaced:
    """The mesh of all measured views; it takes as long as rendering them all."""
    from lift3d.datasets.synthetic.scanned.resurfaced import Resurfaced, fused_mesh

    views = tuple(
        View(
            f"{index:04d}",
            camera,
            partial(_taken, config, index),
            load_depth=partial(_measured, config, index),
        )
        for index, camera in enumerate(_room(config).stated)
    )
    # Fewer views than a real scan has, so one is enough.
    scene = Scene(NAME, views, metric=True, source=NAME)
    return Resurfaced(fused_mesh(scene, voxel, seen=1.0, smallest=20))


@lru_cache(maxsize=4)
def _resurfaced_view(config: SyntheticConfig, index: int, voxel: float) -> tuple[Image, Depth]:
    return _resurfaced(config, voxel).render(_room(config).stated[index])


def _image(config: SyntheticConfig, index: int) -> Image:
    scanner = _room(config).scanner
    if scanner is not None and scanner.voxel is not None:
        return _resurfaced_view(config, index, scanner.voxel)[0].copy()
    return _taken(config, index)


def _taken(config: SyntheticConfig, index: int) -> Image:
    """The camera's picture."""
    from lift3d.datasets.synthetic.scanned.drift import smooth
    from lift3d.datasets.synthetic.scanned.picture import motion
    from lift3d.datasets.synthetic.sensor import photo

    exact, room = _rendered(config, index), _room(config)
    rng = np.random.default_rng([config.seed, 1, index])
    if room.scanner is None:
        return photo(exact, rng, config.noise)
    gains = smooth(np.random.default_rng([config.seed, 6]), config.views, 4)
    following = room.cameras[min(index + 1, config.views - 1)]
    moved = motion(room.cameras[index], following, float(np.median(exact.depth)))
    return room.scanner.colour.photo(exact, gains[index], moved, rng)


def _depth(config: SyntheticConfig, index: int) -> Depth:
    scanner = _room(config).scanner
    if scanner is not None and scanner.voxel is not None:
        return _resurfaced_view(config, index, scanner.voxel)[1].copy()
    return _measured(config, index)


def _measured(config: SyntheticConfig, index: int) -> Depth:
    """The sensor's depth."""
    from lift3d.datasets.synthetic.sensor import measured

    exact, room = _rendered(config, index), _room(config)
    rng = np.random.default_rng([config.seed, 2, index])
    if room.scanner is not None:
        return room.scanner.depth.measure(exact, rng)
    return measured(exact, rng) if config.noise else exact.depth.copy()


def _instances(config: SyntheticConfig, index: int) -> LabelMap:
    return _rendered(config, index).instances.copy()


def _surface(config: SyntheticConfig) -> LabelledPoints:
    from lift3d.datasets.synthetic.surface import visible_surface

    room = _room(config)
    rng = np.random.default_rng([config.seed, 3])
    return visible_surface(room.caster, room.cameras, config.spacing, rng)
