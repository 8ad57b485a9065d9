"""Measure the effect of label noise: train a network on lift3d's labels and on true ones.

python pipelines/train_segmentation.py --out OUT

Synthetic rooms (320x240, 40 views) are fused into clouds. Each cloud is labelled three times: by
the truth (the nearest true point), and by lift3d from two kinds of masks. lift3d finds objects, not
classes, so each object gets the true class of most of its points, as if a person had named every
object once. Points without an object have no class and are not used for training.

A small network is trained on the clouds of some rooms, with one labelling at a time, and scored on
held-out rooms against their true classes. Rooms, pictures, points and networks are the same for
every labelling; only the labels differ. Each training is repeated with other seeds (network, order
of the rooms, augmentation). Run the same command again to continue; results of other settings or
versions are not touched.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import cKDTree

from lift3d.association import associate
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.datasets.synthetic.world import CATEGORIES, STRUCTURE
from lift3d.export.ply import read_cloud, write_cloud
from lift3d.run.feed import Augmentation, FeedConfig, LabelledClouds, Sample, at_all_points
from lift3d.run.record import host, versions
from lift3d.run.settings import LiftConfig
from lift3d.scene import LabelledPoints, Scene
from lift3d.scene.labelmaps import by_name
from lift3d.scene.storage import atomic
from lift3d.segmentation.regions import RegionsConfig
from lift3d.segmentation.simulated import SimulatedConfig

MASKS: dict[str, Any] = {
    "none": SimulatedConfig(severity="none"),
    "middle": SimulatedConfig(severity="middle"),
    "regions": RegionsConfig(),
}
"""True masks with shuffled ids, damaged true masks, and masks from a method without a network."""
FIRST_ROOM = 200
"""Seed of the first room: benchmarks of lifting use low seeds, and the classifiers of
`lift3d.association.shape`, which label the regions, were trained on 100 to 129."""
NEAR = 0.05
"""Metres; a point of the cloud has the class of the nearest true point within this distance."""


@dataclass(frozen=True)
class Sizes:
    """Size of the experiment."""

    train: int = 12
    held_out: int = 6
    views: int = 40
    width: int = 320
    height: int = 240
    point: float = 0.04
    """Voxel side of the fused clouds, metres."""


def room_clouds(seed: int, sizes: Sizes, masks: Sequence[str]) -> dict[str, LabelledPoints]:
    """One room's cloud with each labelling, the true one first."""
    room = SyntheticConfig(views=sizes.views, width=sizes.width, height=sizes.height)
    scene = in_memory(room.read(Path(f"synthetic:{seed}")))
    config = LiftConfig(Path("synthetic"), Path(), voxel=sizes.point).resolved(scene)
    points = config.fuser().fuse(scene)
    assert scene.load_surface is not None
    surface = scene.load_surface()
    assert surface.semantic is not None
    distance, nearest = cKDTree(surface.points.xyz).query(points.xyz)
    known = distance < NEAR
    semantic = np.where(known, surface.semantic[nearest], 0).astype(np.int32)
    instance = np.where(known, surface.instance[nearest], 0).astype(np.int32)
    score = known.astype(np.float32)
    found = {"true": LabelledPoints(points, instance, score, semantic)}
    for name in masks:
        chosen = LiftConfig(Path("synthetic"), Path(), segmentation=MASKS[name]).resolved(scene)
        maps = list(chosen.scene_segmenter().label(scene))
        cloud = associate(
            points, scene, by_name(scene, maps), chosen.association, chosen.tolerance, chosen.seed
        ).cloud
        found[name] = replace(cloud, semantic=named(cloud.instance, semantic))
    return found


def named(instance: np.ndarray, semantic: np.ndarray) -> np.ndarray:
    """Give every object the true class of most of its points; 0 stays 0."""
    table = np.zeros((int(instance.max(initial=0)) + 1, len(CATEGORIES) + 1), np.int64)
    np.add.at(table, (instance, semantic), 1)
    table[:, 0] = 0  # points without a true class do not count
    return np.where(instance > 0, table.argmax(1)[instance], 0).astype(np.int32)


def in_memory(scene: Scene) -> Scene:
    """The same scene with its pictures rendered once."""
    views = [
        replace(
            view,
            load_image=partial(_same, view.image()),
            load_depth=partial(_same, view.depth()),
            load_instances=partial(_same, view.instances()),
        )
        for view in scene.views
    ]
    return scene.with_views(views)


