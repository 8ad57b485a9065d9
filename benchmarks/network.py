"""Measure time and memory of MASt3R's network at full size with random weights, step by step.

Run `python benchmarks/network.py` for one symmetric pair at 512x384, or with `--images 20 --graph
complete` (window, similar) for a whole set, on a GPU where there is one. Numbers go to
benchmarks/results/network.json. The official code took 20.0 s for one symmetric pair on two CPU
threads of a quiet machine (quoted, see ../shared/facts/mast3r.md), not measured here.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from voting import processor

from lift3d.networks.mast3r.inference import PredictorConfig, Wanted
from lift3d.networks.mast3r.network import Mast3r
from lift3d.networks.mast3r.preprocess import Prepared
from lift3d.reconstruction.pairs import PairsConfig

ROOT = Path(__file__).resolve().parents[1]
HEIGHT, WIDTH = 384, 512
WANTED = {
    "everything": Wanted(),
    "points": Wanted(descriptors=()),
    "descriptors": Wanted(points=()),
    "no head": Wanted((), ()),
}


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median time, with the device's queue emptied."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return round(statistics.median(taken), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--graph", choices=["complete", "window", "similar"], default="complete")
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / "network.json"
    )
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    images = [
        Prepared(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8), np.eye(3))
        for _ in range(given.images)
    ]
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    for precision in given.precision:
        predictor = PredictorConfig(precision=precision).build(
            Mast3r().eval().requires_grad_(False)
        )
        row: dict[str, Any] = {
            "precision": precision,
            "device": str(predictor.device),
            "images": given.images,
        }
        features = None
        if given.images == 2:
            row["encode"] = seconds(lambda p=predictor: p.encode(images, [0, 1]), given.repeats)
            encodings = predictor.encode(images, [0, 1])
            for name, wanted in WANTED.items():
                row[f"both orders, {name}"] = seconds(
                    lambda p=predictor, e=encodings, w=wanted: list(
                        p.decode(e, [(0, 1), (1, 0)], w)
                    ),
                    given.repeats,
                )
            row["one symmetric pair"] = round(row["encode"] + row["both orders, everything"], 2)
        else:
            start = time.perf_counter()
            encodings = predictor.encode(images, range(len(images)))
            row["encode"] = round(time.perf_counter() - start, 2)
            config = PairsConfig(graph=given.graph)
            names = [str(index) for index in range(len(images))]
            if config.uses_features(len(images)):
                tokens = [encodings.store.get((i,))["tokens"] for i in range(len(images))]
                features = np.stack([each.mean(0) for each in tokens]).astype(np.float32)
            pairs = config.choose(names, features)
            row |= {"graph": given.graph, "pairs": len(pairs)}
            start = time.perf_counter()
            for _ in predictor.decode(encodings, [o for p in pairs for o in (p, p[::-1])]):
                pass  # storing results is not part of the network's time
            row["decode"] = round(time.perf_counter() - start, 2)
        row["peak_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)
        if torch.cuda.is_available():
            row["gpu_peak_mb"] = round(torch.cuda.max_memory_allocated() / 2**20)
            row["gpu"] = torch.cuda.get_device_name()
            torch.cuda.reset_peak_memory_stats()
        print(row, flush=True)
        rows.append(row)
        del predictor
    before = json.loads(given.out.read_text()) if given.out.exists() else {"runs": []}
    before["official_symmetric_pair_quoted_s"] = 20.0
    before["runs"].append(
        {
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "platform": platform.platform(),
            "torch": torch.__version__,
            "load_average_at_end": os.getloadavg(),
            "rows": rows,
        }
    )
    given.out.write_text(json.dumps(before, indent=1))


if __name__ == "__main__":
    main()
