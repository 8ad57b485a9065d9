"""Instance AP against the benchmark script's own numbers, a slow twin, and by hand."""

import json
import time

import numpy as np
import pytest
from conftest import SHARED

from lift3d.errors import InputError
from lift3d.metrics.scannet import OVERLAPS, Prediction, average_precision, class_agnostic

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


def slow_class_ap(scenes, label, overlap):
    """The definition step by step on sets of vertices. scenes: (truth, predictions, classes)."""
    truths = judged = 0
    pairs, missed = [], 0
    for truth, predictions, classes in scenes:
        instances = {
            int(one): set(np.flatnonzero(truth == one))
            for one in sorted(set(truth.tolist()))
            if one >= 1000 and one // 1000 == label
        }
        void = set(np.flatnonzero([v < 1000 or v // 1000 not in classes for v in truth]))
        large = {one: at for one, at in instances.items() if len(at) >= 100}
        ignored = void.union(*[at for one, at in instances.items() if one not in large])
        mine = [(set(np.flatnonzero(p.mask)), p.confidence) for p in predictions
                if p.label == label and p.mask.sum() >= 100]  # fmt: skip
        used = set()
        truths += len(large)
        for at in large.values():
            scores, first = [], None
            for number, (guess, score) in enumerate(mine):
                if number not in used and len(guess & at) / len(guess | at) > overlap:
                    first = number if first is None else first
                    scores.append(score)
            if first is None:
                missed += 1
                continue
            used.add(first)
            scores.sort()
            pairs += [(score, 0) for score in scores[:-1]] + [(scores[-1], 1)]
        for guess, score in mine:
            if any(len(guess & at) / len(guess | at) > overlap for at in instances.values()):
                continue
            if len(guess & ignored) / len(guess) <= overlap:
                pairs.append((score, 0))
        judged += len(mine)
    if not truths:
        return float("nan")
    if not pairs:
        return 0.0
    precision, recall = [], []
    everything = sum(true for _, true in pairs) + missed
    for threshold in sorted({score for score, _ in pairs}):
        kept = [true for score, true in pairs if score >= threshold]
        precision.append(sum(kept) / len(kept))
        recall.append(sum(kept) / everything if everything else 0.0)
    precision, recall = [*precision, 1.0], [*recall, 0.0]
    area = 0.0
    for i, each in enumerate(precision):
        before, after = recall[max(i - 1, 0)], recall[min(i + 1, len(recall) - 1)]
        area += each * (before - after) / 2
    return area


def random_scene(rng):
    """Runs of vertices: some too small, some void, some groups; predictions that half fit."""
    sizes = rng.integers(40, 400, rng.integers(4, 12))
    ids = [int(rng.choice([0, 7, 1000, 2000, 3000])) for _ in sizes]
    ids = [one + n + 1 if one >= 1000 else one for n, one in enumerate(ids)]
    truth = np.repeat(np.array(ids, np.int64), sizes)
    predictions = []
    for _ in range(rng.integers(0, 16)):
        start = rng.integers(len(sizes))
        edges = np.concatenate([[0], np.cumsum(sizes)])
        shift = rng.integers(-60, 60, 2)
        stop = min(start + int(rng.choice([1, 1, 1, 2])), len(sizes))
        mask = cover(len(truth), max(edges[start] + shift[0], 0), max(edges[stop] + shift[1], 0))
        score = float(rng.choice([0.25, 0.5, rng.random()]))
        predictions.append(Prediction(mask, int(rng.choice([1, 2, 2, 3])), score))
    return truth, predictions


@pytest.mark.parametrize("seed", range(40))
def test_the_slow_definition_on_random_scenes(seed):
    rng = np.random.default_rng(seed)
    scenes, classes = [random_scene(rng) for _ in range(rng.integers(1, 4))], [1, 2]
    got = average_precision(scenes, classes, "random").per_class_overlap
    for row, label in enumerate(classes):
        for column, overlap in enumerate(OVERLAPS):
            slow = slow_class_ap([(*scene, classes) for scene in scenes], label, overlap)
            np.testing.assert_allclose(got[row, column], slow, atol=1e-12)


def test_random_scenes_are_not_all_alike():
    """Else the twin above would agree about nothing."""
    scores = [
        average_precision([random_scene(np.random.default_rng(seed))], [1, 2], "").ap25
        for seed in range(40)
    ]
    known = [each for each in scores if not np.isnan(each)]
    assert 0 in known
    assert len(set(known)) > 10


def test_the_perfect_answer_scores_one_and_no_answer_zero():
    truth = np.repeat(np.array([3001, 3002, 0], np.int64), 150)
    perfect = [Prediction(truth == one, 3, 1.0) for one in (3001, 3002)]
    assert average_precision([(truth, perfect)], [3, 4], "").ap == 1.0
    assert average_precision([(truth, [])], [3, 4], "").ap == 0.0
    assert np.isnan(average_precision([(truth, perfect)], [4], "").ap)


def test_half_an_object_counts_at_a_quarter_and_not_at_a_half():
    truth = np.full(400, 3001)
    got = average_precision([(truth, [Prediction(cover(400, 0, 200), 3, 1.0)])], [3], "")
    assert (got.ap, got.ap50, got.ap25) == (0.0, 0.0, 1.0)  # IoU 0.5 is not above 0.5


def test_a_guess_on_void_is_not_punished_and_one_on_an_object_is():
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


def test_the_protocol_stands_on_every_number():
    got = class_agnostic(np.zeros(5, np.int32), np.zeros(5, np.int32), {}, "nothing asked")
    assert got.summary() == {"protocol": "nothing asked", "ap": None, "ap50": None, "ap25": None}
    assert "nothing asked" in str(got)


def test_what_cannot_be_scored_says_so():
    truth = np.full(300, 3001)
    with pytest.raises(InputError, match="299 entries, the scene 300 vertices"):
        average_precision([(truth, [Prediction(np.ones(299, bool), 3, 1.0)])], [3], "")
    with pytest.raises(InputError, match="NaN or infinite"):
        average_precision([(truth, [Prediction(np.ones(300, bool), 3, np.nan)])], [3], "")
    with pytest.raises(InputError, match=r"no confidence for predicted instances \[2\]"):
        class_agnostic(truth, np.full(300, 2), {1: 1.0})
    with pytest.raises(InputError, match="299 labels for 300"):
        class_agnostic(truth, np.full(299, 2), {2: 1.0})


def test_a_large_scene_is_scored_in_seconds():
    rng = np.random.default_rng(0)
    truth = np.sort(rng.integers(3001, 3201, 200_000))
    predictions = [Prediction(np.roll(truth == one, 100), 3, 0.5) for one in range(3001, 3201)]
    start = time.perf_counter()
    assert 0 < average_precision([(truth, predictions)], [3], "").ap < 1
    assert time.perf_counter() - start < 2
