"""A tiny lifted run, and a scene with unusual cameras, for tests of exports."""

from functools import partial
from pathlib import Path

import numpy as np

from lift3d import segmentation
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.export.content import Content, Options
from lift3d.run.lift import lift
from lift3d.run.settings import LiftConfig
from lift3d.scene import Camera, LabelledPoints, Points, Scene, View
from lift3d.scene.labelmaps import write_label_map
from lift3d.segmentation.simulated import SimulatedConfig

SIZE = (48, 36)


def lifted_run(folder, views=5, width=64, height=48):
    """Lift a synthetic room with its true masks; returns the run folder."""
    scene = SyntheticConfig(views=views, width=width, height=height).read()
    for view in scene.views:
        write_label_map(folder / "masks", view.name, view.instances())
    masks = segmentation.BACKENDS["folder"](path=folder / "masks", ids="consistent")
    lift(LiftConfig(Path("synthetic"), folder / "run", voxel=0.08, segmentation=masks), scene)
    return folder / "run"


def joined_run(folder):
    """Lift a synthetic room whose masks are joined over the views: it has a tree of joins."""
    room, masks = SyntheticConfig(views=6, width=96, height=72), SimulatedConfig(split=0.6)
    config = LiftConfig(Path("synthetic:2"), folder, reader=room, voxel=0.05, segmentation=masks)
    return lift(config).folder


def pose(seed):
    """A random camera pose 3 units from the origin that looks at it, with a roll."""
    random = np.random.default_rng(seed)
    position = random.normal(size=3)
    position *= 3 / np.linalg.norm(position)
    z = -position / np.linalg.norm(position)
    x = np.cross(random.normal(size=3), z)
    x /= np.linalg.norm(x)
    world_from_camera = np.eye(4)
    world_from_camera[:3, :3] = np.stack([x, np.cross(z, x), z], 1)
    world_from_camera[:3, 3] = position
    return world_from_camera


def crooked(views=3, distortion=(), centred=False, objects=(3, 7), size=SIZE, **options):
    """Cameras with unusual intrinsics, different in every view, around a small cloud."""
    random = np.random.default_rng(0)
    width, height = size
    cameras = []
    for number in range(views):
        K = np.array([[41.3 + number, 0, 25.2], [0, 43.7, 15.9 - number], [0, 0, 1]])
        if centred:
            K[:2, 2] = (width - 1) / 2, (height - 1) / 2
        cameras.append(Camera(K, width, height, pose(number), distortion))
    images = [random.integers(0, 256, (height, width, 3), np.uint8) for _ in cameras]
    maps = [random.choice([0, *objects], (height, width)).astype(np.int32) for _ in cameras]
    views_ = tuple(
        View(f"img.{number:02d}", camera, partial(_same, images[number]))
        for number, camera in enumerate(cameras)
    )
    named = {view.name: labels for view, labels in zip(views_, maps, strict=True)}
    xyz = random.uniform(-0.5, 0.5, (200, 3)).astype(np.float32)
    normal = (xyz / np.linalg.norm(xyz, axis=1, keepdims=True)).astype(np.float32)
    rgb = random.integers(0, 256, (200, 3), np.uint8)
    instance = np.resize(np.array([0, *objects], np.int32), 200)
    return Content(
        name="crooked",
        cloud=LabelledPoints(
            Points(xyz, rgb, normal, np.ones(200, np.float32)), instance, np.ones(200, np.float32)
        ),
        confidence={each: 1 / (each + 1) for each in objects},
        views=Scene("crooked", views_, True, "test"),
        label_maps=named,
        options=Options(**options),
    )


def _same(image):
    return image
