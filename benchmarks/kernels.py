"""Time projection, voting and H against plain versions and the memory bandwidth, in one run.

Run `python benchmarks/kernels.py`; the numbers go to benchmarks/results/kernels.json.
All run alternately on one thread; the numbers are medians of processor seconds, so that other
programs change the ratios little. The bytes that a kernel must move are counted once per pass over
memory: input, output, tables read and written. The bandwidth is that of a triad a = b + s * c over
arrays far larger than the caches, with the same clock. Versions that would take hours are timed on
a part of the data, which the results state.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import open3d as o3d
from consistency import piece, processor, room_pixels, tree_h
from scipy.spatial import cKDTree
from voting import room_points, room_scene

from lift3d.association.votes.ballot import Ballot
from lift3d.association.votes.weight import vote_weight
from lift3d.evaluation.consistency import neighbour_counts
from lift3d.geometry import project, unproject
from lift3d.geometry.visibility import DepthTolerance, Sightings, front_points, sightings
from lift3d.scene import Points, View

TOLERANCE = DepthTolerance()
Ways = dict[str, Callable[[], Any]]


@numba.njit
def triad(a: np.ndarray, b: np.ndarray, c: np.ndarray, s: float) -> None:
    """The triad of STREAM: two arrays read, one written."""
    for i in range(len(a)):
        a[i] = b[i] + s * c[i]


def bandwidth(repeats: int, size: int = 1 << 25) -> float:
    """GB/s of the triad."""
    a, b, c = np.zeros(size), np.ones(size), np.ones(size)
    triad(a, b, c, 2.0)
    seconds = [clocked(lambda: triad(a, b, c, 2.0))[0] for _ in range(3 * repeats)]
    return 3 * 8 * size / statistics.median(seconds) / 1e9


def clocked(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds, and the result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def compare(ways: Ways, repeats: int, seldom: int = 2) -> tuple[dict[str, float], dict[str, Any]]:
    """Median processor seconds of each version, and results; all but the first run `seldom`
    times.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    results = {}
    for turn in range(repeats):
        for at, (name, work) in enumerate(ways.items()):
            if at == 0 or turn < seldom:
                passed, results[name] = clocked(work)
                seconds[name].append(passed)
    return {name: statistics.median(each) for name, each in seconds.items()}, results


def row(
    what: str, seconds: dict[str, float], moved: float, memory: float, **more: Any
) -> dict[str, Any]:
    """One row of the table; the first version is ours."""
    ours, *others = seconds
    rate = moved / seconds[ours] / 1e9
    return {
        "what": what,
        "processor_seconds": {name: round(each, 5) for name, each in seconds.items()},
        "times_less_than": {name: round(seconds[name] / seconds[ours], 1) for name in others},
        "bytes": int(moved),
        "gb_per_s": round(rate, 2),
        "bandwidth_over_that": round(memory / rate, 1),
    } | more


def numpy_sightings(points: Points, view: View) -> tuple[np.ndarray, ...]:
    """The plain version: project all points, then test each."""
    depth, camera = view.depth(), view.camera
    assert depth is not None
    xy, z = project(camera, points.xyz)
    with np.errstate(invalid="ignore"):
        inside = (z > 1e-6) & (xy > -0.5).all(1)
        inside &= (xy < [camera.width - 0.5, camera.height - 0.5]).all(1)
    index = np.flatnonzero(inside)
    column, row = np.floor(xy[index] + 0.5).astype(np.int64).T
    measured = depth[row, column].astype(np.float64)
    near = np.abs(z[index] - measured) <= TOLERANCE.fixed + TOLERANCE.relative * z[index]
    near &= measured > 0
    return index[near], row[near], column[near]


def projecting(points: Points, views: list[View], repeats: int, memory: float) -> dict[str, Any]:
    """Time the projection: the points that each view sees, with their pixels."""
    ways: Ways = {
        "lift3d": lambda: [sightings(points, view, TOLERANCE) for view in views],
        "numpy": lambda: [numpy_sightings(points, view) for view in views],
    }
    ways["lift3d"]()
    seconds, found = compare(ways, repeats)
    differ = sum(
        len(np.setxor1d(a.point, b[0]))
        for a, b in zip(found["lift3d"], found["numpy"], strict=True)
    )
    seen = sum(map(len, found["lift3d"]))
    pixels = views[0].camera.width * views[0].camera.height
    # Positions of all points; the sightings written, read and packed.
    moved = len(views) * (12 * len(points) + 4 * pixels) + seen * 3 * 16
    what = f"which of {len(points)} points {len(views)} views see"
    return row(what, seconds, moved, memory, seen=seen, sightings_that_differ=differ)


