"""Measure what overlapping masks with scores give over flat label maps: AP of the association.

python benchmarks/mask_sets.py [--scans PATH...] [--seeds 2] [--kinds mixed parts groups]

No weights of SAM were at hand, so the proposals are made from the truth, with rough borders, as
SAM's subpart, part and whole: parts of objects, whole objects, groups with a neighbour. A scan is
PATH, its truth is real_truth/NAME/truth.ply beside it. Synthetic rooms have 48 views of 320x240.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from plyfile import PlyData
from scipy.spatial import cKDTree

from lift3d.association import AssociationConfig, associate
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.evaluation.metrics.scannet import class_agnostic
from lift3d.reconstruction.fusion import given_points
from lift3d.run.api import open_scene
from lift3d.scene import Camera, LabelMap, Masks, Points, Scene, View
from lift3d.scene.mask_sets import MaskSet
from lift3d.scene.overlap import paint

NEAR = 0.03
"""A pixel shows the labelled point of the truth that is at most this far from it, in metres."""


@dataclass(frozen=True)
class Kind:
    """How many of the objects in a view are proposed in which way: probabilities."""

    part: float
    group: float
    whole: float


KINDS = {
    "mixed": Kind(0.5, 0.25, 0.85),
    "parts": Kind(0.8, 0.1, 0.5),
    "groups": Kind(0.2, 0.6, 0.9),
}
MISSED = 0.15
"""Share of the objects in a view that nothing proposes."""


@dataclass(frozen=True)
class Case:
    """A scene, its points with true objects, and the true label map of each view."""

    scene: Scene
    points: Points
    truth: np.ndarray
    ignored: np.ndarray
    """Points without annotation, whose labels do not count."""
    maps: list[LabelMap]


def room(seed: int) -> Case:
    scene = in_memory(SyntheticConfig(seed=seed, width=320, height=240, views=48).read())
    surface = scene.load_surface()
    truth = np.where(np.isin(surface.semantic, scene.void_classes), 0, surface.instance)
    none = np.zeros(len(truth), bool)
    maps = [view.instances() for view in scene.views]
    return Case(scene, surface.points, truth.astype(np.int32), none, maps)


def scan(path: Path) -> Case:
    scene, home = in_memory(open_scene(path)), path.parent / "real_truth" / path.name
    points = given_points(home / "truth.ply")
    label = np.asarray(PlyData.read(home / "truth.ply")["vertex"]["label"]).astype(np.int32)
    void = json.loads((home / "classes.json").read_text()).get("void", [])
    tree = cKDTree(points.xyz)
    maps = [seen_labels(view, tree, label) for view in scene.views]
    truth = np.where(np.isin(label, void), 0, label).astype(np.int32)
    return Case(scene, points, truth, label == 0, maps)


def seen_labels(view: View, tree: cKDTree, label: np.ndarray) -> LabelMap:
    """The truth's labels where the depth of the view meets it."""
    depth, camera = view.depth(), view.geometry_camera
    row, column = np.nonzero(depth > 0)
    z, K = depth[row, column].astype(float), camera.K
    x, y = (column - K[0, 2]) / K[0, 0] * z, (row - K[1, 2]) / K[1, 1] * z
    world = np.c_[x, y, z] @ camera.world_from_camera[:3, :3].T + camera.world_from_camera[:3, 3]
    far, nearest = tree.query(world, distance_upper_bound=NEAR)
    met = np.isfinite(far)
    found = np.zeros(depth.shape, np.uint16)
    found[row[met], column[met]] = label[nearest[met]]
    size = (view.camera.width, view.camera.height)
    return cv2.resize(found, size, interpolation=cv2.INTER_NEAREST).astype(np.int32)


def in_memory(scene: Scene) -> Scene:
    """The scene with its pictures and depth read once."""
    views = [
        replace(
            view,
            load_image=partial(_same, view.image()),
            load_depth=partial(_same, view.depth()),
        )
        for view in scene.views
    ]
    return scene.with_views(views)


def _same(value: np.ndarray) -> np.ndarray:
    return value


