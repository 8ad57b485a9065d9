"""Instance AP against the benchmark script's own numbers, a slow twin, and by hand."""

import json

import numpy as np
import pytest
from conftest import SHARED

from lift3d.evaluation.metrics.scannet import (
    OVERLAPS,
    Prediction,
    _dot,
    average_precision,
    class_agnostic,
)
from lift3d.scene.errors import InputError

GOLDEN = SHARED / "facts" / "scannet_ap_golden.npz"


def cover(vertices, start, stop):
    mask = np.zeros(vertices, bool)
    mask[start:stop] = True
    return mask


@pytest.fixture
def golden():
    if not GOLDEN.is_file():
        pytest.skip(f"needs the benchmark script's own numbers, {GOLDEN}, which are not shipped")
    with np.load(GOLDEN) as stored:
        return dict(stored)


def golden_case(stored, number, scenes):
    for each in range(scenes):
        name = f"c{number}_s{each}"
        truth = stored[f"{name}_gt"]
        masks = np.unpackbits(stored[f"{name}_masks"], axis=1)[:, : len(truth)].astype(bool)
        labels, scores = stored[f"{name}_label"].tolist(), stored[f"{name}_conf"].tolist()
        yield truth, [Prediction(*one) for one in zip(masks, labels, scores, strict=True)]


def test_every_number_of_the_benchmarks_script_to_the_last_decimal(golden):
    meta = json.loads(str(golden["meta"]))
    assert list(OVERLAPS) == meta["overlaps"]
    compared = 0
    for number, case in enumerate(meta["cases"]):
        scenes = list(golden_case(golden, number, case["scenes"]))
        got = average_precision(scenes, meta["class_ids"], "golden")
        if case.get("official_script_fails"):
            assert (got.per_class_overlap == 0).any()
            continue
        expected = np.array(case["ap_class_overlap"], np.float64)
        np.testing.assert_array_equal(got.per_class_overlap, expected)
        assert (got.ap, got.ap50, got.ap25) == (
            case["all_ap"],
            case["all_ap_50"],
            case["all_ap_25"],
        )
        compared += 1
    assert compared >= 50


