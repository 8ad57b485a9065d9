"""How prompts are given, the floors beside them, and what answers by parts.

The first lines of `one_click.py` say what each protocol is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from one_click_cases import SHOWN, Case, Masks, centre, clicked, drawn, iou, scored

import lift3d as l3
from lift3d.correction.clicks.answering import Answer, ClickConfig, answer
from lift3d.correction.clicks.pointing import Click, PointClick, point_at
from lift3d.correction.proposals import propose_clicks
from lift3d.networks.sam.automatic import boxes_of
from lift3d.scene import Prompt, View
from lift3d.scene.labelmaps import read_label_map
from lift3d.scene.protocols import Segmenter
from lift3d.segmentation.regions import Regions, RegionsConfig

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


def worst_error(
    found: Masks,
    truth: Masks,
    skip: Sequence[str],
    rng: np.random.Generator | None = None,
) -> tuple[str, np.ndarray | None, bool]:
    """View, pixel and sign of the next click on the largest error; None without."""
    import cv2

    left = [name for name in truth if name not in skip]
    shown = [name for name in left if truth[name].sum() >= SHOWN * truth[name].size] or left
    if not shown:
        return "", None, True
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
    first = case.first_view(truth)
    partial = [name for name in truth if not case.whole(name, truth[name])]
    told: dict[str, tuple[list[np.ndarray], list[bool]]] = {
        first: ([], []) if how == "box" else ([clicked(truth[first], rng)], [True])
    }
    in_order = [Click(first, xy, True) for xy in told[first][0]]
    rows = []
    for number in range(clicks):
        if number:
            skip = [*told, *partial] if how == "perfect" else ()
            view, xy, positive = worst_error(found, truth, skip, rng)
            if xy is None:  # nothing is wrong
                rows.append(rows[-1])
                continue
            told.setdefault(view, ([], []))
            told[view][0].append(xy)
            told[view][1].append(positive)
            in_order.append(Click(view, xy, positive))
        prompts = {
            name: Prompt(
                np.array(xy).reshape(-1, 2),
                np.array(on, bool),
                truth[name] if how == "perfect" and truth[name].any() else None,
                box_of(truth[name]) if how == "box" and name == first else None,
            )
            for name, (xy, on) in told.items()
        }
        began = time.perf_counter()
        if how in ("page", "cloud"):
            result = proposed(case, in_order, how == "cloud")
        else:
            result = answer(case.place, [prompts], segmenter, config)
        found = case.found(result)
        row = case.scored(found, truth, list(told) if how == "perfect" else [first])
        rows.append({**row, "seconds": time.perf_counter() - began})
    return rows, result


def proposed(case: Case, clicks: Sequence[Click], in_cloud: bool) -> Answer:
    """What the page proposes: one click is looked up in the tree, further ones correct it."""
    place, tree = case.place, case.place.tree
    points = [point_at(place, each.view, each.xy) for each in clicks]
    if len(clicks) == 1 and points[0] is not None:
        level, path = tree.level(points[0])
        members = tree.points_of(path[level])
    else:
        placed = [
            PointClick(point, each.positive) if in_cloud and point is not None else each
            for point, each in zip(points, clicks, strict=True)
        ]
        members = propose_clicks(place, placed).points
    probability = np.zeros((1, len(place.points)))
    probability[0, members] = 1
    return Answer(place, [{}], ClickConfig(), probability, [float("nan")], [{}])


def box_of(mask: np.ndarray) -> np.ndarray:
    """Left, top, right and bottom of a mask."""
    return boxes_of(mask[None])[0].astype(np.float64)


def noc(rows: Sequence[Mapping[str, float]], least: float) -> int:
    """Prompts until that IoU; one more than were tried where it was not reached."""
    return next((n + 1 for n, row in enumerate(rows) if row["iou"] >= least), len(rows) + 1)


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


def copied(case: Case, truth: Masks) -> dict[str, np.ndarray]:
    """Floor: the mask of the first view, in all views."""
    return {name: truth[case.first_view(truth)] for name in truth}


def nearest_label(case: Case, truth: Masks) -> dict[str, np.ndarray]:
    """Floor: each pixel takes the label of the nearest projected point, hidden ones too."""
    from scipy import ndimage

    from lift3d.correction.clicks.answering import everything

    first = case.first_view(truth)
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
            view = case.first_view(truth)
            prompt = Prompt(centre(truth[view])[None], np.array([True]), truth[view])
            result = answer(case.place, [{view: prompt}], segmenter, each)
            rows.append(case.scored(case.found(result), truth, [view]))
        found[name] = mean(rows, "iou")
    return found


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


def mean(rows: Sequence[Mapping[str, float]], key: str) -> float:
    return round(float(np.mean([row[key] for row in rows])), 3)
