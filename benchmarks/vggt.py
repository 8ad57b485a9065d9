"""Measure time and memory of VGGT at full size with random weights, head by head.

Run `python benchmarks/vggt.py --pictures 2`, then 8 and 20 (each needs a process of its own, or the
memory of one counts for the next), on a GPU where there is one. `--masks 4` instead carries that
many masks from one picture to another with VGGT-Segmentor, with each framing. Numbers go to
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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from voting import processor

from lift3d.networks.vggt.network import VGGT
from lift3d.networks.vggt.sizes import VggtConfig
from lift3d.networks.vggt_s.head import UnionHead
from lift3d.networks.vggt_s.network import Segmentor
from lift3d.scene import Camera, View
from lift3d.segmentation.transfer import Transfer, TransferConfig

ROOT = Path(__file__).resolve().parents[1]
POINTS = 512
"""Points that are tracked from the first picture."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", type=int, default=2)
    parser.add_argument("--masks", type=int, default=0, help="carry masks: how many")
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
    row: dict[str, Any] = {
        "pictures": 2 if given.masks else given.pictures, "size": [given.width, given.height],
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

    if given.masks:
        row["masks"] = given.masks
        carry(model, given, device, timed)
    else:
        estimate(model, given, device, timed, row)
    row |= {"weights MB": weights, "peak MB": peak(device)}
    row |= {
        "processor": processor() if device.type == "cpu" else torch.cuda.get_device_name(),
        "threads": given.threads, "platform": platform.platform(), "torch": torch.__version__,
        "load average before and after": [round(x, 1) for x in (*before[:2], *os.getloadavg()[:2])],
    }  # fmt: skip
    rows = json.loads(given.out.read_text()) if given.out.exists() else []
    given.out.write_text(json.dumps([*rows, row], indent=1) + "\n")


def estimate(
    model: VGGT,
    given: argparse.Namespace,
    device: torch.device,
    timed: Callable[[str, Callable[[], Any]], Any],
    row: dict[str, Any],
) -> None:
    """Cameras, depth and tracks of random pictures."""
    images = torch.rand(1, given.pictures, 3, given.height, given.width, device=device)
    queries = torch.rand(1, POINTS, 2, device=device) * min(given.height, given.width)
    with torch.inference_mode():
        tokens = timed("aggregate", lambda: model.aggregate(images))
        timed("camera", lambda: model.camera(tokens))
        timed("depth", lambda: model.depth(tokens))
        row["cameras and depth, peak MB"] = peak(device)
        features = timed("track features", lambda: model.track_features(tokens))
        timed(f"track {POINTS} points", lambda: model.track(features, queries))


def carry(
    model: VGGT,
    given: argparse.Namespace,
    device: torch.device,
    timed: Callable[[str, Callable[[], Any]], Any],
) -> None:
    """Boxes of one random picture carried to another: there alone, and there and back."""
    network = Segmentor(model, UnionHead().eval().requires_grad_(False).to(device))
    rng = np.random.default_rng(0)
    camera = Camera(np.array([[500.0, 0, 319.5], [0, 500, 239.5], [0, 0, 1]]), 640, 480)
    pictures = [rng.integers(0, 255, (480, 640, 3), dtype=np.uint8) for _ in range(2)]
    a, b = (
        View(name=name, camera=camera, load_image=partial(np.asarray, picture))
        for name, picture in zip("ab", pictures, strict=True)
    )
    masks = np.zeros((given.masks, 480, 640), bool)
    for number, mask in enumerate(masks):
        mask[100 : 200 + 10 * number, 50 + 60 * number : 150 + 60 * number] = True
    for framing in ("object", "whole"):
        for existence in (0.0, 0.5):
            config = TransferConfig(framing=framing, existence=existence)
            transfer = Transfer(config, network, device)
            way = "there and back" if existence else "there"
            timed(f"{framing}, {way}", lambda transfer=transfer: transfer.carry(a, b, masks))


def peak(device: torch.device) -> int:
    """Most memory so far, in MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
