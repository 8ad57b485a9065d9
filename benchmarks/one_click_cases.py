"""Scenes with poses and true masks, on which clicks are tried, and the scores of an answer."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from lift3d.association import AssociationConfig, associate
from lift3d.correction.clicks.answering import Answer
from lift3d.correction.clicks.asking import inner_points
from lift3d.correction.clicks.place import Place
from lift3d.correction.clicks.preparing import place_of
from lift3d.datasets import read_scene
from lift3d.datasets.selection import select
from lift3d.reconstruction import fusion
from lift3d.scene import Scene
from lift3d.scene.labelmaps import read_label_map
from lift3d.scene.overlap import paint
from lift3d.segmentation.regions import RegionsConfig

SHOWN, FIRST = 0.001, 0.01
GAP = 1 / 64
"""Share of the width up to which gaps of a true label map are closed in masks that are given."""
UNKNOWN = 0.2
"""Share of the pixels around a true mask whose truth may be unknown; of a mask with more of them
nobody knows where it ends."""
Masks = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """A scene with poses, and the true masks of its objects in the views, by name."""

    name: str
    place: Place
    truth: Mapping[str, Masks]
    """Without gaps; of those pixels only `known` ones count."""
    seconds: float
    """To prepare: fusion, superpoints, and what each view sees."""
    known: Masks = field(default_factory=dict)
    """Pixels whose truth is known, where it is not for all: only these count."""
    near: Masks = field(default_factory=dict)
    """Those and the gaps between them: only there prompts are given."""
    start: str = "first"
    """Which view is prompted first: `first`, `largest` or `middle`."""
    scene: Scene | None = None

    def first_view(self, truth: Masks) -> str:
        """Of the views that show `FIRST` of their pixels of it, `whole` ones if there are any."""
        enough = [name for name, m in truth.items() if m.sum() >= FIRST * m.size]
        enough = [name for name in enough if self.whole(name, truth[name])] or enough
        if self.start == "largest" or not enough:
            return max(enough or truth, key=lambda each: truth[each].sum())
        return enough[len(enough) // 2 if self.start == "middle" else 0]

    def whole(self, name: str, mask: np.ndarray) -> bool:
        """Whether the true mask is all that the view shows of an object, as far as is known."""
        if name not in self.near:
            return True
        rim = ndimage.binary_dilation(mask, iterations=2) & ~mask
        return bool((~self.near[name][rim]).mean() <= UNKNOWN) if rim.any() else True

    def found(self, result: Answer) -> dict[str, np.ndarray]:
        """The masks of an answer, where prompts are given."""
        return {name: found[0].mask & self.near.get(name, True) for name, found in result.views()}

    def counted(self, masks: Masks) -> dict[str, np.ndarray]:
        """Masks without pixels whose truth is not known."""
        return {name: mask & self.known.get(name, True) for name, mask in masks.items()}

    def scored(self, found: Masks, truth: Masks, skip: Sequence[str]) -> dict[str, float]:
        """Of the pixels that count, in all views but `skip`."""
        return scored(self.counted(found), self.counted(truth), skip)


def prepared(
    name: str,
    scene: Scene,
    truth: Callable[[], Mapping[str, Masks]],
    voxel: float | None = None,
    known: Masks | None = None,
    near: Masks | None = None,
) -> Case:
    began = time.perf_counter()
    points = (
        fusion.BACKENDS["voxel"](voxel=voxel).build().fuse(scene)
        if scene.has_dense_depth
        else scene.load_points()
    )
    place = place_of(scene, points)
    place.prepare()
    seconds = time.perf_counter() - began
    return Case(name, place, truth(), seconds, known or {}, near or {}, scene=scene)


def lifted(case: Case) -> Case:
    """The same on objects that `lift` finds in these views by default, without weights."""
    began = time.perf_counter()
    segmenter, place = RegionsConfig().build(), case.place
    assert case.scene is not None
    masks = {view.name: paint(segmenter.segment(view).stack) for view in case.scene.views}
    config = AssociationConfig(by_shape=True)
    found = associate(place.points, case.scene, masks, config, place.tolerance)
    labels = found.cloud.instance.astype(np.int32)
    on_run = Place(place.points, found.surface, place.views, place.tolerance, labels)
    on_run.prepare()
    return replace(case, place=on_run, seconds=case.seconds + time.perf_counter() - began)


def by_id(scene: Scene, maps: Mapping[str, np.ndarray], skip=()) -> dict[str, Masks]:
    """Objects that at least three views show with `FIRST` of their pixels."""
    ids, counts = np.unique(
        np.concatenate(
            [
                found[n >= FIRST * m.size]
                for m in maps.values()
                for found, n in [np.unique(m, return_counts=True)]
            ]
        ),
        return_counts=True,
    )
    wanted = [
        int(i) for i, n in zip(ids, counts, strict=True) if i > 0 and n >= 3 and i not in skip
    ]
    return {str(i): {name: m == i for name, m in maps.items()} for i in wanted}


def room(seed: int, views: int = 24) -> Case:
    from lift3d.datasets.synthetic import SyntheticConfig

    scene = SyntheticConfig(seed=seed, views=views).read()
    maps = {view.name: view.instances() for view in scene.views}
    return prepared(f"rooms:{seed}", scene, lambda: by_id(scene, maps))


def scan(data: Path, folder: str, truth: Path, views: int) -> Case:
    scene = select(read_scene(data / folder), views, 1)
    maps = {
        view.name: read_label_map(truth / f"{view.name}.png").astype(np.int32)
        for view in scene.views
    }
    classes = json.loads((data / "real_truth" / folder / "classes.json").read_text())
    known = {name: each > 0 for name, each in maps.items()}
    whole = {name: without_gaps(each) for name, each in maps.items()}
    near = {name: each > 0 for name, each in whole.items()}
    chosen = by_id(scene, maps, structure(classes))
    objects = {o: {name: each == int(o) for name, each in whole.items()} for o in chosen}
    return prepared(folder, scene, lambda: objects, known=known, near=near)


def without_gaps(labels: np.ndarray) -> np.ndarray:
    """Pixels without a label take that of the nearest one with, up to `GAP` away."""
    away, near = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    return np.where(away <= GAP * labels.shape[1], labels[tuple(near)], 0)


def structure(classes: Mapping[str, str]) -> set[int]:
    """Ids of walls, floor and ceiling, which nobody clicks."""
    words = ("wall", "floor", "ceiling")
    return {int(each) for each, name in classes.items() if name in words}


def shelf(data: Path) -> Case:
    scene = read_scene(data / "apc_shelf_scene0000")
    maps = {view.name: view.instances() for view in scene.views}
    return prepared("shelf", scene, lambda: by_id(scene, maps))


def statue(data: Path, run: Path | None = None) -> Case:
    """`run` is a run of its photos, for the cameras and the cloud; else COLMAP finds them."""
    from lift3d.run.run import Run

    scene = Run.open(run).whole_scene
    truth = {
        view.name: read_label_map(data / "spinnerf_statue" / "masks" / f"{view.name}.png") > 0
        for view in scene.views
    }
    return prepared("statue", scene, lambda: {"statue": truth})


def photographed(run: Path, name: str) -> Case:
    """A run of photos, without truth."""
    from lift3d.run.run import Run

    return prepared(name, Run.open(run).whole_scene, dict)


FOLDERS = {"hololens": "hololens_dvmvs_000", "livingroom": "open3d_livingroom1_clean"}


def cases(options: argparse.Namespace) -> Iterator[Case]:
    for name in options.scenes:
        word, _, rest = name.partition(":")
        if word == "rooms":
            yield room(int(rest), options.views)
        elif word == "shelf":
            yield shelf(options.data)
        elif word == "statue":
            yield statue(options.data, options.run)
        elif word == "nvos":
            yield photographed(options.run, name)
        elif word in FOLDERS:
            folder = FOLDERS[word]
            yield scan(options.data, folder, options.truth / folder / "instance", options.views)
        else:
            raise SystemExit(f"unknown scene {name}")


def centre(mask: np.ndarray) -> np.ndarray:
    """The pixel (column, row) farthest from the edge."""
    return inner_points(mask, 1)[0]


def clicked(mask: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
    """The pixel of a click on a mask: its centre, or with `rng` any."""
    return centre(mask) if rng is None else drawn(mask, 1, rng)[0]


def drawn(mask: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    chosen = rng.choice(len(rows), min(count, len(rows)), replace=False)
    return np.stack([columns[chosen], rows[chosen]], 1).astype(np.float64)


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    return float((mask & truth).sum() / max((mask | truth).sum(), 1))


def scored(found: Masks, truth: Masks, skip: Sequence[str]) -> dict[str, float]:
    shown = [n for n in truth if truth[n].sum() >= SHOWN * truth[n].size and n not in skip]
    absent = [n for n in truth if not truth[n].any()]
    plain = [float((found[n] == truth[n]).mean()) for n in shown]
    classes = [
        (float(found[n][truth[n]].mean()) + float(1 - found[n][~truth[n]].mean())) / 2
        for n in shown
    ]
    false = [found[n].sum() >= SHOWN * found[n].size for n in absent]
    return {
        "iou": float(np.mean([iou(found[n], truth[n]) for n in shown])) if shown else 1.0,
        "worst": float(np.min([iou(found[n], truth[n]) for n in shown])) if shown else 1.0,
        "accuracy": float(np.mean(plain)) if shown else 1.0,
        "class_accuracy": float(np.mean(classes)) if shown else 1.0,
        "false": float(np.mean(false)) if false else 0.0,
    }
