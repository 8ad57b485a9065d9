"""PQ of pictures and scenes, and IoU of classes, against slow twins and by hand."""

import numpy as np
import pytest

from lift3d.evaluation.metrics.panoptic import SharedPixels, views_quality
from lift3d.evaluation.metrics.semantic import confusion, semantic_score
from lift3d.scene.errors import InputError


def quality(truth, predicted, **classes):
    shared = SharedPixels()
    shared.add(np.array(truth), np.array(predicted))
    return shared.quality("by hand", **classes)


def slow_pq(truth, predicted, true_class, predicted_class):
    """Kirillov's definition on sets, class by class."""
    void = {i for i, one in enumerate(truth) if one == 0 or one not in true_class}
    found = {}
    for kind in sorted(set(true_class.values()) | set(predicted_class.values())):
        real = [one for one in sorted(set(truth)) if one and true_class.get(one) == kind]
        guess = [one for one in sorted(set(predicted)) if one and predicted_class.get(one) == kind]
        real = [{i for i, one in enumerate(truth) if one == each} for each in real]
        guess = [{i for i, one in enumerate(predicted) if one == each} for each in guess]
        ious = [[len(g & r) / len((g - void) | r) for r in real] for g in guess]
        matches = [iou for row in ious for iou in row if iou > 0.5]
        alone = [g for g, row in zip(guess, ious, strict=True) if not any(i > 0.5 for i in row)]
        wrong = sum(len(g & void) / len(g) <= 0.5 for g in alone)
        missed = len(real) - len(matches)
        if matches or wrong or missed:
            found[kind] = sum(matches) / (len(matches) + wrong / 2 + missed / 2)
    return found


@pytest.mark.parametrize("seed", range(30))
def test_the_definition_on_random_segments(seed):
    rng = np.random.default_rng(seed)
    truth = np.sort(rng.integers(0, 7, 300))
    predicted = np.where(rng.random(300) < 0.8, (truth * 3) % 8, rng.integers(0, 8, 300))
    true_class = {each: int(rng.integers(0, 3)) for each in range(1, 6)}
    predicted_class = {each: true_class.get(each * 3 % 8, 1) for each in range(1, 8)}
    got = quality(truth, predicted, true_class=true_class, predicted_class=predicted_class)
    slow = slow_pq(truth.tolist(), predicted.tolist(), true_class, predicted_class)
    assert got.per_class == pytest.approx(slow, abs=1e-12)
    assert got.pq == pytest.approx(np.mean(list(slow.values())))
    one = {each: 1 for each in range(1, 9)}
    assert quality(truth, predicted).per_class == pytest.approx(
        slow_pq(truth.tolist(), predicted.tolist(), one, one), abs=1e-12
    )


def test_a_perfect_prediction_scores_one_and_an_empty_prediction_zero():
    truth = [0, 1, 1, 2, 2, 2]
    assert quality(truth, [0, 9, 9, 4, 4, 4]).pq == 1
    assert quality(truth, [0] * 6).pq == 0
    assert np.isnan(quality([0, 0], [0, 0]).pq)
    assert quality([0, 0], [0, 0]).summary()["pq"] is None


def test_pq_is_the_product_of_its_parts_for_one_class():
    got = quality([1] * 4 + [2] * 4 + [3] * 2, [5] * 3 + [0] + [6] * 4 + [7, 8])
    assert (got.matches, got.wrong, got.missed) == (2, 2, 1)  # 7 and 8: IoU 1/2 is not above it
    assert got.sq == pytest.approx((3 / 4 + 1) / 2)
    assert got.rq == pytest.approx(2 / (2 + 1.5))
    assert got.pq == pytest.approx(got.sq * got.rq)


def test_a_changing_id_lowers_the_scene_score_but_not_that_of_pictures():
    truth = np.ones((4, 4), np.int32)
    views = [(truth, truth), (truth, 2 * truth)]
    each, scene = views_quality(views, "class-agnostic")
    assert each.pq == 1
    assert scene.pq == 0  # halves: IoU 1/2 is not above 1/2
    assert "picture by picture, 2 views" in each.protocol
    assert "scene-level PQ over all 2 views" in scene.protocol
    steady, scene = views_quality([(truth, truth)] * 3, "")
    assert steady.pq == scene.pq == 1
    with pytest.raises(InputError, match="one size"):
        views_quality([(truth, truth[:2])], "")
    with pytest.raises(InputError, match="below 0"):
        quality([1, 2], [0, -1])


def test_iou_of_classes_equals_the_benchmarks():
    """TP / (TP + FN + FP); vertices that are not evaluated are ignored."""
    truth = np.array([1, 1, 1, 2, 2, 0, 9])
    predicted = np.array([1, 2, 7, 2, 1, 1, 2])
    assert confusion(truth, predicted, [1, 2, 3]).tolist() == [[1, 1, 0, 1], [1, 1, 0, 0], [0] * 4]
    got = semantic_score([(truth, predicted)], [1, 2, 3], "by hand")
    assert got.per_class[:2].tolist() == [1 / 4, 1 / 3]
    assert np.isnan(got.per_class[2])
    assert got.miou == pytest.approx((1 / 4 + 1 / 3) / 2)
    assert got.accuracy == pytest.approx(2 / 5)
    twice = semantic_score([(truth, predicted)] * 2, [1, 2, 3], "")
    np.testing.assert_array_equal(twice.per_class, got.per_class)
    nothing = semantic_score([(np.zeros(0, int), np.zeros(0, int))], [1], "nothing").summary()
    assert nothing == {"protocol": "nothing", "miou": None, "accuracy": None}


@pytest.mark.parametrize("seed", range(5))
def test_iou_of_classes_equals_the_definition_on_sets(seed):
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(0, 6, (2, 500))
    got = semantic_score([(truth, predicted)], [1, 2, 4, 5], "")
    asked = np.isin(truth, [1, 2, 4, 5])
    for each, iou in zip(got.class_ids, got.per_class, strict=True):
        real, guess = (truth == each) & asked, (predicted == each) & asked
        assert iou == (real & guess).sum() / (real | guess).sum()
