"""Borders of answers follow the edges of pictures; what ends in a picture has nothing outside."""

import numpy as np
from scipy import ndimage
from walls import PIXEL, wall_scene

from lift3d.association.surface import Surface
from lift3d.correction.clicks.answering import answer, pixels
from lift3d.correction.clicks.bilateral import along_edges
from lift3d.correction.clicks.place import Place
from lift3d.correction.clicks.preparing import place_of
from lift3d.reconstruction.fusion import BACKENDS
from lift3d.scene import Prompt


def iou(one, other):
    return (one & other).sum() / (one | other).sum()


def test_a_border_of_points_beside_an_edge_of_the_picture_moves_to_it():
    scene = wall_scene([(40, 30, 40, 5)], [0, 10])
    place = place_of(scene, BACKENDS["voxel"](voxel=0.02).build().fuse(scene))
    truth = scene.views[0].instances() == 5
    seen = place.seen("view000")
    share = np.zeros(len(place.points))
    share[np.unique(seen.nearest[ndimage.binary_dilation(truth)])] = 1
    drawn = share[seen.nearest] > 0.5
    found = pixels(place, "view000", share) > 0.5
    assert iou(drawn, truth) < 0.92
    assert iou(found, truth) > 0.98
    far = ndimage.distance_transform_edt(~truth) > 6
    assert (found == drawn)[far | ndimage.binary_erosion(truth, iterations=5)].all()


def test_without_an_edge_of_the_picture_a_straight_border_stays():
    inside = np.zeros((20, 30))
    inside[:, :12] = 1
    grey = np.full((20, 30, 3), 128, np.uint8)
    assert ((along_edges(inside, grey) > 0.5) == (inside > 0.5)).all()


def two_squares(left):
    """One in the first view, one in the second; by its shape the association took them for one."""
    scene = wall_scene([(left, 30, 40, 5), (240, 30, 40, 9)], [0, 200])
    points = BACKENDS["voxel"](voxel=0.02).build().fuse(scene)
    column, row = np.rint(points.xyz[:, :2].T / PIXEL + [[79.5], [59.5]]).astype(int)
    first = (column >= left) & (column < left + 40) & (row >= 30) & (row < 70)
    second = (column >= 240) & (column < 280) & (row >= 30) & (row < 70)
    surface = Surface(
        np.where(second, 2, np.where(first, 1, 0)).astype(np.int32),
        np.int32([[0, 1], [0, 2]]), np.float32([0.05, 0.05]), np.int32([[1, 2]]),
        np.float32([0.9]), np.int32([0, 3, 3]), np.int32([1, 2, 2]),
    )  # fmt: skip
    place = Place(points, surface, {view.name: view for view in scene.views})
    return place, scene.views[0].instances() == 5, second


def masked(mask):
    return Prompt(np.zeros((0, 2)), np.zeros(0, bool), mask)


def share_of(place, prompts, some):
    found = np.zeros(len(place.points), bool)
    found[answer(place, [prompts]).points()] = True
    return found[some].mean()


def test_an_object_that_ends_within_a_picture_does_not_go_on_outside_of_it():
    place, mask, second = two_squares(left=60)
    shown = {"view000": masked(mask)}
    assert share_of(place, shown, second) < 0.1
    both = {**shown, "view200": Prompt(np.array([[60.0, 50.0]]), np.ones(1, bool))}
    assert share_of(place, both, second) > 0.9  # a click says that it goes on


def test_an_object_that_the_border_of_the_picture_cuts_may_go_on_outside_of_it():
    place, mask, second = two_squares(left=0)
    assert share_of(place, {"view000": masked(mask)}, second) > 0.9


def test_the_same_for_a_box():
    for left, low, high in ((60, 0.0, 0.1), (0, 0.9, 1.0)):
        place, _, second = two_squares(left)
        box = np.array([left, 30.0, left + 39.0, 69.0])
        prompt = Prompt(np.zeros((0, 2)), np.zeros(0, bool), None, box)
        assert low <= share_of(place, {"view000": prompt}, second) <= high
