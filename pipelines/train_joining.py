"""Learn what belongs together from synthetic rooms: `lift3d/association/shape/joining.npz`.

pip install 'lift3d[train]'
python pipelines/train_joining.py [--rooms 100 101 ...] [--cache FOLDER] [--out joining.npz]

The rooms are lifted as `lift3d lift` does, up to their pieces. Then pieces are joined by the truth,
and again by the judge that was learned from that, and every pair that came up is an example of one
thing or of two (DAgger: Ross et al. 2011). Of the hierarchies that the last judge makes, every node
that shows enough is an example of how much of an object such a node is. Rooms 0 to 4 are those of
benchmarks/quality.py and are refused.
"""

from __future__ import annotations

import argparse
import pickle
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
from lift3d.association.shape.hierarchy import Hierarchy, grow
from lift3d.association.shape.joining import MODEL
from lift3d.association.shape.pieces import SIZE, Pairs, Pieces
from lift3d.association.shape.trees import LEAF, LEFT, Trees
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.geometry.visibility import spacing
from lift3d.reconstruction.fusion.voxel import VoxelConfig
from lift3d.scene import Scene
from lift3d.scene.overlap import paint
from lift3d.scene.storage import atomic
from lift3d.segmentation.regions import RegionsConfig

ROUNDS = 2
SCORED = 4
"""Rooms up to it are those of benchmarks/quality.py."""
CAP = 400
"""Surfels from which on a piece counts no more: walls would drown the mugs."""
PURE = 0.7
"""A piece with less of one true thing teaches nothing of what it is a part of."""
WORTH = 0.35, 0.9
"""IoU with an object from which on a node is worth something, and from which on all."""
MOST = 2_500_000
"""Examples that are learned from at once."""
NORMAL = 0.03
"""Metres that a normal's difference of 1 counts as: the two sides of a board are apart."""
ASKED = 100
"""True points a node must hold to be an example; ScanNet's AP asks for objects of as many."""


@dataclass(frozen=True, eq=False)
class Room:
    """A room in pieces, and what they are."""

    shape: Shape
    thing: np.ndarray
    """True thing of each surfel."""
    truth: np.ndarray
    """True thing of each vertex of the true surface, 0 for walls, floor and ceiling."""
    surfel: np.ndarray
    """Surfel nearest to each vertex."""


def room(seed: int, folder: Path | None) -> Room:
    """Lift it up to its pieces; each view is rendered once."""
    kept = None if folder is None else folder / f"{seed}.pkl"
    if kept is not None and kept.exists():
        found: Room = pickle.loads(kept.read_bytes())
        return found
    scene = _remembering(SyntheticConfig(seed=seed).read())
    points = VoxelConfig().build().fuse(scene)
    shape = Shape(points, spacing(points.xyz), [view.camera for view in scene.views], scene.metric)
    segmenter = RegionsConfig().build()
    maps = {view.name: paint(segmenter.segment(view).stack) for view in scene.views}
    for look in looks(points, scene, maps):
        shape.add(look)
    surface = scene.load_surface()
    placed = np.c_[surface.points.xyz, NORMAL * surface.points.normal]
    surfels = np.c_[shape.surface.xyz, NORMAL * shape.surface.normal]
    truth = np.where(np.isin(surface.semantic, scene.void_classes), 0, surface.instance)
    made = Room(
        shape,
        surface.instance[cKDTree(placed).query(surfels)[1]],
        truth,
        cKDTree(shape.surface.xyz).query(surface.points.xyz)[1],
    )
    print(f"room {seed}: {len(surfels)} surfels, {shape.piece.max() + 1} pieces", flush=True)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with atomic(kept) as part:
            part.write_bytes(pickle.dumps(made))
    return made


def _remembering(scene: Scene) -> Scene:
    views = [
        replace(view, load_image=cache(view.load_image), load_depth=cache(view.load_depth))
        for view in scene.views
    ]
    return replace(scene, views=tuple(views))


class Watched(Pieces):
    """Pieces that know what they are made of."""

    made_of: np.ndarray
    """Surfels of each true thing."""

    def merge(self, one: int, other: int) -> int:
        """As ever, and what they are made of."""
        kept = super().merge(one, other)
        self.made_of[kept] += self.made_of[one + other - kept]
        return kept