def _same(array: np.ndarray) -> np.ndarray:
    return array


def kept(folder: Path, *settings: object) -> Path:
    """The subfolder of `folder` for results of these settings, masks and versions."""
    text = repr((settings, MASKS, versions()))
    return folder / hashlib.sha256(text.encode()).hexdigest()[:12]


def make_clouds(folder: Path, sizes: Sizes, masks: Sequence[str]) -> tuple[list[str], list[str]]:
    """Write missing clouds to `folder/LABELLING/ROOM.ply`; returns training and held-out rooms.

    Held-out rooms have true labels only.
    """
    rooms = [f"room{FIRST_ROOM + i:04d}" for i in range(sizes.train + sizes.held_out)]
    train, held_out = rooms[: sizes.train], rooms[sizes.train :]
    for room in rooms:
        wanted = masks if room in train else ()
        if all((folder / each / f"{room}.ply").exists() for each in ("true", *wanted)):
            continue
        began = time.perf_counter()
        for name, cloud in room_clouds(int(room[4:]), sizes, wanted).items():
            write_cloud(folder / name / f"{room}.ply", cloud)
        print(f"{room}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return train, held_out


# The network: a U-Net over voxels, plain PyTorch

SIDES = (0.08, 0.16, 0.32, 0.64, 1.28)
"""Voxel sides of the levels in metres; the first is the spacing of the points."""
CHANNELS = (32, 48, 64, 96, 128)
NEIGHBOURS = 8
CLASSES = len(CATEGORIES) + 1
"""Includes 0, no class, which is not trained on and never predicted."""


@dataclass(frozen=True, eq=False)
class Level:
    """Points of one level, their neighbours, and each point's voxel in the next level."""

    xyz: torch.Tensor
    near: torch.Tensor
    cell: torch.Tensor | None


def pyramid(xyz: torch.Tensor) -> list[Level]:
    """Levels of points; each level has the means of the voxels of the level before."""
    levels = []
    for side in (*SIDES[1:], None):
        count = min(NEIGHBOURS, len(xyz))
        _, near = cKDTree(xyz.numpy()).query(xyz.numpy(), k=range(1, count + 1))
        cell = None
        if side is not None:
            _, cell = torch.unique(torch.floor(xyz / side).long(), dim=0, return_inverse=True)
        levels.append(Level(xyz, torch.from_numpy(near), cell))
        if cell is not None:
            size = torch.bincount(cell)[:, None]
            xyz = torch.zeros(len(size), 3).index_add(0, cell, xyz) / size
    return levels


class Local(torch.nn.Module):
    """Maximum over neighbours of their features and offsets, as in PointNet++ and DGCNN."""

    def __init__(self, before: int, after: int, side: float) -> None:
        super().__init__()
        self.side = side
        self.own = torch.nn.Linear(before, after)
        self.what = torch.nn.Linear(before, after)
        self.where = torch.nn.Linear(3, after)
        self.out = torch.nn.Linear(after, after)
        self.norm = torch.nn.LayerNorm(after)

    def forward(self, x: torch.Tensor, level: Level) -> torch.Tensor:
        """New features of the same points."""
        away = (level.xyz[level.near] - level.xyz[:, None]) / self.side
        # index_select, because the gradient of x[index] is many times slower on the CPU.
        there = self.what(x).index_select(0, level.near.flatten()).unflatten(0, level.near.shape)
        around = torch.relu(there + self.where(away)).amax(1)
        return torch.relu(self.norm(self.own(x) + self.out(around)))


class Network(torch.nn.Module):
    """U-Net over the levels; from colour, normal and height to a score per class."""

    def __init__(self) -> None:
        super().__init__()
        before = (7, *CHANNELS[:-1])
        self.down = torch.nn.ModuleList(map(Local, before, CHANNELS, SIDES))
        pairs = zip(CHANNELS[:-1], CHANNELS[1:], SIDES[:-1], strict=True)
        self.up = torch.nn.ModuleList(Local(a + b, a, side) for a, b, side in pairs)
        self.head = torch.nn.Linear(CHANNELS[0], CLASSES)

    def forward(self, sample: Sample) -> torch.Tensor:
        """Scores (points, classes) of the sample's points."""
        levels = pyramid(sample.xyz)
        x = torch.cat([sample.colour, sample.normal, sample.xyz[:, 2:]], 1)
        kept = []
        for block, level in zip(self.down, levels, strict=True):
            x = block(x, level)
            kept.append(x)
            if level.cell is not None:
                index = level.cell[:, None].expand(-1, x.shape[1])
                coarse = torch.zeros(int(level.cell.max()) + 1, x.shape[1])
                x = coarse.scatter_reduce(0, index, x, "amax", include_self=False)
        for number in reversed(range(len(self.up))):
            level = levels[number]
            x = self.up[number](torch.cat([kept[number], x.index_select(0, level.cell)], 1), level)
        return self.head(x)


# Training and scoring


def trained(paths: Sequence[Path], seed: int, epochs: int) -> Network:
    """A network trained on these clouds for `epochs` epochs."""
    torch.manual_seed(seed)
    network = Network()
    clouds = LabelledClouds(
        paths, FeedConfig(SIDES[0], most=6000, augmentation=Augmentation(), seed=seed)
    )
    count = sum(np.bincount(read_cloud(path).semantic, minlength=CLASSES) for path in paths)
    weight = np.where(count > 0, 1 / np.sqrt(np.maximum(count, 1)), 0)
    weight[0] = 0
    weight = torch.from_numpy((weight / weight.max()).astype(np.float32))
    optimiser = torch.optim.AdamW(network.parameters(), 1e-9, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, epochs * len(paths))
    rng = np.random.default_rng(seed)
    for epoch in range(epochs):
        clouds.set_epoch(epoch)
        for number in rng.permutation(len(clouds)):
            sample = clouds[int(number)]
            loss = F.cross_entropy(network(sample), sample.semantic, weight, ignore_index=0)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return network


@torch.no_grad()
def scores(network: Network, paths: Sequence[Path]) -> dict[str, Any]:
    """IoU per class over all points with a true class, all clouds together."""
    clouds = LabelledClouds(paths, FeedConfig(SIDES[0]))
    table = np.zeros((CLASSES, CLASSES), np.int64)
    for path, sample in zip(paths, clouds, strict=True):
        predicted = network(sample)[:, 1:].argmax(1) + 1
        cloud = read_cloud(path)
        found = at_all_points(predicted.int().numpy(), sample.point.numpy(), cloud.points.xyz)
        np.add.at(table, (cloud.semantic, found), 1)
    table[0] = 0
    both, theirs, ours = np.diag(table), table.sum(1), table.sum(0)
    iou = both / np.maximum(theirs + ours - both, 1)
    there = np.flatnonzero(theirs > 0)
    things = there[there > len(STRUCTURE)]
    return {
        "miou": float(iou[there].mean()),
        "miou_things": float(iou[things].mean()),
        "accuracy": float(both.sum() / theirs.sum()),
        "iou": {CATEGORIES[each - 1]: round(float(iou[each]), 4) for each in there},
    }


def label_quality(folder: Path, labelling: str, rooms: Sequence[str]) -> dict[str, float]:
    """Share of the training points that have a class, and share with the true class."""
    labelled = right = right_things = known = things = 0
    for room in rooms:
        true = read_cloud(folder / "true" / f"{room}.ply").semantic
        given = read_cloud(folder / labelling / f"{room}.ply").semantic
        assert true is not None
        assert given is not None
        thing = true > len(STRUCTURE)
        known, things = known + int((true > 0).sum()), things + int(thing.sum())
        labelled += int((given[true > 0] > 0).sum())
        right += int((given == true)[true > 0].sum())
        right_things += int((given == true)[thing].sum())
    return {
        "labelled": labelled / known,
        "right": right / known,
        "right_things": right_things / things,
    }


def compared(
    folder: Path,
    out: Path,
    train: Sequence[str],
    held_out: Sequence[str],
    masks: Sequence[str],
    seeds: int,
    epochs: int,
) -> dict[str, Any]:
    """Train and score what is missing; one file per labelling and seed."""
    table: dict[str, Any] = {}
    for seed in range(seeds):
        for labelling in ("true", *masks):
            file = out / f"{labelling}_{seed}.json"
            if not file.exists():
                began = time.perf_counter()
                paths = [folder / labelling / f"{room}.ply" for room in train]
                network = trained(paths, seed, epochs)
                found = scores(network, [folder / "true" / f"{room}.ply" for room in held_out])
                found["seconds"] = round(time.perf_counter() - began, 1)
                with atomic(file) as part:
                    part.write_text(json.dumps(found))
            found = json.loads(file.read_text())
            table.setdefault(labelling, []).append(found)
            print(
                f"{labelling} seed {seed}: mIoU {found['miou']:.3f}, of things "
                f"{found['miou_things']:.3f}, {found['seconds']:.0f} s",
                file=sys.stderr,
                flush=True,
            )
    return {
        labelling: {
            "labels": label_quality(folder, labelling, train),
            **summary(each, table["true"]),
            "iou": {
                name: round(float(np.mean([one["iou"][name] for one in each])), 4)
                for name in each[0]["iou"]
            },
            "seconds": [one["seconds"] for one in each],
        }
        for labelling, each in table.items()
    }


def summary(
    each: Sequence[Mapping[str, Any]], true: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Mean and spread (standard deviation of the sample) over seeds, and of the difference to
    true labels with the same seed.
    """
    found = {}
    for name in ("miou", "miou_things", "accuracy"):
        values = np.array([one[name] for one in each])
        less = values - np.array([one[name] for one in true])
        found[name] = {
            "mean": round(float(values.mean()), 4),
            "std": round(float(values.std(ddof=1)), 4) if len(values) > 1 else None,
            "each": [round(float(value), 4) for value in values],
            "less_than_true": {
                "mean": round(float(less.mean()), 4),
                "std": round(float(less.std(ddof=1)), 4) if len(less) > 1 else None,
            },
        }
    return found


def printed(table: Mapping[str, Any]) -> str:
    """A Markdown table with a row per labelling."""
    lines = [
        "| training labels | labelled | right | right, things | mIoU | of things | accuracy |"
        " mIoU against true labels |",
        "| --- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for name, row in table.items():
        q = row["labels"]
        cells = [f"{q[each]:.3f}" for each in ("labelled", "right", "right_things")]
        for each in ("miou", "miou_things", "accuracy"):
            cells.append(f"{row[each]['mean']:.3f} ± {row[each]['std'] or 0:.3f}")
        less = row["miou"]["less_than_true"]
        cells.append("–" if name == "true" else f"{less['mean']:+.3f} ± {less['std'] or 0:.3f}")
        title = name if name in ("true", "regions") else f"simulated {name}"
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(given: Sequence[str] | None = None) -> None:
    """Write missing clouds, train, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rooms", type=int, default=Sizes.train, help="rooms to train on")
    parser.add_argument("--held-out", type=int, default=Sizes.held_out, help="rooms to score on")
    parser.add_argument("--views", type=int, default=Sizes.views)
    parser.add_argument("--width", type=int, default=Sizes.width)
    parser.add_argument(
        "--masks", nargs="+", choices=MASKS, default=["middle", "regions"],
        help="masks that lift3d labels from, in addition to the truth",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, help="also write the numbers here")
    options = parser.parse_args(given)
    torch.set_num_threads(options.threads)
    height = options.width * Sizes.height // Sizes.width
    sizes = Sizes(options.rooms, options.held_out, options.views, options.width, height)
    began = time.perf_counter()
    # A room does not depend on the number of rooms.
    clouds = kept(options.out / "clouds", replace(sizes, train=0, held_out=0))
    train, held_out = make_clouds(clouds, sizes, options.masks)
    made = time.perf_counter() - began
    table = compared(
        clouds, kept(options.out / "scores", sizes, options.epochs), train, held_out,
        options.masks, options.seeds, options.epochs,
    )  # fmt: skip
    content = {
        "about": " ".join(__doc__.split("\n\n")[0].split()),
        "rooms": {"train": train, "held_out": held_out},
        "sizes": vars(sizes),
        "epochs": options.epochs,
        "seeds": options.seeds,
        "parameters": sum(each.numel() for each in Network().parameters()),
        "seconds": {
            "clouds, this time": round(made, 1),
            "training": sum(sum(row["seconds"]) for row in table.values()),
        },
        "table": table,
        "host": host(),
        "versions": versions(),
    }
    for file in filter(None, (options.out / "training.json", options.results)):
        with atomic(file) as part:
            part.write_text(json.dumps(content, indent=1) + "\n")
    print(printed(table))


if __name__ == "__main__":
    main()
