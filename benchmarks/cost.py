"""Measure the wall time, processor time and memory of every stage of one lift.

python benchmarks/cost.py SCAN [--masks FOLDER] [--cloud PLY] [--repeat 3] [--make]

With `--masks` these are given as a folder, else pictures are segmented; with `--cloud` the points
are the vertices of that file, else depth is fused. `--make` makes SCAN first: a stand-in for a scan
of ScanNet as benchmarks hand it out, 207 views of 640x480 rendered from the colours of a fused
mesh, with `masks/` and `vertices.ply` in it.

Each lift runs in a process of its own, into a new folder; the median of the lifts is printed, in
seconds and milliseconds a view. Compiled kernels are in numba's cache from the second lift on. To
compare two versions, run them in turn, each with its own PYTHONPATH: on a shared machine processor
time is what to compare.
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
from dataclasses import replace  # noqa: E402
from pathlib import Path  # noqa: E402

from lift3d.scene.threads import arrange_threads  # noqa: E402

arrange_threads()

from lift3d.datasets import read_scene  # noqa: E402
from lift3d.run.lift import lift  # noqa: E402
from lift3d.run.settings import LiftConfig  # noqa: E402
from lift3d.segmentation.folder import FolderConfig  # noqa: E402

IMPORTED = time.perf_counter() - BEGAN, time.process_time()

import numpy as np  # noqa: E402
from long_scan import Watch, write_frame, write_intrinsics  # noqa: E402

VIEWS, VOXEL, EDGE = 207, 0.02, 0.035
"""Of the stand-in: views, and metres of the mesh's voxels and between the given vertices."""


def make(scan: Path) -> None:
    """Write the stand-in: N.jpg, N.png, N.txt, intrinsic.txt, masks/N.png, vertices.ply."""
    from lift3d.datasets.synthetic import SyntheticConfig
    from lift3d.datasets.synthetic.scanned.resurfaced import Resurfaced, fused_mesh, vertices
    from lift3d.export.ply import write_cloud
    from lift3d.scene import LabelledPoints
    from lift3d.scene.labelmaps import write_label_map
    from lift3d.scene.overlap import paint
    from lift3d.segmentation.simulated import SimulatedConfig

    room = SyntheticConfig(views=VIEWS, width=640, height=480).read()
    mesh = fused_mesh(room, VOXEL)
    surface, segmenter = Resurfaced(mesh), SimulatedConfig(severity="low").build()
    (scan / "masks").mkdir(parents=True)
    for index, view in enumerate(room.views):
        write_frame(scan, str(index), *surface.render(view.camera), view.camera)
        write_label_map(scan / "masks", str(index), paint(segmenter.segment(view).stack))
    write_intrinsics(scan / "intrinsic.txt", room.views[0].camera)
    points = vertices(mesh, EDGE)
    nothing = np.zeros(len(points), np.int32)
    write_cloud(scan / "vertices.ply", LabelledPoints(points, nothing, nothing.astype(np.float32)))
    print(f"{len(room)} views, {len(points)} vertices")


def one(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Lift in this process; what `Watch` records of each stage, of the imports and of all."""
    watch = Watch()
    with watch.stage("read"):
        scene = read_scene(options.scan)
    config = LiftConfig(options.scan, options.one, cloud=options.cloud)
    if options.masks is not None:
        config = replace(config, segmentation=FolderConfig(options.masks))
    views = len(lift(config, scene, watch).scene)
    whole = {
        "seconds": time.perf_counter() - BEGAN,
        "cpu_seconds": time.process_time(),
        "peak_mb": max(each["peak_mb"] for each in watch.stages.values()),
        "views": views,
    }
    imported = dict(zip(("seconds", "cpu_seconds"), IMPORTED, strict=True))
    return {"import": imported, **watch.stages, "all": whole}


def main() -> None:
    """Print a row for each stage."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scan", type=Path)
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--cloud", type=Path)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--make", action="store_true", help="make SCAN first")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options)))
        return
    if options.make:
        make(options.scan)
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
