"""Measure the effect of bad masks, and of each step: AP with each damage or step corrected.

python benchmarks/severity.py [--seeds 3] [--whole 5]

The true masks of each room (120 views of 320x240) are split, merged, roughened and dropped
(`segmentation:simulated`, ids unrelated between views) at three severities, and associated on the
vertices of the true surface. In addition to the plain result:

- masks: with one kind of damage removed, and with one kind alone;
- steps: with the result of one step replaced by the truth, and later steps unchanged;
- faults: with the final labels repaired in one way.

The gain shows how much each limits AP. `--whole` is the number of rooms lifted by the complete
program (`lift3d lift --cloud`) with perfect masks.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
from association import SEVERITIES, in_memory, scored
from jaxtyping import Bool, Int32
from scipy.spatial import cKDTree

import lift3d.association
from lift3d.association import AssociationConfig, associate
from lift3d.association.anchors import choose_anchors
from lift3d.association.identities import Identities
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.evaluation.metrics.scannet import MIN_VERTICES
from lift3d.export.ply import write_cloud
from lift3d.run.lift import lift
from lift3d.run.settings import LiftConfig
from lift3d.scene import LabelledPoints, LabelMap, Points, Scene
from lift3d.scene.labelmaps import by_name
from lift3d.scene.overlap import paint
from lift3d.segmentation.simulated import Damage, SimulatedConfig

BORDER = 0.04
"""Half width of the zone where two objects meet, metres: two points of the true surface."""
PART = 0.25
"""A label that covers a smaller share of an object does not count as a part of it."""
Labels = Int32[np.ndarray, " points"]
Ranking = Mapping[int, float]
Row = tuple[str, list[float]]


@dataclass(frozen=True, eq=False)
class Room:
    """A room with its pictures rendered once."""

    scene: Scene
    points: Points
    everything: Labels
    """True ids, including walls and floor."""
    counted: Labels
    """True ids that AP scores: 0 on walls, floor and ceiling."""

    @classmethod
    def of(cls, seed: int) -> Room:
        """The room with this seed."""
        scene = in_memory(SyntheticConfig(seed=seed).read())
        surface = scene.load_surface()
        counted = np.where(np.isin(surface.semantic, scene.void_classes), 0, surface.instance)
        return cls(scene, surface.points, surface.instance, counted.astype(np.int32))

    def masks(self, config: SimulatedConfig) -> list[LabelMap]:
        """Every view's damaged masks."""
        segmenter = config.build()
        return [paint(segmenter.segment(view).stack) for view in self.scene.views]

    def lifted(self, maps: list[LabelMap], trust: bool = False) -> tuple[Labels, Ranking]:
        """Labels and their confidences."""
        config = AssociationConfig(trust_ids=trust)
        found = associate(self.points, self.scene, by_name(self.scene, maps), config)
        return found.cloud.instance, found.confidence

    def score(self, labels: Labels, ranking: Ranking) -> list[float]:
        """AP, AP50, AP25."""
        return scored(self.counted, labels, dict(ranking))


def by_masks(room: Room, severity: str) -> Iterator[Row]:
    """AP with one kind of damage removed, and with one kind alone."""
    damage = SimulatedConfig(severity=severity).damage
    for kind in Damage._fields:
        masks = room.masks(SimulatedConfig(severity=severity, **{kind: 0.0}))
        yield f"masks: no {kind}", room.score(*room.lifted(masks))
    for kind in Damage._fields:
        masks = room.masks(SimulatedConfig(**{kind: getattr(damage, kind)}))
        yield f"masks: only {kind}", room.score(*room.lifted(masks))


def by_steps(room: Room, maps: list[LabelMap]) -> Iterator[Row]:
    """AP with the result of one step replaced by the truth."""
    views = zip(room.scene.views, maps, strict=True)
    named = [most_shown(labels, view.instances())[labels] for view, labels in views]
    # Perfect association: a mask gets the id of the object with most of its pixels; then votes.
    yield "steps: masks named by the truth, voted", room.score(*room.lifted(named, trust=True))
    with true_clusters(room):
        yield "steps: anchors clustered by the truth", room.score(*room.lifted(maps))


