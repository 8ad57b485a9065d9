"""What corrections are worth, and that nothing of them is lost: numbers on a run with a truth.

python benchmarks/corrections.py RUN [--checks split tree click follow undo voxel]
python benchmarks/corrections.py RUN --checks click --truth DATA/real_truth/SCAN [--every 2]

RUN is a finished run whose scene has a true surface and true ids per picture, such as that of
`lift3d demo`, or, for `tree` and `click`, of a real scan with a truth.ply; its true masks are drawn
from the points. `follow`, `undo` and `voxel` need no truth and take any run. It is copied; the copy
is edited as a person would, with the truth in place of eyes:

split    one click per true object in each object that holds several; over the surface
tree     one click per true object and the best of up to three steps along the tree of joins
click    one click in the picture that shows it largest, with true masks, carried to other views
follow   50 random edits: ids of label maps and of the list agree, H before and after
undo     100 edits, 100 undos, 100 redos, each compared bit for bit
voxel    30 edits found again in a cloud of other points, 2 cm a voxel
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from plyfile import PlyData
from scipy.spatial import cKDTree

from lift3d.association.assignments import nearest_known
from lift3d.correction.clicks.pointing import Click
from lift3d.evaluation.scores import nearest_points, score
from lift3d.evaluation.truth import Truth
from lift3d.run.edits import Edits
from lift3d.run.lift import lift
from lift3d.run.run import Run
from lift3d.run.settings import read_settings
from lift3d.scene import LabelledPoints, LabelMap, Masks, Prompt, View
from lift3d.scene.errors import InputError
from lift3d.scene.protocols import Segmenter

SMALLEST = 50
"""Points of a true object that is counted."""
HELD = 0.5
"""Least share of a true object's points in an object for it to be one of several there."""
REACH = 0.03
"""A point takes the label of a true point at most this far, in metres, of a real scan."""
STRUCTURE = ("wall", "floor", "ceiling")
"""Classes of a real scan that do not count."""
SHOWN = 400
"""Pixels of a true object in the picture that is clicked."""


class TrueMasks(Segmenter):
    """The true mask under the first click."""

    def __init__(self, case: Case) -> None:
        self._true_map = case.true_map

    def segment(self, view: View) -> Masks:
        """All true masks."""
        return Masks.from_label_map(self._true_map(view))

    def prompt(self, view: View, prompts: Sequence[Prompt]) -> Masks:
        """The true mask under the first positive click of each prompt."""
        truth = self._true_map(view)
        stack = []
        for each in prompts:
            column, row = np.round(each.xy[each.positive][0]).astype(int)
            stack.append((truth == truth[row, column]) & (truth[row, column] > 0))
        return Masks(np.array(stack), np.full(len(stack), 0.95, np.float32))


