"""Time the scoring of a scene of 200 k vertices with 200 predictions, and other evaluation steps.

Run `python benchmarks/evaluation.py`; the numbers go to benchmarks/results/evaluation.json.
The plain way counts every prediction against every true instance of its class, mask by mask, as
the benchmark's script does. The tests show that our AP equals the script's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lift3d.evaluation.consistency.features import feature_consistency
from lift3d.evaluation.metrics.classes import SCANNET, SCANNET200
from lift3d.evaluation.metrics.panoptic import SharedPixels
from lift3d.evaluation.metrics.scannet import (
    OVERLAPS,
    Prediction,
    average_precision,
    class_agnostic,
)
from lift3d.evaluation.metrics.semantic import semantic_score
from lift3d.evaluation.metrics.submission import read_submission, write_submission


def scene(
    vertices: int, objects: int, predicted: int, classes: tuple[int, ...], rng: np.random.Generator
) -> tuple[np.ndarray, list[Prediction]]:
    """Objects are runs of vertices with random classes; predictions have 0.1 to 1 of an object."""
    edge = np.sort(rng.choice(vertices, objects - 1, replace=False))
    run = np.searchsorted(edge, np.arange(vertices), side="right")
    label = rng.choice(classes, objects)
    truth = label[run] * 1000 + run % 999 + 1
    truth[rng.random(vertices) < 0.2] = 0
    listed = []
    for number in range(predicted):
        own = number % objects
        mask = np.roll(run == own, int(rng.integers(-200, 200)))
        listed.append(Prediction(mask, int(label[own]), float(rng.random())))
    return truth, listed


def plain(truth: np.ndarray, listed: list[Prediction], classes: tuple[int, ...]) -> int:
    """Only the counts: each prediction against each instance of its class, mask by mask."""
    shared = 0
    for one in listed:
        for each in np.unique(truth[np.isin(truth // 1000, [one.label])]):
            shared += int(np.count_nonzero((truth == each) & one.mask))
    assert set(truth[truth >= 1000] // 1000) <= set(classes)
    return shared


def seconds(call: Callable[[], Any], repeats: int = 3) -> tuple[float, Any]:
    """Median time of a few calls after a warm-up call, and the result."""
    found = call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        found = call()
        times.append(time.perf_counter() - start)
    return statistics.median(times), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vertices", type=int, default=200_000)
    parser.add_argument("--predictions", type=int, default=200)
    parser.add_argument("--pixels", type=int, default=200_000)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results/evaluation.json"
    )
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for name, classes, told in (
        ("one_class", (3,), "one class"),
        ("scannet", SCANNET.things, SCANNET.semantic),
        ("scannet200", SCANNET200.things, SCANNET200.semantic),
    ):
        truth, listed = scene(options.vertices, 150, options.predictions, classes, rng)
        took, ap = seconds(lambda t=truth, p=listed, c=classes: average_precision([(t, p)], c, ""))
        counting, _ = seconds(lambda t=truth, p=listed, c=classes: plain(t, p, c), 1)
        found[name] = {
            "protocol": told,
            "seconds": took,
            "plain_counting_seconds": counting,
            "times_faster": counting / took,
            "ap": ap.ap,
        }
    instance = truth % 1000
    guess = np.roll(instance, 50)
    confidence = {int(each): 0.5 for each in np.unique(guess) if each > 0}
    took, _ = seconds(lambda: class_agnostic(instance, guess, confidence))
    found["class_agnostic_of_a_labelled_cloud"] = {"seconds": took}

    def panoptic() -> float:
        shared = SharedPixels()
        shared.add(instance, guess)
        return shared.quality("").pq

    found["pq_of_points"] = {"seconds": seconds(panoptic)[0]}
    label = truth // 1000
    took, _ = seconds(lambda: semantic_score([(label, np.roll(label, 9))], SCANNET200.classes, ""))
    found["semantic_iou_200_classes"] = {"seconds": took}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for form in ("scannet", "scannetpp"):
            written, _ = seconds(lambda f=form: write_submission(place, "s", listed, f), 1)
            read, _ = seconds(lambda: read_submission(place, "s", len(listed[0].mask)), 1)
            size = sum(path.stat().st_size for path in (place / "predicted_masks").iterdir())
            found[f"submission_{form}"] = {
                "write_seconds": written,
                "read_seconds": read,
                "megabytes": size / 1e6,
            }
    # A wall seen by ten views: neighbours within a centimetre as H has them.
    views = 10
    side = 0.002 * np.sqrt(options.pixels / views)
    xyz = (rng.random((options.pixels, 3)) * [side, side, 0.002]).astype(np.float32)
    feature = rng.normal(size=(options.pixels, 384)).astype(np.float32)
    view = rng.integers(0, views, options.pixels).astype(np.int32)
    took, _ = seconds(lambda: feature_consistency(xyz, feature, view, 0.01), 1)
    near = options.pixels * np.pi * 0.01**2 / side**2
    found["H_of_features"] = {
        "what": f"{options.pixels} pixels, 384 channels, about {near:.0f} neighbours each",
        "seconds": took,
        "gigaflops": 2 * options.pixels * near * 384 / took / 1e9,
    }
    result = {
        "what": f"{options.vertices} vertices, {options.predictions} predictions, "
        f"{len(OVERLAPS)} overlaps",
        "machine": {
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)),
            "load_before": os.getloadavg()[0],
        },
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        **found,
    }
    print(json.dumps(result, indent=2))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
