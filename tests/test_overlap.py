"""Overlapping masks and their scores in the association, on the wall of panels."""

import numpy as np
import pytest
from panel_wall import (
    HEIGHT,
    POSITIONS,
    WIDTH,
    found_equals_true,
    panels,
    scan,
    shuffled,
    wall,
    wall_x,
)

from lift3d.association import AssociationConfig, associate
from lift3d.association.assignments import Assignments
from lift3d.association.clusters import _dense_agreement, cover
from lift3d.association.evidence import observe, pair_agreement
from lift3d.association.overlap import NESTED
from lift3d.geometry.visibility import DepthTolerance
from lift3d.scene import Masks, Points
from lift3d.scene.labelmaps import by_name
from lift3d.scene.mask_sets import MaskSet


def columns(low, high, x):
    """A mask of the wall from `low` to `high` metres, in the view at `x`."""
    at = wall_x(x)
    return np.broadcast_to((at >= low) & (at < high), (HEIGHT, WIDTH))


def mask_set(number, masks):
    """Of (mask, score) pairs, without those that are empty; ids are new in view `number`."""
    masks = [(mask, score) for mask, score in masks if mask.any()]
    stack = np.stack([mask for mask, _ in masks])
    scores = np.float32([score for _, score in masks])
    return MaskSet.of(
        Masks(stack, scores), 10 * number + np.arange(1, len(masks) + 1, dtype=np.int32)
    )


def panels_and(more):
    """Each view's panels, and what `more` adds at its place."""
    return [
        mask_set(
            number,
            [(panels(wall_x(x)) * np.ones((HEIGHT, 1)) == each, 1.0) for each in (1, 2, 3)]
            + more(number, x),
        )
        for number, x in enumerate(POSITIONS)
    ]


def lifted(sets, **config):
    scene, _ = scan()
    return associate(wall(), scene, by_name(scene, sets), AssociationConfig(**config))


def as_sets(maps):
    return [MaskSet.of(Masks.from_label_map(each)) for each in maps]


def parts_of_panel_2(number, x):
    """Cuts it into two parts, at 0.5 m in all views."""
    return [(columns(0, 0.5, x), 1.0), (columns(0.5, 1, x), 1.0)]


def test_parts_that_cover_an_object_do_not_divide_it():
    sets = panels_and(parts_of_panel_2)
    assert found_equals_true(wall(), lifted(sets).cloud.instance)
    flattened = lifted([each.labels for each in sets]).cloud.instance
    assert len(np.unique(flattened)) == 4


def test_the_view_shows_the_object_under_its_parts():
    sets = panels_and(parts_of_panel_2)
    scene, _ = scan()
    result = lifted(sets)
    labels = result.relabel(5, scene.views[5], sets[5])
    expected = np.broadcast_to(panels(wall_x(POSITIONS[5])), labels.shape)
    assert len(np.unique(np.stack([labels.ravel(), expected.ravel()]), axis=1).T) == 3


def test_a_small_mask_that_became_no_object_hides_none():
    """In one view only, a mask over nothing that other views see lies on panel 2."""
    points = wall()
    keep = ~((points.xyz[:, 0] > 0.3) & (points.xyz[:, 0] < 0.5))  # no anchor is under it
    points = points.take(keep)
    sets = panels_and(lambda number, x: [(columns(0.34, 0.46, x), 1.0)] if number == 5 else [])
    scene, _ = scan()
    result = associate(points, scene, by_name(scene, sets))
    labels = result.relabel(5, scene.views[5], sets[5])
    middle = columns(0, 1, POSITIONS[5])
    assert len(np.unique(labels[middle])) == 1
    assert labels[middle].all()
    assert len(np.unique(result.relabel(5, scene.views[5], sets[5].labels)[middle])) == 2


@pytest.mark.parametrize(("score", "objects"), [(1.0, 2), (0.1, 3)])
def test_the_score_of_a_mask_weighs_what_it_says_of_two_objects(score, objects):
    """All views see panels 2 and 3 under one mask; two views of three also see each alone."""

    def sets_of(number, x):
        alone = [(columns(0, 1, x), 1.0), (columns(1, 9, x), 1.0)] if number % 3 else []
        masks = [(columns(-9, 0, x), 1.0), (columns(0, 9, x), score), *alone]
        return mask_set(number, masks)

    result = lifted([sets_of(number, x) for number, x in enumerate(POSITIONS)])
    assert result.summary["objects"] == objects


def test_the_score_of_a_mask_weighs_its_votes():
    """Ids that agree: most views give all of the wall id 5, at a low score, the others 7."""
    scene, _ = scan()

    def labels(number, score):
        stack = np.ones((1, HEIGHT, WIDTH), bool)
        ids = np.int32([5 if number % 3 else 7])
        return MaskSet.of(Masks(stack, np.float32([score if number % 3 else 1])), ids)

    for score, winner in ((0.99, 5), (0.2, 7)):
        sets = [labels(number, score) for number in range(len(scene))]
        instance = lifted(sets, trust_ids=True).cloud.instance
        assert np.bincount(instance).argmax() == winner


def test_masks_of_score_0_say_nothing():
    sets = panels_and(lambda number, x: [(columns(-9, 9, x), 0.0)])
    expected = lifted(panels_and(lambda number, x: []))
    np.testing.assert_array_equal(lifted(sets).cloud.instance, expected.cloud.instance)


def test_without_overlaps_mask_sets_count_as_their_label_maps():
    sets = panels_and(lambda number, x: [(columns(-1, 1, x), 0.5), *parts_of_panel_2(number, x)])
    flat, off = lifted([each.labels for each in sets]), lifted(sets, overlaps=False)
    np.testing.assert_array_equal(off.cloud.instance, flat.cloud.instance)
    assert (lifted(sets).cloud.instance != flat.cloud.instance).any()


