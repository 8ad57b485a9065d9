"""Measure every tracker on synthetic rooms: H, coverage and AP; and its processor time.

python benchmarks/tracking.py [--seeds 5] [--views 60] [--masks regions low middle high]
python benchmarks/tracking.py --overhead
python benchmarks/tracking.py --look SCAN [--stride 8] [--matching flow] [--pictures out/look]

Consistency is that of the tracker's own label maps. AP is that of the cloud: `ap` with the
tracker's ids (each point gets the id that most views give it), `ap_joined` after the association.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from lift3d.association import AssociationConfig, associate
from lift3d.datasets import read_scene
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.evaluation.consistency import scene_consistencies
from lift3d.evaluation.scores import score
from lift3d.evaluation.truth import Truth
from lift3d.reconstruction.fusion.voxel import VoxelConfig
from lift3d.scene import LabelMap, Masks, Points, Prompt, Scene, View
from lift3d.scene.colours import overlay
from lift3d.scene.labelmaps import by_name
from lift3d.scene.mask_sets import flat
from lift3d.scene.protocols import Segmenter
from lift3d.segmentation import tracking
from lift3d.segmentation.answers import best_mask
from lift3d.segmentation.matching.depth import DepthMatcherConfig
from lift3d.segmentation.matching.flow import FlowMatcherConfig
from lift3d.segmentation.regions import RegionsConfig
from lift3d.segmentation.simulated import SimulatedConfig
from lift3d.segmentation.tracking.independent import IndependentConfig
from lift3d.segmentation.tracking.mastsam import MastsamConfig

TRACKERS: dict[str, Any] = {
    "independent": IndependentConfig(),
    "ablation": MastsamConfig(preset="paper", initialise=False),
    "paper": MastsamConfig(preset="paper"),
    "best": MastsamConfig(),
}
OPTIONS: dict[str, Any] = {
    "paper, every 5th": MastsamConfig(preset="paper", init_every=5),
    "best, ablation": MastsamConfig(initialise=False),
    "best - carry": MastsamConfig(carry=False),
    "best - carry - voters": MastsamConfig(carry=False, voters=1),
    "best - voters": MastsamConfig(voters=1, keyframes=0),
    "best - keyframes": MastsamConfig(keyframes=0),
    "best - claim": MastsamConfig(claim=False),
    "best - fill": MastsamConfig(fill=False),
    "best - negatives": MastsamConfig(negatives=0),
    "best - dense": MastsamConfig(dense_prompt=False),
    "best - agreement": MastsamConfig(min_agreement=0.0),
    "best - alternatives": MastsamConfig(good_agreement=0.0),
    "best - parts": MastsamConfig(parts="largest"),
    "best - keep": MastsamConfig(nested="merge"),
    "best - automatic": MastsamConfig(start_from="region"),
    "best - one each": MastsamConfig(at_least_one=False),
    "best, stray kept, - carry": MastsamConfig(carry=False, stray=0.0),
}
"""Variants of `best` that differ in one option each."""
if "byocl" in tracking.BACKENDS:
    TRACKERS = {"byocl": tracking.BACKENDS["byocl"](), **TRACKERS}
KEPT = (
    *("H", "H_all", "H_prime", "coverage", "agreed", "ids"),
    *("ap", "ap50", "ap_joined", "ap50_joined", "seconds"),
)


def in_memory(scene: Scene) -> Scene:
    """The same scene with its pictures rendered once."""

    def held(array: np.ndarray) -> Callable[[], np.ndarray]:
        return partial(np.copy, array)

    return scene.with_views(
        [
            replace(
                view,
                load_image=held(view.image()),
                load_depth=held(view.depth()),
                load_instances=held(view.instances()),
            )
            for view in scene.views
        ]
    )


def segmenter(masks: str, seed: int) -> Segmenter:
    if masks == "regions":
        return RegionsConfig().build()
    return Held(SimulatedConfig(severity=masks, seed=seed).build().segment)


class Held(Segmenter):
    """A segmenter that computes the masks of each view once, by `make`."""

    def __init__(self, make: Callable[[View], Masks]) -> None:
        self._make = make
        self._held: dict[str, Masks] = {}

    def segment(self, view: View) -> Masks:
        """The masks, computed at the first call."""
        if view.name not in self._held:
            self._held[view.name] = self._make(view)
        return self._held[view.name]

    def prompt(self, view: View, prompts: Sequence[Prompt]) -> Masks:
        """The mask with most positive and fewest negative points."""
        return best_mask(self.segment(view), prompts)


def one(config: Any, scene: Scene, points: Points, truth: Truth, seg: Segmenter, ap: str) -> dict:
    """All figures of one tracker in one room."""
    began = time.perf_counter()
    maps = [flat(each) for each in config.build(seg, DepthMatcherConfig().build()).track(scene)]
    seconds = (time.perf_counter() - began) / len(scene)
    every, labelled = (
        found.result
        for found in scene_consistencies(
            scene,
            by_name(scene, maps),
            0.01,
            ("view",),
            (False, True),
            1_500_000,
            return_pixels=False,
        )
    )
    row = {
        "H": labelled.H,
        "H_all": every.H,
        "H_prime": labelled.H_prime,
        "coverage": labelled.coverage,
        "agreed": labelled.H * labelled.coverage,
        "ids": len(np.unique(np.concatenate([np.unique(m) for m in maps]))) - 1,
        "seconds": seconds,
    }
    for name, trust in (("", True), ("_joined", False)):
        if ap == "all" or (ap == "trusted" and trust):
            found = associate(
                points, scene, by_name(scene, maps), AssociationConfig(trust_ids=trust)
            )
            scores = score(found.cloud, found.confidence, truth)
            row |= {f"ap{name}": scores["ap"], f"ap50{name}": scores["ap50"]}
    return row


def quality(options: argparse.Namespace) -> None:
    """The table, mean and spread over rooms."""
    trackers = TRACKERS | (OPTIONS if options.options else {})
    if options.only:
        trackers = {name: each for name, each in trackers.items() if name in options.only}
    rows: dict[tuple[str, str], list[dict]] = {}
    for seed in range(options.seeds):
        config = SyntheticConfig(seed=seed, views=options.views, width=320, height=240)
        scene = in_memory(config.read())
        points = VoxelConfig(voxel=0.02).build().fuse(scene)
        assert scene.load_surface is not None
        truth = Truth.of_surface(scene.load_surface(), scene.void_classes)
        for masks in options.masks:
            seg = segmenter(masks, seed)
            for name, each in trackers.items():
                if name == "byocl" and masks != options.masks[0]:
                    continue  # it segments by itself, so the masks make no difference
                row = one(each, scene, points, truth, seg, options.ap)
                rows.setdefault((masks, name), []).append(row)
                shown = {key: round(value, 3) for key, value in row.items()}
                print(seed, masks, name, shown, flush=True)
        write(options.out, {"quality": table(rows)})
    for masks in options.masks:
        print(f"\n{masks}: mean ± spread over {options.seeds} rooms")
        for name, cells in table(rows)[masks].items():
            shown = [f"{k} {v['mean']:.3f}±{v['std']:.3f}" for k, v in cells.items()]
            print(f"{name:28s}", "  ".join(shown))


def table(rows: dict[tuple[str, str], list[dict]]) -> dict:
    found: dict[str, dict] = {}
    for (masks, name), each in rows.items():
        found.setdefault(masks, {})[name] = {
            key: {
                "mean": round(float(np.mean([row[key] for row in each])), 4),
                "std": round(float(np.std([row[key] for row in each])), 4),
            }
            for key in KEPT
            if key in each[0]
        }
    return found


def write(path: Path, part: dict) -> None:
    """Replace one part of the results file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(path.read_text()) if path.exists() else {}
    machine = {"processor": platform.processor() or platform.machine()}
    path.write_text(json.dumps(known | part | {"machine": machine}, indent=1) + "\n")


