"""Points of estimated depth are moved onto planes fitted to their neighbours."""

from functools import partial

import numpy as np
import pytest

from lift3d.reconstruction.fusion.smoothing import smoothed
from lift3d.reconstruction.fusion.voxel import VoxelConfig
from lift3d.scene import Camera, Points, Scene, View
from lift3d.scene.errors import InputError


def cloud(xyz: np.ndarray, normal: np.ndarray) -> Points:
    count = len(xyz)
    return Points(
        xyz.astype(np.float32),
        np.zeros((count, 3), np.uint8),
        normal.astype(np.float32),
        np.ones(count, np.float32),
    )


def wall(noise: float, seed: int) -> Points:
    """A wall z = 0 of 1 m with points 2 cm apart and noise along its normal."""
    rng = np.random.default_rng(seed)
    x, y = (each.ravel() for each in np.mgrid[0:1:0.02, 0:1:0.02])
    return cloud(np.c_[x, y, rng.normal(0, noise, len(x))], np.tile([0.0, 0, 1], (len(x), 1)))


def test_noise_across_a_wall_goes_and_the_wall_stays():
    before = wall(0.01, 0)
    after = smoothed(before, 0.08)
    inner = np.all((before.xyz[:, :2] > 0.1) & (before.xyz[:, :2] < 0.9), axis=1)
    assert after.xyz[inner, 2].std() < 0.4 * before.xyz[inner, 2].std()
    assert after.normal[inner, 2].min() > 0.98
    assert np.abs(after.xyz[:, :2] - before.xyz[:, :2]).max() < 0.02
    assert np.array_equal(after.rgb, before.rgb)


def test_the_two_sides_of_a_board_stay_apart():
    front, back = wall(0.002, 1), wall(0.002, 2)
    both = cloud(
        np.r_[front.xyz, back.xyz - [0, 0, np.float32(0.03)]], np.r_[front.normal, -back.normal]
    )
    after = smoothed(both, 0.08)
    half = len(front)
    assert np.median(after.xyz[:half, 2] - after.xyz[half:, 2]) == pytest.approx(0.03, abs=0.002)
    assert after.normal[:half, 2].min() > 0.9
    assert after.normal[half:, 2].max() < -0.9


def test_lonely_points_stay():
    few = wall(0.01, 0).take(np.arange(5))
    assert np.array_equal(smoothed(few, 0.08).xyz, few.xyz)


WIDTH, HEIGHT = 64, 48
CAMERA = Camera(np.array([[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]]), WIDTH, HEIGHT, np.eye(4))


def noisy_view(estimated: bool) -> View:
    rng = np.random.default_rng(0)
    depth = (2 + rng.normal(0, 0.02, (HEIGHT, WIDTH))).astype(np.float32)
    image = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)
    return View("a", CAMERA, partial(image.copy), partial(depth.copy), estimated=estimated)


@pytest.mark.parametrize("estimated", [False, True])
def test_only_estimated_depth_is_smoothed_by_default(estimated: bool):
    scene = Scene("test", (noisy_view(estimated),), True, "test")
    fusion = VoxelConfig(voxel=0.05, depth_edge=0.0).build()
    points = fusion.fuse(scene)
    raw = VoxelConfig(voxel=0.05, depth_edge=0.0, smoothing=0.0).build().fuse(scene)
    assert np.array_equal(points.xyz, raw.xyz) != estimated
    assert any("smoothed within 4 voxels" in note for note in fusion.notes) == estimated
    if estimated:
        assert points.xyz[:, 2].std() < 0.7 * raw.xyz[:, 2].std()


def test_the_voxel_of_estimated_depth_is_not_rounded_down():
    notes = []
    for estimated in (False, True):
        far = noisy_view(estimated)
        views = tuple(
            View(n, CAMERA, far.load_image, far.load_depth, estimated=estimated) for n in "ab"
        )
        fusion = VoxelConfig(min_views=1).build()
        fusion.fuse(Scene("test", views, True, "test"))
        notes.append(fusion.notes[0].split(",")[0])
    # The wall is 2.6 m across: extent / 200, rounded down to 0.01 for a sensor.
    assert notes == ["voxel 0.01 m", "voxel 0.013 m"]


def test_a_bad_smoothing_is_refused():
    with pytest.raises(InputError, match="smoothing is -1"):
        VoxelConfig(smoothing=-1.0).build()
