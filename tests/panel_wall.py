"""A wall of coloured panels, seen by cameras that slide along it."""

from functools import partial

import numpy as np

from lift3d.scene import Camera, Points, Scene, View

WIDTH, HEIGHT, FOCAL = 64, 48, 50.0
DISTANCE = 2.0
POSITIONS = np.linspace(-0.8, 1.8, 12)


def picture(array):
    return array


def view(index, x, depth=None):
    """A camera at (x, 0, 0) that looks along z at the wall z = 2."""
    K = np.array([[FOCAL, 0, (WIDTH - 1) / 2], [0, FOCAL, (HEIGHT - 1) / 2], [0, 0, 1]])
    pose = np.eye(4)
    pose[0, 3] = x
    depth = np.full((HEIGHT, WIDTH), DISTANCE, np.float32) if depth is None else depth
    grey = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    return View(
        f"{index:03d}",
        Camera(K, WIDTH, HEIGHT, pose),
        partial(picture, grey),
        partial(picture, depth),
    )


def wall_x(camera_x):
    """x on the wall of each column."""
    return camera_x + (np.arange(WIDTH) - (WIDTH - 1) / 2) / FOCAL * DISTANCE


def panels(x):
    """Panel 1 left of 0, panel 2 up to 1, panel 3 beyond; panel edges are at 0 and 1 m."""
    return np.digitize(x, [0.0, 1.0]) + 1


def wall(low=-1.5, high=2.5, step=0.04):
    x, y = np.meshgrid(np.arange(low, high, step), np.arange(-0.8, 0.8, step))
    xyz = np.stack([x.ravel(), y.ravel(), np.full(x.size, DISTANCE)], 1).astype(np.float32)
    rgb = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]], np.uint8)[panels(xyz[:, 0]) - 1]
    normal = np.tile(np.array([0, 0, -1], np.float32), (len(xyz), 1))
    return Points(xyz, rgb, normal, np.ones(len(xyz), np.float32))


def scan(positions=POSITIONS):
    views = tuple(view(i, float(x)) for i, x in enumerate(positions))
    maps = [np.broadcast_to(panels(wall_x(x)), (HEIGHT, WIDTH)).astype(np.int32) for x in positions]
    return Scene("wall", views, True, "test"), maps


def shuffled(maps, seed=0):
    rng = np.random.default_rng(seed)
    return [np.concatenate([[0], 1 + rng.permutation(3)])[m].astype(np.int32) for m in maps]


def found_equals_true(points, instance):
    """Whether labels and panels are the same partition, up to the names."""
    pairs = np.unique(np.stack([panels(points.xyz[:, 0]), instance]), axis=1)
    return pairs.shape[1] == 3 and 0 not in instance
