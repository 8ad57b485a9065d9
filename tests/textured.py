"""A textured box in front of a textured wall, ray-cast by formula, for stereo."""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np

from lift3d.scene import Camera, Scene, View

WALL_Z = 3.0
BOX_LOW, BOX_HIGH = np.array([-0.5, -0.4, 2.0]), np.array([0.3, 0.4, 2.5])
K = np.array([[150.0, 0, 79.5], [0, 150.0, 59.5], [0, 0, 1]])
SIZE = (160, 120)
FINE = 2
"""Rays per pixel along each axis."""


def texture(seed=0):
    """Smooth noise, repeated every 256 cells."""
    noise = np.random.default_rng(seed).uniform(0, 255, (256, 256, 3)).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), 0.8, borderType=cv2.BORDER_REFLECT)


def render(pose, plain=False, own=K, size=SIZE, offset=(0.0, 0.0, 0.0)):
    """Image and depth.

    `plain`: the right half of the wall is of one colour; `offset` moves the box.
    """
    wide = np.diag([FINE, FINE, 1.0]) @ own
    wide[:2, 2] += (FINE - 1) / 2
    x, y = np.meshgrid(np.arange(size[0] * FINE), np.arange(size[1] * FINE))
    local = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(wide).T
    ray = local @ pose[:3, :3].T
    origin = pose[:3, 3]
    wall = (WALL_Z - origin[2]) / ray[..., 2]
    with np.errstate(divide="ignore"):
        low, high = (BOX_LOW + offset - origin) / ray, (BOX_HIGH + offset - origin) / ray
    enter, leave = np.minimum(low, high).max(-1), np.maximum(low, high).min(-1)
    box = (enter < leave) & (enter > 0)
    depth = np.where(box, enter, wall)
    place = origin + ray * depth[..., None] - np.where(box[..., None], offset, 0)
    u = (place[..., 0] + place[..., 2]) / 0.03
    v = (place[..., 1] + 0.5 * place[..., 2]) / 0.03
    cells = texture()
    image = cv2.remap(
        cells, (u % 255).astype(np.float32), (v % 255).astype(np.float32), cv2.INTER_LINEAR
    )
    if plain:
        image[~box & (place[..., 0] > 0.4)] = 128
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    middle = depth.reshape(size[1], FINE, size[0], FINE).min((1, 3))
    return np.clip(image, 0, 255).astype(np.uint8), middle.astype(np.float32)


def poses(count=6, step=0.12):
    """Cameras side by side in two rows, which look at the box."""
    found = []
    for i in range(count):
        pose = np.eye(4)
        pose[:3, 3] = [step * (i // 2 - (count - 2) / 4), 0.1 * (i % 2), 0.02 * i]
        angle = 0.02 * (i // 2 - 1)
        pose[:3, :3] = cv2.Rodrigues(np.array([0.01 * (i % 2), -angle, 0.005 * i]))[0]
        found.append(pose)
    return found


def textured(at=None, given=None, own=K, **options):
    """The scene, with `given` poses (by default the true ones, `at`) and no depth; true depths."""
    at = poses() if at is None else at
    rendered = [render(pose, **options) for pose in at]
    return photos([image for image, _ in rendered], at if given is None else given, own), [
        depth for _, depth in rendered
    ]


def photos(images, given, own=K):
    """A scene of these pictures with these poses."""
    views = [
        View(f"{i:02d}", Camera(own, *SIZE, pose), partial(np.array, image))
        for i, (image, pose) in enumerate(zip(images, given, strict=True))
    ]
    return Scene("textured", tuple(views), True, "test: textured box")
