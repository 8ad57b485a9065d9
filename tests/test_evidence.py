"""What views say of anchors and clusters, counted, against plain ways."""

from functools import partial

import numpy as np
import pytest
from panel_wall import scan, wall
from scipy import sparse

from lift3d.association import associate
from lift3d.association.clusters import (
    confirmed,
    cover,
    join_distant,
    largest_in_rows,
    support,
)
from lift3d.association.evidence import Observations, Packed, observe, pair_agreement
from lift3d.geometry.visibility import DepthTolerance
from lift3d.scene import Camera, Points, Scene, View
from lift3d.scene.labelmaps import by_name


def test_packed_observations_say_what_was_observed():
    """Blocks of any size give what a plain look-up in every view gives."""
    rng = np.random.default_rng(0)
    seen, expected = random_observations(rng, views=7, anchors=50)
    for block in (1, 3, 7, 100):
        got = [
            (view, anchor, -1 if mask < 0 else int(seen.mask_label[mask]))
            for some in seen.blocks(block)
            for view, anchor, mask in zip(
                some.view.tolist(), some.anchor.tolist(), some.region.tolist(), strict=True
            )
        ]
        assert got == expected
    whole = seen.whole()
    assert whole.start[-1] == len(expected)
    known = whole.region >= 0
    np.testing.assert_array_equal(seen.mask_view[whole.region[known]], whole.view[known])


def test_counts_over_blocks_of_views_are_those_over_all_views(monkeypatch):
    seen, _ = random_observations(np.random.default_rng(1), views=9, anchors=60)
    cluster = np.random.default_rng(2).integers(-1, 4, 60).astype(np.int32)
    a, b = np.triu_indices(60, 1)
    a, b = a.astype(np.int32), b.astype(np.int32)
    at_once = cover(seen, cluster, 4), pair_agreement(seen, a, b, 0.5)
    kept = confirmed(seen, cluster, 0.0, 0)
    blocks = Observations.blocks
    monkeypatch.setattr(Observations, "blocks", lambda self, views=2: blocks(self, views))
    in_blocks = cover(seen, cluster, 4), pair_agreement(seen, a, b, 0.5)
    assert (at_once[0].under != in_blocks[0].under).nnz == 0
    np.testing.assert_array_equal(at_once[0].visible, in_blocks[0].visible)
    np.testing.assert_array_equal(at_once[0].mask_size, in_blocks[0].mask_size)
    np.testing.assert_array_equal(at_once[1], in_blocks[1])
    np.testing.assert_array_equal(kept, confirmed(seen, cluster, 0.0, 0))
    # And both counted one by one.
    whole = seen.whole()
    agree, total, under = np.zeros(len(a)), np.zeros(len(a)), np.zeros((4, len(seen.mask_view)))
    for view in range(seen.views):
        here = whole.view == view
        of_anchor = np.full(60, -2)  # not seen
        of_anchor[whole.anchor[here]] = whole.region[here]
        one, other = of_anchor[a], of_anchor[b]
        visible, labelled = (one > -2) & (other > -2), (one >= 0) & (other >= 0)
        agree += labelled & (one == other)
        total += np.where(labelled, 1, 0.5 * (visible & ((one >= 0) | (other >= 0))))
        for anchor in np.flatnonzero((of_anchor >= 0) & (cluster >= 0)):
            under[cluster[anchor], of_anchor[anchor]] += 1
        of = cluster[whole.anchor[whole.view == view]]
        np.testing.assert_array_equal(
            at_once[0].visible[:, view], np.bincount(of[of >= 0], minlength=4)
        )
    np.testing.assert_array_equal(at_once[1], (agree, total))
    np.testing.assert_array_equal(at_once[0].under.toarray(), under)
    known = whole.region[whole.region >= 0]
    sizes = np.bincount(known, minlength=len(seen.mask_view))
    np.testing.assert_array_equal(at_once[0].mask_size, sizes)


def random_observations(
    rng: np.random.Generator, views: int, anchors: int
) -> tuple[Observations, list[tuple[int, int, int]]]:
    """Anchors on a plane seen by every view through holes in the depth; what each is given."""
    column = np.arange(anchors, dtype=np.float32)
    xyz = np.stack([column, np.zeros(anchors), np.ones(anchors)], 1).astype(np.float32)
    zeros = np.zeros((anchors, 3), np.float32)
    points = Points(xyz, zeros.astype(np.uint8), zeros, np.ones(anchors, np.float32))
    camera = Camera(np.eye(3), anchors, 1, np.eye(4))
    made, maps, expected = [], [], []
    for view in range(views):
        depth = (rng.random((1, anchors)) < 0.6).astype(np.float32)
        labels = (rng.integers(0, 4, (1, anchors)) * 300).astype(np.int32)
        labels[labels > 0] += view
        image = partial(np.zeros, (1, anchors, 3), np.uint8)
        made.append(View(str(view), camera, image, load_depth=partial(np.copy, depth)))
        maps.append(labels)
        expected += [(view, i, int(labels[0, i]) or -1) for i in range(anchors) if depth[0, i] > 0]
    scene = Scene("plane", tuple(made), True, "test")
    return observe(points, scene, by_name(scene, maps), DepthTolerance()), expected


