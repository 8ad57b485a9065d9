"""Objects that stand beside each other have colours that are easy to tell apart."""

from itertools import pairwise

import numpy as np
import pytest

from lift3d.export.instances import write_instances
from lift3d.export.ply import coloured_by_label
from lift3d.scene import LabelledPoints, Points

# Ids whose own colours are close: 13, 21 and 34 apart.
ALIKE = [1, 14, 35, 48, 22, 69, 56, 90, 103]


def patches(ids, size=20):
    """Square patches in a row on the plane z = 0, one for each id, edge to edge."""
    x, y = np.meshgrid(np.arange(size) / size, np.arange(size) / size)
    one = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], 1)
    xyz = np.concatenate([one + [at, 0, 0] for at in range(len(ids))]).astype(np.float32)
    normal = np.tile(np.array([0, 0, 1], np.float32), (len(xyz), 1))
    points = Points(xyz, np.zeros((len(xyz), 3), np.uint8), normal, np.ones(len(xyz), np.float32))
    labels = np.repeat(np.array(ids, np.int32), len(one))
    return LabelledPoints(points, labels, np.ones(len(xyz), np.float32))


def first_colours(cloud, ids):
    rgb = coloured_by_label(cloud).rgb.astype(int)
    return [rgb[np.flatnonzero(cloud.instance == each)[0]] for each in ids]


def test_objects_side_by_side_differ_in_colour_whatever_their_ids():
    colours = first_colours(patches(ALIKE), ALIKE)
    for one, other in pairwise(colours):
        assert np.abs(one - other).sum() > 150


def test_a_hundred_patches_all_differ_from_their_neighbours():
    ids = list(range(1, 101))
    colours = first_colours(patches(ids, size=8), ids)
    apart = [np.abs(a - b).sum() for a, b in pairwise(colours)]
    assert min(apart) > 150


def test_no_object_has_the_grey_of_unlabelled_points():
    from lift3d.scene.palette import distinct_colours

    for rgb in distinct_colours(patches(ALIKE)).values():
        assert max(rgb) - min(rgb) > 25


def test_the_same_cloud_gives_the_same_colours_and_an_id_without_points_changes_none():
    from lift3d.scene.palette import distinct_colours

    cloud = patches(ALIKE)
    once = distinct_colours(cloud)
    assert distinct_colours(cloud) == once
    more = distinct_colours(cloud, [*ALIKE, 7])
    assert more.pop(7) not in (None, (128, 128, 128))
    assert more == once


def test_neighbours_are_those_that_share_a_place():
    from lift3d.scene.palette import neighbours

    pairs = {(a, b) for a, b, _ in neighbours(patches([3, 1, 2]))}
    assert pairs == {(1, 3), (1, 2)}
    assert neighbours(patches([5])) == []
    assert neighbours(patches([0])) == []


def test_a_run_keeps_its_colours_in_instances_json(tmp_path):
    from lift3d.run.schema import read_run_file
    from lift3d.scene.palette import colours_of, distinct_colours

    cloud = patches(ALIKE)
    write_instances(tmp_path / "instances.json", cloud, dict.fromkeys(ALIKE, 1.0), {})
    path = tmp_path / "instances.json"
    assert colours_of(read_run_file(path)["instances"], path) == distinct_colours(cloud)


@pytest.mark.parametrize("ids", [[4], [4, 1 << 20]])
def test_a_palette_replaces_the_default_colours(ids):
    from lift3d.scene.colours import label_colours

    colours = label_colours(np.array([0, *ids, 9], np.int32), {4: (1, 2, 3), 0: (9, 9, 9)})
    assert colours[0].tolist() == [128, 128, 128]
    assert colours[1].tolist() == [1, 2, 3]
    assert colours[-1].tolist() == label_colours(np.array([9], np.int32))[0].tolist()
