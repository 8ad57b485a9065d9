"""Train the two classifiers of `lift3d/association/shape/joining.npz` on synthetic rooms.

pip install 'lift3d[train]'
python pipelines/train_joining.py [--rooms 100 101 ...] [--scanned 200 201 ...] [--cache FOLDER]
    [--out joining.npz]

The rooms are lifted as by `lift3d lift`, up to their superpoints (pieces). Pieces are then merged
by the truth, and again by the classifier trained on that; every pair considered is an example of
the same or of different objects (DAgger: Ross et al. 2011). Every large enough node of the
hierarchies by the last classifier is an example for the second classifier, which predicts how well
a node matches an object. Rooms 0 to 4 are those of benchmarks/quality.py and are refused.

`--scanned` are rooms that resemble scans (`SyntheticConfig.scanned`), each at a random spacing:
half of them as fused by `lift3d lift`, half as the vertices of a mesh, as given by `--cloud`. Only
nodes learn on them. A part of a node's log-odds is of a model of the plain rooms, the rest the mean
of small models, each of a draw of all rooms with repetition (bagging: Breiman 1996): single
trainings differ by more than the rooms bring (benchmarks/README.md).
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree
from sklearn.ensemble import HistGradientBoostingClassifier

from lift3d.association.looks import looks
from lift3d.association.shape import Shape
from lift3d.association.shape.cues import CUES, cues
from lift3d.association.shape.hierarchy import Hierarchy, build_hierarchy
from lift3d.association.shape.joining import MODEL
from lift3d.association.shape.pieces import SIZE, Pairs, Pieces
from lift3d.association.shape.trees import LEAF, LEFT, Trees
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.datasets.synthetic.scanned.resurfaced import fused_mesh, vertices
from lift3d.geometry.visibility import spacing
from lift3d.reconstruction.fusion.voxel import VoxelConfig
from lift3d.scene import Points, Scene
from lift3d.scene.overlap import paint
from lift3d.scene.storage import atomic
from lift3d.segmentation.regions import RegionsConfig

ROUNDS = 2
"""Rounds of DAgger: the first merges by the truth, the second by the first round's classifier."""
SCORED = 4
"""Last seed of the rooms of benchmarks/quality.py, on which lifting is scored."""
CAP = 400
"""Surfels at which the weight of a piece stops growing, so that walls do not dominate small
objects."""
PURE = 0.7
"""Pieces with a smaller share of a single true object are no examples."""
TARGET_IOU = 0.35, 0.9
"""IoU of a node with an object that has target 0, and IoU that has target 1; linear between."""
MOST = 2_500_000
"""Largest number of examples for one training; more are sampled."""
NORMAL = 0.03
"""Distance in metres that equals a difference of normals of 1, to separate the sides of a board."""
SCANNED, VIEWS, REACH = "scanned", 48, 0.04
"""Rooms that resemble scans: how their names start, pictures of each, and metres from the true
surface to what was scanned of it."""
BAGS, SHARE = 18, 0.7
"""Small models of the nodes, and their share of the log-odds. From 0.7 to 0.85 the real scans of
benchmarks/real.py change little; chosen on them."""
LEAST_POINTS = 100
"""True points that a node must have to be an example, as objects of ScanNet's AP must."""


@dataclass(frozen=True, eq=False)
class Room:
    """The pieces of a room, with the truth."""

    shape: Shape
    true_object: np.ndarray
    """True object of each surfel."""
    truth: np.ndarray
    """True object of each vertex of the true surface, 0 for walls, floor and ceiling."""
    surfel: np.ndarray
    """Surfel nearest to each vertex."""


def room(name: str, folder: Path | None) -> Room:
    """Lift a room, named by its seed or by `scanned` and its seed, up to its pieces."""
    kept = None if folder is None else folder / f"{name}.pkl"
    if kept is not None and kept.exists():
        found: Room = pickle.loads(kept.read_bytes())
        return found
    scanned, seed = name.startswith(SCANNED), int(name.removeprefix(SCANNED))
    config = SyntheticConfig(seed=seed, scanned=scanned, views=VIEWS if scanned else 120)
    scene = _remembering(config.read())  # each view is rendered once
    points = _scanned_points(scene, seed) if scanned else VoxelConfig().build().fuse(scene)
    shape = Shape(points, spacing(points.xyz), [view.camera for view in scene.views], scene.metric)
    segmenter = RegionsConfig().build()
    maps = {view.name: paint(segmenter.segment(view).stack) for view in scene.views}
    for look in looks(points, scene, maps):
        shape.add(look)
    surface = scene.load_surface()
    far, surfel = cKDTree(shape.surface.xyz).query(surface.points.xyz)
    placed = np.c_[surface.points.xyz, NORMAL * surface.points.normal]
    surfels = np.c_[shape.surface.xyz, NORMAL * shape.surface.normal]
    truth = np.where(np.isin(surface.semantic, scene.void_classes), 0, surface.instance)
    # People annotate what was scanned.
    near = far < REACH if scanned else np.ones(len(far), bool)
    made = Room(
        shape, surface.instance[cKDTree(placed).query(surfels)[1]], truth[near], surfel[near]
    )
    print(f"room {name}: {len(surfels)} surfels, {shape.piece.max() + 1} pieces", flush=True)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with atomic(kept) as part:
            part.write_bytes(pickle.dumps(made))
    return made