def test_an_object_that_one_view_alone_sees_is_kept():
    """Panel 1 ends at x = 0; only the first of five cameras looks that far to the left."""
    points = wall()
    scene, maps = scan([-0.7, 1.3, 1.5, 1.7, 1.9])
    assert [bool((m == 1).any()) for m in maps] == [True, False, False, False, False]
    instance = associate(points, scene, by_name(scene, maps)).cloud.instance
    panel = instance[points.xyz[:, 0] < -0.03]  # not the column whose pixel is the next panel's
    assert len(np.unique(panel)) == 1
    assert panel[0] > 0


def test_one_view_is_enough_for_a_scene_of_one_view():
    points = wall()
    scene, maps = scan([0.5])
    assert associate(points, scene, by_name(scene, maps)).summary["objects"] == 3


def test_an_object_that_several_views_see_still_needs_two_that_outline_it():
    seen = Observations(
        2,
        tuple(
            Packed(np.packbits([True, True]), np.array(m, np.uint8), f)
            for m, f in (([1, 1], 0), ([0, 0], 1), ([0, 0], 1))
        ),
        np.array([0], np.int32),
        np.array([1], np.int32),
    )
    together = np.zeros(2, np.int32)
    assert confirmed(seen, together, 0.1, 1).tolist() == [0, 0]
    assert confirmed(seen, together, 0.1, 2).tolist() == [-1, -1]


@pytest.mark.parametrize(("agreeing", "objects"), [(9, 1), (7, 2)])
def test_parts_that_need_not_touch_are_joined_by_two_fifths_of_the_views(agreeing, objects):
    """Twenty views see two parts of 50 points each; some have one mask over both."""
    both = np.repeat(np.array([1, 1], np.uint8), 50)
    apart = np.repeat(np.array([1, 2], np.uint8), 50)
    packed = tuple(
        Packed(np.packbits(np.ones(100, bool)), both if i < agreeing else apart, 2 * i)
        for i in range(20)
    )
    ids = np.arange(40, dtype=np.int32)
    seen = Observations(100, packed, ids // 2, ids + 1)
    parts = np.repeat(np.arange(2, dtype=np.int32), 50)
    joined = join_distant(seen, parts, 0.5, 0.5, smallest=5)
    assert len(np.unique(joined)) == objects


def test_confidence_is_the_mean_of_the_two_views_that_outline_an_object_best():
    """Three points; a view with all in one mask, one that leaves a third out, one that cuts all."""
    seen = Observations(
        3,
        tuple(
            Packed(np.packbits([True] * 3), np.array(m, np.uint8), f)
            for m, f in (([1, 1, 1], 0), ([1, 1, 2], 1), ([1, 2, 3], 3))
        ),
        np.array([0, 1, 1, 2, 2, 2], np.int32),
        np.array([1, 1, 2, 1, 2, 3], np.int32),
    )
    found = support(seen, cover(seen, np.zeros(3, np.int32), 1))
    assert found.best_two[0] == pytest.approx((1 + 2 / 3) / 2)
    assert found.mean[0] == pytest.approx((1 + 2 / 3 + 1 / 3) / 3)
    assert found.views[0] == 2


def test_the_largest_entry_of_a_row_is_the_first_of_equals():
    dense = np.random.default_rng(0).integers(0, 4, (50, 6)).astype(float)
    dense[7] = 0
    expected = np.where(dense.any(1), dense.argmax(1), -1)
    matrix = sparse.csr_array(dense)
    np.testing.assert_array_equal(largest_in_rows(matrix), expected)
    # Also where the entries of a row are in no order.
    turned = matrix.copy()
    for row in range(50):
        low, high = turned.indptr[row : row + 2]
        turned.indices[low:high] = turned.indices[low:high][::-1].copy()
        turned.data[low:high] = turned.data[low:high][::-1].copy()
    turned.has_sorted_indices = False
    np.testing.assert_array_equal(largest_in_rows(turned), expected)


def test_what_is_under_other_masks_is_as_if_not_seen():
    seen, expected = random_observations(np.random.default_rng(3), views=5, anchors=40)
    kept = np.random.default_rng(4).random(len(seen.mask_view)) < 0.5
    names = set(seen.mask_label[kept].tolist())
    whole = seen.under(kept).whole()
    got = zip(
        whole.view.tolist(),
        whole.anchor.tolist(),
        np.append(seen.mask_label, -1)[whole.region].tolist(),
        strict=True,
    )
    assert list(got) == [each for each in expected if each[2] in {-1, *names}]
