import json
import runpy

import numpy as np
import pytest
from conftest import SHARED

from lift3d.networks.reciprocal import (
    DescribedPair,
    Window,
    match_pair,
    reciprocal_matches,
    window_pairs,
)
from lift3d.scene import Matches
from lift3d.scene.errors import InputError


def unit(descriptors):
    length = np.linalg.norm(descriptors, axis=-1, keepdims=True)
    return (descriptors / length).astype(np.float32)


def smooth(height, width, channels, seed, noise=0.05):
    """Waves over the image and a little noise, as networks give it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = rng.uniform(-0.4, 0.4, (channels, 2))
    phase = rng.uniform(0, 6.3, channels)
    values = np.cos(x[..., None] * waves[:, 0] + y[..., None] * waves[:, 1] + phase)
    return unit(values + noise * rng.standard_normal(values.shape))


def pairs_of(found):
    return {(*a, *b) for a, b in zip(found[0].tolist(), found[1].tolist(), strict=True)}


def slow_and_obvious(a, b, stride, rounds):
    """The complete matrix of products, and every seed by itself."""
    products = (
        a.reshape(-1, a.shape[2]).astype(np.float64)
        @ b.reshape(-1, b.shape[2]).astype(np.float64).T
    )
    to_b, to_a = products.argmax(1), products.argmax(0)
    found = set()
    for row in range(stride // 2, a.shape[0], stride):
        for column in range(stride // 2, a.shape[1], stride):
            here = row * a.shape[1] + column
            for _ in range(rounds):
                there = to_b[here]
                if to_a[there] == here:
                    found.add((*divmod(here, a.shape[1])[::-1], *divmod(there, b.shape[1])[::-1]))
                    break
                here = to_a[there]
    return found


@pytest.mark.parametrize("size", [(24, 32), (21, 30), (5, 70), (1, 1)])
@pytest.mark.parametrize("channels", [3, 8, 24])
@pytest.mark.parametrize("noise", [0.02, 0.5, 50.0])
def test_matches_are_those_of_the_slow_obvious_search(size, channels, noise):
    a = smooth(*size, channels, 0, noise)
    b = smooth(27, 18, channels, 0, noise)
    for stride, rounds in ((1, 10), (5, 10), (5, 1)):
        if stride // 2 < min(size):
            expected = slow_and_obvious(a, b, stride, rounds)
            assert pairs_of(reciprocal_matches(a, b, stride, rounds)) == expected


def test_a_map_of_one_descriptor_matches_its_first_pixel_alone():
    flat = unit(np.ones((9, 11, 4)))
    found = reciprocal_matches(flat, flat, stride=1)
    assert pairs_of(found) == {(0, 0, 0, 0)}


def test_of_equal_descriptors_the_first_pixel_is_nearest():
    b = unit(np.random.default_rng(0).standard_normal((20, 20, 5)))
    a = b[13:14, 17:18]
    b[3, 19] = b[19, 2] = b[13, 17]
    assert pairs_of(reciprocal_matches(a, b, 1)) == {(0, 0, 19, 3)}


def test_a_map_against_itself_stays_where_it_is():
    a = unit(np.random.default_rng(1).standard_normal((33, 40, 24)))
    xy_a, xy_b = reciprocal_matches(a, a, stride=8)
    np.testing.assert_array_equal(xy_a, xy_b)
    assert len(xy_a) == 4 * 5
    assert xy_a[:2].tolist() == [[4, 4], [12, 4]]


def test_opposite_descriptors_match_too():
    """The nearest descriptor may be far; `min_confidence` excludes such matches."""
    a = unit(np.array([[[1.0, 0.0]]]))
    assert pairs_of(reciprocal_matches(a, -a, 1)) == {(0, 0, 0, 0)}


@pytest.mark.parametrize("bad", [0.5, 0.0, np.nan, np.inf])
def test_descriptors_must_be_of_unit_length(bad):
    a = unit(np.random.default_rng(1).standard_normal((8, 8, 3)))
    wrong = a.copy()
    wrong[5, 5] *= np.float32(bad)
    with pytest.raises(InputError, match="unit length"):
        reciprocal_matches(a, wrong)
    with pytest.raises(InputError, match="unit length"):
        reciprocal_matches(wrong, a)


def test_nearly_unit_descriptors_stay_exact():
    """Half precision rounds lengths; the bounds include that."""
    a = smooth(24, 24, 24, 3).astype(np.float16).astype(np.float32)
    b = (smooth(24, 24, 24, 3, 0.1) * 1.005).astype(np.float32)
    assert pairs_of(reciprocal_matches(a, b, 2)) == slow_and_obvious(a, b, 2, 10)


def test_a_stride_below_one_is_refused():
    a = unit(np.ones((8, 8, 3)))
    with pytest.raises(InputError, match="stride is 0"):
        reciprocal_matches(a, a, stride=0)


def described(a, b, confidence_a=1.0, confidence_b=1.0):
    return DescribedPair(
        a,
        b,
        np.full(a.shape[:2], confidence_a, np.float32),
        np.full(b.shape[:2], confidence_b, np.float32),
    )


def rows(matches):
    return {
        (*a, *b) for a, b in zip(matches.xy_in_a.tolist(), matches.xy_in_b.tolist(), strict=True)
    }


def test_a_pair_has_the_seeds_of_both_images():
    a, b = smooth(40, 32, 24, 5, 0.1), smooth(24, 48, 24, 5, 0.1)
    forth = slow_and_obvious(a, b, 8, 10)
    back = {(c, d, e, f) for e, f, c, d in slow_and_obvious(b, a, 8, 10)}
    found = match_pair([described(a, b)])
    assert rows(found) == forth | back
    assert len(found) == len(forth | back)
    order = (found.xy_in_a[:, 1] * 32 + found.xy_in_a[:, 0]).tolist()
    assert order == sorted(order)


def test_predictions_that_agree_keep_the_better_confidence():
    a = unit(np.random.default_rng(1).standard_normal((16, 16, 8)))
    once = match_pair([described(a, a, 4.0, 9.0)])
    # The square root of 36 is 6, and 6 of 7.
    np.testing.assert_allclose(once.confidence, 6 / 7, rtol=1e-6)
    for order in (1, -1):
        both = match_pair([described(a, a), described(a, a, 4.0, 9.0)][::order])
        assert rows(both) == rows(once)
        assert len(both) == len(once)
        np.testing.assert_array_equal(both.confidence, once.confidence)


def test_predictions_that_differ_are_both_kept():
    a = unit(np.random.default_rng(1).standard_normal((16, 16, 8)))
    turned = np.ascontiguousarray(a[::-1])
    found = match_pair([described(a, a), described(a, turned)])
    assert {(4, 4, 4, 4), (4, 4, 4, 11)} <= rows(found)


def test_matches_below_the_least_confidence_are_dropped():
    a = unit(np.random.default_rng(1).standard_normal((16, 16, 8)))
    sure = np.ones((16, 16), np.float32)
    sure[:, :8] = 0.04
    one = DescribedPair(a, a, sure, sure)
    assert len(match_pair([one])) == 4
    kept = match_pair([one], min_confidence=0.5)
    assert kept.xy_in_a.tolist() == [[12, 4], [12, 12]]
    assert len(match_pair([one], min_confidence=2.0)) == 0


def test_predictions_must_be_of_the_same_images():
    a, b = smooth(16, 24, 8, 0), smooth(16, 16, 8, 0)
    with pytest.raises(InputError, match="swapped"):
        match_pair([described(a, b), described(b, a)])
    with pytest.raises(InputError, match="at least one"):
        match_pair([])


OFFICIAL = SHARED / "facts" / "mast3r_matching"
SCORES = ("n", "n_inside", "frac_le_1px", "frac_le_2px", "frac_le_5px", "median_px")


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason=f"needs {OFFICIAL}, which is not shipped")
@pytest.mark.parametrize(("seed", "sigma"), [(0, 0.03), (7, 0.03), (0, 0.1), (7, 0.1)])
def test_it_scores_as_the_official_matcher_does(seed, sigma):
    made = runpy.run_path(str(OFFICIAL / "desc_pair.py"))
    a, b = made["make"](seed, sigma)
    reference = json.loads((OFFICIAL / "official.json").read_text())
    plain, merged = None, None
    for run in reference:
        if (run["seed"], run["sigma"]) == (seed, sigma):
            if run["method"].startswith("dot_block"):
                plain = run
            elif run["method"].startswith("extract"):
                merged = run
    ours = made["score"](*reciprocal_matches(a, b), seed)
    for name in SCORES:
        assert ours[name] == pytest.approx(plain[name], abs=1e-4), name
    if merged is not None:
        found = match_pair([described(a, b)])
        ours = made["score"](found.xy_in_a, found.xy_in_b, seed)
        for name in SCORES:
            assert ours[name] == pytest.approx(merged[name], abs=1e-6), name


def matches(*xy):
    xy = np.array(xy, np.float32).reshape(-1, 4)
    return Matches(xy[:, :2].copy(), xy[:, 2:].copy(), np.ones(len(xy), np.float32))


def test_an_image_smaller_than_the_window_is_one_window():
    found = window_pairs(matches((1, 1, 2, 2)), (40, 30), (50, 20), (64, 48))
    assert found == [(Window(0, 0, 40, 30), Window(0, 0, 50, 20))]


def test_windows_overlap_by_half_and_end_at_the_border():
    # Windows of 10 in 24 pixels: 0, 5, 10 and the last flush at 14.
    spread = matches(*[(x, 0, 0, 0) for x in range(24)])
    found = window_pairs(spread, (24, 10), (10, 10), (10, 10), cover=1.0)
    assert all(b == Window(0, 0, 10, 10) for _, b in found)
    assert [a.left for a, _ in found] == [0, 10, 14]


def test_the_pair_of_windows_with_most_matches_comes_first():
    few = [(2, 2, 2, 2)] * 2
    many = [(32, 2, 12, 2)] * 3
    found = window_pairs(matches(*few, *many), (40, 10), (20, 10), (10, 10), cover=1.0)
    assert [(a.left, b.left) for a, b in found] == [(25, 5), (0, 0)]
    # Three of five are enough for a cover of 0.6.
    assert len(window_pairs(matches(*few, *many), (40, 10), (20, 10), (10, 10), cover=0.6)) == 1


def test_every_match_is_in_a_pair_of_windows():
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 1, (500, 4)) * [639, 479, 799, 299]
    found = window_pairs(matches(*xy), (640, 480), (800, 300), (128, 96), cover=1.0)
    held = np.zeros(500, bool)
    for a, b in found:
        held |= a.holds(xy[:, :2].astype(np.float32)) & b.holds(xy[:, 2:].astype(np.float32))
        assert (a.width, a.height) == (b.width, b.height) == (128, 96)
        assert 0 <= a.left <= 640 - 128
        assert 0 <= b.top <= 300 - 96
    assert held.all()
    assert len(set(found)) == len(found)


def test_without_matches_there_are_no_windows():
    assert window_pairs(matches(), (640, 480), (640, 480), (128, 96)) == []


@pytest.mark.parametrize(
    "options", [{"overlap": 1.0}, {"overlap": -0.1}, {"cover": 0.0}, {"cover": 1.1}]
)
def test_impossible_windows_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        window_pairs(matches((1, 1, 1, 1)), (64, 48), (64, 48), (32, 32), **options)
