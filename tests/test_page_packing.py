"""How the cloud is packed for the page."""

import numpy as np
from page_client import unpacked

from lift3d.scene import Points
from lift3d.viewing import packing


def unit(points, seed=0):
    """Random points with their normals."""
    random = np.random.default_rng(seed)
    normal = random.normal(size=(points, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    xyz = random.uniform(-1, 1, (points, 3)).astype(np.float32)
    rgb = random.integers(0, 256, (points, 3), np.uint8)
    return Points(xyz, rgb, normal.astype(np.float32), np.ones(points, np.float32))


def test_a_chunk_takes_13_bytes_a_point_and_gives_all_points_back():
    points = unit(500)
    ids = np.arange(500, dtype=np.int32) % 7
    packed = packing.pack(points)
    data = packed.chunk(0, ids, wide=False)
    assert len(data) == 13 * 500
    xyz, label, rgb, normal = unpacked(data, 500)
    order = packed.order
    assert sorted(order.tolist()) == list(range(500))
    np.testing.assert_allclose(packed.low + packed.step * xyz, points.xyz[order], atol=4e-5)
    np.testing.assert_array_equal(label[:, 0], ids[order])
    np.testing.assert_array_equal(rgb, points.rgb[order])
    x, y = normal.T / 127.0
    z = 1 - abs(x) - abs(y)
    fold = np.maximum(-z, 0)
    back = np.stack([x - np.sign(x) * fold, y - np.sign(y) * fold, z], 1)
    back /= np.linalg.norm(back, axis=1, keepdims=True)
    assert (back * packed.normal[order]).sum(1).min() > 0.99


def test_points_far_from_the_scene_do_not_make_positions_coarse():
    points = unit(500)
    points.xyz[0] = 1e5
    packed = packing.pack(points)
    assert packed.step is None
    assert len(packed.chunk(0, np.zeros(500, np.int32), wide=True)) == 500 * (12 + 4 + 5)


def test_noise_of_normals_is_smoothed_but_both_sides_of_a_board_stay():
    points = unit(400)
    front = np.arange(400) < 200
    points.xyz[:, 2] = 0
    points.normal[:] = np.where(front[:, None], [0.0, 0.6, 0.8], [0.0, 0.0, -1.0])
    points.normal[:100, 1] = -0.6
    smooth = packing.smoothed_normals(points, 10.0)
    assert abs(smooth[front, 1]).max() < 0.3
    np.testing.assert_allclose(smooth[~front], [[0, 0, -1]] * 200, atol=1e-6)


def test_a_cloud_too_large_for_a_browser_is_thinned_evenly(monkeypatch):
    monkeypatch.setattr(packing, "MOST", 100)
    packed = packing.pack(unit(1000))
    assert len(packed.order) == 100
    assert 300 < packed.order.mean() < 700


def test_the_first_look_is_at_most_of_the_points_and_not_at_the_few_that_are_wrong():
    xyz = np.random.default_rng(0).uniform(0, 1, (400, 3)).astype(np.float32)
    low, high = packing.core_box(xyz)
    assert np.allclose(low, 0, atol=0.02)
    assert np.allclose(high, 1, atol=0.02)
    xyz[:8], xyz[8:16] = 40, -40  # 2 % each, as of photos
    low, high = np.array(packing.core_box(xyz))
    assert (low > -1.5).all()
    assert (high < 2.5).all()