def _scanned_points(scene: Scene, seed: int) -> Points:
    """The fused points, or the vertices of a mesh, at a random spacing."""
    rng = np.random.default_rng([seed, 7])
    if rng.random() < 0.5:
        return VoxelConfig(voxel=rng.choice([0.01, 0.015, 0.015, 0.02, 0.03])).build().fuse(scene)
    return vertices(
        fused_mesh(scene, rng.uniform(0.01, 0.025), seen=1.0, smallest=20), rng.uniform(0.01, 0.04)
    )


def _remembering(scene: Scene) -> Scene:
    views = [
        replace(view, load_image=cache(view.load_image), load_depth=cache(view.load_depth))
        for view in scene.views
    ]
    return replace(scene, views=tuple(views))


class TruePieces(Pieces):
    """Pieces with their true objects."""

    true_surfels: np.ndarray
    """Number of surfels of each true object in each piece."""

    def merge(self, one: int, other: int) -> int:
        """Merge, and add the counts of true objects."""
        kept = super().merge(one, other)
        self.true_surfels[kept] += self.true_surfels[one + other - kept]
        return kept


Examples = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Cues, truth from 0 to 1, weight."""


def joined(each: Room, model: Trees | None, seed: int) -> tuple[Hierarchy, list[Examples]]:
    """Merge by `model`, or by the truth in random order; also returns all pairs considered."""
    rng, examples = np.random.default_rng(seed), []

    def probability(pieces: TruePieces, pairs: Pairs) -> np.ndarray:
        found = cues(pieces, pairs)
        made = [pieces.true_surfels[side] for side in np.array(pairs).T]
        same = made[0].argmax(1) == made[1].argmax(1)
        pure = np.min([part.max(1) / np.maximum(part.sum(1), 1) for part in made], axis=0) > PURE
        size = np.minimum(np.min(pieces.sums[np.array(pairs), SIZE], axis=1), CAP)
        kept = found[pure].astype(np.float32), same[pure], np.sqrt(size[pure])
        examples.append(kept)
        return same * rng.uniform(0.6, 1, len(same)) if model is None else model(found)

    pieces = each.shape.pieces(TruePieces, probability)
    pieces.true_surfels = np.zeros((len(pieces.layout), each.true_object.max() + 1))
    np.add.at(pieces.true_surfels, (each.shape.piece, each.true_object), 1)
    return build_hierarchy(pieces), examples


def node_examples(each: Room, model: Trees) -> Examples:
    """The nodes of a room's hierarchy by `model` as examples, with their IoU as target."""
    tree, _ = joined(each, model, 0)
    pieces = len(tree.parent) - len(tree.children)
    shared = np.zeros((len(tree.parent), each.truth.max() + 1))
    np.add.at(shared, (each.shape.piece[each.surfel], each.truth), 1)
    every = shared.sum(0)
    for node, children in enumerate(tree.children, start=pieces):
        shared[node] = shared[children].sum(0)
    size = shared.sum(1)
    union = size[:, None] + every[1:] - shared[:, 1:]
    iou = (shared[:, 1:] / np.maximum(union, 1)).max(1)
    kept = (size >= LEAST_POINTS) & ~tree.layout
    low, high = TARGET_IOU
    return tree.cues[kept], np.clip((iou[kept] - low) / (high - low), 0, 1), np.ones(kept.sum())


def learned(examples: list[Examples], **settings: Any) -> Trees:
    """Train boosted trees, on a sample of many examples.

    An example with a target between 0 and 1 is used twice, with the weights of both classes.
    """
    x, y, weight = (np.concatenate(column) for column in zip(*examples, strict=True))
    if len(y) > MOST:
        drawn = np.random.default_rng(0).choice(len(y), MOST, replace=False)
        x, y, weight = x[drawn], y[drawn], weight[drawn]
    x, weight = np.concatenate([x, x]), np.concatenate([weight * y, weight * (1 - y)])
    y = np.repeat([True, False], len(y))
    x, y, weight = x[weight > 0], y[weight > 0], weight[weight > 0]
    model = HistGradientBoostingClassifier(l2_regularization=1.0, random_state=0, **settings)
    return trees_of(model.fit(x, y, weight))


