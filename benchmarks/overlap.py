"""Measure the gain of decoding ahead: the same work with and without it, and the consumer's waits.

Run `python benchmarks/overlap.py`; the numbers go to benchmarks/results/overlap.json.
Views of a synthetic room are written as a ScanNet folder (JPEG 1296x968, depth PNG 640x480). Two
consumers: a segmenter with a fixed time per picture that leaves the processor free, as one on a
GPU would (it sleeps, as there was no GPU), and voting, which keeps the processors busy.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from long_scan import cycle, render

from lift3d.association.looks import looks
from lift3d.association.votes.ballot import Ballot
from lift3d.datasets import read_scene
from lift3d.reconstruction.fusion.voxel import VoxelConfig
from lift3d.scene import Points, Scene
from lift3d.scene.labelmaps import LabelMaps
from lift3d.scene.prefetch import pictures_ahead

Item = TypeVar("Item")


class Clock:
    """Seconds spent waiting for input, and in total."""

    def __init__(self) -> None:
        self.waited = 0.0
        self._start = time.perf_counter()

    def wait(self, load: Callable[[], Item]) -> Item:
        """Call `load`, record its time and return its result."""
        start = time.perf_counter()
        item = load()
        self.waited += time.perf_counter() - start
        return item

    def taken(self) -> tuple[float, float]:
        """Seconds in total, and those of waiting."""
        return time.perf_counter() - self._start, self.waited


def segmented(scene: Scene, ahead: bool, busy: float) -> tuple[float, float]:
    """Every picture keeps a device busy for this many seconds, and no processor."""
    with pictures_ahead(scene) if ahead else nullcontext(scene) as pictured:
        clock = Clock()
        for view in pictured.views:
            clock.wait(view.image)
            time.sleep(busy)
        return clock.taken()


def voted(scene: Scene, masks: Path, points: Points, ahead: bool) -> tuple[float, float]:
    """Read every view's depth and labels, find its visible points, count its votes."""
    maps = LabelMaps(masks, [view.name for view in scene.views])
    each = (next(looks(points, scene.with_views([view]), maps)) for view in scene.views)
    source = looks(points, scene, maps) if ahead else each
    ballot, clock = Ballot(len(points)), Clock()
    for _ in range(len(scene)):
        look = clock.wait(lambda: next(source))
        ballot.add(look.seen.point, look.label, look.weight)
    return clock.taken()


def turn_about(work: Callable[[bool], tuple[float, float]], repeats: int) -> dict[str, Any]:
    """Medians with and without, in alternate runs."""
    work(True)  # compile, and fill the disk's cache
    runs: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for _ in range(repeats):
        for ahead in (True, False):
            runs[ahead].append(work(ahead))
    median = {
        ahead: [statistics.median(each) for each in zip(*some, strict=True)]
        for ahead, some in runs.items()
    }
    return {
        "seconds": round(median[True][0], 3),
        "share_waited": round(median[True][1] / median[True][0], 3),
        "seconds_without": round(median[False][0], 3),
        "share_waited_without": round(median[False][1] / median[False][0], 3),
        "times_faster": round(median[False][0] / median[True][0], 2),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--views", type=int, default=120)
    options.add_argument("--busy", type=float, nargs="+", default=[0.01, 0.02, 0.05])
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--scratch", type=Path, help="folder of long_scan.py's rendered views")
    options.add_argument("--out", type=Path, default=Path(__file__).parent / "results/overlap.json")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.scratch) as held:
        base = (chosen.scratch or Path(held)) / "base_1296_640_low"
        if not base.is_dir():
            render(base, (1296, 968), (640, 480), "low")
        scan, masks = cycle(base, Path(held) / "cycled", chosen.views)
        scene = read_scene(scan)
        points = VoxelConfig().build().fuse(scene.with_views(scene.views[:120]))
        result = {
            "what": f"{chosen.views} views, JPEG 1296x968, depth and masks PNG",
            "machine": {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)},
            "decode_ms": round(1000 * decoding(view.image for view in scene.views), 1),
            "segmenter_that_leaves_the_processor_free": {
                f"{1000 * busy:g} ms": turn_about(
                    lambda ahead, busy=busy: segmented(scene, ahead, busy), chosen.repeats
                )
                for busy in chosen.busy
            },
            f"voting_for_{len(points)}_points": turn_about(
                lambda ahead: voted(scene, masks, points, ahead), chosen.repeats
            ),
        }
    print(json.dumps(result, indent=1))
    chosen.out.write_text(json.dumps(result, indent=1) + "\n")


def decoding(loads: Iterable[Callable[[], np.ndarray]]) -> float:
    """Median seconds to read one view."""

    def each() -> Iterator[float]:
        for load in loads:
            start = time.perf_counter()
            load()
            yield time.perf_counter() - start

    return statistics.median(each())


if __name__ == "__main__":
    main()