def proposals(truth: LabelMap, image: np.ndarray, camera: Camera, kind: Kind, random) -> Masks:
    """Masks of one view, made from its true label map."""
    found, scores = [], []
    for each in np.unique(truth[truth > 0]):
        mask = truth == each
        if mask.sum() < 60 or random.random() < MISSED:
            continue
        made = [(mask, 0.88, 1.0)] if random.random() < kind.whole else []
        if random.random() < kind.part and mask.sum() > 1600 * (camera.width / 640) ** 2:
            made += [(part, 0.8, 0.98) for part in parts(mask, image, random)]
        if random.random() < kind.group:
            made += [(group, 0.75, 0.95) for group in with_neighbours(mask, truth, random)]
        for wanted, low, high in made:
            rough = rough_border(wanted, random)
            if rough.sum() >= 40:
                found.append(rough)
                scores.append(random.uniform(low, high))
    stack = np.stack(found) if found else np.zeros((0, *truth.shape), bool)
    return Masks(stack, np.array(scores, np.float32))


def parts(mask: np.ndarray, image: np.ndarray, random) -> Iterator[np.ndarray]:
    """Two to four parts by place and colour, the largest connected area of each."""
    place = np.argwhere(mask)
    feature = np.c_[place / np.ptp(place, axis=0).clip(1), image[place[:, 0], place[:, 1]] / 128.0]
    count = int(random.integers(2, 5))
    cv2.setRNGSeed(int(random.integers(1 << 30)))
    stop = (3, 10, 0.1)
    _, label, _ = cv2.kmeans(
        feature.astype(np.float32), count, None, stop, 1, cv2.KMEANS_RANDOM_CENTERS
    )
    for number in range(count):
        part = np.zeros(mask.shape, np.uint8)
        part[tuple(place[label[:, 0] == number].T)] = 1
        areas, connected, sizes, _ = cv2.connectedComponentsWithStats(part)
        if areas > 1 and random.random() < 0.7:
            yield connected == 1 + sizes[1:, cv2.CC_STAT_AREA].argmax()


def with_neighbours(mask: np.ndarray, truth: LabelMap, random) -> Iterator[np.ndarray]:
    """The mask together with one or two objects beside it in the picture."""
    ring = (cv2.dilate(mask.astype(np.uint8), np.ones((9, 9))) > 0) & ~mask & (truth > 0)
    near = np.unique(truth[ring])
    if len(near):
        count = min(len(near), int(random.integers(1, 3)))
        yield mask | np.isin(truth, random.choice(near, count, replace=False))


def rough_border(mask: np.ndarray, random) -> np.ndarray:
    """The mask with its border moved by smooth noise of about 3 pixels of 640."""
    noise = cv2.GaussianBlur(random.standard_normal(mask.shape).astype(np.float32), (0, 0), 7)
    inside = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)
    outside = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3)
    return inside - outside + noise / noise.std() * mask.shape[1] / 640 > 0


def measure(case: Case, kind: Kind) -> dict[str, dict[str, float]]:
    """AP of the association on flat maps and on mask sets, from the same proposals."""
    random = np.random.default_rng(7)
    masks = {
        view.name: proposals(truth, view.image(), view.camera, kind, random)
        for view, truth in zip(case.scene.views, case.maps, strict=True)
    }
    made = {
        "flat": {name: paint(each.stack) for name, each in masks.items()},
        "overlapping": {name: MaskSet.of(each) for name, each in masks.items()},
    }
    found = {}
    for way, maps in made.items():
        began = time.perf_counter()
        config = AssociationConfig(by_shape=False)
        result = associate(case.points, case.scene, maps, config)
        seconds = time.perf_counter() - began
        instance = np.where(case.ignored, 0, result.cloud.instance).astype(np.int32)
        scores = class_agnostic(case.truth, instance, result.confidence)
        found[way] = {"ap": scores.ap, "ap50": scores.ap50, "ap25": scores.ap25, "s": seconds}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=Path, nargs="*", default=[])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/mask_sets.json"))
    options = parser.parse_args()
    table: dict[str, dict] = {}
    cases = [(path.name, partial(scan, path)) for path in options.scans]
    cases += [(f"room {seed}", partial(room, seed)) for seed in range(options.seeds)]
    for name, load in cases:
        case = load()
        for kind in options.kinds:
            found = measure(case, KINDS[kind])
            table.setdefault(name, {})[kind] = found
            for way, row in found.items():
                print(name, kind, way, {k: round(v, 3) for k, v in row.items()}, flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
