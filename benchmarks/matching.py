"""Time reciprocal matching of two 512x384 descriptor maps, against brute force.

Run `python benchmarks/matching.py`; the numbers go to benchmarks/results/matching.json. The maps
and their scoring are ../shared/facts/mast3r_matching/desc_pair.py, the official matcher's times
are quoted from its official.json (measured there, on two CPU threads), not measured here.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import runpy
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
from voting import processor

from lift3d.networks.reciprocal import DescribedPair, match_pair, reciprocal_matches

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("LIFT3D_SHARED", ROOT.parent / "shared"))
STRIDE, ROUNDS = 8, 10


def brute_nearest(queries: np.ndarray, targets: np.ndarray, tile: int = 16384) -> np.ndarray:
    """All products by BLAS, one tile of targets at a time; seeds are few, so memory is bounded."""
    best = np.full(len(queries), -np.inf, np.float32)
    found = np.zeros(len(queries), np.int64)
    rows = np.arange(len(queries))
    for start in range(0, len(targets), tile):
        products = queries @ targets[start : start + tile].T
        here = products.argmax(1)
        value = products[rows, here]
        better = value > best
        best[better], found[better] = value[better], here[better] + start
    return found


def brute_matches(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same seeds and steps, with every search by brute force."""
    height, width, channels = a.shape
    flat_a, flat_b = a.reshape(-1, channels), b.reshape(-1, channels)
    row, column = np.mgrid[STRIDE // 2 : height : STRIDE, STRIDE // 2 : width : STRIDE]
    here = (row * width + column).ravel()
    settled: dict[int, int] = {}
    for _ in range(ROUNDS):
        there = brute_nearest(flat_a[here], flat_b)
        back = brute_nearest(flat_b[there], flat_a)
        stays = back == here
        settled.update(zip(here[stays].tolist(), there[stays].tolist(), strict=True))
        here = np.unique(back[~stays])
        if not len(here):
            break
    in_a = np.array(sorted(settled))
    in_b = np.array([settled[pixel] for pixel in in_a.tolist()])
    return (
        np.stack([in_a % width, in_a // width], 1),
        np.stack([in_b % b.shape[1], in_b // b.shape[1]], 1),
    )


def runs(call: Callable[[], object], repeats: int) -> list[float]:
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return taken


def measured(seed: int, sigma: float, repeats: int, brute_repeats: int, folder: Path) -> dict:
    made = runpy.run_path(str(folder / "desc_pair.py"))
    a, b = made["make"](seed, sigma)
    official = [
        run
        for run in json.loads((folder / "official.json").read_text())
        if (run["seed"], run["sigma"]) == (seed, sigma)
    ]
    plain = min(run["sec_min"] for run in official if run["method"].startswith("dot_block"))
    merged = [run["sec_min"] for run in official if run["method"].startswith("extract")]

    one = np.ones(a.shape[:2], np.float32)
    # Four searches, as officially: two predictions, seeds in both images of each. The second
    # is the same up to a little noise; nothing found for the first is reused.
    second_a, second_b = made["make"](seed, sigma * 1.0001)
    predictions = [DescribedPair(a, b, one, one), DescribedPair(second_a, second_b, one, one)]
    first_call = runs(lambda: reciprocal_matches(a, b, STRIDE, ROUNDS), 1)[0]
    single = runs(lambda: reciprocal_matches(a, b, STRIDE, ROUNDS), repeats)
    whole = runs(lambda: match_pair(predictions, STRIDE, ROUNDS), repeats)
    ours = reciprocal_matches(a, b, STRIDE, ROUNDS)
    brute = runs(lambda: brute_matches(a, b), brute_repeats)
    theirs = brute_matches(a, b)
    both = match_pair([DescribedPair(a, b, one, one)], STRIDE, ROUNDS)
    same = {(*p, *q) for p, q in zip(ours[0].tolist(), ours[1].tolist(), strict=True)} ^ {
        (*p, *q) for p, q in zip(theirs[0].tolist(), theirs[1].tolist(), strict=True)
    }
    result = {
        "seed": seed,
        "sigma": sigma,
        "seconds": statistics.median(single),
        "pair_seconds": statistics.median(whole),
        "brute_seconds": statistics.median(brute),
        # The fastest runs, as other programs may slow the machine.
        "times_faster_than_brute": min(brute) / min(single),
        "official_seconds_quoted": plain,
        "times_faster_than_official_quoted": plain / statistics.median(single),
        "matches_that_differ_from_brute": len(same),
        "score": made["score"](*ours, seed),
        "both_directions_score": made["score"](both.xy_in_a, both.xy_in_b, seed),
        "first_call_with_compiling_or_cache": first_call,
        "runs": {"single": single, "pair": whole, "brute": brute},
    }
    if merged:
        result["official_pair_seconds_quoted"] = merged[0]
        result["pair_times_faster_than_official_quoted"] = merged[0] / statistics.median(whole)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--brute-repeats", type=int, default=5)
    parser.add_argument("--maps", type=Path, default=SHARED / "facts/mast3r_matching")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/matching.json")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    cases = [
        measured(seed, sigma, options.repeats, options.brute_repeats, options.maps)
        for seed, sigma in ((0, 0.03), (0, 0.1))
    ]
    result = {
        "what": "reciprocal matches of two 512x384 maps of 24 channels, seeds every 8 pixels; "
        "pair: two such predictions, seeds in both images, merged",
        "machine": {"processor": processor(), "cores": os.cpu_count(), "load_before": load},
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "numba": numba.__version__,
        },
        "threads": numba.get_num_threads(),
        "cases": cases,
    }
    print(json.dumps(result, indent=2))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
