"""Labelled clouds for training a network: a `torch.utils.data.Dataset` over runs and exports.

A scene is in the training, validation or test part by its name and a seed alone, so adding scenes
moves no other scene. Random changes of a sample depend on the seed, the epoch and the sample's
number only, whatever the number of workers.

Needs torch. Frames and units are the run's own; nothing here aligns the world with gravity.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, Int64

from lift3d.export.ply import read_cloud
from lift3d.run.exporting import CORRECTED
from lift3d.run.layout import Layout
from lift3d.run.run import Run
from lift3d.scene import LabelledPoints, Points
from lift3d.scene.contents import content
from lift3d.scene.errors import InputError, MissingExtra
from lift3d.scene.guarded import reading
from lift3d.scene.guarded.arrays import load_npy
from lift3d.scene.guarded.json_file import load_json

try:
    import torch
    from torch.utils.data import Dataset
except ImportError as error:
    raise MissingExtra(
        "the training feed needs torch; install it with: pip install 'lift3d[distill]'"
    ) from error

Part = Literal["train", "validation", "test"]
CLOUDS_KEPT = 16
"""Clouds that each worker keeps in memory."""


def part_of(name: str, validation: float = 0.1, test: float = 0.1, seed: int = 0) -> Part:
    """The part that a scene belongs to, by its name; the shares hold on average.

    Scans of one place are in the same part: `scene0011_00` and `scene0011_01`.

    >>> part_of("scene0011_00") == part_of("scene0011_01")
    True
    """
    if min(validation, test) < 0 or validation + test > 1:
        raise InputError(f"shares {validation} and {test}; expected 0 or more, 1 or less together")
    place = re.sub(r"^(scene\d{4})_\d\d$", r"\1", name)
    digest = hashlib.sha256(f"{seed} {place}".encode(errors="surrogatepass")).digest()
    draw = int.from_bytes(digest[:8], "big") / 2**64
    if draw < test:
        return "test"
    return "validation" if draw < test + validation else "train"


def scene_name(path: Path) -> str:
    """Name of the scene of a run, a Pointcept folder or a cloud, as `part_of` takes it."""
    if Layout(path).record.is_file():
        return Run.open(path).name
    return path.stem if path.suffix == ".ply" else path.name


def read_labelled(path: Path) -> LabelledPoints:
    """Read a finished run, a scene folder of a `pointcept` export, or a PLY written by lift3d.

    In the result 0 is unlabelled, in instance and semantic; Pointcept folders store it as -1.
    """
    if path.suffix == ".ply":
        return read_cloud(path)
    if (path / "coord.npy").is_file():
        return _pointcept(path)
    if Layout(path).record.is_file():
        return Run.open(path).cloud
    raise InputError(
        f"{path} is no finished run (run.json), no scene of a pointcept export (coord.npy) and no "
        "PLY; give one of these"
    )


def corrected_ids(path: Path) -> frozenset[int]:
    """The objects that a person changed or accepted, of anything that `read_labelled` reads.

    For an export, by the `corrected.json` in its folder; empty where there is none.
    """
    if Layout(path).record.is_file():
        return frozenset(e.id for e in Run.open(path).objects if e.edited or e.reviewed)
    home = path.parent if path.suffix == ".ply" else path.parent.parent  # train/SCENE
    path = home / CORRECTED
    if not path.is_file():
        return frozenset()
    content = load_json(path, advice="export again", kind=dict)
    with reading(path, "a list of corrected objects", advice="export again"):
        return frozenset(int(each["id"]) for each in content["objects"])


def _stored(path: Path) -> Path:
    """The file or folder that `read_labelled` reads."""
    files = Layout(path)
    return files.cloud if files.record.is_file() else path


def _pointcept(path: Path) -> LabelledPoints:
    names = ("coord", "color", "normal", "segment", "instance")
    again = "export it again"
    found = [load_npy(path / f"{each}.npy", advice=again) for each in names]
    count = len(found[0]) if found[0].ndim else 0
    if [each.shape for each in found] != [(count, 3)] * 3 + [(count,)] * 2:
        raise InputError(f"{path}: its arrays differ in length; {again}")
    xyz, rgb, normal, segment, instance = found
    ones = np.ones(count, np.float32)
    points = Points(xyz.astype(np.float32), rgb.astype(np.uint8), normal.astype(np.float32), ones)
    ids, classes = (np.maximum(each, 0).astype(np.int32) for each in (instance, segment))
    return LabelledPoints(points, ids, (ids > 0).astype(np.float32), classes)


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a sample, applied in this order."""

    turn: bool = True
    """Rotate by a random angle about the up axis."""
    flip: bool = True
    """Mirror each of the two horizontal axes with probability 0.5."""
    scale: tuple[float, float] = (0.9, 1.1)
    """Smallest and largest scale factor."""
    jitter: float = 0.005
    """Standard deviation of the noise on positions, clipped at two of it; in the cloud's unit."""
    colour: float = 0.1
    """Standard deviation of the shift and the gain of each channel, for colours from -1 to 1."""
    no_colour: float = 0.1
    """Probability that all colours of a sample are set to 0."""