def in_front(points: Points, views: list[View], repeats: int, memory: float) -> dict[str, Any]:
    """Time the nearest point at each pixel, against Open3D's depth image of a cloud."""
    cloud = o3d.t.geometry.PointCloud(o3d.core.Tensor(points.xyz))

    def by_open3d() -> list[np.ndarray]:
        made = []
        for view in views:
            camera = view.camera
            image = cloud.project_to_depth_image(
                camera.width,
                camera.height,
                o3d.core.Tensor(camera.K),
                o3d.core.Tensor(camera.camera_from_world),
                depth_scale=1.0,
                depth_max=100.0,
            )
            made.append(np.asarray(image.to_legacy()))
        return made

    def by_numpy() -> list[np.ndarray]:
        made = []
        for view in views:
            xy, z = project(view.camera, points.xyz)
            width, height = view.camera.width, view.camera.height
            column, row = np.floor(np.nan_to_num(xy, nan=-1) + 0.5).T
            inside = (z > 0) & (column >= 0) & (row >= 0) & (column < width) & (row < height)
            depth = np.full(height * width, np.inf)
            at = (row[inside] * width + column[inside]).astype(np.int64)
            np.minimum.at(depth, at, z[inside])
            made.append(depth)
        return made

    ways: Ways = {
        "lift3d": lambda: [front_points(points.xyz, view.camera, 0.0)[1] for view in views],
        "numpy": by_numpy,
        "open3d": by_open3d,
    }
    ways["lift3d"]()
    seconds, found = compare(ways, repeats)
    apart = [
        float((np.abs(np.where(np.isinf(a), 0, a) - b.squeeze()) > 1e-3).mean())
        for a, b in zip(found["lift3d"], found["open3d"], strict=True)
    ]
    pixels = views[0].camera.width * views[0].camera.height
    moved = len(views) * (12 * len(points) + 2 * 8 * pixels)
    what = f"the frontmost of {len(points)} points at each pixel of {len(views)} views"
    return row(what, seconds, moved, memory, pixels_that_differ_from_open3d=max(apart))


def counting_votes(
    points: Points, views: list[View], maps: list[np.ndarray], repeats: int, memory: float
) -> dict[str, Any]:
    """Time the votes for visible points, with the sightings given."""
    seen: list[Sightings] = [sightings(points, view, TOLERANCE) for view in views]
    labels = [m[s.row, s.column] for m, s in zip(maps, seen, strict=True)]
    weights = [vote_weight(points, s, v.geometry_camera) for v, s in zip(views, seen, strict=True)]
    most = 1 + max(int(each.max()) for each in maps)

    def ours() -> np.ndarray:
        ballot = Ballot(len(points))
        for sight, label, weight in zip(seen, labels, weights, strict=True):
            ballot.add(sight.point, label, weight)
        return ballot.result()[0]

    def dense() -> np.ndarray:
        votes = np.zeros((len(points), most), np.float32)
        for sight, label, weight in zip(seen, labels, weights, strict=True):
            votes[sight.point, label] += weight
        votes[:, 0] = 0
        return votes.argmax(1)

    ours()
    seconds, found = compare({"lift3d": ours, "numpy": dense}, repeats)
    cast = sum(map(len, seen))
    # A vote: point, label, weight; the point's row of 8 labels and 8 weights is read and written.
    moved = cast * (12 + 32 + 32 + 32) + len(points) * (68 + 68 + 8)
    what = f"{cast} votes of {len(views)} views for {len(points)} points, winners"
    return row(what, seconds, moved, memory, same=float((found["lift3d"] == found["numpy"]).mean()))


def transferring(
    points: Points, views: list[View], maps: list[np.ndarray], repeats: int, memory: float
) -> dict[str, Any]:
    """Time the vote of one view, against copying labels from the point of the nearest pixel."""
    view, labels = views[0], maps[0]
    depth = view.depth()
    assert depth is not None
    surface = unproject(view.camera, depth).reshape(-1, 3)

    def ours() -> np.ndarray:
        ballot = Ballot(len(points))
        sight = sightings(points, view, TOLERANCE)
        weight = vote_weight(points, sight, view.geometry_camera)
        ballot.add(sight.point, labels[sight.row, sight.column], weight)
        return ballot.result()[0]

    def tree() -> np.ndarray:
        found, at = cKDTree(surface).query(
            points.xyz, distance_upper_bound=TOLERANCE.fixed, workers=-1
        )
        return np.append(labels.ravel(), 0)[np.where(np.isinf(found), labels.size, at)]

    def open3d() -> np.ndarray:
        search = o3d.core.nns.NearestNeighborSearch(o3d.core.Tensor(surface))
        search.hybrid_index(TOLERANCE.fixed)
        at, _, count = search.hybrid_search(o3d.core.Tensor(points.xyz), TOLERANCE.fixed, 1)
        at, count = at.numpy().ravel(), count.numpy().ravel()
        return np.append(labels.ravel(), 0)[np.where(count > 0, at, labels.size)]

    seconds, found = compare({"lift3d": ours, "ckdtree": tree, "open3d": open3d}, repeats)
    both = (found["lift3d"] > 0) & (found["ckdtree"] > 0)
    same = float((found["lift3d"] == found["ckdtree"])[both].mean())
    pixels = len(surface)
    moved = 12 * len(points) + 8 * pixels + np.count_nonzero(found["lift3d"]) * (60 + 108)
    what = f"labels of one view for {len(points)} points"
    return row(what, seconds, moved, memory, same_label_where_both_have_one=round(same, 4))


