"""The kernels of stereo against slow obvious twins."""

import numpy as np

from lift3d.reconstruction.stereo import sweep
from lift3d.reconstruction.stereo.backend import _brought
from lift3d.reconstruction.stereo.consistency import CLOSE, WEAK, agreed, without_speckles
from lift3d.reconstruction.stereo.matching import Estimate
from lift3d.reconstruction.stereo.neighbours import neighbourhoods
from lift3d.reconstruction.stereo.tracks import Tracks, candidates
from lift3d.scene import Camera

K = np.array([[100.0, 0, 49.5], [0, 100.0, 39.5], [0, 0, 1]])


def camera(x, z=0.0):
    pose = np.eye(4)
    pose[:3, 3] = [x, 0, z]
    return Camera(K, 100, 80, pose)


def along(cost, picture, down, right):
    """The path costs of one direction, Eq. 13 of Hirschmueller 2008, pixel by pixel."""
    height, width, planes = cost.shape
    found = np.zeros(cost.shape, int)
    for y in range(height) if down >= 0 else reversed(range(height)):
        for x in range(width) if right >= 0 else reversed(range(width)):
            i, j = y - down, x - right
            found[y, x] = cost[y, x]
            if not (0 <= i < height and 0 <= j < width):
                continue
            jump = int(
                max(
                    sweep.STEP + 8,
                    sweep.JUMP / (1 + abs(picture[y, x] - picture[i, j]) / sweep.EDGE),
                )
            )
            before = found[i, j]
            for d in range(planes):
                best = min(before[d], before.min() + jump)
                for other in (d - 1, d + 1):
                    if 0 <= other < planes:
                        best = min(best, before[other] + sweep.STEP)
                found[y, x, d] += best - before.min()
    return found


def test_path_costs_are_those_of_the_equation():
    random = np.random.default_rng(0)
    cost = random.integers(0, 24 * sweep.SCALE + 1, (7, 9, 6)).astype(np.uint8)
    picture = random.uniform(0, 255, (7, 9)).astype(np.float32)
    found = sweep._paths(cost, picture)
    ways = [(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1)]
    for each, (down, right) in zip(found, ways, strict=True):
        np.testing.assert_array_equal(each, along(cost, picture, down, right))


def test_the_census_cost_counts_comparisons_that_differ():
    random = np.random.default_rng(1)
    a, b = (random.uniform(0, 255, (8, 9)).astype(np.float32) for _ in range(2))
    seen = np.ones(a.shape, bool)
    seen[0, 8] = False
    cost = np.zeros(a.shape, np.uint8)
    sweep._census(a, b, seen, cost)
    for y in range(8):
        for x in range(9):
            if not (2 <= y < 6 and 2 <= x < 7) or (y, x) == (2, 6):
                assert cost[y, x] == 255  # the window leaves the picture
                continue
            one, two = (each[y - 2 : y + 3, x - 2 : x + 3] > each[y, x] for each in (a, b))
            assert cost[y, x] == np.sum(one != two)


def test_small_patches_are_dropped():
    depth = np.full((60, 80), 2.0, np.float32)
    depth[10:12, 10:12] = 5.0
    kept = without_speckles(depth)
    assert not kept[10:12, 10:12].any()
    assert np.mean(kept == depth) > 0.99


def test_candidates_of_a_video_reach_beyond_the_nearest_frames():
    cameras = [camera(0.01 * i) for i in range(200)]
    found = candidates(cameras, 0)
    assert {1, 2, 3} <= set(found)
    assert max(found) > 100


def test_neighbours_see_the_same_points_under_a_good_angle():
    cameras = [camera(x) for x in (0.0, 0.01, 0.25, 1.5)]
    random = np.random.default_rng(2)
    xyz = random.uniform([-0.5, -0.4, 1.9], [0.5, 0.4, 2.1], (50, 3))
    point, view = (each.ravel() for each in np.meshgrid(np.arange(50), np.arange(4), indexing="ij"))
    local = xyz[point] - np.stack([each.pose[:3, 3] for each in cameras])[view]
    seen = local @ K.T
    tracks = Tracks(xyz, point, view, seen[:, :2] / seen[:, 2:], 100, 100)
    first = neighbourhoods(cameras, tracks, 1)[0]
    assert first.sources == (2,)  # 7 degrees; not 0.3 and not 37
    assert first.near < 1.9
    assert first.far > 2.1


