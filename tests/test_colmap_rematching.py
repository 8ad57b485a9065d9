"""Matches that a model predicts, on scenes that COLMAP makes up."""

from pathlib import Path

import numpy as np
import pytest

pycolmap = pytest.importorskip("pycolmap", reason="the extra `colmap` is not installed")

from lift3d.reconstruction.colmap.rematching import LEAST, TURNED, rematch  # noqa: E402

POINTS = 400


@pytest.fixture
def made(tmp_path: Path):
    """A model and its database: six photos that all see all points, and no match."""
    pycolmap.set_random_seed(3)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, 6
    options.num_points3D, options.num_points2D_without_point3D = POINTS, 50
    with pycolmap.Database.open(str(tmp_path / "features.db")) as database:
        model = pycolmap.synthesize_dataset(options, database)
        database.clear_matches()
        database.clear_two_view_geometries()
        yield model, database


def angle(model, i: int, j: int) -> float:
    """Largest angle in degrees at which two photos see a point."""
    xyz = np.array([point.xyz for point in model.points3D.values()])
    rays = [xyz - np.asarray(model.image(n).projection_center()) for n in (i, j)]
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in rays]
    return float(np.degrees(np.arccos(np.clip((unit[0] * unit[1]).sum(1), -1, 1))).max())


def pairs(model):
    numbers = sorted(model.reg_image_ids())
    return [(i, j) for i in numbers for j in numbers if i < j]


def verified(database, i: int, j: int) -> np.ndarray:
    if not database.exists_two_view_geometry(i, j):
        return np.zeros((0, 2), int)
    return np.asarray(database.read_two_view_geometry(i, j).inlier_matches, int).reshape(-1, 2)


def right(model, i: int, j: int, matches: np.ndarray) -> np.ndarray:
    """Whether each match joins features of the same point."""
    one, two = (
        np.array([model.image(n).points2D[k].point3D_id for k in column])
        for n, column in ((i, matches[:, 0]), (j, matches[:, 1]))
    )
    return one == two


def test_photos_that_look_from_near_each_other_are_matched_and_others_are_not(made):
    model, database = made
    near = [pair for pair in pairs(model) if angle(model, *pair) < TURNED]
    assert 0 < len(near) < len(pairs(model))
    assert rematch(model, database, 0.05, seed=0) >= len(near)
    for pair in near:
        found = verified(database, *pair)
        assert len(found) > 0.9 * POINTS
        assert right(model, *pair, found).all()
    for pair in pairs(model):
        found = verified(database, *pair)
        assert right(model, *pair, found).all()


def test_matches_are_sought_as_far_as_told_from_where_they_are_predicted(made):
    model, database = made
    pair = next(pair for pair in pairs(model) if angle(model, *pair) < TURNED)
    turn = pycolmap.Rigid3d(pycolmap.Rotation3d(np.radians([0.0, 3.0, 0.0])), np.zeros(3))
    for number in pair:
        frame = model.frame(model.image(number).frame_id)
        frame.rig_from_world = turn * frame.rig_from_world
    rematch(model, database, 0.01, seed=0)  # 3 degrees are 67 pixels here
    assert len(verified(database, *pair)) == 0
    rematch(model, database, 0.11, seed=0)
    found = verified(database, *pair)
    assert len(found) > 0.9 * POINTS
    assert right(model, *pair, found).all()


def test_well_matched_pairs_are_left_and_weak_ones_replaced(made):
    model, database = made
    rematch(model, database, 0.05, seed=0)
    pair = max(pairs(model), key=lambda pair: len(verified(database, *pair)))
    before = verified(database, *pair)
    assert rematch(model, database, 0.05, seed=0) == 0
    for kept in (len(before) - 1, LEAST):
        geometry = database.read_two_view_geometry(*pair)
        geometry.inlier_matches = before[:kept].astype(np.uint32)
        database.delete_two_view_geometry(*pair)
        database.write_two_view_geometry(*pair, geometry)
        rematch(model, database, 0.05, seed=0)
        assert len(verified(database, *pair)) == (kept if kept > LEAST else len(before))


def test_features_that_do_not_look_alike_are_no_match(made):
    model, database = made
    random = np.random.default_rng(0)
    numbers = sorted(model.reg_image_ids())
    descriptors = {number: database.read_descriptors(number) for number in numbers}
    database.clear_descriptors()
    for number, each in descriptors.items():
        each.data = random.permuted(each.data, axis=1)
        database.write_descriptors(number, each)
    assert rematch(model, database, 0.05, seed=0) == 0
