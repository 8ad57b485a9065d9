"""One click, all views: IoU after 1, 3 and 5 prompts, and the published protocols.

    python benchmarks/one_click.py rooms:2 rooms:3 shelf --data ../shared/data --out out/click.json
    python benchmarks/one_click.py statue --protocol spin-mask spin-points --data ../shared/data

Scenes: `rooms:SEED` (synthetic), `shelf` (APC), `statue` (SPIn-NeRF; `--run` is a run of its
photos), `hololens`, `livingroom` (both with `--truth FOLDER`, made by rendering their true clouds
into the views, FOLDER/SCAN/instance/VIEW.png), `nvos:SCENE` (`--nvos ROOT` in NVOS's layout and
`--run` of the scene's photos; the data could not be had, so this was tried on a made-up one).

Protocols, printed with every number:

* `one-click`: the first prompt is in the first view that shows at least 1 % of its pixels of the
  object (`--first largest`: in the one that shows most of it; `middle`: in the middle one of those
  with 1 %), at the pixel farthest from the edge of its true mask; each further one at the centre of
  the largest error of the view with the smallest IoU (`--where random`: at any pixel of both). IoU
  is the mean over the views that show the object with at least 0.1 % of their pixels, without the
  first prompted one; absent views count in `false`: the share of them with a mask of more than 0.1
  %. Objects are averaged in a scene. Pixels of `hololens` and `livingroom` without truth do not
  count; the masks that are given have no such gaps, as nobody draws them: pixels up to 1/64 of the
  width from known ones have the label of the nearest. With `perfect` each prompted view gives its
  true mask, and is not scored; with `regions` a segmenter without weights answers there and is
  asked everywhere; with `clicks` there are only clicks; `random-sam` shows that a network runs.
* `designs`: one perfect mask as in `one-click`, by parts: only what that view sees carried to the
  others; with the look-up; with the graph; with both, the default; and with a perfect segmenter,
  which answers prompts with true masks, asked in the other views.
* `spin-mask`: the whole true mask of the first view; foreground IoU and accuracy of every other
  view, averaged. `spin-points`: positive and negative points drawn from that mask; count and seed
  are printed.
* `nvos`: `--points` drawn from the positive and negative scribbles of the reference view (MV-SAM's
  count is 8 2); IoU and accuracy of the one target view. The target picture is used (its points and
  colours), as in online protocols.

Accuracy is both the plain share of pixels and the mean of the two classes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

import lift3d as l3
from lift3d.correction.clicks.answering import Answer, ClickConfig, answer
from lift3d.correction.clicks.asking import inner_points
from lift3d.correction.clicks.place import Place
from lift3d.correction.clicks.preparing import place_of
from lift3d.datasets import read_scene
from lift3d.datasets.selection import select
from lift3d.reconstruction import fusion
from lift3d.scene import Prompt, Scene, View
from lift3d.scene.labelmaps import read_label_map
from lift3d.scene.protocols import Segmenter
from lift3d.segmentation.regions import Regions, RegionsConfig

SHOWN, FIRST = 0.001, 0.01
GAP = 1 / 64
"""Share of the width up to which gaps of a true label map are closed in masks that are given."""
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
    return Case(name, place, truth(), seconds, known or {}, near or {})


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
    from scipy import ndimage

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


NVOS = {
    "fern": ("IMG_4038", "IMG_4027"),
    "flower": ("IMG_2983", "IMG_2962"),
    "fortress": ("IMG_1821", "IMG_1800"),
    "horns_center": ("DJI_20200223_163055_437", "DJI_20200223_163024_597"),
    "horns_left": ("DJI_20200223_163055_437", "DJI_20200223_163024_597"),
    "leaves": ("IMG_3011", "IMG_2997"),
    "orchids": ("IMG_4479", "IMG_4480"),
    "trex": ("DJI_20200223_163607_906", "DJI_20200223_163619_411"),
}
"""Reference and target view of each task; sources disagree about orchids."""


def scribbles(root: Path, scene: str) -> tuple[np.ndarray, np.ndarray]:
    """Positive and negative scribbles of a task: pictures whose names begin with pos and neg."""
    found = []
    for word in ("pos", "neg"):
        files = sorted((root / "scribbles" / scene).glob(f"{word}*.png"))
        if not files:
            raise SystemExit(f"{root}/scribbles/{scene} has no {word}*.png")
        found.append(np.any([read_label_map(each) > 0 for each in files], axis=0))
    return found[0], found[1]


def nvos(
    case: Case, root: Path, scene: str, points: tuple[int, int], seed: int, config: ClickConfig
) -> dict[str, float]:
    """Scores of the target view."""
    reference, target = NVOS[scene]
    rng = np.random.default_rng(seed)
    inside, outside = (
        drawn(mask, count, rng) for mask, count in zip(scribbles(root, scene), points, strict=True)
    )
    sign = np.arange(len(inside) + len(outside)) < len(inside)
    prompt = Prompt(np.concatenate([inside, outside]), sign)
    truth = read_label_map(root / "masks" / scene / f"{target}_mask.png") > 0
    found = answer(case.place, [{reference: prompt}], None, config).in_view(target)[0].mask
    return scored({target: found}, {target: truth}, [])


def photographed(run: Path, name: str) -> Case:
    """A run of photos, without truth."""
    from lift3d.run.run import Run

    return prepared(name, Run.open(run).whole_scene, dict)


def centre(mask: np.ndarray) -> np.ndarray:
    """The pixel (column, row) farthest from the edge."""
    return inner_points(mask, 1)[0]


def clicked(mask: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
    """The pixel of a click on a mask: its centre, or with `rng` any."""
    return centre(mask) if rng is None else drawn(mask, 1, rng)[0]


START = "first"


def first_view(truth: Masks) -> str:
    largest = max(truth, key=lambda each: truth[each].sum())
    enough = [name for name, m in truth.items() if m.sum() >= FIRST * m.size]
    if START == "largest" or not enough:
        return largest
    return enough[len(enough) // 2 if START == "middle" else 0]


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    return float((mask & truth).sum() / max((mask | truth).sum(), 1))


def worst_error(
    found: Masks,
    truth: Masks,
    skip: Sequence[str],
    rng: np.random.Generator | None = None,
) -> tuple[str, np.ndarray | None, bool]:
    """View, pixel and sign of the next click on the largest error; None without."""
    import cv2

    shown = [n for n in truth if truth[n].sum() >= SHOWN * truth[n].size and n not in skip]
    shown = shown or list(truth)
    view = min(shown, key=lambda each: iou(found[each], truth[each]))
    best, area, sign = None, -1, True
    for wrong, positive in (
        (truth[view] & ~found[view], True),
        (found[view] & ~truth[view], False),
    ):
        count, parts, stats, _ = cv2.connectedComponentsWithStats(wrong.astype(np.uint8))
        if count > 1:
            largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
            if stats[largest, cv2.CC_STAT_AREA] > area:
                best, area, sign = parts == largest, stats[largest, cv2.CC_STAT_AREA], positive
    return view, None if best is None else clicked(best, rng), sign


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


def one_click(
    case: Case,
    truth: Masks,
    how: str,
    config: ClickConfig,
    clicks: int,
    rng: np.random.Generator | None = None,
) -> tuple[list[dict[str, float]], Answer]:
    """Scores after each prompt."""
    segmenter = {"regions": lambda: Regions(RegionsConfig()), "random-sam": random_sam}.get(
        how, lambda: None
    )()
    view = first_view(truth)
    told: dict[str, tuple[list[np.ndarray], list[bool]]] = {
        view: ([clicked(truth[view], rng)], [True])
    }
    rows = []
    for number in range(clicks):
        if number:
            skip = list(told) if how == "perfect" else ()
            view, xy, positive = worst_error(found, truth, skip, rng)
            if xy is None:  # nothing is wrong
                rows.append(rows[-1])
                continue
            told.setdefault(view, ([], []))
            told[view][0].append(xy)
            told[view][1].append(positive)
        prompts = {
            name: Prompt(
                np.array(xy).reshape(-1, 2),
                np.array(on, bool),
                truth[name] if how == "perfect" and truth[name].any() else None,
            )
            for name, (xy, on) in told.items()
        }
        began = time.perf_counter()
        result = answer(case.place, [prompts], segmenter, config)
        found = case.found(result)
        row = case.scored(found, truth, list(told) if how == "perfect" else [first_view(truth)])
        rows.append({**row, "seconds": time.perf_counter() - began})
    return rows, result


def noc(rows: Sequence[Mapping[str, float]], least: float) -> int:
    """Prompts until that IoU; one more than were tried where it was not reached."""
    return next((n + 1 for n, row in enumerate(rows) if row["iou"] >= least), len(rows) + 1)


def drawn(mask: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    chosen = rng.choice(len(rows), min(count, len(rows)), replace=False)
    return np.stack([columns[chosen], rows[chosen]], 1).astype(np.float64)


def spin(case: Case, points: tuple[int, int] | None, seed: int, config: ClickConfig) -> list[Any]:
    rng = np.random.default_rng(seed)
    rows = []
    for truth in case.truth.values():
        first = next(iter(truth))
        if points is None:
            prompt = Prompt(np.zeros((0, 2)), np.zeros(0, bool), truth[first])
        else:
            inside, outside = (
                drawn(truth[first], points[0], rng),
                drawn(~truth[first], points[1], rng),
            )
            sign = np.arange(len(inside) + len(outside)) < len(inside)
            prompt = Prompt(np.concatenate([inside, outside]), sign)
        result = answer(case.place, [{first: prompt}], None, config)
        rows.append(case.scored(case.found(result), truth, [first]))
    return rows


def random_sam() -> Any:
    """SAM 2 of a small size with random weights: it shows only that a network runs."""
    import tempfile

    import transformers as t

    from lift3d.segmentation.sam_transformers import SamTransformersConfig

    backbone = {
        "hidden_size": 8, "image_size": [256, 256], "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64], "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [8, 4, 4, 2], "global_attention_blocks": [3],
        "model_type": "sam2_hiera_det_model",
    }  # fmt: skip
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[64, 64], [32, 32], [16, 16]],
        "fpn_hidden_size": 32,
    }
    decoder = {
        "hidden_size": 32,
        "mlp_dim": 64,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 32,
    }
    prompt = {"hidden_size": 32, "image_size": 256, "patch_size": 16}
    folder = tempfile.mkdtemp()
    config = t.Sam2Config(
        vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder
    )
    t.Sam2Model(config).save_pretrained(folder)
    t.Sam2ImageProcessor(size={"height": 256, "width": 256}).save_pretrained(folder)
    return SamTransformersConfig(checkpoint=folder).build()


def copied(truth: Masks) -> dict[str, np.ndarray]:
    """Floor: the mask of the first view, in all views."""
    return {name: truth[first_view(truth)] for name in truth}


def nearest_label(case: Case, truth: Masks) -> dict[str, np.ndarray]:
    """Floor: each pixel takes the label of the nearest projected point, hidden ones too."""
    from scipy import ndimage

    from lift3d.correction.clicks.answering import everything

    first = first_view(truth)
    seen = everything(case.place, first)
    label = np.zeros(len(case.place.points), np.int8)
    label[seen.point] = 1 + truth[first][seen.row, seen.column]
    found = {}
    for name, mask in truth.items():
        here = everything(case.place, name)
        shown = np.zeros(mask.shape, np.int8)
        shown[here.row, here.column] = label[here.point]
        index = ndimage.distance_transform_edt(
            shown == 0, return_distances=False, return_indices=True
        )
        found[name] = shown[tuple(index)] == 2
    return found


def mean(rows: Sequence[Mapping[str, float]], key: str) -> float:
    return round(float(np.mean([row[key] for row in rows])), 3)


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


FOLDERS = {"hololens": "hololens_dvmvs_000", "livingroom": "open3d_livingroom1_clean"}
DESIGNS = {"carried": (0.0, 0.0), "lookup": (1.0, 0.0), "graph": (0.0, 1.0), "both": (1.0, 1.0)}
"""Weights of look-up and graph."""


class TrueMasks(Segmenter):
    """A perfect segmenter: a prompt gets the object with most of its positive points."""

    def __init__(self, case: Case) -> None:
        self.objects = list(case.truth.values())

    def segment(self, view: View) -> l3.Masks:
        """All objects."""
        stack = np.stack([each[view.name] for each in self.objects])
        return l3.Masks(stack, np.ones(len(stack), np.float32))

    def prompt(self, view: View, prompts: Sequence[Prompt]) -> l3.Masks:
        """Nothing where no click is on an object."""
        own, chosen = self.segment(view), []
        for each in prompts:
            x, y = np.rint(each.xy[each.positive]).astype(int).T
            hits = own.stack[:, y, x].sum(1)
            chosen.append(own.stack[hits.argmax()] & bool(hits.any()))
        return l3.Masks(np.stack(chosen), np.ones(len(chosen), np.float32))


def designs(case: Case, config: ClickConfig) -> dict[str, float]:
    """Mean IoU after one perfect mask, of each design."""
    ways = [(name, replace(config, lookup=a, graph=b), None) for name, (a, b) in DESIGNS.items()]
    found: dict[str, float] = {}
    for name, each, segmenter in [*ways, ("perfect segmenter", config, TrueMasks(case))]:
        rows = []
        for truth in case.truth.values():
            view = first_view(truth)
            prompt = Prompt(centre(truth[view])[None], np.array([True]), truth[view])
            result = answer(case.place, [{view: prompt}], segmenter, each)
            rows.append(case.scored(case.found(result), truth, [view]))
        found[name] = mean(rows, "iou")
    return found


def measure(case: Case, options: argparse.Namespace, config: ClickConfig) -> dict[str, Any]:
    found: dict[str, Any] = {"objects": len(case.truth), "views": len(case.place.views)}
    found["prepare_s"] = round(case.seconds, 1)
    if "one-click" in options.protocol:
        rngs = {
            each: np.random.default_rng([0, number]) if options.where == "random" else None
            for number, each in enumerate(case.truth)
        }
        for how in options.how:
            runs = {
                each: one_click(case, truth, how, config, options.clicks, rngs[each])[0]
                for each, truth in case.truth.items()
            }
            at = [n for n in (1, 3, 5) if n <= options.clicks]
            found[how] = {
                **{f"iou@{n}": mean([rows[n - 1] for rows in runs.values()], "iou") for n in at},
                **{
                    f"noc@{least:.0%}": round(
                        float(np.mean([noc(rows, least) for rows in runs.values()])), 2
                    )
                    for least in (0.8, 0.85, 0.9)
                },
                **{
                    f"{key}@1": mean([rows[0] for rows in runs.values()], key)
                    for key in ("accuracy", "class_accuracy", "false", "seconds")
                },
                "by_object": {
                    each: [round(row["iou"], 3) for row in rows] for each, rows in runs.items()
                },
            }
        floors: dict[str, list[Any]] = {}
        for truth in case.truth.values():
            skip = [first_view(truth)]
            floors.setdefault("copied", []).append(case.scored(copied(truth), truth, skip))
            nearest = nearest_label(case, truth)
            floors.setdefault("nearest", []).append(case.scored(nearest, truth, skip))
            without = replace(config, visible=False)
            rows, _ = one_click(case, truth, "perfect", without, 1)
            floors.setdefault("hidden", []).append(rows[0])
        found["floors"] = {name: mean(rows, "iou") for name, rows in floors.items()}
    if "designs" in options.protocol:
        found["designs"] = designs(case, config)
    if "nvos" in options.protocol:
        scene = case.name.partition(":")[2]
        for seed in range(options.seeds):
            row = nvos(case, options.nvos, scene, tuple(options.points), seed, config)
            found[f"nvos {options.points} seed {seed}"] = row
    if "spin-mask" in options.protocol:
        rows = spin(case, None, 0, config)
        found["spin-mask"] = {
            key: mean(rows, key) for key in ("iou", "worst", "accuracy", "class_accuracy")
        }
    if "spin-points" in options.protocol:
        for seed in range(options.seeds):
            rows = spin(case, tuple(options.points), seed, config)
            found[f"spin-points {options.points} seed {seed}"] = mean(rows, "iou")
    return found


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenes", nargs="+")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--truth", type=Path, help="rendered truths of real scans")
    parser.add_argument("--run", type=Path, help="a run of the statue's photos")
    parser.add_argument(
        "--protocol", nargs="+", default=["one-click"],
        choices=["one-click", "designs", "spin-mask", "spin-points", "nvos"],
    )  # fmt: skip
    parser.add_argument("--how", nargs="+", default=["perfect", "clicks", "regions"])
    parser.add_argument("--nvos", type=Path, help="folder in NVOS's layout")
    parser.add_argument("--first", choices=("first", "largest", "middle"), default="first")
    parser.add_argument("--where", choices=("centre", "random"), default="centre")
    parser.add_argument("--clicks", type=int, default=5)
    parser.add_argument("--views", type=int, default=24)
    parser.add_argument("--points", type=int, nargs=2, default=[10, 10], help="positive, negative")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lookup", type=float, default=ClickConfig.lookup)
    parser.add_argument("--graph", type=float, default=ClickConfig.graph)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(given)
    global START
    START = options.first
    config = ClickConfig(lookup=options.lookup, graph=options.graph)
    table = {}
    for case in cases(options):
        table[case.name] = measure(case, options, config)
        print(case.name, json.dumps(table[case.name]), flush=True)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    sys.exit(main())
