"""Compare hand-written code with libraries for the same task; decisions: docs/dependencies.md.

OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/libraries.py [--rooms 4]

Connected components of a label map, K-Means of its masks, SSIM with its gradient; and average
linkage in
the association of synthetic rooms with damaged masks, where `linkage.PRIOR` makes the difference.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import higra
import numpy as np
import torch
from association import SEVERITIES, in_memory, scored
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from skimage.measure import label
from sklearn.cluster import KMeans

import lift3d.association.clusters
import lift3d.association.contacts
from lift3d.association import associate
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.export.distillation.losses import ssim
from lift3d.geometry.linkage import agglomerate
from lift3d.scene import LabelMap
from lift3d.scene.labelmaps import by_name
from lift3d.scene.overlap import connected_parts, paint
from lift3d.segmentation.simulated import SimulatedConfig
from lift3d.segmentation.tracking.representatives import SAMPLE, centres

HEIGHT, WIDTH, CENTRES = 480, 640, 10


def milliseconds(work: Callable[[], Any]) -> float:
    """Median of five calls, after one that compiles."""
    work()
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return round(1000 * statistics.median(taken), 2)


def squares() -> LabelMap:
    """100 masks with holes of one pixel."""
    labels = np.arange(HEIGHT)[:, None] // 48 * 10 + np.arange(WIDTH) // 64 + 1
    labels[::7, ::5] = 0
    return labels.astype(np.int32)


def parts() -> dict[str, Any]:
    """Time connected components of each label."""
    labels = squares()
    return {
        "equal": bool(np.array_equal(connected_parts(labels), label(labels, connectivity=2))),
        "ours_ms": milliseconds(lambda: connected_parts(labels)),
        "scikit_image_ms": milliseconds(lambda: label(labels, connectivity=2)),
    }


def kmeans() -> dict[str, Any]:
    """Time the centres of all masks."""
    labels = squares()
    ids = np.arange(1, 101, dtype=np.int32)
    pixels = [np.argwhere(labels == each)[:, ::-1] for each in ids]
    pixels = [each[:: max(len(each) // SAMPLE, 1)].astype(np.float32) for each in pixels]
    rounds = (cv2.TERM_CRITERIA_COUNT, 10, 0)

    def by_sklearn() -> None:
        for xy in pixels:
            KMeans(CENTRES, n_init=1, max_iter=10, tol=0, random_state=0).fit(xy)

    def by_opencv() -> None:
        for xy in pixels:
            cv2.kmeans(xy, CENTRES, np.zeros(0), rounds, 1, cv2.KMEANS_PP_CENTERS)

    return {
        "ours_ms": milliseconds(lambda: centres(labels, ids, np.full(100, CENTRES), 0)),
        "scikit_learn_ms": milliseconds(by_sklearn),
        "opencv_ms": milliseconds(by_opencv),
    }


def similarity() -> dict[str, Any]:
    """Time SSIM of two pictures, forward and backward."""
    torch.manual_seed(0)
    one = torch.rand(240, 320, 3, requires_grad=True)
    other = (one.detach() + 0.1 * torch.rand_like(one)).clamp(0, 1)
    found: dict[str, Any] = {"ours": round(ssim(one, other).item(), 6)}
    found["ours_ms"] = milliseconds(lambda: ssim(one, other).backward())
    return found


def by_higra(
    nodes: int, a: Any, b: Any, agree: Any, total: Any, threshold: float
) -> np.ndarray[Any, Any]:
    """As `agglomerate` without its prior."""
    kept = total > 0
    a, b, total = a[kept], b[kept], total[kept]
    # higra needs one tree: parts without a pair are joined at a dissimilarity above any threshold.
    pairs = sparse.coo_array((np.ones(len(a)), (a, b)), (nodes, nodes))
    _, first = np.unique(connected_components(pairs, directed=False)[1], return_index=True)
    graph = higra.UndirectedGraph(nodes)
    graph.add_edges(np.append(a, first[:-1]), np.append(b, first[1:]))
    apart = np.append(1 - agree[kept] / total, np.full(len(first) - 1, 9.0))
    weight = np.append(total, np.full(len(first) - 1, 1e-9))
    tree, altitude = higra.binary_partition_tree_average_linkage(graph, apart, weight)
    cluster = higra.labelisation_horizontal_cut_from_threshold(tree, altitude, 1 - threshold)
    _, first, of = np.unique(cluster, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first)).astype(np.int32)[of]


def linkage(rooms: int) -> dict[str, Any]:
    """AP, AP50 and AP25 of the association with either linkage, and the seconds of its calls."""
    found: dict[str, Any] = {}
    for seed in range(rooms):
        scene = in_memory(SyntheticConfig(seed=seed, width=320, height=240, views=60).read())
        surface = scene.load_surface()
        truth = np.where(surface.semantic > 3, surface.instance, 0).astype(np.int32)
        for severity in SEVERITIES:
            segmenter = SimulatedConfig(severity=severity).build()
            maps = [paint(segmenter.segment(view).stack) for view in scene.views]
            for name, kind in (("ours", agglomerate), ("higra", by_higra)):
                spent = [0.0]

                def timed(*given: Any, kind: Any = kind, spent: list[float] = spent) -> Any:
                    began = time.perf_counter()
                    cluster = kind(*given)
                    spent[0] += time.perf_counter() - began
                    return cluster

                for user in (lift3d.association.clusters, lift3d.association.contacts):
                    user.agglomerate = timed  # type: ignore[attr-defined]
                lifted = associate(surface.points, scene, by_name(scene, maps))
                scores = scored(truth, lifted.cloud.instance, lifted.confidence)
                row = [*scores, len(lifted.confidence), round(spent[0], 3)]
                found.setdefault(f"{severity} {name}", []).append(row)
                print(seed, severity, name, row, flush=True)
    return found


def main() -> None:
    """Print the results and write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rooms", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/libraries.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {"parts": parts(), "kmeans": kmeans(), "ssim": similarity()}
    print(json.dumps(found, indent=1))
    found["linkage"] = linkage(options.rooms)
    options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