@dataclass(frozen=True)
class FeedConfig:
    """How a sample is made from a cloud."""

    voxel: float | None = 0.05
    """Keep one point per voxel of this side: a random one with augmentation, else the one nearest
    to the voxel's centre. None keeps all points."""
    most: int | None = None
    """Keep at most this many points: those nearest to a randomly chosen point."""
    augmentation: Augmentation | None = None
    """None changes nothing; the random point for `most` then depends on the seed alone."""
    up: Literal["x", "y", "z"] = "z"
    """The vertical axis of the cloud, which the run does not record."""
    seed: int = 0

    def check(self) -> None:
        """InputError for values out of range."""
        if self.voxel is not None and self.voxel <= 0:
            raise InputError(f"voxel is {self.voxel}; expected a length above 0, or None")
        if self.most is not None and self.most < 1:
            raise InputError(f"most is {self.most}; expected 1 or more, or None")


class Sample(NamedTuple):
    """One cloud, or a part of it."""

    xyz: torch.Tensor
    """float32 (points, 3); the origin is the centre of the bounding box's bottom face."""
    colour: torch.Tensor
    """float32 (points, 3), -1 to 1 before augmentation."""
    normal: torch.Tensor
    """float32 (points, 3); 0 where unknown."""
    instance: torch.Tensor
    """int64 (points,), 0 = unlabelled."""
    semantic: torch.Tensor
    """int64 (points,), 0 = unlabelled; all 0 where the run has no classes."""
    point: torch.Tensor
    """int64 (points,): index of each point in the cloud."""
    name: str
    corrected: torch.Tensor
    """bool (points,): whether a person changed or accepted the point's object."""


class Batch(NamedTuple):
    """Several samples, concatenated; the fields are those of `Sample`."""

    xyz: torch.Tensor
    colour: torch.Tensor
    normal: torch.Tensor
    instance: torch.Tensor
    semantic: torch.Tensor
    point: torch.Tensor
    offset: torch.Tensor
    """int64 (samples,): end of each sample, as in Pointcept."""
    names: tuple[str, ...]
    corrected: torch.Tensor


def collate(samples: Sequence[Sample]) -> Batch:
    """Concatenate samples, for `DataLoader(collate_fn=collate)`."""
    xyz, colour, normal, instance, semantic, point, names, corrected = zip(*samples, strict=True)
    return Batch(
        torch.cat(xyz),
        torch.cat(colour),
        torch.cat(normal),
        torch.cat(instance),
        torch.cat(semantic),
        torch.cat(point),
        torch.tensor([len(each) for each in xyz]).cumsum(0),
        names,
        torch.cat(corrected),
    )


