"""Lift the APC shelf (15 RGB-D views, four objects) from masks whose ids differ, and by default.

python pipelines/apc_shelf.py SCENE --out OUT

SCENE is `scene-0000` of the APC vision toolbox (data/apc_shelf/README.md). Three runs are made:

* OUT/true: the true masks, ids shuffled in every view;
* OUT/predicted: the network's probability maps `masks/<view>.<object>.mask.png` (value / 65535),
  each pixel has the most probable object above that object's threshold; ids are shuffled too;
* OUT/regions: no masks, but the default, segmented pictures.

All are compared with labels voted from the true masks: for each true object the IoU with the
found object that has most of its points.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from lift3d.association.votes.ballot import vote_labels
from lift3d.datasets import read_scene
from lift3d.run.lift import lift
from lift3d.run.run import Run
from lift3d.run.settings import LiftConfig
from lift3d.scene import Scene
from lift3d.scene.labelmaps import read_label_map, true_label_maps, write_label_map
from lift3d.segmentation.folder import FolderConfig
from lift3d.segmentation.regions import RegionsConfig
from lift3d.segmentation.simulated import SimulatedConfig


def write_predictions(source: Path, scene: Scene, folder: Path, seed: int = 0) -> None:
    """Write the network's masks as label maps, with ids shuffled per view."""
    rng = np.random.default_rng(seed)
    thresholds = {
        path.name.split(".")[0]: float(path.read_text())
        for path in sorted((source / "masks").glob("*.thresh.txt"))
    }
    for view in scene.views:
        paths = [source / "masks" / f"{view.name}.{name}.mask.png" for name in thresholds]
        probability = np.stack([read_label_map(path) / 65535 for path in paths])
        limit = np.array(list(thresholds.values()))[:, None, None]
        margin = np.where(probability >= limit, probability, 0)
        ids = 1 + rng.permutation(len(paths))
        labels = np.where(margin.max(0) > 0, ids[margin.argmax(0)], 0)
        write_label_map(folder, view.name, labels.astype(np.int32))


def compare(scene: Scene, run: Run) -> dict[str, object]:
    """Compare the objects of a run with labels voted from the true masks on the same points."""
    cloud = run.cloud
    truth, _ = vote_labels(cloud.points, scene, true_label_maps(scene)).result()
    found = {}
    for true in np.unique(truth[truth > 0]):
        inside = truth == true
        match = int(np.bincount(cloud.instance[inside])[1:].argmax()) + 1
        same = cloud.instance == match
        found[int(true)] = {
            "id": match,
            "iou": float((inside & same).sum() / (inside | same).sum()),
        }
    return {"objects": len(run.objects), "found": found, **run.consistency["printed"]}


def main() -> None:
    """Make the runs and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scene", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    scene = read_scene(options.scene)
    write_predictions(options.scene, scene, options.out / "masks")
    for name, masks in {
        "true": SimulatedConfig(),
        "predicted": FolderConfig(options.out / "masks"),
        "regions": RegionsConfig(),
    }.items():
        run = lift(LiftConfig(options.scene, options.out / name, segmentation=masks))
        print(name, json.dumps(compare(scene, run), indent=1))


if __name__ == "__main__":
    main()