class Case:
    """A copy of a run, and the true object of each of its points, where there is a truth."""

    every = 1
    """One object in so many is clicked."""

    def __init__(self, source: Path, folder: Path, truth: Path | None = None) -> None:
        """`truth`: a folder with truth.ply and classes.json, for a scene that has none."""
        shutil.copytree(source, folder)
        self._given = truth
        self._maps: dict[str, LabelMap] = {}
        self.run = Run.open(folder)
        self.scene = self.run.whole_scene
        self.run = Run(folder, scene=self.scene)

    @cached_property
    def surface(self) -> LabelledPoints:
        """The true surface."""
        assert self.scene.load_surface is not None, "the scene has no true surface"
        return self.scene.load_surface()

    @cached_property
    def truth(self) -> Truth:
        """The truth that scores are of."""
        return Truth.of_surface(self.surface, self.scene.void_classes)

    @cached_property
    def true(self) -> np.ndarray:
        """The true object of each point; 0 none."""
        if self._given is not None:
            vertex = PlyData.read(str(self._given / "truth.ply"))["vertex"]
            known = np.stack([vertex[axis] for axis in "xyz"], 1)
            far, nearest = cKDTree(known).query(self.run.points.xyz)
            true = np.where(far <= REACH, np.asarray(vertex["label"], np.int32)[nearest], 0)
            words = json.loads((self._given / "classes.json").read_text())
            parts = [int(each) for each, word in words.items() if word in STRUCTURE]
            return np.where(np.isin(true, parts), 0, true)
        surface = self.surface
        nearest = nearest_points(surface, self.run.points.xyz, self.scene.metric)
        true = np.where(nearest >= 0, surface.instance[nearest], 0)
        return np.where(np.isin(surface.semantic[nearest], self.scene.void_classes), 0, true)

    def true_map(self, view: View) -> LabelMap:
        """The true object of each pixel: that of the scene, or of the point that it shows."""
        if self._given is None:
            found = view.instances()
            assert found is not None
            return found
        if view.name not in self._maps:
            seen = self.run.edits.shown(view.name)
            shown = np.zeros((view.camera.height, view.camera.width), np.int32)
            shown[seen.row, seen.column] = self.true[seen.point] + 1
            nearest = nearest_known(shown, np.ones(shown.shape, bool))[0] - 1
            self._maps[view.name] = nearest.reshape(shown.shape).astype(np.int32)
        return self._maps[view.name]

    @cached_property
    def ids(self) -> list[int]:
        """The true objects that are counted."""
        ids, counts = np.unique(self.true[self.true > 0], return_counts=True)
        return ids[counts >= SMALLEST].tolist()

    def fit(self, label: np.ndarray) -> tuple[float, int]:
        """Mean of the best IoU of each true object, and how many have one above 0.5."""
        best = [best_iou(self.true == each, label) for each in self.ids]
        return float(np.mean(best)), int(np.sum(np.array(best) > 0.5))

    def ap(self, edits: Edits) -> str:
        """AP, AP50 and AP25 now."""
        confidence = {each: own.confidence for each, own in edits.properties.items()}
        found = score(edits.cloud, confidence, self.truth, metric=self.scene.metric)
        return " / ".join(f"{found[name]:.3f}" for name in ("ap", "ap50", "ap25"))

    def middle(self, inside: np.ndarray) -> int:
        """The point of a set that is nearest to its median."""
        index = np.flatnonzero(inside)
        xyz = self.run.points.xyz[index]
        return int(index[np.argmin(((xyz - np.median(xyz, axis=0)) ** 2).sum(1))])


def best_iou(inside: np.ndarray, label: np.ndarray) -> float:
    """The largest IoU of a set with any object."""
    ids, counts = np.unique(label[inside], return_counts=True)
    sizes = {each: int((label == each).sum()) for each in ids[ids > 0].tolist()}
    found = [
        count / (inside.sum() + sizes[each] - count)
        for each, count in zip(ids.tolist(), counts.tolist(), strict=True)
        if each > 0
    ]
    return max(found, default=0.0)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """IoU of two sets."""
    return float((a & b).sum() / max((a | b).sum(), 1))


def split(case: Case) -> None:
    """Acceptance check 4."""
    edits, xyz = case.run.edits, case.run.points.xyz
    before, ap = case.fit(edits.label), case.ap(edits)
    clicks, slowest = 0, 0.0
    for each in [each.id for each in edits.objects]:
        own = edits.label == each
        held = [
            t for t in case.ids if (own & (case.true == t)).sum() > HELD * (case.true == t).sum()
        ]
        if len(held) < 2:
            continue
        places = [xyz[case.middle(own & (case.true == t))] for t in held]
        edits.parts(each, places)  # the graph is made at the first click
        began = time.perf_counter()
        edits.parts(each, places)
        slowest = max(slowest, time.perf_counter() - began)
        edits.split(each, places)
        clicks += len(held)
    after = case.fit(edits.label)
    print(
        f"split: {clicks} clicks; mean IoU {before[0]:.3f} -> {after[0]:.3f}, found {before[1]} -> "
        f"{after[1]} of {len(case.ids)}; AP/AP50/AP25 {ap} -> {case.ap(edits)}; "
        f"slowest answer {slowest:.2f} s"
    )


def tree(case: Case) -> None:
    """Acceptance check 5, without weights."""
    edits, found, seconds = case.run.edits, [], []
    for each in case.ids:
        inside = case.true == each
        point = case.middle(inside)
        best = 0.0
        try:
            level = edits.propose_tree(point).level
        except InputError:
            found.append(0.0)
            continue
        for step in range(-3, 4):
            began = time.perf_counter()
            proposal = edits.propose_tree(point, level + step)
            seconds.append(time.perf_counter() - began)
            own = np.zeros(len(inside), bool)
            own[proposal.points] = True
            best = max(best, iou(own, inside))
        found.append(best)
    print(
        f"tree: {len(found)} clicks and at most 3 presses: mean IoU {np.mean(found):.3f}, "
        f"{np.sum(np.array(found) > 0.5)} found; median answer {1000 * np.median(seconds):.0f} ms"
    )