# Overhead.

STEPS = {
    "lift3d.segmentation.tracking.mastsam": (
        "gather", "steady", "pooled", "carry", "places", "disjoint", "fresh", "claimed", "regions",
        "uncovered", "groups", "paint", "shared_pixels", "connected_parts", "_nearest",
        "_numbered",
    ),
    "lift3d.segmentation.tracking.initialisation": ("groups", "paint", "shared_pixels"),
    "lift3d.segmentation.tracking.representatives": ("choose",),
    "lift3d.segmentation.tracking.evidence.Evidence": ("agreement", "warped"),
    "lift3d.segmentation.tracking.recovery.Keyframes": ("voters", "add"),
}  # fmt: skip


def tiles(view: View, side: float) -> LabelMap:
    """True instances cut into cubes of the world, so that the parts are the same in all views."""
    from lift3d.geometry import unproject

    labels, depth = view.instances(), view.depth()
    assert labels is not None
    assert depth is not None
    cube = np.floor(np.nan_to_num(unproject(view.geometry_camera, depth)) / side).astype(np.int64)
    key = ((labels * 64 + cube[..., 0] + 32) * 64 + cube[..., 1] + 32) * 64 + cube[..., 2] + 32
    found = np.unique(key, return_inverse=True)[1].reshape(labels.shape).astype(np.int32) + 1
    area = np.bincount(found.reshape(-1))
    return np.where((area >= 1000)[found] & (depth > 0), found, 0).astype(np.int32)


