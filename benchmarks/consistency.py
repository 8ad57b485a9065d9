"""Time the exact computation of H against SciPy's cKDTree, on depth maps of a furnished room.

Run `python benchmarks/consistency.py`; the numbers go to benchmarks/results/consistency.json.
Ours counts all pixels; cKDTree gets the pixels of a part of the room (with the same density, so the
same number of neighbours per pixel), on which both must give the same h.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numba
import numpy as np
from scipy.spatial import cKDTree

from lift3d.evaluation.consistency import consistency, neighbour_counts

WIDTH, HEIGHT, FOCAL = 320, 240, 262.5
ROOM = np.array([5.0, 4.0, 2.6])


def room_pixels(views: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """xyz, label and view of every pixel: a walk around a room with boxes, noise as z squared.

    A label is the wall or box that was hit; in every view a tenth of the 20 x 20 blocks is
    unlabelled and a tenth has a wrong id.
    """
    rng = np.random.default_rng(seed)
    sizes = rng.uniform(0.3, [1.2, 1.0, 1.0], (12, 3))
    corners = np.append(rng.uniform(0, ROOM[:2] - sizes[:, :2]), np.zeros((12, 1)), axis=1)
    columns, rows = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    image = np.stack([(columns - 159.5) / FOCAL, (rows - 119.5) / FOCAL], -1)[..., None]
    xyz = np.empty((views, HEIGHT, WIDTH, 3), np.float32)
    label = np.empty((views, HEIGHT, WIDTH), np.int32)
    for index in range(views):
        turn = 2 * np.pi * index / views
        position = np.array([2.5 + np.cos(3 * turn), 2 + 0.8 * np.sin(3 * turn), 1.5])
        yaw, pitch = 5 * turn, -0.35 + 0.2 * np.sin(7 * turn)
        level = np.array([np.cos(yaw), np.sin(yaw), 0])
        forward = np.cos(pitch) * level + [0, 0, np.sin(pitch)]
        right = np.array([np.sin(yaw), -np.cos(yaw), 0])
        ray = image[..., 0, :] * right + image[..., 1, :] * np.cross(forward, right) + forward
        leaves = np.maximum(-position / ray, (ROOM - position) / ray)
        depth = leaves.min(-1)
        hit = 1 + leaves.argmin(-1) + 3 * np.take_along_axis(
            ray > 0, leaves.argmin(-1)[..., None], -1
        )[..., 0]  # fmt: skip
        for box, (corner, size) in enumerate(zip(corners, sizes, strict=True)):
            sides = (corner - position) / ray, (corner + size - position) / ray
            enters = np.minimum(*sides).max(-1)
            front = (enters < np.maximum(*sides).min(-1)) & (enters > 0.05) & (enters < depth)
            depth, hit = np.where(front, enters, depth), np.where(front, 7 + box, hit)
        depth = depth + rng.normal(size=depth.shape) * 0.0015 * depth**2
        xyz[index] = position + ray * depth[..., None]
        fault = np.kron(rng.random((HEIGHT // 20, WIDTH // 20)), np.ones((20, 20)))
        hit[fault < 0.2] = rng.integers(1, 19)
        hit[fault < 0.1] = 0
        label[index] = hit
    view = np.repeat(np.arange(views, dtype=np.int32), HEIGHT * WIDTH)
    return xyz.reshape(-1, 3), label.ravel(), view


def tree_h(xyz: np.ndarray, label: np.ndarray, epsilon: float, leaf: int) -> np.ndarray:
    """h by cKDTree: count neighbours in the tree of all pixels and in that of the same label."""

    def counts(points: np.ndarray) -> np.ndarray:
        tree = cKDTree(points, leafsize=leaf)
        return tree.query_ball_point(points, epsilon, return_length=True, workers=-1)

    same = np.empty(len(xyz), np.int64)
    for value in np.unique(label):
        same[label == value] = counts(xyz[label == value])
    return same / counts(xyz)


def piece(xyz: np.ndarray, pixels: int) -> np.ndarray:
    """This many pixels from a slice between two planes through the middle of the room."""
    along = np.argsort(xyz @ np.array([0.8, 0.6, 0.0], np.float32))
    first = max(0, (len(xyz) - pixels) // 2)
    return np.sort(along[first : first + pixels])


@dataclass
class Clock:
    """Wall and processor seconds of every run; other programs hardly change the latter."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def time(self, work: Callable[[], Any]) -> Any:
        """Run `work`, record its time and return its result."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        self.wall.append(round(time.perf_counter() - wall, 3))
        self.cpu.append(round(time.process_time() - cpu, 3))
        return result

    def summary(self) -> dict[str, Any]:
        """Medians, and the times of every run."""
        medians = {"median_s": statistics.median(self.wall)}
        return medians | {"median_cpu_s": statistics.median(self.cpu), "runs_s": self.wall}


def processor() -> str:
    """The processor's name, where the system gives it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--views", type=int, default=131, help="of 320 x 240; 131 are 10 M pixels")
    options.add_argument("--piece", type=int, default=1_000_000, help="pixels for cKDTree")
    options.add_argument("--epsilon", type=float, default=0.02)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--no-tree", action="store_true", help="only ours, for its memory")
    options.add_argument("--pixels", type=int, help="as many views as have that many pixels")
    options.add_argument("--into", help="add the result to --out under this name")
    options.add_argument("--out", default=str(Path(__file__).parent / "results/consistency.json"))
    chosen = options.parse_args()
    if chosen.pixels:
        chosen.views = -(-chosen.pixels // (WIDTH * HEIGHT))
    xyz, label, view = room_pixels(chosen.views)
    epsilon = chosen.epsilon
    consistency(xyz[:1000], label[:1000], view[:1000], epsilon)  # compile
    clock = Clock()
    for _ in range(chosen.runs):
        found = clock.time(lambda: consistency(xyz, label, view, epsilon))
    result = {
        "pixels": len(xyz),
        "views": chosen.views,
        "epsilon": epsilon,
        "result": str(found),
        **clock.summary(),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    if not chosen.no_tree:
        result["against_ckdtree"] = against_tree(xyz, label, view, epsilon, chosen)
    result["machine"] = {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "numba": numba.__version__,
    }
    if chosen.into:
        result = json.loads(Path(chosen.out).read_text()) | {chosen.into: result}
    Path(chosen.out).parent.mkdir(parents=True, exist_ok=True)
    Path(chosen.out).write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def against_tree(
    xyz: np.ndarray, label: np.ndarray, view: np.ndarray, epsilon: float, chosen: argparse.Namespace
) -> dict[str, object]:
    """Time both on the same pixels, alternately, so that a busy machine slows both."""
    part = piece(xyz, chosen.piece)
    xyz, label, view = xyz[part], label[part], view[part]
    ours, trees = Clock(), {16: Clock(), 64: Clock()}
    for _ in range(chosen.runs):
        found = ours.time(lambda: consistency(xyz, label, view, epsilon, return_pixels=True))
        for leaf, clock in trees.items():
            h = clock.time(lambda leaf=leaf: tree_h(xyz, label, epsilon, leaf))
            np.testing.assert_array_equal(found.h, h.astype(np.float32))
    best = min(trees, key=lambda leaf: statistics.median(trees[leaf].wall))
    tree = trees[best]
    return {
        "pixels": len(part),
        "mean_neighbours": float(neighbour_counts(xyz, label, view, epsilon).all.mean()),
        "same_h_for_every_pixel": True,
        "ours": ours.summary(),
        "ckdtree": {"leafsize": best} | tree.summary(),
        "times_faster": round(statistics.median(tree.wall) / statistics.median(ours.wall), 1),
        "times_less_cpu": round(statistics.median(tree.cpu) / statistics.median(ours.cpu), 1),
        "note": "cKDTree gives H alone; ours also chance, own-view counts and H per view",
    }


if __name__ == "__main__":
    main()