def test_masks_that_all_have_score_0_give_no_objects():
    """Such as NaN, or logits below 0."""
    sets = [
        MaskSet.of(Masks(each.masks().stack, np.full(len(each), np.nan, np.float32)), each.ids)
        for each in panels_and(parts_of_panel_2)
    ]
    assert not lifted(sets).cloud.instance.any()


@pytest.mark.parametrize("first", [True, False])
def test_a_divided_mask_under_others_that_cover_all_of_it_is_passed_over(first):
    """The whole wall, and its panels on top: no pixel shows the whole."""
    scene, _ = scan()
    sets = []
    for number, x in enumerate(POSITIONS):
        parts = [(columns(low, high, x), 1.0) for low, high in ((-9, 0), (0, 1), (1, 9))]
        whole = [(columns(-9, 9, x), 1.0)]
        sets.append(mask_set(number, whole + parts if first else parts + whole))
    result = lifted(sets)
    whole = result.assignments
    divided = Assignments(**(vars(whole) | {"divided": np.ones(len(whole), bool)}))
    for view in (0, 5):
        labels = divided.relabelled(
            view, scene.views[view], sets[view], result.cloud, DepthTolerance()
        )
        assert set(np.unique(labels)) >= set(np.unique(result.cloud.instance)) - {0}


def test_mask_sets_without_overlap_give_what_label_maps_give():
    """By the code for overlap: a view with it makes all of them regions."""
    scene, maps = scan()
    maps = shuffled(maps)
    maps[3][:10] = 0
    by_maps = associate(wall(), scene, by_name(scene, maps))
    by_sets = associate(wall(), scene, by_name(scene, as_sets(maps)))
    np.testing.assert_array_equal(by_sets.cloud.instance, by_maps.cloud.instance)
    np.testing.assert_allclose(by_sets.cloud.score, by_maps.cloud.score, atol=1e-6)
    assert by_sets.summary == by_maps.summary
    assert by_sets.confidence == pytest.approx(by_maps.confidence)
    for index, view in enumerate(scene.views):
        np.testing.assert_array_equal(
            by_sets.relabel(index, view, as_sets(maps)[index]),
            by_maps.relabel(index, view, maps[index]),
        )


def plain_together(one, other, scores):
    """As `overlap.together` says it, on sets of masks."""
    shared, either = one & other, one | other
    best = [max((scores[m] for m in masks), default=0.0) for masks in (one, other, shared)]
    jaccard = sum(scores[m] for m in shared) / sum(scores[m] for m in either)
    return best[0] * best[1] * (NESTED * best[2] / max(best[:2]) + (1 - NESTED) * jaccard)


@pytest.mark.parametrize("seed", range(5))
def test_pairs_and_clusters_are_counted_as_a_plain_count_over_sets_of_masks(seed):
    seen, views = overlapping_observations(seed)
    anchors, half = seen.anchors, 0.7
    agree, total = np.zeros((2, anchors, anchors))
    for stack, scores in views:
        over = [set(np.flatnonzero(column).tolist()) for column in stack.T]
        best = [max((scores[m] for m in masks), default=0.0) for masks in over]
        for i, j in np.ndindex(anchors, anchors):
            if over[i] and over[j]:
                agree[i, j] += plain_together(over[i], over[j], scores)
                total[i, j] += best[i] * best[j]
            else:
                total[i, j] += half * max(best[i], best[j])
    a, b = (each.astype(np.int32) for each in np.triu_indices(anchors, 1))
    found = pair_agreement(seen, a, b, half)
    np.testing.assert_allclose(found[0], agree[a, b], rtol=1e-6)
    np.testing.assert_allclose(found[1], total[a, b], rtol=1e-6)
    alone = np.arange(anchors, dtype=np.int32)  # a cluster per anchor
    dense = _dense_agreement(seen, cover(seen, alone, anchors), half)
    np.testing.assert_allclose(dense[0][a, b], agree[a, b], rtol=1e-6)
    np.testing.assert_allclose(dense[1][a, b], total[a, b], rtol=1e-6)


def overlapping_observations(seed=0, views=4, anchors=30):
    """Random masks over anchors on a line, seen by all views; the masks of each view."""
    rng = np.random.default_rng(seed)
    scene, points = line_of(anchors, views)
    sets, stacks = [], []
    for view in range(views):
        stack = rng.random((5, 1, anchors)) < 0.3
        scores = np.float32(rng.uniform(0.2, 1, 5))
        ids = np.arange(1, 6, dtype=np.int32) + 10 * view
        sets.append(MaskSet.of(Masks(stack, scores), ids))
        stacks.append((stack[:, 0], scores))
    return observe(points, scene, by_name(scene, sets), DepthTolerance()), stacks


def line_of(anchors, views):
    from functools import partial

    from lift3d.scene import Camera, Scene, View

    xyz = np.stack([np.arange(anchors), np.zeros(anchors), np.ones(anchors)], 1)
    zeros = np.zeros((anchors, 3), np.float32)
    points = Points(
        xyz.astype(np.float32), zeros.astype(np.uint8), zeros, np.ones(anchors, np.float32)
    )
    camera = Camera(np.eye(3), anchors, 1, np.eye(4))
    image = partial(np.zeros, (1, anchors, 3), np.uint8)
    depth = partial(np.ones, (1, anchors), np.float32)
    made = tuple(View(str(i), camera, image, load_depth=depth) for i in range(views))
    return Scene("line", made, True, "test"), points