def slow_ap(scenes, label, classes, overlap):
    """The definition, computed slowly on sets of vertices, in the script's order."""
    scores, rights, missed, truths, guesses = [], [], 0, 0, 0
    for truth, predictions in scenes:
        void = {v for v, one in enumerate(truth) if one < 1000 or one // 1000 not in classes}
        instances = [
            set(np.flatnonzero(truth == one).tolist())
            for one in sorted(set(truth.tolist()))
            if one >= 1000 and one // 1000 == label
        ]
        mine = [
            (set(np.flatnonzero(one.mask).tolist()), one.confidence)
            for one in predictions
            if one.label == label and one.mask.sum() >= 100
        ]
        guesses += len(mine)
        used = set()
        for at in instances:
            if len(at) < 100:
                continue
            truths += 1
            best = None
            for number, (guess, score) in enumerate(mine):
                if number in used or not iou(guess, at) > overlap:
                    continue
                if best is None:
                    best = score
                    used.add(number)
                else:
                    scores.append(min(best, score))
                    rights.append(0)
                    best = max(best, score)
            if best is None:
                missed += 1
            else:
                scores.append(best)
                rights.append(1)
        for guess, score in mine:
            if any(iou(guess, at) > overlap for at in instances):
                continue
            ignored = len(guess & void)
            ignored += sum(len(guess & at) for at in instances if len(at) < 100)
            if not ignored / len(guess) > overlap:
                scores.append(score)
                rights.append(0)
    if not truths:
        return float("nan")
    if not guesses or not scores:
        return 0.0
    precision, recall = [], []
    for threshold in sorted(set(scores)):
        kept = [right for score, right in zip(scores, rights, strict=True) if score >= threshold]
        below = sum(rights) - sum(kept)
        precision.append(sum(kept) / len(kept))
        recall.append(sum(kept) / (sum(kept) + below + missed))
    precision, recall = [*precision, 1.0], [*recall, 0.0]
    steps = np.convolve([recall[0], *recall, 0.0], [-0.5, 0, 0.5], "valid")
    # The reference cases contain the last bit of this sum; np.dot's depends on the processor.
    return _dot(np.asarray(precision, float).tolist(), steps.tolist())


def iou(a, b):
    return len(a & b) / len(a | b)


KINDS = ("mixed", "void", "tiny", "overlapping", "empty", "duplicated")


def random_scene(rng, kind="mixed"):
    """Runs of vertices, some void, some groups, some too small; predictions overlap partly."""
    sizes = rng.integers(*((20, 180) if kind == "tiny" else (40, 300)), rng.integers(3, 9))
    nothing = [0, 0, 7, 999, 9000] if kind == "void" else [0, 7]
    ids = [int(rng.choice([*nothing, 1000, 2000, 3000])) for _ in sizes]
    ids = [one + n + 1 if one >= 1000 else one for n, one in enumerate(ids)]
    truth = np.repeat(np.array(ids, np.int64), sizes)
    edges = np.concatenate([[0], np.cumsum(sizes)])
    count = 0 if kind == "empty" and rng.random() < 0.5 else rng.integers(0, 14)
    predictions = []
    for _ in range(count):
        if kind == "empty" and rng.random() < 0.3:
            predictions.append(Prediction(np.zeros(len(truth), bool), 1, 0.9))
            continue
        if kind == "duplicated" and predictions and rng.random() < 0.5:
            again = predictions[rng.integers(len(predictions))]
            score = again.confidence if rng.random() < 0.5 else float(rng.random())
            predictions.append(Prediction(again.mask, again.label, score))
            continue
        start = rng.integers(len(sizes))
        stop = min(start + int(rng.choice([1, 1, 1, 2])), len(sizes))
        spread = 20 if kind == "overlapping" else 60
        low = max(edges[start] + rng.integers(-spread, spread), 0)
        mask = cover(len(truth), low, max(edges[stop] + rng.integers(-spread, spread), 0))
        # Mostly the true class.
        label = ids[start] // 1000 if rng.random() < 0.7 else int(rng.choice([1, 2, 3]))
        score = float(rng.choice([0.25, 0.5, rng.random()]))
        predictions.append(Prediction(mask, label, score))
    return truth, predictions


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", range(5))
def test_random_scenes_equal_the_slow_definition_in_every_decimal(kind, block):
    """6 kinds x 5 x 10 = 300 cases of one to three scenes."""
    for seed in range(10):
        rng = np.random.default_rng([block, seed, KINDS.index(kind)])
        scenes = [random_scene(rng, kind) for _ in range(rng.integers(1, 4))]
        got = average_precision(scenes, [1, 2], "random")
        table = [[slow_ap(scenes, label, [1, 2], each) for each in OVERLAPS] for label in (1, 2)]
        np.testing.assert_array_equal(got.per_class_overlap, table)
        known = np.array(table)[:, :-1]
        mean = np.nanmean(known.T.copy()) if np.isfinite(known).any() else np.nan
        np.testing.assert_array_equal(got.ap, mean)


@pytest.mark.parametrize("kind", KINDS)
def test_random_scenes_have_different_scores(kind):
    """Otherwise the comparison above would test little."""
    rng = np.random.default_rng(0)
    found = [average_precision([random_scene(rng, kind)], [1, 2], "").ap25 for _ in range(40)]
    known = [each for each in found if not np.isnan(each)]
    assert 0 in known
    assert len(set(known)) > 4


def test_perfect_predictions_score_one_and_no_predictions_zero():
    truth = np.repeat(np.array([3001, 3002, 0], np.int64), 150)
    perfect = [Prediction(truth == one, 3, 1.0) for one in (3001, 3002)]
    assert average_precision([(truth, perfect)], [3, 4], "").ap == 1.0
    assert average_precision([(truth, [])], [3, 4], "").ap == 0.0
    assert np.isnan(average_precision([(truth, perfect)], [4], "").ap)


def test_half_an_object_matches_at_overlap_25_but_not_at_50():
    truth = np.full(400, 3001)
    got = average_precision([(truth, [Prediction(cover(400, 0, 200), 3, 1.0)])], [3], "")
    assert (got.ap, got.ap50, got.ap25) == (0.0, 0.0, 1.0)  # IoU 0.5 is not above 0.5


def test_false_positives_on_void_are_ignored_and_on_objects_are_not():
    truth = np.repeat(np.array([3001, 0, 3002], np.int64), [200, 200, 600])
    right = Prediction(cover(1000, 0, 200), 3, 0.5)
    on_void = Prediction(cover(1000, 200, 400), 3, 0.9)
    wrong = Prediction(cover(1000, 400, 500), 3, 0.9)
    # One of two found: precision 1 up to recall 1/2.
    assert average_precision([(truth, [right, on_void])], [3], "").ap == 0.5
    # From 0.5 up: precision 1/2 at recall 1/2, half a step long; from 0.9 up: nothing right.
    assert average_precision([(truth, [right, wrong])], [3], "").ap == 0.5 * 0.5 / 2


def test_classes_folded_into_one_are_the_same_rule():
    rng = np.random.default_rng(3)
    truth = np.repeat(np.arange(1500), 3)[:3000] // 100  # 0 to 9, 300 vertices each
    predicted = np.roll(truth, 60) * (rng.random(3000) < 0.9)
    scores = {each: float(rng.random()) for each in (5, 3, 1, 2, 4, 6, 7, 8, 9)}
    masks = [Prediction(predicted == each, 1, score) for each, score in scores.items()]
    expected = average_precision([(np.where(truth > 0, 1000 + truth, 0), masks)], [1], "")
    got = class_agnostic(truth, predicted, scores)
    assert 0 < expected.ap < expected.ap25
    np.testing.assert_array_equal(got.per_class_overlap, expected.per_class_overlap)
    assert got.ap == expected.ap


def test_more_than_a_thousand_instances_fold_without_overflow():
    truth = np.repeat(np.arange(1, 1203), 100)
    got = class_agnostic(truth, truth, {each: 1.0 for each in range(1, 1203)})
    assert got.ap == 1.0


def test_every_number_has_its_protocol():
    got = class_agnostic(np.zeros(5, np.int32), np.zeros(5, np.int32), {}, "nothing asked")
    assert got.summary() == {"protocol": "nothing asked", "ap": None, "ap50": None, "ap25": None}
    assert "nothing asked" in str(got)


def test_invalid_input_is_an_error():
    truth = np.full(300, 3001)
    with pytest.raises(InputError, match="299 entries, the scene 300 vertices"):
        average_precision([(truth, [Prediction(np.ones(299, bool), 3, 1.0)])], [3], "")
    with pytest.raises(InputError, match="NaN or infinite"):
        average_precision([(truth, [Prediction(np.ones(300, bool), 3, np.nan)])], [3], "")
    with pytest.raises(InputError, match=r"no confidence for predicted instances \[2\]"):
        class_agnostic(truth, np.full(300, 2), {1: 1.0})
    with pytest.raises(InputError, match="299 predicted labels for 300"):
        class_agnostic(truth, np.full(299, 2), {2: 1.0})