Examples = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Cues, truth from 0 to 1, weight."""


def joined(each: Room, model: Trees | None, seed: int) -> tuple[Hierarchy, list[Examples]]:
    """Join by `model`, or by the truth in a random order; and every pair that came up."""
    rng, examples = np.random.default_rng(seed), []

    def judge(pieces: Watched, pairs: Pairs) -> np.ndarray:
        found = cues(pieces, pairs)
        made = [pieces.made_of[side] for side in np.array(pairs).T]
        same = made[0].argmax(1) == made[1].argmax(1)
        pure = np.min([part.max(1) / np.maximum(part.sum(1), 1) for part in made], axis=0) > PURE
        size = np.minimum(np.min(pieces.sums[np.array(pairs), SIZE], axis=1), CAP)
        kept = found[pure].astype(np.float32), same[pure], np.sqrt(size[pure])
        examples.append(kept)
        return same * rng.uniform(0.6, 1, len(same)) if model is None else model(found)

    pieces = each.shape.pieces(Watched, judge)
    pieces.made_of = np.zeros((len(pieces.layout), each.thing.max() + 1))
    np.add.at(pieces.made_of, (each.shape.piece, each.thing), 1)
    return grow(pieces), examples


def wholes(each: Room, model: Trees) -> Examples:
    """The nodes of the hierarchy that `model` makes of a room, and what they are worth."""
    tree, _ = joined(each, model, 0)
    pieces = len(tree.parent) - len(tree.kids)
    shared = np.zeros((len(tree.parent), each.truth.max() + 1))
    np.add.at(shared, (each.shape.piece[each.surfel], each.truth), 1)
    every = shared.sum(0)
    for node, kids in enumerate(tree.kids, start=pieces):
        shared[node] = shared[kids].sum(0)
    size = shared.sum(1)
    union = size[:, None] + every[1:] - shared[:, 1:]
    iou = (shared[:, 1:] / np.maximum(union, 1)).max(1)
    asked = (size >= ASKED) & ~tree.layout
    low, high = WORTH
    return tree.cues[asked], np.clip((iou[asked] - low) / (high - low), 0, 1), np.ones(asked.sum())


def learned(examples: list[Examples], **settings: Any) -> Trees:
    """Boosted trees, of a draw where examples are many; what is half true counts as both."""
    x, y, weight = (np.concatenate(column) for column in zip(*examples, strict=True))
    if len(y) > MOST:
        drawn = np.random.default_rng(0).choice(len(y), MOST, replace=False)
        x, y, weight = x[drawn], y[drawn], weight[drawn]
    x, weight = np.concatenate([x, x]), np.concatenate([weight * y, weight * (1 - y)])
    y = np.repeat([True, False], len(y))
    x, y, weight = x[weight > 0], y[weight > 0], weight[weight > 0]
    model = HistGradientBoostingClassifier(l2_regularization=1.0, random_state=0, **settings)
    return trees_of(model.fit(x, y, weight))


def trees_of(model: HistGradientBoostingClassifier) -> Trees:
    """The trees of a fitted binary classifier.

    scikit-learn shows them nowhere in public, so this reads private attributes; the extra `train`
    says which versions have them, and `tests/test_joining.py` compares the probabilities.
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
    """Rooms, rounds, the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rooms", type=int, nargs="+", default=list(range(100, 130)))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--cache",
        type=Path,
        help="keep the lifted rooms there, 50 MB each; "
        "a new folder after any change to surfels, seams, pieces or the generator",
    )
    parser.add_argument("--out", type=Path, default=MODEL)
    options = parser.parse_args()
    if min(options.rooms) <= SCORED:
        parser.error(f"rooms 0 to {SCORED} are those that lifting is scored on")
    # Not forked: ray caster and kernels have threads.
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        rooms = list(pool.map(partial(room, folder=options.cache), options.rooms))
        seen: list[Examples] = []
        model = None
        for turn in range(ROUNDS):
            for _, found in pool.map(joined, rooms, [model] * len(rooms), options.rooms):
                seen += found
            model = learned(
                seen, learning_rate=0.1, max_iter=150, max_leaf_nodes=15, min_samples_leaf=30,
                monotonic_cst=list(CUES.values()),
            )  # fmt: skip
            print(f"round {turn + 1}: {sum(len(y) for _, y, _ in seen)} pairs", flush=True)
        nodes = list(pool.map(wholes, rooms, [model] * len(rooms)))
    print(f"{sum(len(y) for _, y, _ in nodes)} nodes of the hierarchies", flush=True)
    whole = learned(nodes, learning_rate=0.08, max_iter=200, max_leaf_nodes=31, min_samples_leaf=30)
    with atomic(options.out) as part, part.open("wb") as file:
        np.savez_compressed(file, **model.as_arrays("join"), **whole.as_arrays("whole"))
    print(f"{options.out}: {options.out.stat().st_size / 1024:.0f} kB")


if __name__ == "__main__":
    main()
