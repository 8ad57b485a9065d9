"""Parts of a reconstruction that share no photo are joined by the features they share."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from lift3d.reconstruction.colmap.joining import Side, Similarity, similarity_of_parts

SCALE, TURN, SHIFT = 0.4, cv2.Rodrigues(np.array([0.3, -1.0, 0.2]))[0], np.array([2.0, -1, 3])


def side(xyz, image, centres):
    """What photos at `centres`, which look along z, see of points."""
    pose = np.tile(np.eye(3, 4), (len(xyz), 1, 1))
    pose[:, :, 3] = -centres[image]
    local = xyz - centres[image]
    return Side(image, xyz, local[:, :2] / local[:, 2:], pose, np.ones(len(xyz)))


def parts(wrong=0.0, count=120, alone=0.3):
    """Features of a place that two parts share, the second in a frame of its own."""
    random = np.random.default_rng(4)
    xyz = random.uniform([-2, -2, 4], [2, 2, 7], (count, 3))
    image = random.integers(0, 3, (2, count))
    a = side(xyz, image[0], np.array([[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0.0]]))
    b = side(xyz, image[1] + 3, np.array([[0, 0, 0]] * 3 + [[1, 0, 0], [1.5, 0, 0], [1, 1, 0.0]]))
    # The second part: x -> (TURN.T @ (x - SHIFT)) / SCALE.
    own = (xyz - SHIFT) @ TURN / SCALE
    pose = b.camera_from_part.copy()
    pose[:, :, 3] = (pose[:, :, :3] @ SHIFT + pose[:, :, 3]) / SCALE
    pose[:, :, :3] = pose[:, :, :3] @ TURN
    mixed = np.flatnonzero(random.uniform(size=count) < wrong)
    own[mixed] = own[np.roll(mixed, 1)]
    known = a.xyz.copy()
    known[random.uniform(size=count) < alone] = np.nan  # a feature of b's points only
    ray = b.ray.copy()
    ray[mixed] = ray[np.roll(mixed, 1)]
    a = Side(a.image, known, a.ray, a.camera_from_part, a.scale)
    return a, Side(b.image, own, ray, pose, b.scale)


@pytest.mark.parametrize("wrong", [0.0, 0.5])
def test_parts_are_joined_by_the_features_that_agree(wrong):
    found = similarity_of_parts(*parts(wrong), seed=0)
    assert found.scale == pytest.approx(SCALE, rel=1e-3)
    np.testing.assert_allclose(found.turn, TURN, atol=1e-3)
    np.testing.assert_allclose(found.shift, SHIFT, atol=5e-3)


def test_parts_whose_features_do_not_agree_stay_apart():
    a, b = parts(wrong=1.0)
    assert similarity_of_parts(a, b, seed=0) is None


def test_few_features_do_not_join_parts():
    assert similarity_of_parts(*parts(count=12), seed=0) is None


def test_one_pair_of_photos_does_not_join_parts():
    a, b = parts()
    rows = (a.image == a.image[0]) & (b.image == b.image[0])
    few = [
        Side(*(getattr(each, name)[rows] for name in each.__dataclass_fields__)) for each in (a, b)
    ]
    many = [
        Side(*(np.concatenate([getattr(each, name)] * 4) for name in each.__dataclass_fields__))
        for each in few
    ]
    assert similarity_of_parts(*many, seed=0) is None


def test_the_inverse_of_a_similarity_undoes_it():
    one = Similarity(SCALE, TURN, SHIFT)
    there = one.scale * np.ones(3) @ one.turn.T + one.shift
    back = one.inverse()
    np.testing.assert_allclose(back.scale * there @ back.turn.T + back.shift, np.ones(3))
