"""Time the votes of 100 views at 640x480 for 1 M points, against plain NumPy.

Run `python benchmarks/voting.py`; the numbers go to benchmarks/results/voting.json.
Depth and label maps are in memory, so decoding is not counted. The ratio is that of processor time
on the same number of threads, which other programs change less than wall time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numba
import numpy as np

from lift3d.association.votes.ballot import vote_labels
from lift3d.geometry import project, unproject
from lift3d.geometry.visibility import DepthTolerance
from lift3d.scene import Camera, Points, Scene, View
from lift3d.scene.labelmaps import by_name

WIDTH, HEIGHT = 640, 480
K = np.array([[525.0, 0, 319.5], [0, 525.0, 239.5], [0, 0, 1]])
ROOM = np.array([6.0, 5.0, 2.5])


def room_points(count: int, rng: np.random.Generator) -> Points:
    """Points on the six sides of a room, in random order, as a mesh's vertices may be."""
    axis = rng.integers(0, 3, count)
    side = rng.integers(0, 2, count)
    xyz = rng.random((count, 3)) * ROOM
    xyz[np.arange(count), axis] = side * ROOM[axis]
    normal = np.zeros((count, 3), np.float32)
    normal[np.arange(count), axis] = 1 - 2 * side
    rgb = np.zeros((count, 3), np.uint8)
    return Points(xyz.astype(np.float32), rgb, normal, np.ones(count, np.float32))


def room_depth(camera: Camera) -> np.ndarray:
    """Depth of the room's sides, where each ray leaves the box."""
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    ray = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones(x.shape)], -1)
    direction = ray @ camera.pose[:3, :3].T
    position = camera.pose[:3, 3]
    parallel = direction == 0
    leaves = np.where(direction > 0, ROOM - position, -position) / np.where(parallel, 1, direction)
    leaves[parallel] = np.inf
    return leaves.min(-1).astype(np.float32)


def room_scene(views: int, rng: np.random.Generator) -> tuple[Scene, list[np.ndarray]]:
    """Cameras inside the room, and their label maps."""
    made, maps = [], []
    for i in range(views):
        angle = 2 * np.pi * i / views
        forward = np.array([np.cos(angle), np.sin(angle), -0.1])
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        pose = np.eye(4)
        pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
        pose[:3, 3] = ROOM * rng.uniform(0.3, 0.7, 3)
        camera = Camera(K, WIDTH, HEIGHT, pose)
        depth = room_depth(camera)
        made.append(
            View(str(i), camera, load_image=partial(np.zeros, 1), load_depth=partial(_same, depth))
        )
        maps.append(room_labels(camera, depth, rng))
    return Scene("room", tuple(made), True, "benchmark"), maps


def room_labels(camera: Camera, depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Label maps of 1.5 m blocks whose edges move from view to view, a tenth unlabelled."""
    xyz = unproject(camera, depth).astype(np.float64)
    cell = np.clip(np.floor((xyz + rng.uniform(0, 0.1, 3)) / 1.5), 0, 4).astype(np.int32)
    labels = 1 + cell[..., 0] + 5 * cell[..., 1] + 25 * cell[..., 2]
    labels[rng.random(labels.shape) < 0.1] = 0
    return labels


def _same(array: np.ndarray) -> np.ndarray:
    return array


def obvious(
    points: Points, scene: Scene, maps: list[np.ndarray], tolerance: DepthTolerance
) -> np.ndarray:
    """Project all points, test, look up labels, add to a dense table of points x labels."""
    labels = 1 + max(int(labels.max()) for labels in maps)
    votes = np.zeros((len(points), labels), np.float32)
    for view, label_map in zip(scene.views, maps, strict=True):
        depth, camera = view.depth(), view.camera
        assert depth is not None
        xy, z = project(camera, points.xyz)
        inside = (z > 1e-6) & (xy > -0.5).all(1) & (xy < [WIDTH - 0.5, HEIGHT - 0.5]).all(1)
        index = np.flatnonzero(inside)
        column, row = np.floor(xy[index] + 0.5).astype(np.int64).T
        measured = depth[row, column].astype(np.float64)
        near = np.abs(z[index] - measured) <= (
            np.float32(tolerance.fixed) + np.float32(tolerance.relative) * z[index]
        )
        near &= measured > 0
        index, row, column = index[near], row[near], column[near]
        ray = points.xyz[index] - camera.pose[:3, 3]
        cosine = np.abs((points.normal[index] * ray).sum(1)) / np.linalg.norm(ray, axis=1)
        votes[index, label_map[row, column]] += np.maximum(cosine, 0.05).astype(np.float32)
    votes[:, 0] = 0
    return votes.argmax(1).astype(np.int32)


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--views", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--numpy-repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/voting.json")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    points = room_points(options.points, rng)
    scene, maps = room_scene(options.views, rng)
    named = by_name(scene, maps)
    few = scene.with_views(scene.views[:2])
    compiling = seconds(lambda: vote_labels(points, few, named).result())

    ours: list[tuple[float, float]] = []
    theirs: list[tuple[float, float]] = []
    for run in range(options.repeats):
        clock = time.perf_counter(), time.process_time()
        ballot = vote_labels(points, scene, named)
        instance, _ = ballot.result()
        ours.append((time.perf_counter() - clock[0], time.process_time() - clock[1]))
        if run < options.numpy_repeats:  # alternately, so that both have the same load
            clock = time.perf_counter(), time.process_time()
            expected = obvious(points, scene, maps, DepthTolerance())
            theirs.append((time.perf_counter() - clock[0], time.process_time() - clock[1]))
    passed, used = (statistics.median(each) for each in zip(*ours, strict=True))
    numpy_passed, numpy_used = (statistics.median(each) for each in zip(*theirs, strict=True))
    assert ballot.overflowed == 0
    different = float((instance != expected).mean())
    assert different < 1e-5, f"{different:.2%} of the points get another label"
    result = {
        "what": f"{options.points} points x {options.views} views at {WIDTH}x{HEIGHT}: "
        "project, depth test, look up, vote, winner; maps in memory",
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "load_before": os.getloadavg()[0],
        },
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "numba": numba.__version__,
        },
        "threads": numba.get_num_threads(),
        "seconds": passed,
        "processor_seconds": used,
        "numpy_seconds": numpy_passed,
        "numpy_processor_seconds": numpy_used,
        "times_less_than_numpy": numpy_used / used,
        "share_of_points_that_differ": different,
        "first_call_with_compiling_or_cache": compiling,
        "share_of_points_seen": float((ballot.looked > 0).mean()),
        "runs": {"lift3d": ours, "numpy": theirs},
    }
    print(json.dumps(result, indent=2))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


def processor() -> str:
    """The processor's name, where the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