def test_depth_is_brought_to_the_nearest_surface_of_each_pixel():
    random = np.random.default_rng(3)
    own, other = camera(0.0), camera(0.3, 0.2)
    inverse = (1 / random.uniform(2, 4, (80, 100))).astype(np.float32)
    quality = random.uniform(0, 1, inverse.shape).astype(np.float32)
    found, sure = _brought(
        Estimate(inverse, np.zeros((80, 100, 2), np.float32), quality), other, own
    )
    expected, trust, apart = np.zeros((3, 80, 100))
    for y in range(80):
        for x in range(100):
            if quality[y, x] < WEAK:
                continue
            local = np.linalg.inv(K) @ [x, y, 1] / inverse[y, x] + [0.3, 0, 0.2]
            u, v = (K @ local)[:2] / local[2]
            for i in (int(np.floor(v)), int(np.floor(v)) + 1):
                for j in (int(np.floor(u)), int(np.floor(u)) + 1):
                    if not (0 <= i < 80 and 0 <= j < 100):
                        continue
                    far = (u - j) ** 2 + (v - i) ** 2
                    in_front = 1 / local[2] > expected[i, j] * (1 + CLOSE)
                    same = 1 / local[2] > expected[i, j] * (1 - CLOSE) and far < apart[i, j]
                    if in_front or same:
                        expected[i, j], trust[i, j] = 1 / local[2], quality[y, x]
                        apart[i, j] = far
    assert np.mean(np.isclose(found, expected, rtol=1e-4)) > 0.999  # places on a pixel's border
    assert np.mean(np.isclose(sure, trust, rtol=1e-4)) > 0.999
    assert (found > 0).mean() > 0.5


def test_the_depth_with_the_most_support_is_kept():
    random = np.random.default_rng(4)
    inverse = random.choice([0.0, 0.5, 0.506, 0.9], (5, 8, 9)).astype(np.float32)
    quality = random.uniform(0.1, 1, inverse.shape).astype(np.float32)
    best, support, count, own = agreed(inverse, quality)
    for y in range(8):
        for x in range(9):
            told, sure = inverse[:, y, x], quality[:, y, x]
            near = told > 0.8
            groups = [each for each in (near, (told > 0) & ~near) if each.any()]
            if not groups:
                assert best[y, x] == support[y, x] == count[y, x] == 0
                continue
            group = max(groups, key=lambda each: sure[each].sum())
            assert np.isclose(support[y, x], sure[group].sum())
            assert np.isclose(best[y, x], np.average(told[group], weights=sure[group]))
            assert count[y, x] == group.sum()
            assert own[y, x] == group[0]


def test_views_that_have_a_view_as_their_source_are_asked_for_its_depth():
    cameras = [camera(x) for x in (0.0, 0.2, 0.45)]
    random = np.random.default_rng(5)
    xyz = random.uniform([-0.3, -0.4, 1.9], [0.6, 0.4, 2.1], (50, 3))
    point, view = (each.ravel() for each in np.meshgrid(np.arange(50), np.arange(3), indexing="ij"))
    local = xyz[point] - np.stack([each.pose[:3, 3] for each in cameras])[view]
    seen = local @ K.T
    tracks = Tracks(xyz, point, view, seen[:, :2] / seen[:, 2:], 100, 100)
    found = neighbourhoods(cameras, tracks, 1)
    # The second suits the first best, and the third the second.
    assert [each.sources for each in found] == [(1,), (2,), (1,)]
    assert [each.seen_by for each in found] == [(1,), (2, 0), (1,)]
