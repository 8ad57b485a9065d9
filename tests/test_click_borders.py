"""Borders of answers in a view follow the edges of its picture."""

import numpy as np
from scipy import ndimage
from walls import wall_scene

from lift3d.correction.clicks.answering import pixels
from lift3d.correction.clicks.bilateral import along_edges
from lift3d.correction.clicks.preparing import place_of
from lift3d.reconstruction.fusion import BACKENDS


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