@contextmanager
def true_clusters(room: Room) -> Iterator[None]:
    """In `associate`, replace the clusters of anchors by the true objects."""

    def known(*_: object) -> Identities:
        anchors = choose_anchors(room.points.xyz, AssociationConfig().anchors)
        names, cluster = np.unique(room.everything[anchors], return_inverse=True)
        return Identities(cluster.astype(np.int32), np.ones(len(names)))

    with mock.patch.object(lift3d.association, "identities", known):
        yield


def by_faults(room: Room, labels: Labels, ranking: Ranking) -> Iterator[Row]:
    """AP with the final labels repaired in one way."""
    truth = room.everything
    joined = most_shown(labels, truth)[labels]
    yield "faults: pieces of one object joined", room.score(joined, sizes(joined))
    divided = at_objects(labels, truth)
    yield "faults: pieces over several objects divided", room.score(divided, sizes(divided))
    straight = as_elsewhere(room, labels, near_others(room))
    yield "faults: borders as inside", room.score(straight, ranking)
    filled = as_elsewhere(room, labels, labels == 0)
    yield "faults: unlabelled points filled", room.score(filled, ranking)
    best = {each: max(overlaps(labels == each, truth).values()) for each in ranking}
    yield "faults: ranked by true IoU", room.score(labels, best)
    covered = np.where(labels > 0, truth, 0).astype(np.int32)
    yield "faults: all but coverage", room.score(covered, sizes(covered))


def most_shown(labels: np.ndarray, truth: np.ndarray) -> Int32[np.ndarray, " ids"]:
    """For each label the true id of most of its points; 0 for label 0."""
    width = int(truth.max()) + 1
    pair = labels.ravel().astype(np.int64) * width + truth.ravel()
    shown = np.bincount(pair, minlength=(int(labels.max()) + 1) * width).reshape(-1, width)
    shown[0] = 0
    return shown.argmax(1).astype(np.int32)


def at_objects(labels: Labels, truth: Labels) -> Labels:
    """Split parts of a label on other objects into labels of their own, except at borders."""
    own = most_shown(labels, truth)[labels] == truth
    pair, where, count = np.unique(
        np.stack([labels, truth]), axis=1, return_inverse=True, return_counts=True
    )
    share = count / np.bincount(truth)[pair[1]]
    apart = (labels > 0) & ~own & (share >= PART)[where.ravel()]
    return np.where(apart, labels.max() + 1 + where.ravel(), labels).astype(np.int32)


def near_others(room: Room) -> Bool[np.ndarray, " points"]:
    """Whether a point of another object is within `BORDER`."""
    xyz = room.points.xyz
    near = cKDTree(xyz).query(xyz, k=25, distance_upper_bound=BORDER)[1]
    other = np.append(room.everything, -1)[near]
    return ((other != room.everything[:, None]) & (other >= 0)).any(1)


def as_elsewhere(room: Room, labels: Labels, doubtful: Bool[np.ndarray, " points"]) -> Labels:
    """Doubtful points take the label of the nearest other point of the same object."""
    repaired = labels.copy()
    for each in np.unique(room.everything[doubtful]):
        own = room.everything == each
        known, lost = np.flatnonzero(own & ~doubtful), np.flatnonzero(own & doubtful)
        if len(known):
            tree = cKDTree(room.points.xyz[known])
            repaired[lost] = labels[known[tree.query(room.points.xyz[lost])[1]]]
    return repaired


def sizes(labels: Labels) -> dict[int, float]:
    """Confidences by size, the largest first."""
    ids, counts = np.unique(labels[labels > 0], return_counts=True)
    return dict(zip(ids.tolist(), (counts / len(labels)).tolist(), strict=True))


