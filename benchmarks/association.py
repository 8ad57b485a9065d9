"""Compare the association with other methods, on the same damaged masks of synthetic rooms.

python benchmarks/association.py [--seeds 3]

Each room is seen by 120 views of 640x480. The true masks are split, merged, roughened and dropped
(`segmentation:simulated`), ids unrelated between views; the points are the true surface. The other
methods are written by us from their papers (association_peers.py) and run with settings tuned on
such rooms, as the published settings are worse there. They are our variants, not the authors'
programs.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from association_peers import PEERS, TUNED

from lift3d.association import associate
from lift3d.association.evidence import observe
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.evaluation.metrics.scannet import class_agnostic
from lift3d.geometry.visibility import DepthTolerance
from lift3d.scene import Scene
from lift3d.scene.overlap import paint
from lift3d.segmentation.simulated import SimulatedConfig

SEVERITIES = ("low", "middle", "high")


def in_memory(scene: Scene) -> Scene:
    """The scene with its depth and true masks rendered once, so that rendering is not timed."""
    views = []
    for view in scene.views:
        depth, instances = view.depth(), view.instances()
        views.append(
            replace(
                view,
                load_depth=partial(np.asarray, depth),
                load_instances=partial(np.asarray, instances),
            )
        )
    return scene.with_views(views)


def scored(truth: np.ndarray, labels: np.ndarray, confidence: dict[int, float]) -> list[float]:
    """AP, AP50, AP25."""
    found = class_agnostic(truth, labels.astype(np.int32), confidence)
    return [round(float(each), 3) for each in (found.ap, found.ap50, found.ap25)]


def room(seed: int) -> dict[str, dict[str, list[float]]]:
    """AP, AP50, AP25 and seconds of every method at every severity in one room."""
    scene = in_memory(SyntheticConfig(seed=seed, width=640, height=480).read())
    surface = scene.load_surface()
    truth = np.where(surface.semantic > 3, surface.instance, 0).astype(np.int32)
    table = {}
    for severity in SEVERITIES:
        segmenter = SimulatedConfig(severity=severity).build()
        maps = {view.name: paint(segmenter.segment(view).stack) for view in scene.views}
        began = time.perf_counter()
        ours = associate(surface.points, scene, maps)
        seconds = time.perf_counter() - began
        row = {"lift3d": [*scored(truth, ours.cloud.instance, ours.confidence), round(seconds, 1)]}
        began = time.perf_counter()
        seen = observe(surface.points, scene, maps, DepthTolerance())
        reading = time.perf_counter() - began
        for name, peer in PEERS.items():
            settings = dict(TUNED[name])
            if name == "SAM3D":
                settings["normals"] = surface.points.normal
            began = time.perf_counter()
            labels, confidence = peer(surface.points.xyz, seen, **settings)
            seconds = reading + time.perf_counter() - began
            ranked = {int(i): float(confidence[i]) for i in np.unique(labels) if i > 0}
            row[name] = [*scored(truth, labels, ranked), round(seconds, 1)]
        table[severity] = row
        print(seed, severity, row, flush=True)
    return table


def main() -> None:
    """Print the means over the seeds and write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/association.json"))
    options = parser.parse_args()
    rooms = [room(seed) for seed in range(options.seeds)]
    mean = {
        severity: {
            name: np.mean([each[severity][name] for each in rooms], 0).round(3).tolist()
            for name in rooms[0][severity]
        }
        for severity in SEVERITIES
    }
    print(json.dumps(mean, indent=1))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "columns": ["AP", "AP50", "AP25", "seconds"],
        "machine": platform.platform(),
        "mean": mean,
        "rooms": rooms,
    }
    options.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