def overhead(options: argparse.Namespace) -> None:
    """Milliseconds of processor time per frame at 854x480 with 50 masks, by step, on one core."""
    import os
    import sys

    import cv2
    import numba

    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})
    cv2.setNumThreads(1)
    numba.set_num_threads(1)
    frames = 12
    scene = SyntheticConfig(seed=0, views=480, width=854, height=480, noise=False).read()
    scene = in_memory(scene.with_views(scene.views[40 : 40 + frames]))
    cut = [partial(np.copy, tiles(view, 0.8)) for view in scene.views]
    scene = scene.with_views(
        [replace(v, load_instances=each) for v, each in zip(scene.views, cut, strict=True)]
    )
    flat = scene.with_views([replace(view, load_depth=None) for view in scene.views])
    found = {}
    for name, config, matcher, views in (
        ("paper, flow", MastsamConfig(preset="paper"), FlowMatcherConfig(), flat),
        ("best, flow", MastsamConfig(), FlowMatcherConfig(), flat),
        ("paper, depth", MastsamConfig(preset="paper"), DepthMatcherConfig(), scene),
        ("best, depth", MastsamConfig(), DepthMatcherConfig(), scene),
    ):
        spent: dict[str, float] = {}
        undo = []
        inside: list[str] = []

        def timed(label: str, function: Any, spent: dict = spent, inside: list = inside) -> Any:
            def run(*args: Any, **kwargs: Any) -> Any:
                began = time.process_time()
                inside.append(label)
                try:
                    return function(*args, **kwargs)
                finally:
                    inside.pop()
                    took = time.process_time() - began
                    spent[label] = spent.get(label, 0.0) + took
                    if inside:  # time in a nested step counts only for that step
                        spent[inside[-1]] = spent.get(inside[-1], 0.0) - took

            return run

        for owner, names in STEPS.items():
            home: Any = sys.modules.get(owner)
            if home is None:
                module, _, cls = owner.rpartition(".")
                home = getattr(sys.modules[module], cls)
            for step in names:
                undo.append((home, step, getattr(home, step)))
                setattr(home, step, timed(step, getattr(home, step)))
        seg, match = Held(lambda view: Masks.from_label_map(view.instances())), matcher.build()
        for step in ("segment", "prompt", "alternatives"):
            setattr(seg, step, timed("segmenter", getattr(seg, step)))
        match.match = timed("match", match.match)
        for _ in range(2):  # once to compile
            maps = config.build(seg, match).track(views)
            for _ in range(4):
                next(maps)  # until the tracker's memory is full
            spent.clear()
            began = time.process_time()
            rest = [flat(each) for each in maps]
            total = time.process_time() - began
        for home, step, function in undo:
            setattr(home, step, function)
        masks = np.mean([len(np.unique(labels)) - 1 for labels in rest])
        per_frame = {k: 1000 * v / len(rest) for k, v in spent.items() if v > 0}
        segmenting = per_frame.pop("segmenter", 0.0)
        whole = 1000 * total / len(rest) - segmenting
        per_frame["rest"] = whole - sum(per_frame.values())
        found[name] = {"total": whole, "masks": masks, **per_frame}
        print(f"\n{name}: {whole:.1f} ms a frame, {masks:.0f} masks", flush=True)
        for step, cost in sorted(per_frame.items(), key=lambda each: -each[1]):
            print(f"  {step:16s} {cost:7.2f} ms  {cost / whole:6.1%}")
    rounded = {n: {k: round(float(v), 2) for k, v in each.items()} for n, each in found.items()}
    write(options.out, {"overhead_ms": rounded})