def click(case: Case) -> None:
    """Acceptance check 5, with exact masks."""
    edits = case.run.edits
    largest: dict[int, tuple[int, str, tuple[float, float]]] = {}
    for view in case.scene.views:
        truth = case.true_map(view)
        for each in np.intersect1d(np.unique(truth), case.ids).tolist():
            inside = truth == each
            count = int(inside.sum())
            if count > max(SHOWN, largest.get(each, (0,))[0]):
                from scipy import ndimage

                depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
                row, column = np.unravel_index(int(depth.argmax()), depth.shape)
                largest[each] = (count, view.name, (float(column), float(row)))
    found, first, seconds = [], [], []
    edits.prepare_click()
    for each, (_, view_name, xy) in list(largest.items())[:: case.every]:
        inside = case.true == each
        began = time.perf_counter()
        click = Click(view_name, np.array(xy), True)
        proposals = list(edits.propose_segmented([click], TrueMasks(case)))
        seconds.append(time.perf_counter() - began)
        for kept, proposal in ((first, proposals[0]), (found, proposals[-1])):
            own = np.zeros(len(inside), bool)
            own[proposal.points] = True
            kept.append(iou(own, inside))
    clicked = list(largest)[:: case.every]
    automatic = [best_iou(case.true == each, edits.automatic) for each in clicked]
    print(
        f"click: {len(found)} objects, one click each with true masks: mean IoU "
        f"{np.mean(found):.3f} (one view {np.mean(first):.3f}, automatic "
        f"{np.mean(automatic):.3f}), "
        f"lowest {np.min(found):.2f}; {np.median(seconds):.2f} s a click with all views"
    )


