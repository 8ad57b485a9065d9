"""Clouds of synthetic rooms with true labels and with labels from lift3d."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from lift3d.association import associate
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.datasets.synthetic.world import CATEGORIES
from lift3d.run.settings import LiftConfig
from lift3d.scene import LabelledPoints, Scene
from lift3d.scene.labelmaps import by_name
from lift3d.segmentation.regions import RegionsConfig
from lift3d.segmentation.simulated import SimulatedConfig

MASKS: dict[str, Any] = {
    "none": SimulatedConfig(severity="none"),
    "middle": SimulatedConfig(severity="middle"),
    "regions": RegionsConfig(),
}
"""True masks with shuffled ids, damaged true masks, and masks from a method without a network."""
FIRST_ROOM = 200
"""Seed of the first room: benchmarks of lifting use low seeds, and the classifiers of
`lift3d.association.shape`, which label the regions, were trained on 100 to 129."""
NEAR = 0.05
"""Metres; a point of the cloud has the class of the nearest true point within this distance."""


@dataclass(frozen=True)
class Sizes:
    """Size of the experiment."""

    train: int = 12
    held_out: int = 6
    views: int = 40
    width: int = 320
    height: int = 240
    point: float = 0.04
    """Voxel side of the fused clouds, metres."""


def room_clouds(seed: int, sizes: Sizes, masks: Sequence[str]) -> dict[str, LabelledPoints]:
    """One room's cloud with each labelling, the true one first."""
    room = SyntheticConfig(views=sizes.views, width=sizes.width, height=sizes.height)
    scene = in_memory(room.read(Path(f"synthetic:{seed}")))
    config = LiftConfig(Path("synthetic"), Path(), voxel=sizes.point).resolved(scene)
    points = config.fuser().fuse(scene)
    assert scene.load_surface is not None
    surface = scene.load_surface()
    assert surface.semantic is not None
    distance, nearest = cKDTree(surface.points.xyz).query(points.xyz)
    known = distance < NEAR
    semantic = np.where(known, surface.semantic[nearest], 0).astype(np.int32)
    instance = np.where(known, surface.instance[nearest], 0).astype(np.int32)
    score = known.astype(np.float32)
    found = {"true": LabelledPoints(points, instance, score, semantic)}
    for name in masks:
        chosen = LiftConfig(Path("synthetic"), Path(), segmentation=MASKS[name]).resolved(scene)
        maps = list(chosen.scene_segmenter().label(scene))
        cloud = associate(
            points, scene, by_name(scene, maps), chosen.association, chosen.tolerance, chosen.seed
        ).cloud
        found[name] = replace(cloud, semantic=named(cloud.instance, semantic))
    return found


def named(instance: np.ndarray, semantic: np.ndarray) -> np.ndarray:
    """Give every object the true class of most of its points; 0 stays 0."""
    table = np.zeros((int(instance.max(initial=0)) + 1, len(CATEGORIES) + 1), np.int64)
    np.add.at(table, (instance, semantic), 1)
    table[:, 0] = 0  # points without a true class do not count
    return np.where(instance > 0, table.argmax(1)[instance], 0).astype(np.int32)


def in_memory(scene: Scene) -> Scene:
    """The same scene with its pictures rendered once."""
    views = [
        replace(
            view,
            load_image=partial(_same, view.image()),
            load_depth=partial(_same, view.depth()),
            load_instances=partial(_same, view.instances()),
        )
        for view in scene.views
    ]
    return scene.with_views(views)


def _same(array: np.ndarray) -> np.ndarray:
    return array
