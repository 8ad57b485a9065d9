"""The camera model: numba kernels, NumPy and OpenCV give the same results."""

import os
import subprocess
import sys
from dataclasses import replace

import cv2
import numba
import numpy as np
import pytest

from lift3d.geometry import project
from lift3d.geometry.lens import (
    cell,
    distort,
    inside,
    nearest,
    pinhole,
    pixel,
    pixels,
    rays,
    rays_at,
    source_pixels,
    within,
)
from lift3d.scene import Camera, invert
from lift3d.scene.errors import InputError

LENSES = [(), (0.1, -0.05, 0.01, 0.002, 0.03), (0.0, 0.0, 0.0, 0.004), (-0.2,)]
K = np.array([[20.0, 0.3, 7.5], [0, 21.0, 5.5], [0, 0, 1]])
POSE = np.array(
    [[0.0, 0.0, 1.0, 0.3], [1.0, 0.0, 0.0, -0.2], [0.0, 1.0, 0.0, 0.5], [0.0, 0.0, 0.0, 1.0]]
)


def camera(lens=()):
    return Camera(K, 16, 12, POSE, lens)


def cloud(count=500):
    """Around the camera, before and behind it."""
    return np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32) * 2


@numba.njit
def one_by_one(lens, xyz):
    out = np.empty((3, len(xyz)))
    for i in range(len(xyz)):
        out[0, i], out[1, i], out[2, i] = pixel(lens, xyz[i, 0], xyz[i, 1], xyz[i, 2])
    return out


@numba.njit
def asked(xy, z, width, height):
    seen = np.empty(len(xy), np.bool_)
    at = np.empty((2, len(xy)), np.int64)
    for i in range(len(xy)):
        seen[i] = within(xy[i, 0], xy[i, 1], z, width, height)
        at[0, i], at[1, i] = cell(xy[i, 0], xy[i, 1])
    return seen, at


@pytest.mark.parametrize("lens", LENSES)
def test_kernels_project_as_numpy_does(lens):
    xyz = cloud()
    xy, z = project(camera(lens), xyz)
    ahead = z > 1e-6
    assert 0 < ahead.sum() < len(xyz)
    block = np.empty((3, len(xyz)))
    assert pixels(pinhole(camera(lens)), xyz, block)
    for found in (one_by_one(pinhole(camera(lens)), xyz), block):
        np.testing.assert_array_equal(found[2] > 1e-6, ahead)
        np.testing.assert_allclose(found[:2, ahead].T, xy[ahead], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(found[2, ahead], z[ahead], rtol=1e-9)


@pytest.mark.parametrize("lens", LENSES[1:])
def test_the_lens_is_opencvs(lens):
    flat = np.random.default_rng(1).uniform(-0.4, 0.4, (50, 2))
    held = np.pad(np.array(lens), (0, 5 - len(lens)))
    expected, _ = cv2.projectPoints(
        np.c_[flat, np.ones(50)], np.zeros(3), np.zeros(3), np.eye(3), held
    )
    np.testing.assert_allclose(distort(lens, flat), expected[:, 0], atol=1e-12)


@pytest.mark.parametrize("lens", LENSES)
def test_a_ray_projects_onto_its_pixel(lens):
    own = camera(lens).at(np.eye(4))
    direction = rays(own)
    np.testing.assert_array_equal(direction[..., 2], 1)
    xy, _ = project(own, 3 * direction.reshape(-1, 3))
    x, y = np.meshgrid(np.arange(16), np.arange(12))
    np.testing.assert_allclose(xy, np.stack([x, y], -1).reshape(-1, 2), atol=5e-3)
    some = rays_at(own, np.array([3, 15]), np.array([0, 11]))
    np.testing.assert_array_equal(some, direction[[0, 11], [3, 15]])
    assert rays_at(own, np.zeros(0), np.zeros(0)).shape == (0, 3)


@pytest.mark.parametrize("lens", LENSES[1:])
def test_undistortion_samples_the_same_pixels_as_opencv(lens):
    own = camera(lens)
    straight = replace(own, K=np.array([[15.0, 0, 8], [0, 16.0, 5], [0, 0, 1]]), distortion=())
    unskewed = replace(own, K=K * (1 - np.eye(3, k=1)))
    held = np.pad(np.array(lens), (0, 5 - len(lens)))
    expected = cv2.initUndistortRectifyMap(
        unskewed.K, held, None, straight.K, (16, 12), cv2.CV_32FC1
    )
    np.testing.assert_allclose(source_pixels(unskewed, straight), expected[:2], atol=1e-3)


def test_a_skewed_target_is_inverted():
    x, y = np.meshgrid(np.arange(16), np.arange(12))
    np.testing.assert_allclose(source_pixels(camera(), camera()), [x, y], atol=1e-4)


def test_the_nearest_pixel_is_the_same_in_kernels_and_in_numpy():
    edges = [-0.51, -0.5, -0.49, 0.0, 0.5, 1.5, 11.49, 11.5, 15.4999, 15.5, 40.0, np.nan]
    xy = np.array([(x, y) for x in edges for y in edges])
    seen, at = asked(xy, 1.0, 16, 12)
    np.testing.assert_array_equal(seen, inside(camera(), xy))
    column, row = nearest(xy[seen])
    np.testing.assert_array_equal(at[:, seen], [row, column])
    assert [column.min(), row.min(), column.max(), row.max()] == [0, 0, 15, 11]
    assert not asked(np.zeros((1, 2)), 0.0, 16, 12)[0].any()  # not in front of the camera


def test_a_camera_and_its_inverse_cancel():
    np.testing.assert_allclose(camera().camera_from_world @ POSE, np.eye(4), atol=1e-15)
    np.testing.assert_array_equal(camera().camera_from_world, invert(POSE))


def test_compiled_kernels_are_found_again(tmp_path):
    """Arguments that are named tuples must not make each process compile anew."""
    code = (
        "import numpy as np\n"
        "from lift3d.geometry.lens import pinhole, pixels\n"
        "from lift3d.scene import Camera\n"
        "camera = pinhole(Camera(np.eye(3), 4, 4, np.eye(4)))\n"
        "pixels(camera, np.ones((2, 3), np.float32), np.empty((3, 2)))\n"
        "print(sum(pixels.stats.cache_hits.values()), sum(pixels.stats.cache_misses.values()))"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for _ in range(2)
    ]
    assert said == [["0", "1"], ["1", "0"]]


def test_a_lens_with_more_coefficients_than_the_model_has_is_refused():
    camera = Camera(np.eye(3), 4, 4, np.eye(4), (0.1, 0.0, 0.0, 0.0, 0.0, 0.2))
    with pytest.raises(InputError, match="6 distortion coefficients"):
        pinhole(camera)
