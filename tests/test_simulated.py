"""Simulated masks are the true masks with errors of a known amount."""

from dataclasses import replace

import numpy as np
import pytest

from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.scene import Camera, Prompt, View
from lift3d.scene.errors import InputError
from lift3d.scene.overlap import paint
from lift3d.scene.protocols import Segmenter
from lift3d.segmentation import BACKENDS
from lift3d.segmentation.simulated import SEVERITIES, Damage, SimulatedConfig, damaged

NOTHING = Damage(0.0, 0.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def views():
    return SyntheticConfig(seed=1, views=6, width=160, height=120).read().views


def board():
    """Four by three squares of 40 pixels, ids 1 to 12, with an unlabelled border."""
    squares = np.arange(1, 13, dtype=np.int32).reshape(3, 4)
    return np.pad(np.kron(squares, np.ones((40, 40), np.int32)), 10)


def same_masks(a, b):
    """Whether label maps are equal except for the ids."""
    pairs = {*zip(a.ravel().tolist(), b.ravel().tolist(), strict=True)}
    return len(pairs) == len({x for x, _ in pairs}) == len({y for _, y in pairs})


def test_undamaged_masks_are_the_truth_with_new_ids_per_view(views):
    segmenter = SimulatedConfig().build()
    orders = set()
    for view in views:
        masks, truth = segmenter.segment(view), view.instances()
        assert same_masks(paint(masks.stack), truth)
        true_ids = np.array([truth[mask][0] for mask in masks.stack])
        assert sorted(masks.ids.tolist()) == list(range(1, len(masks) + 1))
        orders.add(tuple(np.argsort(true_ids).tolist()))
    assert len(orders) == len(views)


def test_the_same_view_gives_the_same_masks_and_another_seed_others(views):
    config = SimulatedConfig("high", seed=3)
    first = [config.build().segment(view) for view in views]
    backwards = [config.build().segment(view) for view in views[::-1]][::-1]
    for a, b in zip(first, backwards, strict=True):
        np.testing.assert_array_equal(a.stack, b.stack)
        np.testing.assert_array_equal(a.ids, b.ids)
    other = replace(config, seed=4).build().segment(views[0])
    assert other.stack.shape != first[0].stack.shape or (other.stack != first[0].stack).any()


def test_a_view_may_have_any_name(views):
    """Also one that is not UTF-8, as the seed of a view is made from its name."""
    view = replace(views[0], name="k\udcfc")
    assert SimulatedConfig().build().segment(view).stack.shape[1:] == view.instances().shape


@pytest.mark.parametrize("severity", SEVERITIES)
def test_masks_never_overlap_and_none_is_empty(views, severity):
    for view in views:
        stack = SimulatedConfig(severity).build().segment(view).stack
        assert stack.sum(0).max() <= 1
        assert stack.any((1, 2)).all()


def test_dropped_masks_are_missing_and_the_others_unchanged():
    rng, truth = np.random.default_rng(0), board()
    found = [damaged(truth, NOTHING._replace(drop=0.4), rng) for _ in range(40)]
    assert 0.5 < np.mean([each.max() for each in found]) / 12 < 0.7
    for each in found:
        kept = each > 0
        assert same_masks(each[kept], truth[kept])


def test_split_masks_have_two_or_three_parts_that_cover_the_mask():
    truth = board()
    found = damaged(truth, NOTHING._replace(split=1.0), np.random.default_rng(0))
    parts = [len(np.unique(found[truth == each])) for each in range(1, 13)]
    assert set(parts) == {2, 3}
    assert found.max() == sum(parts)  # no part reaches into a second mask
    np.testing.assert_array_equal(found > 0, truth > 0)


def test_small_masks_are_not_split():
    truth = np.zeros((480, 640), np.int32)
    truth[5:15, 5:15] = 1
    assert damaged(truth, NOTHING._replace(split=1.0), np.random.default_rng(0)).max() == 1


def test_merged_masks_touch():
    rng, truth = np.random.default_rng(0), board()
    merged = 0
    for _ in range(20):
        found = damaged(truth, NOTHING._replace(merge=0.1), rng)
        for each in range(1, found.max() + 1):
            cells = {divmod(i - 1, 4) for i in np.unique(truth[found == each]).tolist()}
            merged += len(cells) > 1
            for row, column in cells:
                beside = {
                    (row + 1, column),
                    (row - 1, column),
                    (row, column + 1),
                    (row, column - 1),
                }
                assert len(cells) == 1 or cells & beside
    assert 10 < merged < 40  # a tenth of 12 masks, 20 times


def test_a_mask_that_touches_nothing_is_not_merged():
    truth = np.zeros((20, 20), np.int32)
    truth[:5], truth[10:] = 1, 2
    assert damaged(truth, NOTHING._replace(merge=1.0), np.random.default_rng(0)).max() == 2


def test_rough_borders_shift_by_the_set_pixels_at_any_image_size():
    moved = {}
    for scale in (1, 2):
        truth = np.ones((480 // scale, 640 // scale), np.int32)
        truth[:, 320 // scale :] = 2
        rng = np.random.default_rng(0)
        widths = []
        for _ in range(20):
            found = damaged(truth, NOTHING._replace(rough=5.0), rng)
            assert found.max() == 2  # borders move, masks stay
            other = found != found[0, 0]
            widths.append(scale * np.abs((~other).sum(1) - 320 / scale).mean())
        moved[scale] = np.mean(widths)
    assert 2 < moved[1] < 6
    assert 0.7 < moved[2] / moved[1] < 1.4


def test_each_severity_is_worse_than_the_one_before(views):
    kept = []
    for severity in SEVERITIES:
        segmenter = SimulatedConfig(severity).build()
        overlap = []
        for view in views:
            truth, stack = view.instances(), segmenter.segment(view).stack
            for each in np.unique(truth[truth > 0]):
                mask = truth == each
                shared, joint = (stack & mask).sum((1, 2)), (stack | mask).sum((1, 2))
                overlap.append((shared / joint).max(initial=0.0))
        kept.append(np.mean(overlap))
    assert kept[0] == 1
    assert kept == sorted(kept, reverse=True)
    assert kept[1] > 0.6
    assert kept[3] < 0.4


def test_each_kind_of_damage_can_be_disabled_or_used_alone(views):
    assert SimulatedConfig("high", drop=0.0).damage == SEVERITIES["high"]._replace(drop=0.0)
    assert SimulatedConfig(split=0.5).damage == NOTHING._replace(split=0.5)
    whole = SimulatedConfig(drop=1.0).build().segment(views[0])
    assert len(whole) == 0
    for wrong in ({"rough": -1.0}, {"drop": 1.5}, {"merge": float("nan")}, {"split": -0.1}):
        with pytest.raises(InputError, match="expected shares from 0 to 1"):
            SimulatedConfig(**wrong).build()


def test_a_prompt_gets_the_mask_under_most_of_its_points(views):
    view, segmenter = views[0], SimulatedConfig().build()
    masks = segmenter.segment(view)
    row, column = np.argwhere(masks.stack[0])[0]
    prompt = Prompt(np.array([[column, row]], np.float64), np.array([True]))
    for answer in (segmenter.prompt(view, [prompt]), segmenter.alternatives(view, prompt)):
        np.testing.assert_array_equal(answer.stack, masks.stack[:1])


def test_a_prompt_on_no_mask_gets_an_empty_mask():
    view = View("a", Camera(np.eye(3), 180, 140), board, load_instances=board)
    prompt = Prompt(np.array([[2.0, 2.0]]), np.array([True]))
    answer = SimulatedConfig().build().prompt(view, [prompt])
    assert answer.stack.shape == (1, 140, 180)
    assert not answer.stack.any()


def test_a_view_without_truth_is_an_error(views):
    with pytest.raises(InputError, match="view 0000 has no true instances"):
        SimulatedConfig().build().segment(replace(views[0], load_instances=None))


def test_simulated_is_a_registered_segmenter():
    assert isinstance(SimulatedConfig().build(), Segmenter)
    assert BACKENDS["simulated"] is SimulatedConfig
