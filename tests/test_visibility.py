from dataclasses import replace

import numpy as np
import pytest

from lift3d.association.votes.weight import GRAZING, vote_weight
from lift3d.geometry import project
from lift3d.geometry.visibility import DepthTolerance, front_points, sightings
from lift3d.scene import Camera, Points, View


def camera(**changes):
    K = np.array([[20.0, 0, 7.5], [0, 20.0, 5.5], [0, 0, 1]])
    return Camera(**{"K": K, "width": 16, "height": 12, "world_from_camera": np.eye(4), **changes})


def view_of(depth, **changes):
    lens = camera()
    return View(
        **{
            "name": "0",
            "camera": lens,
            "load_image": lambda: np.zeros((lens.height, lens.width, 3), np.uint8),
            "load_depth": lambda: depth,
            **changes,
        }
    )


def points(xyz, normal=None):
    xyz = np.asarray(xyz, np.float32)
    normal = np.zeros_like(xyz) if normal is None else np.asarray(normal, np.float32)
    return Points(xyz, np.zeros((len(xyz), 3), np.uint8), normal, np.ones(len(xyz), np.float32))


WALL = np.full((12, 16), 2.0, np.float32)


def test_a_view_sees_the_wall_and_not_what_is_behind_or_before_it():
    cloud = points([[0, 0, 2], [0, 0, 3], [0, 0, 1], [0, 0, -2], [5, 0, 2], [np.nan, 0, 2]])
    seen = sightings(cloud, view_of(WALL))
    assert seen.point.tolist() == [0]
    assert (seen.column[0], seen.row[0]) == (8, 6)  # 7.5 and 5.5 round up


def test_at_missing_depth_no_point_is_visible():
    assert len(sightings(points([[0, 0, 2]]), view_of(np.zeros_like(WALL)))) == 0


def test_the_tolerance_grows_with_distance():
    cloud = points([[0, 0, 2.05]])
    assert not len(sightings(cloud, view_of(WALL), DepthTolerance(0.02, 0.01)))
    assert len(sightings(cloud, view_of(WALL), DepthTolerance(0.02, 0.02)))


def test_the_tolerance_of_estimated_depth_grows_as_it_is_less_sure():
    tolerance = DepthTolerance(0.02, 0.01)
    for confidence, near, far in ((1.0, 0.06, 0.07), (0.5, 0.075, 0.085)):
        sure = np.full_like(WALL, confidence)
        view = view_of(WALL, load_confidence=lambda sure=sure: sure, estimated=True)
        for off, seen in ((near, 1), (far, 0)):
            assert len(sightings(points([[0, 0, 2 + off]]), view, tolerance)) == seen
        measured = replace(view, estimated=False)
        assert not len(sightings(points([[0, 0, 2 + near]]), measured, tolerance))


def test_a_grazing_observation_has_less_weight():
    slanted = [np.sin(1.0), 0, -np.cos(1.0)]
    cloud = points([[0, 0, 2], [0, 0, 2]], [[0, 0, -1], slanted])
    view = view_of(WALL)
    weight = vote_weight(cloud, sightings(cloud, view), view.geometry_camera)
    np.testing.assert_allclose(weight, [1, np.cos(1.0)], rtol=1e-5)


def test_the_weight_of_a_vote_is_that_of_its_formula():
    """Confidence times the cosine, `GRAZING` at least; unknown normals count as seen head-on."""
    angle = [0.0, 0.7, np.pi - 0.7, np.pi / 2]
    normal = [[np.sin(a), 0, -np.cos(a)] for a in angle] + [[0, 0, 0]]
    cloud = points([[0.02, 0.02, 2]] * 5, normal)
    half = np.full_like(WALL, 0.5)
    for view in (view_of(WALL), view_of(WALL, load_confidence=lambda: half)):
        seen = sightings(cloud, view)
        held = 0.5 if view.load_confidence else 1.0
        np.testing.assert_array_equal(seen.confidence, held)
        ray = np.array([0.02, 0.02, 2]) / np.linalg.norm([0.02, 0.02, 2])
        cosine = np.abs(np.array(normal) @ ray)
        cosine[4] = 1
        expected = held * np.maximum(cosine, GRAZING)
        weight = vote_weight(cloud, seen, view.geometry_camera)
        np.testing.assert_allclose(weight, expected, rtol=1e-5)
        assert weight[3] == pytest.approx(held * GRAZING)


def test_nothing_is_seen_where_depth_has_no_confidence():
    cloud = points([[0, 0, 2]])
    none = np.zeros_like(WALL)
    assert not len(sightings(cloud, view_of(WALL, load_confidence=lambda: none)))


def test_the_pixel_comes_from_the_colour_camera_where_it_differs():
    moved = np.eye(4)
    moved[0, 3] = 0.2  # colour camera 20 cm to the right: objects appear 2 px to the left
    view = view_of(WALL, camera=camera(world_from_camera=moved), depth_camera=camera())
    seen = sightings(points([[0.02, 0.02, 2]]), view)
    assert (seen.column[0], seen.row[0]) == (6, 6)


