"""Objects on which several cuts of one surface agree."""

import os
import subprocess
import sys

import numpy as np
import pytest

from lift3d.association.shape import Shape, consensus
from lift3d.association.shape.consensus import RESOLUTIONS, Cuts, Objects, agreed, whole_nodes
from lift3d.association.shape.hierarchy import Hierarchy
from lift3d.geometry.visibility import cloud_spacing
from lift3d.scene import Points


def cut(labels, *confidence):
    return Objects(np.array(labels, np.int32), np.array(confidence))


def test_what_two_of_three_cuts_find_wins_over_a_surer_third():
    halves, whole = cut([0, 0, 0, 1, 1, 1], 0.6, 0.6), cut([0] * 6, 0.9)
    found = agreed([whole, halves, halves])
    assert found.object.tolist() == [0, 0, 0, 1, 1, 1]
    # The whole is like each half by an IoU of 0.5.
    assert found.confidence == pytest.approx([(0.6 + 0.6 + 0.45) / 3] * 2)


def test_the_borders_are_those_of_the_version_most_like_the_others():
    narrow, middle, wide = (cut([0] * n + [-1] * (9 - n), 0.5) for n in (4, 6, 8))
    found = agreed([narrow, wide, middle])
    assert found.object.tolist() == [0] * 6 + [-1] * 3


def test_an_object_that_one_cut_alone_finds_stays_where_no_other_is_with_less_confidence():
    alone, nothing = cut([-1, -1, -1, 0, 0, 0], 0.9), cut([-1] * 6)
    taken = cut([0, 0, 0, 0, -1, -1], 0.9)
    found = agreed([alone, nothing, nothing])
    assert found.object.tolist() == [-1, -1, -1, 0, 0, 0]
    assert found.confidence == pytest.approx([0.3])
    # Two of its three points are still free.
    assert agreed([taken, taken, alone]).object.tolist() == [0, 0, 0, 0, 1, 1]
    most = cut([0, 0, 0, 0, 0, -1], 0.9)
    assert agreed([most, most, alone]).object.tolist() == [0, 0, 0, 0, 0, -1]


def test_one_cut_is_itself_but_for_the_order():
    found = agreed([cut([1, 1, 0, -1], 0.2, 0.7)])
    assert found.object.tolist() == [0, 0, 1, -1]
    assert found.confidence == pytest.approx([0.7, 0.2])


def test_a_node_is_whole_where_all_its_pieces_are_of_one_object():
    """Pieces 0 and 1 make node 4, 2 and 3 node 5, both node 6."""
    joins = np.array([[0, 1], [2, 3], [4, 5]])
    parent = np.array([4, 4, 5, 5, 6, 6, -1])
    tree = Hierarchy(joins, parent, np.ones(7), np.zeros((7, 1)), np.zeros(7, bool))
    assert whole_nodes(tree, np.array([7, 7, 7, 7], np.int32)).tolist() == [6, 6, 6, 6]
    assert whole_nodes(tree, np.array([7, 7, 7, 8], np.int32)).tolist() == [4, 4, 2, 3]
    assert whole_nodes(tree, np.array([0, 0, 8, 8], np.int32)).tolist() == [0, 1, 5, 5]


def plane(spacing):
    x, y = np.meshgrid(np.arange(0, 0.4, spacing), np.arange(0, 0.4, spacing))
    xyz = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], 1).astype(np.float32)
    normal = np.tile(np.float32([0, 0, 1]), (len(xyz), 1))
    return Points(xyz, np.full((len(xyz), 3), 128, np.uint8), normal, np.ones(len(xyz), np.float32))


@pytest.mark.parametrize(
    ("spacing", "metric", "cuts"),
    [(0.01, True, len(RESOLUTIONS)), (0.03, True, 1), (0.03, False, len(RESOLUTIONS))],
    ids=["fine", "all cells are as large as they may be", "of unknown size"],
)
def test_a_surface_is_cut_at_each_resolution_once(spacing, metric, cuts):
    surface = plane(spacing)
    assert len(Cuts(surface, surface, [], metric)) == cuts


@pytest.mark.parametrize(("wider", "more"), [(1.5, 1), (2.5, 0)])
def test_given_points_are_cut_too_where_they_are_dense(wider, more):
    surface, given = plane(0.01), plane(0.01 * wider)
    assert len(Cuts(given, surface, [], True)) == len(RESOLUTIONS) + more


@pytest.mark.parametrize(("share", "cuts"), [(0.9, 1 + len(RESOLUTIONS)), (0.7, 1)])
def test_given_points_that_the_surface_does_not_cover_are_cut_alone(share, cuts):
    given = plane(0.01)
    part = given.take(np.flatnonzero(given.xyz[:, 0] < share * 0.4 - 0.02))
    assert len(Cuts(given, part, [], True)) == cuts


@pytest.mark.parametrize("together", [True, False])
def test_cuts_made_in_threads_are_in_the_order_of_the_resolutions(monkeypatch, together):
    monkeypatch.setattr(consensus, "kernels_run_together", lambda: together)
    surface = plane(0.01)
    gap = cloud_spacing(surface)
    made = Cuts(surface, surface, [], False)._shapes
    assert [each.cell for each in made] == pytest.approx([each * gap for each in RESOLUTIONS])
    alone = Shape(surface, gap, [], False, RESOLUTIONS[1])
    np.testing.assert_array_equal(made[1].surface.xyz, alone.surface.xyz)


@pytest.mark.parametrize(("layer", "together"), [("workqueue", False), ("omp", True)])
def test_parallel_kernels_run_together_but_on_the_layer_of_numba(layer, together):
    code = (
        "import numba\n"
        "from lift3d.scene.threads import kernels_run_together\n"
        "try: print(kernels_run_together())\n"
        "except (ValueError, ImportError): print('none')"
    )
    made = {**os.environ, "NUMBA_THREADING_LAYER": layer}
    said = subprocess.run(
        [sys.executable, "-c", code], env=made, capture_output=True, text=True, check=True
    ).stdout.strip()
    if said == "none":
        pytest.skip(f"numba has no layer {layer} here")
    assert said == str(together)