def half(xyz: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The points of an object beyond the middle of its longest side."""
    axis = int(np.argmax(np.ptp(xyz[own], axis=0)))
    return own[xyz[own, axis] > (xyz[own, axis].min() + xyz[own, axis].max()) / 2]


def random_edits(edits: Edits, count: int, seed: int) -> int:
    """Edits of random kinds on random objects; returns how many were refused."""
    rng = np.random.default_rng(seed)
    xyz, refused, made = edits.cloud.points.xyz, 0, 0
    while made < count:
        ids = [each for each, own in edits.properties.items() if not own.locked]
        a, b = (int(each) for each in rng.choice(ids, 2, replace=False))
        own = edits.points_of(a)
        kind = rng.choice(["merge", "split", "delete", "name", "select", "neighbours", "paint"])
        try:
            if kind == "merge":
                edits.merge([a, b])
            elif kind == "split":
                edits.split(a, xyz[rng.choice(own, 2)])
            elif kind == "delete":
                edits.delete([a])
            elif kind == "neighbours":
                edits.delete([a], "neighbours")
            elif kind == "name":
                edits.name(a, f"thing {made}")
            elif kind == "select":
                edits.select(half(xyz, own), b)
            else:
                view = str(rng.choice(list(edits._sizes)))
                mask = np.zeros(edits._sizes[view], bool)
                row, column = (int(rng.integers(0, each - 40)) for each in mask.shape)
                mask[row : row + 40, column : column + 40] = True
                edits.paint(view, mask, None if rng.random() < 0.5 else b)
            made += 1
        except InputError:
            refused += 1
    return refused


def follow(case: Case) -> None:
    """Acceptance check 7."""
    run, edits = case.run, case.run.edits
    before = run.consistency["reprojection"]["agreement"]
    edits.prepare_agreement()
    refused = random_edits(edits, 50, seed=7)
    about = edits.agreement()
    began = time.perf_counter()
    edits.write()
    seconds = time.perf_counter() - began
    listed = {each.id for each in run.objects}
    shown = set()
    for name in run.cameras:
        shown |= set(np.unique(run.labels[name]).tolist()) - {0}
    saved = edits.save()
    checked = run.consistency
    exact = checked["printed"]["foreground"]["H_prime"]
    was = checked["automatic"]["printed"]["foreground"]["H_prime"]
    agreement = checked["reprojection"]["agreement"]
    assert about is not None
    print(
        f"follow: 50 edits ({refused} refused), written in {seconds:.1f} s, {saved.done}; ids in "
        f"maps but not listed: {sorted(shown - listed)}, listed but in no map: "
        f"{sorted(listed - shown)}; agreement with the cloud {before:.4f} -> {agreement:.4f}; "
        f"H' {was:.4f} (about {about.automatic.H_prime:.4f}) -> {exact:.4f} (about "
        f"{about.corrected.H_prime:.4f})"
    )


def undo(case: Case) -> None:
    """Acceptance check 8, without a server."""
    edits = case.run.edits
    first = edits.label.copy(), edits.properties
    random_edits(edits, 100, seed=8)
    last = edits.label.copy(), edits.properties
    began = time.perf_counter()
    for _ in range(100):
        edits.undo()
    back = np.array_equal(edits.label, first[0]) and edits.properties == first[1]
    for _ in range(100):
        edits.redo()
    seconds = (time.perf_counter() - began) / 200
    forth = np.array_equal(edits.label, last[0]) and edits.properties == last[1]
    fresh = Run.open(case.run.folder).edits
    same = np.array_equal(fresh.label, last[0]) and fresh.properties == last[1]
    print(
        f"undo: 100 edits; all undone is the first state: {back}; all redone is the last: {forth}; "
        f"a fresh replay is the same: {same}; {1000 * seconds:.0f} ms a step"
    )


def voxel(case: Case) -> None:
    """Acceptance check 9: the edits in a cloud of other points."""
    run, edits = case.run, case.run.edits
    rng = np.random.default_rng(9)
    large = [each.id for each in edits.objects if each.points > 300]
    xyz = run.points.xyz.copy()
    for each in large[:16]:
        edits.name(each, f"thing {each}")
    for each in large[5:12]:
        edits.split(each, xyz[rng.choice(edits.points_of(each), 2, replace=False)])
    for a, b in zip(large[12:16:2], large[13:16:2], strict=False):
        edits.merge([a, b])
    for each in large[16:21]:
        edits.select(half(xyz, edits.points_of(each)))
    gave = {n for each in edits.active if each.do == "select" for n in [each.n]}
    meant = [  # not what is left of the objects that gave points to a new one
        (n, each)
        for each, own in edits.properties.items()
        for n in own.edited
        if n not in gave or each in edits.all[n - 1].new
    ]
    before = edits.label.copy()
    config = read_settings(run.settings)
    config = replace(config, out=run.folder, voxel=0.02, check_pixels=200_000)
    again = lift(replace(config, fusion=replace(config.fusion, voxel=0.02)))
    doubts = {each.edit.n for each in again.edits.doubts}
    fits: dict[int, float] = {}
    label, properties = again.edits.label, again.edits.properties
    was = before[cKDTree(xyz).query(again.points.xyz)[1]]  # what the edits meant, on the new points
    for n, which in meant:
        if n in doubts:
            continue
        wanted = was == which
        now = [each for each, own in properties.items() if n in own.edited]
        best = max((iou(label == each, wanted) for each in now), default=0.0)
        fits[n] = min(fits.get(n, 1.0), best)
    good = sum(each >= 0.8 for each in fits.values())
    listed = sum("in doubt" in text for text in again.warnings)
    less = ", ".join(f"{n}: {each:.2f}" for n, each in fits.items() if each < 0.8)
    back = {each.edit.n for each in again.edits.altered if each.put_back}
    told = {each.edit.n for each in again.edits.altered if not each.put_back}
    print(
        f"voxel: {len(edits.active)} edits; {good} applied with IoU >= 0.8 to what they meant in "
        f"all of their objects ({len(back)} of all put back from their points), "
        f"{len(fits) - good} with less ({less}), {len(doubts)} in doubt ({listed} listed as "
        f"warnings), {len(told)} applied to what came back otherwise and told"
    )


CHECKS = {each.__name__: each for each in (split, tree, click, follow, undo, voxel)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--truth", type=Path, help="truth.ply and classes.json of a real scan")
    parser.add_argument("--every", type=int, default=1, help="`click`: only every so many objects")
    parser.add_argument("--checks", nargs="*", choices=CHECKS, default=list(CHECKS))
    given = parser.parse_args()
    for name in given.checks:
        with tempfile.TemporaryDirectory() as place:
            began = time.perf_counter()
            case = Case(given.run, Path(place) / "run", given.truth)
            case.every = given.every
            CHECKS[name](case)
            print(f"({name}: {time.perf_counter() - began:.0f} s)", flush=True)