# Pictures.


def look(options: argparse.Namespace) -> None:
    """Show a tracker's result on a real scan: sheets of six views with the ids written on them.

    With flow no id is transferred by depth, so that both presets use the same matches.
    """
    whole = read_scene(options.look)
    scene = whole.with_views(whole.views[:: options.stride][: options.views])
    flow = options.matching == "flow"
    matcher = FlowMatcherConfig() if flow else DepthMatcherConfig()
    for name in options.only or ["paper", "best"]:
        config = TRACKERS[name]
        config = replace(config, carry=False) if flow and name == "best" else config
        tracker = config.build(RegionsConfig().build(), matcher.build())
        maps = [flat(each) for each in tracker.track(scene)]
        folder = options.pictures / f"{name}_{options.matching}_{options.stride}"
        sheets(scene.views, maps, folder)
        seen = [set(np.unique(each[each > 0]).tolist()) for each in maps]
        ever = set().union(*seen)
        lived = [len(a & b) / len(a) for a, b in pairwise(seen) if a]
        spans = [[number for number, each in enumerate(seen) if one in each] for one in ever]
        returned = sum(span[-1] - span[0] >= len(span) for span in spans)
        print(
            f"{options.look.name} {name} {options.matching}, every {options.stride}: "
            f"{len(maps)} views, {np.mean([len(each) for each in seen]):.0f} masks each, "
            f"{len(ever)} ids, {returned} of them were away and came back; "
            f"{np.mean(lived):.2f} of a view's ids are in the next; pictures in {folder}",
            flush=True,
        )


def sheets(views: Sequence[View], maps: Sequence[LabelMap], folder: Path) -> None:
    """Sheets of six views; an id has the same colour and number in all of them."""
    import cv2

    folder.mkdir(parents=True, exist_ok=True)
    painted = []
    for view, labels in zip(views, maps, strict=True):
        picture = overlay(view.image(), labels)
        for one, area in zip(*np.unique(labels[labels > 0], return_counts=True), strict=True):
            if area > 0.004 * labels.size:
                inner = cv2.distanceTransform((labels == one).astype(np.uint8), cv2.DIST_L2, 3)
                row, column = np.unravel_index(inner.argmax(), inner.shape)
                write_on(picture, str(one), int(column) - 14, int(row) + 6)
        write_on(picture, view.name, 6, 20)
        painted.append(picture)
    for start in range(0, len(painted), 6):
        six = painted[start : start + 6]
        six += [np.zeros_like(six[0])] * (6 - len(six))
        rows = [np.concatenate(six[at : at + 3], axis=1) for at in (0, 3)]
        sheet = cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / f"{start:03d}.png"), sheet)


def write_on(picture: Any, text: str, x: int, y: int) -> None:
    """Write text in white with a dark outline."""
    import cv2

    for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--views", type=int, default=60)
    parser.add_argument("--masks", nargs="+", default=["regions", "low", "middle", "high"])
    parser.add_argument("--options", action="store_true", help="also the variants of best")
    parser.add_argument("--only", nargs="+", help="run only these trackers")
    parser.add_argument("--ap", choices=["all", "trusted", "none"], default="all")
    parser.add_argument("--overhead", action="store_true", help="milliseconds per frame instead")
    parser.add_argument("--look", type=Path, help="write pictures of this scan instead, to inspect")
    parser.add_argument("--stride", type=int, default=1, help="for --look: use every n-th view")
    parser.add_argument("--matching", choices=["depth", "flow"], default="depth")
    parser.add_argument("--pictures", type=Path, default=Path("out/look"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/tracking.json"))
    options = parser.parse_args()
    (overhead if options.overhead else look if options.look else quality)(options)


if __name__ == "__main__":
    main()
