"""Learn what belongs together from synthetic rooms: `lift3d/association/shape/joining.npz`.

python pipelines/train_joining.py [--rooms 100 101 ...] [--out joining.npz]

The rooms are lifted as `lift3d lift` does, up to their pieces. Then, three times: pieces are joined
by the truth, by the judge of the round before, and every pair that came up is an example of one
thing or of two (DAgger: Ross et al. 2011). Rooms 0 to 4 are those of benchmarks/quality.py: never
train on them.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree
from sklearn.ensemble import HistGradientBoostingClassifier

from lift3d.association.shape import Shape
from lift3d.association.shape.cues import CUES, cues, whole
from lift3d.association.shape.joining import MODEL
from lift3d.association.shape.pieces import SIZE, Pairs, Pieces
from lift3d.association.shape.trees import Trees
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.fusion.voxel import VoxelConfig
from lift3d.scene import Scene
from lift3d.segmentation.regions import RegionsConfig
from lift3d.storage import atomic
from lift3d.visibility import DepthTolerance, spacing

ROUNDS = 3
CAP = 400
"""Surfels from which on a piece counts no more: walls would drown the mugs."""
NORMAL = 0.03
"""Metres that a normal's difference of 1 counts as: the two sides of a board are apart."""
ASKED = 100
"""True points an object needs, as in ScanNet's AP."""


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


def room(seed: int) -> Room:
    """Lift it up to its pieces; each view is rendered once."""
    scene = _remembering(SyntheticConfig(seed=seed).read())
    points = VoxelConfig().build().fuse(scene)
    shape = Shape(points, spacing(points.xyz), [view.camera for view in scene.views], scene.metric)
    segmenter = RegionsConfig().build()
    for view in scene.views:
        labels = segmenter.segment(view).label_map()
        shape.look(view, view.depth(), labels, DepthTolerance())
    surface = scene.load_surface()
    placed = np.c_[surface.points.xyz, NORMAL * surface.points.normal]
    surfels = np.c_[shape.surface.xyz, NORMAL * shape.surface.normal]
    truth = np.where(np.isin(surface.semantic, scene.void_classes), 0, surface.instance)
    print(f"room {seed}: {len(surfels)} surfels, {shape.piece.max() + 1} pieces", flush=True)
    return Room(
        shape,
        surface.instance[cKDTree(placed).query(surfels)[1]],
        truth,
        cKDTree(shape.surface.xyz).query(surface.points.xyz)[1],
    )


def _remembering(scene: Scene) -> Scene:
    views = [
        replace(view, load_image=cache(view.load_image), load_depth=cache(view.load_depth))
        for view in scene.views
    ]
    return replace(scene, views=tuple(views))


class Watched(Pieces):
    """Pieces that know what they are made of."""

    made_of: np.ndarray

    def _merge(self, one: int, other: int) -> int:
        kept = super()._merge(one, other)
        self.made_of[kept] += self.made_of[one + other - kept]
        return kept

    def same(self, pairs: Pairs) -> np.ndarray:
        """Whether two pieces are mostly of one true thing."""
        one, other = np.array(pairs).T
        return self.made_of[one].argmax(1) == self.made_of[other].argmax(1)


Examples = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Cues, whether one thing, weight."""


def joined(
    each: Room, model: Trees | None, rng: np.random.Generator
) -> tuple[Watched, list[Examples]]:
    """Join by `model`, or by the truth in a random order; and every pair that came up."""
    examples = []

    def judge(pieces: Watched, pairs: Pairs) -> np.ndarray:
        found, same = cues(pieces, pairs), pieces.same(pairs)
        size = np.minimum(np.min(pieces.sums[np.array(pairs), SIZE], axis=1), CAP)
        examples.append((found, same, np.sqrt(size)))
        return same * rng.uniform(0.6, 1, len(same)) if model is None else model(found)

    pieces = each.shape.pieces(Watched, judge)
    pieces.made_of = np.zeros((len(pieces.layout), each.thing.max() + 1))
    np.add.at(pieces.made_of, (each.shape.piece, each.thing), 1)
    pieces.join()
    return pieces, examples


def wholes(each: Room, model: Trees) -> tuple[np.ndarray, np.ndarray]:
    """Cues of the things that `model` finds in a room, and whether they are true objects."""
    pieces = each.shape.pieces(judge=lambda pieces, pairs: model(cues(pieces, pairs)))
    pieces.join()
    pieces.carry()
    kept, thing = np.unique(pieces.roots()[each.shape.piece], return_inverse=True)
    found = whole(pieces, kept, each.shape.extent(thing, len(kept)))
    shared = np.zeros((len(kept), each.truth.max() + 1))
    np.add.at(shared, (thing[each.surfel], each.truth), 1)
    size = shared.sum(1)
    union = size[:, None] + shared[:, 1:].sum(0) - shared[:, 1:]
    iou = (shared[:, 1:] / np.maximum(union, 1)).max(1)
    asked = (size >= ASKED) & ~pieces.layout[kept]
    return found[asked], iou[asked] > 0.5


def boosted(**settings: Any) -> HistGradientBoostingClassifier:
    """Trees that are not fitted yet."""
    return HistGradientBoostingClassifier(learning_rate=0.1, random_state=0, **settings)


def main() -> None:
    """Rooms, rounds, the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rooms", type=int, nargs="+", default=list(range(100, 116)))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=MODEL)
    options = parser.parse_args()
    # Not forked: ray caster and kernels have threads.
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        rooms = list(pool.map(room, options.rooms))
    rng = np.random.default_rng(0)
    examples = [found for each in rooms for found in joined(each, None, rng)[1]]
    for turn in range(ROUNDS):
        x, y, weight = (np.concatenate(column) for column in zip(*examples, strict=True))
        ways = list(CUES.values())
        model = boosted(
            max_iter=150, max_leaf_nodes=15, min_samples_leaf=30, l2_regularization=1.0,
            monotonic_cst=ways,
        )  # fmt: skip
        join = Trees.of_sklearn(model.fit(x, y, weight))
        print(f"round {turn + 1}: {len(y)} pairs, {y.mean():.1%} one thing", flush=True)
        if turn + 1 < ROUNDS:
            examples += [found for each in rooms for found in joined(each, join, rng)[1]]
    x, y = (
        np.concatenate(column) for column in zip(*(wholes(r, join) for r in rooms), strict=True)
    )
    print(f"{len(y)} things found, {y.mean():.1%} true objects", flush=True)
    surer = boosted(max_iter=60, max_leaf_nodes=6, min_samples_leaf=15).fit(x, y)
    with atomic(options.out) as part, part.open("wb") as file:
        np.savez_compressed(
            file, **join.as_arrays("join"), **Trees.of_sklearn(surer).as_arrays("whole")
        )
    print(f"{options.out}: {options.out.stat().st_size / 1024:.0f} kB")


if __name__ == "__main__":
    main()