def consistency_h(pixels: int, repeats: int, memory: float) -> dict[str, Any]:
    """Time H: the neighbours within 2 cm of each pixel, all and those with its label."""
    epsilon, few = 0.02, 500
    xyz, label, view = room_pixels(131)
    part = piece(xyz, pixels)
    xyz, label, view = xyz[part], label[part], view[part]
    asked = np.linspace(0, len(xyz) - 1, few).astype(int)

    def brute() -> np.ndarray:
        wide = xyz.astype(np.float64)
        inside = (((wide - wide[i]) ** 2).sum(1) <= epsilon**2 for i in asked)
        return np.array([np.count_nonzero(label[each] == label[i]) / np.count_nonzero(each)
                         for each, i in zip(inside, asked, strict=True)])  # fmt: skip

    def open3d() -> np.ndarray:
        search = o3d.core.nns.NearestNeighborSearch(o3d.core.Tensor(xyz))
        search.fixed_radius_index(epsilon)
        h = np.empty(len(xyz))
        for first in range(0, len(xyz), 50_000):  # needs memory for all neighbours
            query = o3d.core.Tensor(xyz[first : first + 50_000])
            near, _, start = search.fixed_radius_search(query, epsilon, sort=False)
            near, start = near.numpy(), start.numpy()
            own = np.repeat(label[first : first + 50_000], np.diff(start))
            h[first : first + 50_000] = np.add.reduceat(label[near] == own, start[:-1])
            h[first : first + 50_000] /= np.diff(start)
        return h

    def flann() -> np.ndarray:
        cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(xyz.astype(np.float64)))
        tree = o3d.geometry.KDTreeFlann(cloud)
        found = []
        for i in asked:
            count, near, _ = tree.search_radius_vector_3d(cloud.points[i], epsilon)
            found.append(np.count_nonzero(label[np.asarray(near)] == label[i]) / count)
        return np.array(found)

    neighbour_counts(xyz[:1000], label[:1000], view[:1000], epsilon)
    ways: Ways = {
        "lift3d": lambda: neighbour_counts(xyz, label, view, epsilon),
        "ckdtree": lambda: tree_h(xyz, label, epsilon, 16),
        "open3d": open3d,
        "open3d_flann": flann,
        "numpy": brute,
    }
    seconds, found = compare(ways, repeats)
    for name in ("open3d_flann", "numpy"):  # of `few` pixels
        seconds[name] *= len(xyz) / few
    counts = found["lift3d"]
    h = counts.same / counts.all
    return row(
        f"H of {len(xyz)} pixels, epsilon {epsilon}",
        seconds,
        len(xyz) * (20 + 24),
        memory,
        scaled_from={"open3d_flann": few, "numpy": few},
        largest_difference={
            "ckdtree": float(np.abs(h - found["ckdtree"]).max()),
            "open3d": float(np.abs(h - found["open3d"]).max()),
            "numpy": float(np.abs(h[asked] - found["numpy"]).max()),
        },
        neighbours=float(counts.all.mean()),
        neighbours_found_per_s=float(f"{counts.all.sum(dtype=np.int64) / seconds['lift3d']:.3g}"),
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--points", type=int, default=1_000_000)
    options.add_argument("--views", type=int, default=20)
    options.add_argument("--pixels", type=int, default=1_000_000)
    options.add_argument("--repeats", type=int, default=7)
    options.add_argument("--out", type=Path, default=Path(__file__).parent / "results/kernels.json")
    chosen = options.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":  # read when the libraries start
        os.environ |= {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        os.execv(sys.executable, [sys.executable, *sys.argv])
    rng = np.random.default_rng(0)
    points = room_points(chosen.points, rng)
    scene, maps = room_scene(chosen.views, rng)
    views, repeats = list(scene.views), chosen.repeats
    before = bandwidth(repeats)
    kernels = [
        projecting(points, views, repeats, before),
        in_front(points, views, repeats, before),
        counting_votes(points, views, maps, repeats, before),
        transferring(points, views, maps, repeats, before),
        consistency_h(chosen.pixels, min(3, repeats), before),
    ]
    result = {
        "machine": {"cpu": processor(), "cores": os.cpu_count(), "load": os.getloadavg()[0]},
        "versions": {
            "numpy": np.__version__,
            "numba": numba.__version__,
            "open3d": o3d.__version__,
        },
        "threads": 1,
        "triad_gb_per_s": {"before": round(before, 1), "after": round(bandwidth(repeats), 1)},
        "kernels": kernels,
    }
    print(json.dumps(result, indent=1))
    chosen.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
