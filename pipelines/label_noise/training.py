"""Train the network and score it against true classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from label_noise.network import CLASSES, SIDES, Network
from lift3d.datasets.synthetic.world import CATEGORIES, STRUCTURE
from lift3d.export.ply import read_cloud
from lift3d.run.feed import Augmentation, FeedConfig, LabelledClouds, at_all_points


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
