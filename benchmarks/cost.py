"""Measure the wall time, processor time and memory of every stage of one lift.

python benchmarks/cost.py SCAN [--masks FOLDER] [--repeat 3]

With `--masks` these are given as a folder, else pictures are segmented. Each lift runs in a process
of its own, into a new folder; the median of the lifts is printed, in seconds and milliseconds a
view. Compiled kernels are in numba's cache from the second lift on. To compare two versions, run
them in turn, each with its own PYTHONPATH: on a shared machine processor time is what to compare.
"""

from __future__ import annotations

import time

BEGAN = time.perf_counter()

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402

from lift3d.scene.threads import arrange_threads  # noqa: E402

arrange_threads()

from long_scan import Watch  # noqa: E402

from lift3d.datasets import read_scene  # noqa: E402
from lift3d.run.lift import lift  # noqa: E402
from lift3d.run.settings import LiftConfig  # noqa: E402
from lift3d.segmentation.folder import FolderConfig  # noqa: E402


def one(scan: Path, masks: Path | None, out: Path) -> dict[str, dict[str, float]]:
    """Lift in this process; what `Watch` records of each stage, of the imports and of all."""
    imported = {"seconds": time.perf_counter() - BEGAN, "cpu_seconds": time.process_time()}
    watch = Watch()
    with watch.stage("read"):
        scene = read_scene(scan)
    config = LiftConfig(scan, out)
    if masks is not None:
        config = LiftConfig(scan, out, segmentation=FolderConfig(masks))
    views = len(lift(config, scene, watch).scene)
    whole = {
        "seconds": time.perf_counter() - BEGAN,
        "cpu_seconds": time.process_time(),
        "peak_mb": max(each["peak_mb"] for each in watch.stages.values()),
        "views": views,
    }
    return {"import": imported, **watch.stages, "all": whole}


def main() -> None:
    """Print a row for each stage."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scan", type=Path)
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.scan, options.masks, options.one)))
        return
    found = []
    for _ in range(options.repeat):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, *sys.argv, "--one", f"{folder}/run"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
    views = found[0]["all"]["views"]
    print(f"{options.scan.name}, {views} views, load average {os.getloadavg()[0]:.1f}")
    for name in found[0]:
        wall, processor = (
            statistics.median(each[name][what] for each in found)
            for what in ("seconds", "cpu_seconds")
        )
        memory = max(each[name].get("peak_mb", 0) for each in found)
        print(
            f"{name:<12} {wall:6.2f} s {processor:6.2f} processor s, a view "
            f"{1000 * wall / views:6.1f} and {1000 * processor / views:6.1f} ms, {memory:.0f} MB"
        )


if __name__ == "__main__":
    main()