def test_without_depth_the_cloud_hides_itself():
    x, y = np.meshgrid(np.linspace(-0.5, 0.5, 41), np.linspace(-0.5, 0.5, 41))
    wall = np.stack([x.ravel(), y.ravel(), np.full(x.size, 2.0)], 1)
    cloud = points(np.concatenate([wall, wall + [0, 0, 1.0]]))
    seen = sightings(cloud, view_of(None, load_depth=None))
    assert len(seen) > 1000
    front = seen.point < x.size
    assert front.sum() > 0.95 * x.size
    # Visible points of the rear wall are beside the front wall.
    behind = cloud.xyz[seen.point[~front]]
    assert (np.abs(behind[:, :2] / 3.0).max(1) > 0.5 / 2.0 - 0.05).all()


def test_the_spacing_of_a_cloud_is_measured_once_for_all_views(monkeypatch):
    measured = []

    def counted(xyz, sample=2000):
        measured.append(len(xyz))
        return 0.1

    monkeypatch.setattr("lift3d.geometry.visibility.spacing", counted)
    cloud = points([[0, 0, 2], [0.1, 0, 2]])
    for _ in range(3):
        sightings(cloud, view_of(None, load_depth=None))
    assert measured == [2]
    sightings(points([[0, 0, 2], [0.1, 0, 2], [0.2, 0, 2]]), view_of(None, load_depth=None))
    assert measured == [2, 3]


def test_the_kernel_agrees_with_plain_numpy():
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 3, (12, 16)).astype(np.float32)
    pose = np.eye(4)
    pose[:3, 3] = [0.1, -0.2, 0.05]
    lens = camera(world_from_camera=pose, distortion=(0.1, -0.05, 0.01, 0.002, 0.0))
    view = replace(view_of(depth), camera=lens)
    cloud = points(rng.uniform([-1, -1, -1], [1, 1, 3], (40_000, 3)))
    seen = sightings(cloud, view)
    xy, z = project(lens, cloud.xyz)
    with np.errstate(invalid="ignore"):
        pixel = np.floor(xy + 0.5)
        inside = (pixel >= 0).all(1) & (pixel < [16, 12]).all(1)
    column, row = np.where(inside[:, None], pixel, 0).astype(int).T
    expected = inside & (np.abs(z - depth[row, column]) <= 0.02 + 0.01 * z)
    assert expected.sum() > 200
    np.testing.assert_array_equal(seen.point, np.flatnonzero(expected))
    np.testing.assert_array_equal(seen.column, column[expected])
    np.testing.assert_array_equal(seen.row, row[expected])


def test_the_nearest_point_is_in_front_and_covers_its_splat():
    xyz = np.array([[0, 0, 2], [0, 0, 1], [0.31, 0.01, 2]], np.float32)
    index, z = front_points(xyz, camera(), splat=0.1)
    assert index[6, 8] == 1
    assert z[6, 8] == 1
    assert (index == 1).sum() == 4  # 0.1 m at 1 m with f = 20: two pixels wide
    assert (index == 2).sum() == 1
    assert (index == 0).sum() == 0
    assert np.isinf(z[0, 0])


@pytest.mark.parametrize("splat", [0.0, 0.15, 0.9])
def test_skipping_splats_by_tiles_gives_the_same_picture_as_drawing_all(splat):
    rng = np.random.default_rng(1)
    xyz = rng.uniform([-2, -2, -0.5], [2, 2, 4], (400, 3)).astype(np.float32)
    xyz[200:] = xyz[:200]  # equal depths: the smaller index is in front
    lens = camera()
    expected = np.full((lens.height, lens.width), -1, np.int32)
    depth = np.full(expected.shape, np.inf, np.float32)
    xy, z = project(lens, xyz)
    for i in np.flatnonzero(z > 1e-6):
        half = np.maximum(0.5, 0.5 * np.float32(splat) * 20 / z[i])
        row, column = np.mgrid[: lens.height, : lens.width]
        inside = (column >= xy[i, 0] - half) & (column < xy[i, 0] + half)
        inside &= (row >= xy[i, 1] - half) & (row < xy[i, 1] + half)
        inside &= np.float32(z[i]) < depth
        expected[inside], depth[inside] = i, z[i]
    index, found = front_points(xyz, lens, splat)
    np.testing.assert_array_equal(index, expected)
    np.testing.assert_allclose(found, depth, rtol=1e-6)


def test_a_point_behind_another_has_no_depth_of_its_own():
    from lift3d.geometry.visibility import unhidden_depth

    camera = Camera(np.array([[10.0, 0, 5], [0, 10, 5], [0, 0, 1]]), 11, 11, np.eye(4))
    xyz = np.array([[0, 0, 1], [0.05, 0, 3], [0.8, 0, 2]], np.float32)
    found = unhidden_depth(xyz, camera, 0.3)
    assert found[5, 5] == 1
    assert found[5, 9] == 2
    assert np.count_nonzero(found) == 2