class LabelledClouds(Dataset[Sample]):
    """Dataset of runs, exports or PLYs, one sample each.

    Call `set_epoch` before each epoch, or all epochs have the same augmentation. It also reaches
    persistent workers, through shared memory.
    """

    def __init__(self, paths: Sequence[Path], config: FeedConfig = FeedConfig()) -> None:
        config.check()
        self.paths = tuple(Path(each) for each in paths)
        self.names = tuple(scene_name(each) for each in self.paths)
        self.config = config
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the random changes depend on."""
        self._epoch[0] = epoch

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> Sample:
        number = range(len(self))[number]  # IndexError ends a loop; -1 is the last
        config = self.config
        epoch = int(self._epoch) if config.augmentation is not None else 0
        rng = np.random.default_rng([config.seed, epoch, number])
        path = self.paths[number]
        cloud = _cloud(path, content(_stored(path))[0])
        return drawn_sample(cloud, config, rng, self.names[number], corrected_ids(path))


@lru_cache(maxsize=CLOUDS_KEPT)
def _cloud(path: Path, digest: str | None) -> LabelledPoints:
    """The cloud; `digest` is part of the cache key, as the run may be lifted again meanwhile."""
    cloud = read_labelled(path)
    if not len(cloud):
        raise InputError(f"{path} has no points; leave it out")
    return cloud


def drawn_sample(
    cloud: LabelledPoints,
    config: FeedConfig,
    rng: np.random.Generator,
    name: str = "",
    corrected: Collection[int] = (),
) -> Sample:
    """One sample of a cloud: augmented, reduced to voxels, cropped to `most` points.

    `corrected`: ids of objects that a person changed or accepted.
    """
    up = "xyz".index(config.up)
    level = [axis for axis in range(3) if axis != up]
    xyz, normal = cloud.points.xyz.astype(np.float64), cloud.points.normal.astype(np.float64)
    low, high = xyz.min(0), xyz.max(0)
    xyz = xyz - np.where(np.arange(3) == up, low, (low + high) / 2)
    colour = cloud.points.rgb.astype(np.float32) / 127.5 - 1
    change = config.augmentation
    if change is not None:
        linear = _linear(change, up, level, rng)
        xyz, normal = xyz @ linear.T, normal @ (linear / np.cbrt(abs(np.linalg.det(linear)))).T
        noise = rng.normal(0, 1, xyz.shape).clip(-2, 2)
        xyz = xyz + change.jitter * noise
        gain, shift = rng.normal(0, change.colour, (2, 3))
        colour = (colour * (1 + gain) + shift).astype(np.float32)
        if rng.random() < change.no_colour:
            colour = np.zeros_like(colour)
    index = np.arange(len(xyz))
    if config.voxel is not None:
        index = one_per_voxel(
            xyz.astype(np.float32), config.voxel, rng if change is not None else None
        )
    if config.most is not None and len(index) > config.most:
        middle = xyz[rng.choice(index)]
        away = ((xyz[index] - middle) ** 2).sum(1)
        index = np.sort(index[np.argsort(away, kind="stable")[: config.most]])
    semantic = np.zeros(len(cloud), np.int32) if cloud.semantic is None else cloud.semantic

    def taken(values: np.ndarray, kind: Any) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values[index], kind))

    return Sample(
        taken(xyz, np.float32),
        taken(colour, np.float32),
        taken(normal, np.float32),
        taken(cloud.instance, np.int64),
        taken(semantic, np.int64),
        torch.from_numpy(index.astype(np.int64)),
        name,
        torch.from_numpy(np.isin(cloud.instance[index], list(corrected))),
    )


def _linear(
    change: Augmentation, up: int, level: Sequence[int], rng: np.random.Generator
) -> np.ndarray:
    """Rotation, mirroring and scale as a matrix; all random numbers are drawn in any case."""
    angle, flips = rng.uniform(0, 2 * np.pi), rng.random(2) < 0.5
    factor = rng.uniform(*change.scale)
    linear = np.eye(3)
    if change.turn:
        cos, sin = np.cos(angle), np.sin(angle)
        linear[np.ix_(level, level)] = [[cos, -sin], [sin, cos]]
    if change.flip:
        linear[np.array(level)[flips]] *= -1
    return factor * linear


def one_per_voxel(
    xyz: Float32[np.ndarray, "points 3"], side: float, rng: np.random.Generator | None = None
) -> Int64[np.ndarray, " kept"]:
    """Indices of one point per voxel, ascending: a random one, or without `rng` the one nearest
    to the voxel's centre.

    >>> one_per_voxel(np.float32([[0.1, 0, 0], [0.4, 0.5, 0.5], [1.2, 0, 0]]), 1.0)
    array([1, 2])
    """
    cell = np.floor(xyz / side)
    if rng is None:
        order = np.argsort(((xyz / side - cell - 0.5) ** 2).sum(1), kind="stable")
    else:
        order = rng.permutation(len(xyz))
    # One number per voxel: rows are slow to sort.
    x, y, z = (cell - cell.min(0)).astype(np.int64).T
    voxel = (x * (y.max(initial=0) + 1) + y) * (z.max(initial=0) + 1) + z
    _, first = np.unique(voxel[order], return_index=True)
    return np.sort(order[first]).astype(np.int64)


def at_all_points(
    found: Int32[np.ndarray, " kept"],
    index: Int64[np.ndarray, " kept"],
    xyz: Float32[np.ndarray, "points 3"],
) -> Int32[np.ndarray, " points"]:
    """Extend values at the points `index` of a cloud to all its points, from the nearest one."""
    from scipy.spatial import cKDTree

    _, nearest = cKDTree(xyz[index]).query(xyz)
    return found[np.asarray(nearest)]