def overlaps(part: Bool[np.ndarray, " points"], labels: Labels) -> dict[int, float]:
    """IoU of `part` with each label that it overlaps; 0 for no label."""
    ids, shared = np.unique(labels[part], return_counts=True)
    whole = np.bincount(labels)[ids]
    iou = shared / (whole + part.sum() - shared)
    return {0: 0.0} | {int(i): float(v) for i, v in zip(ids, iou, strict=True) if i > 0}


def causes(room: Room, labels: Labels) -> dict[str, int]:
    """Why objects have no label of IoU 0.5: the first reason that holds."""
    main = most_shown(labels, room.everything)
    found = dict.fromkeys(("objects", "found", "uncovered", "split", "merged", "rest"), 0)
    ids, counts = np.unique(room.counted[room.counted > 0], return_counts=True)
    for each in ids[counts >= MIN_VERTICES].tolist():  # AP scores no smaller objects
        own = room.counted == each
        pieces = np.isin(labels, np.flatnonzero(main == each))
        if max(overlaps(own, labels).values()) >= 0.5:
            cause = "found"
        elif (labels[own] > 0).mean() < 0.5:
            cause = "uncovered"
        elif (pieces & own).sum() >= 0.5 * (pieces | own).sum():
            cause = "split"
        elif (labels[own] > 0).sum() >= 2 * (pieces & own).sum():
            cause = "merged"  # most of it has labels that are mainly on other objects
        else:
            cause = "rest"
        found["objects"] += 1
        found[cause] += 1
    return found


def limits(room: Room, severity: str) -> dict[str, dict[str, list[float]] | dict[str, int]]:
    """All figures of one room at one severity."""
    maps = room.masks(SimulatedConfig(severity=severity))
    labels, ranking = room.lifted(maps)
    rows: list[Row] = [("as it is", room.score(labels, ranking))]
    rows += by_masks(room, severity)
    rows += by_steps(room, maps)
    rows += by_faults(room, labels, ranking)
    return {"ap": dict(rows), "causes": causes(room, labels)}


def whole(seed: int) -> list[float]:
    """AP, AP50, AP25 of `lift3d lift --cloud` on the true vertices, with perfect masks."""
    surface = SyntheticConfig(seed=seed).read().load_surface()
    with tempfile.TemporaryDirectory() as folder:
        vertices, out = Path(folder) / "vertices.ply", Path(folder) / "run"
        nothing = np.zeros(len(surface.points), np.int32)
        unlabelled = LabelledPoints(surface.points, nothing, nothing.astype(np.float32))
        write_cloud(vertices, unlabelled)
        perfect = SimulatedConfig()
        lift(LiftConfig(Path(f"synthetic:{seed}"), out, cloud=vertices, segmentation=perfect))
        found = json.loads((out / "consistency.json").read_text())["truth"]
        return [round(found[each], 3) for each in ("ap", "ap50", "ap25")]


def main() -> None:
    """Print the means over the rooms and write all figures to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--whole", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/severity.json"))
    options = parser.parse_args()
    began = time.perf_counter()
    rooms: dict[str, list] = {severity: [] for severity in SEVERITIES}
    for seed in range(options.seeds):
        room = Room.of(seed)
        for severity in SEVERITIES:
            rooms[severity].append(limits(room, severity))
            print(seed, severity, rooms[severity][-1], flush=True)
    mean = {
        severity: {
            "ap": {
                name: np.mean([each["ap"][name] for each in found], 0).round(3).tolist()
                for name in found[0]["ap"]
            },
            "causes": {
                name: sum(each["causes"][name] for each in found) for name in found[0]["causes"]
            },
        }
        for severity, found in rooms.items()
    }
    print(json.dumps(mean, indent=1))
    perfect = [whole(seed) for seed in range(options.whole)]
    print("perfect masks, given vertices:", perfect)
    content = {
        "columns": ["AP", "AP50", "AP25"],
        "machine": platform.platform(),
        "seconds": round(time.perf_counter() - began),
        "perfect masks on given vertices": perfect,
        "mean": mean,
        "rooms": rooms,
    }
    options.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
