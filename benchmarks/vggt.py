"""Measure time and memory of VGGT at full size with random weights, head by head.

Run `python benchmarks/vggt.py --pictures 2`, then 8 and 20 (each needs a process of its own, or the
memory of one counts for the next), on a GPU where there is one. Numbers go to
benchmarks/results/vggt.json with the load of the machine beside them, and the time of the processor
(of all threads together), which depends less on it. The time does not depend on the values of the
weights; accuracy cannot be measured without the published ones.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from voting import processor

from lift3d.networks.vggt.network import VGGT
from lift3d.networks.vggt.sizes import VggtConfig

ROOT = Path(__file__).resolve().parents[1]
POINTS = 512
"""Points that are tracked from the first picture."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", type=int, default=2)
    parser.add_argument("--height", type=int, default=392)
    parser.add_argument("--width", type=int, default=518)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--chunk", type=int, default=1, help="pictures at a time in the heads")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "vggt.json")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    before = os.getloadavg()
    torch.manual_seed(0)
    model = VGGT(VggtConfig()).eval().requires_grad_(False).to(device)
    model.compute_in(getattr(torch, given.precision))
    model.chunk = given.chunk
    weights = peak(device)
    images = torch.rand(1, given.pictures, 3, given.height, given.width, device=device)
    queries = torch.rand(1, POINTS, 2, device=device) * min(given.height, given.width)
    row: dict[str, Any] = {
        "pictures": given.pictures, "size": [given.width, given.height],
        "precision": given.precision, "device": str(device), "chunk": given.chunk,
    }  # fmt: skip

    def timed(name: str, call: Callable[[], Any]) -> Any:
        start, busy = time.perf_counter(), time.process_time()
        found = call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        row[f"{name} s"] = round(time.perf_counter() - start, 2)
        row[f"{name} s of processor"] = round(time.process_time() - busy, 2)
        print(name, row[f"{name} s"], "s", f"peak {peak(device)} MB", flush=True)
        return found

    with torch.inference_mode():
        tokens = timed("aggregate", lambda: model.aggregate(images))
        timed("camera", lambda: model.camera(tokens))
        timed("depth", lambda: model.depth(tokens))
        row["cameras and depth, peak MB"] = peak(device)
        features = timed("track features", lambda: model.track_features(tokens))
        timed(f"track {POINTS} points", lambda: model.track(features, queries))
    row |= {"weights MB": weights, "peak MB": peak(device)}
    row |= {
        "processor": processor() if device.type == "cpu" else torch.cuda.get_device_name(),
        "threads": given.threads, "platform": platform.platform(), "torch": torch.__version__,
        "load average before and after": [round(x, 1) for x in (*before[:2], *os.getloadavg()[:2])],
    }  # fmt: skip
    rows = json.loads(given.out.read_text()) if given.out.exists() else []
    given.out.write_text(json.dumps([*rows, row], indent=1) + "\n")


def peak(device: torch.device) -> int:
    """Most memory so far, in MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
