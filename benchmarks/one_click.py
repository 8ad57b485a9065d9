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
  width from known ones have the label of the nearest. Where the truth is unknown at more than 20 %
  of the pixels around a mask, nobody knows where the object ends: such a mask is not given, and
  such a view is the first only where all are such. With `perfect` each prompted view gives its true
  mask, and is not scored; with `regions` a segmenter without weights answers there and is asked
  everywhere; with `clicks` there are only clicks; with `box` the first prompt is the box around the
  true mask, without a click, and the others are clicks; `page` and `cloud` are the clicks of the
  page without a segmenter, in pictures and on points of the cloud (in their order, by the points
  alone); `random-sam` shows that a network runs.
  With `--lifted` the scene was lifted by default (`regions`, no weights) before; else the shape of
  its cloud is all that is known.
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
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from one_click_cases import Case, cases, lifted
from one_click_protocols import (
    copied,
    designs,
    mean,
    nearest_label,
    noc,
    nvos,
    one_click,
    spin,
)

from lift3d.correction.clicks.answering import ClickConfig


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
    if "one-click" in options.protocol and options.floors:
        found["floors"] = floors(case, config)
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


def floors(case: Case, config: ClickConfig) -> dict[str, float]:
    """IoU after one true mask of what is compared with."""
    found: dict[str, list[Any]] = {"copied": [], "nearest": [], "hidden": []}
    for truth in case.truth.values():
        skip = [case.first_view(truth)]
        found["copied"].append(case.scored(copied(case, truth), truth, skip))
        found["nearest"].append(case.scored(nearest_label(case, truth), truth, skip))
        rows, _ = one_click(case, truth, "perfect", replace(config, visible=False), 1)
        found["hidden"].append(rows[0])
    return {name: mean(rows, "iou") for name, rows in found.items()}


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
    parser.add_argument("--lifted", action="store_true", help="click objects of a lift")
    parser.add_argument(
        "--floors", action=argparse.BooleanOptionalAction, default=True,
        help="most of the time with many views",
    )  # fmt: skip
    parser.add_argument("--clicks", type=int, default=5)
    parser.add_argument("--views", type=int, default=24)
    parser.add_argument("--points", type=int, nargs=2, default=[10, 10], help="positive, negative")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lookup", type=float, default=ClickConfig.lookup)
    parser.add_argument("--graph", type=float, default=ClickConfig.graph)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(given)
    config = ClickConfig(lookup=options.lookup, graph=options.graph)
    table = {}
    for each in cases(options):
        case = replace(lifted(each) if options.lifted else each, start=options.first)
        table[case.name] = measure(case, options, config)
        print(case.name, json.dumps(table[case.name]), flush=True)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    sys.exit(main())