def mean_of(models: Sequence[Trees], weights: Sequence[float]) -> Trees:
    """One model whose log-odds are the weighted sum of those of several."""
    offset = np.cumsum([0, *(len(each.feature) for each in models)])
    moved = [
        replace(
            each,
            left=each.left + start,
            right=each.right + start,
            root=each.root + start,
            value=weight * each.value,
        )
        for each, start, weight in zip(models, offset.astype(np.int32), weights, strict=False)
    ]
    arrays = {
        name: np.concatenate([getattr(each, name) for each in moved]).astype(
            getattr(models[0], name).dtype
        )
        for name in ("feature", "threshold", "left", "right", "value", "flags", "root")
    }
    base = sum(weight * each.base for each, weight in zip(models, weights, strict=True))
    return Trees(**arrays, base=np.array(base, np.float32))


def judge_of_nodes(plain: list[Examples], scanned: list[Examples]) -> Trees:
    """A model of the plain rooms, and small ones of draws of all rooms."""
    every, random = [*plain, *scanned], np.random.default_rng(0)
    models = [
        learned(plain, learning_rate=0.08, max_iter=200, max_leaf_nodes=31, min_samples_leaf=30)
    ]
    for _ in range(BAGS):
        drawn = [every[n] for n in random.choice(len(every), len(every))]
        models.append(
            learned(drawn, learning_rate=0.08, max_iter=150, max_leaf_nodes=8, min_samples_leaf=100)
        )
    return mean_of(models, [1 - SHARE, *[SHARE / BAGS] * BAGS])


def trees_of(model: HistGradientBoostingClassifier) -> Trees:
    """The trees of a fitted binary classifier.

    scikit-learn has no public access to them, so this reads private attributes. The extra `train`
    pins versions that have them, and `tests/test_joining.py` compares the probabilities.
    """
    nodes = [each[0].nodes for each in model._predictors]
    root = np.cumsum([0, *(len(each) for each in nodes[:-1])])
    offset = np.repeat(root, [len(each) for each in nodes])
    every = np.concatenate(nodes)
    return Trees(
        every["feature_idx"].astype(np.int16),
        every["num_threshold"],
        (every["left"] + offset).astype(np.int32),
        (every["right"] + offset).astype(np.int32),
        every["value"].astype(np.float32),
        (LEAF * every["is_leaf"] + LEFT * every["missing_go_to_left"]).astype(np.int8),
        root.astype(np.int32),
        np.array(np.ravel(model._baseline_prediction)[0], np.float32),
    )


def main() -> None:
    """Lift the rooms, train in rounds, write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rooms", type=int, nargs="*", default=list(range(100, 130)))
    parser.add_argument("--scanned", type=int, nargs="*", default=list(range(200, 218)))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--cache",
        type=Path,
        help="keep the lifted rooms there, 50 MB each; "
        "a new folder after any change to surfels, seams, pieces or the generator",
    )
    parser.add_argument("--out", type=Path, default=MODEL)
    options = parser.parse_args()
    names = [*map(str, options.rooms), *(f"{SCANNED}{seed}" for seed in options.scanned)]
    if min(options.rooms, default=0) <= SCORED:
        parser.error(
            f"--rooms are numbers from {SCORED + 1} on: lifting is scored on those up to it"
        )
    # Not forked: ray caster and kernels have threads.
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        rooms = list(pool.map(partial(room, folder=options.cache), names))
        plain = rooms[: len(options.rooms)]
        seen: list[Examples] = []
        model = None
        for turn in range(ROUNDS):
            for _, found in pool.map(joined, plain, [model] * len(plain), options.rooms):
                seen += found
            model = learned(
                seen, learning_rate=0.1, max_iter=150, max_leaf_nodes=15, min_samples_leaf=30,
                monotonic_cst=list(CUES.values()),
            )  # fmt: skip
            print(f"round {turn + 1}: {sum(len(y) for _, y, _ in seen)} pairs", flush=True)
        nodes = list(pool.map(node_examples, rooms, [model] * len(rooms)))
    print(f"{sum(len(y) for _, y, _ in nodes)} nodes of the hierarchies", flush=True)
    node_model = judge_of_nodes(nodes[: len(plain)], nodes[len(plain) :])
    with atomic(options.out) as part, part.open("wb") as file:
        np.savez_compressed(file, **model.as_arrays("join"), **node_model.as_arrays("whole"))
    print(f"{options.out}: {options.out.stat().st_size / 1024:.0f} kB")


if __name__ == "__main__":
    main()
