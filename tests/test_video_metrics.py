"""Scores of masks in videos, against their definitions and by hand."""

import math

import numpy as np
import pytest
from davis.matched import matched_consistency
from davis.video import (
    MaskScore,
    Track,
    _track,
    score_video,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.morphology import disk
from walls import wall_scene

from lift3d.evaluation.consistency import consistency
from lift3d.evaluation.metrics.boundary import boundary, boundary_f
from lift3d.scene import Camera, Matches, View
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.labelmaps import true_label_maps
from lift3d.segmentation.matching.depth import DepthMatcherConfig

PERFECT, MISSED = MaskScore(1.0, 1.0, 1.0, 1.0, 1.0), MaskScore(0.0, 0.0, 0.0, 0.0, 0.0)


def box(left, top, width, height, shape=(40, 60)):
    mask = np.zeros(shape, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def slow_boundary(mask):
    """As the DAVIS toolkit has it, pixel by pixel."""
    out = np.zeros_like(mask)
    height, width = mask.shape
    for y in range(height):
        for x in range(width):
            for dy, dx in ((0, 1), (1, 0), (1, 1)):
                if y + dy < height and x + dx < width:
                    out[y, x] |= mask[y, x] != mask[y + dy, x + dx]
    return out


def slow_dilation(mask, radius):
    footprint = disk(radius)
    out = np.zeros_like(mask)
    for y, x in zip(*np.nonzero(mask), strict=True):
        for dy, dx in zip(*np.nonzero(footprint), strict=True):
            row, column = y + dy - radius, x + dx - radius
            if 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1]:
                out[row, column] = True
    return out


def slow_f(predicted, truth, tolerance):
    radius = math.ceil(tolerance * np.linalg.norm(truth.shape))
    ours, true = slow_boundary(predicted), slow_boundary(truth)
    matched = ours & slow_dilation(true, radius)
    reached = true & slow_dilation(ours, radius)
    if ours.sum() == 0 or true.sum() == 0:
        return float(ours.sum() == true.sum())
    precision, recall = matched.sum() / ours.sum(), reached.sum() / true.sum()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


masks = st.integers(0, 2**32 - 1).map(
    lambda seed: np.kron(
        np.random.default_rng(seed).random((5, 6)) < np.random.default_rng(seed).random(),
        np.ones((3, 4)),
    ).astype(bool)
)


@settings(max_examples=60, deadline=None)
@given(masks, masks, st.sampled_from([0.008, 0.05, 0.1, 0.13]))
def test_the_boundary_score_is_the_one_by_dilation(predicted, truth, tolerance):
    assert np.array_equal(boundary(truth), slow_boundary(truth))
    assert boundary_f(predicted, truth, tolerance) == pytest.approx(
        slow_f(predicted, truth, tolerance)
    )


def test_a_boundary_within_the_tolerance_counts_fully_and_one_beyond_not_at_all():
    truth = np.arange(100)[None].repeat(100, 0) < 50
    for shift, expected in ((2, 1.0), (3, 0.0), (-2, 1.0), (-3, 0.0)):
        shifted = np.arange(100)[None].repeat(100, 0) < 50 + shift
        # The diagonal is 141, 0.008 of it 1.13, rounded up 2.
        assert boundary_f(shifted, truth) == expected


def test_empty_masks_agree_with_each_other_only():
    nothing, something = box(0, 0, 0, 0), box(5, 5, 9, 9)
    assert boundary_f(nothing, nothing) == 1
    assert boundary_f(something, nothing) == 0
    assert boundary_f(nothing, something) == 0
    assert MaskScore.of(nothing, nothing) == PERFECT
    assert MaskScore.of(something, nothing) == MISSED
    assert MaskScore.of(nothing, something) == MISSED


def test_half_a_mask_has_full_precision_and_half_the_recall():
    score = MaskScore.of(box(10, 10, 10, 10), box(10, 10, 20, 10))
    assert (score.iou, score.precision, score.recall) == (0.5, 1.0, 0.5)
    assert score.f1 == pytest.approx(2 / 3)


def labels(*boxes):
    """(id, left, top, width, height), later ones on top."""
    out = np.zeros((40, 60), np.int32)
    for one, *where in boxes:
        out[box(*where)] = one
    return out


OBJECT = (10, 10, 20, 10)
HALF = (10, 10, 10, 10)


def test_the_papers_protocol_lets_the_id_change_and_the_strict_one_does_not():
    truths = [labels((1, *OBJECT))] * 4
    found = [labels((i + 1, *OBJECT)) for i in range(4)]
    score = score_video(truths, found)
    assert score.per_image.iou == 1
    assert score.one_id.iou == 0.25
    assert score.objects[0].track == Track(visible=4, found=4, switches=3, longest=1)


def test_the_one_id_is_that_of_highest_mean_overlap_not_of_the_best_single_image():
    truth = labels((1, *OBJECT))
    whole, half = labels((7, *OBJECT)), labels((5, *HALF))
    assert score_video([truth] * 2, [whole, half]).objects[0].id == 7
    assert score_video([truth] * 4, [whole, half, half, half]).objects[0].id == 5


def test_an_object_that_left_is_rightly_absent():
    """Visible in two images of four; id 1 leaves with it, id 2 stays behind."""
    there, gone = labels((3, *OBJECT)), labels()
    leaves = [labels((1, *OBJECT)), labels((1, *OBJECT)), gone, gone]
    score = score_video([there, there, gone, gone], leaves)
    assert score.one_id == score.per_image == PERFECT
    assert score.objects[0].track.visible == 2
    stays = [labels((2, *OBJECT))] * 4
    score = score_video([there, there, gone, gone], stays)
    assert score.per_image.iou == 1
    assert score.one_id.iou == 0.5


def test_of_two_ids_the_one_that_also_leaves_is_chosen():
    """Id 1 covers half and leaves; id 2 covers all but stays: (0.5 + 1) / 2 over (1 + 0) / 2."""
    there, gone = labels((3, *OBJECT)), labels()
    first = labels((2, *OBJECT))
    second = labels((1, *OBJECT))
    score = score_video([there, there, gone], [first, second, labels((2, *OBJECT))])
    assert score.objects[0].id == 1
    assert score.one_id.iou == pytest.approx((0 + 1 + 1) / 3)


def test_images_without_annotation_are_not_asked_and_objects_count_alike():
    truth = labels((1, 0, 0, 10, 10), (2, 20, 20, 20, 20))
    score = score_video([truth, None], [labels((4, 0, 0, 10, 10)), labels((4, 0, 0, 60, 40))])
    assert score.images == 1
    assert [each.per_image.iou for each in score.objects] == [1, 0]
    assert score.per_image.iou == 0.5
    assert score.objects[1].id == 0
    summary = score.summary()
    assert summary["per_image"]["iou"] == 0.5
    assert summary["found"] == 0.5


def test_label_zero_is_no_mask():
    score = score_video([labels((1, *OBJECT))], [labels()])
    assert score.per_image == score.one_id == MISSED


def test_ids_may_be_large():
    score = score_video([labels((1, *OBJECT))], [labels((2**30, *OBJECT))])
    assert score.per_image.iou == 1
    assert score.objects[0].id == 2**30


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([1, 1, 1], Track(3, 3, 0, 3)),
        ([1, 0, 1], Track(3, 2, 0, 1)),
        ([1, 0, 2, 2], Track(4, 3, 1, 2)),
        ([1, 2, 1, 1], Track(4, 4, 2, 2)),
        ([0, 0], Track(2, 0, 0, 0)),
    ],
)
def test_switches_are_counted_over_gaps_and_tracks_are_not(ids, expected):
    assert _track(ids) == expected


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(InputError, match="no image is annotated"):
        score_video([None], [labels()])
    with pytest.raises(InputError, match="expected one each"):
        score_video([None], [])
    with pytest.raises(InputError, match="label at the size"):
        score_video([labels()], [np.zeros((4, 4), np.int32)])


# H through correspondences


class Told:
    """A matcher that says what it was told: (name a, name b) -> rows of x y u v."""

    def __init__(self, told):
        self.told = told
        self.asked = []

    def match(self, a, b):
        self.asked.append((a.name, b.name))
        rows = np.array(self.told.get((a.name, b.name), []), np.float32).reshape(-1, 4)
        return Matches(rows[:, :2].copy(), rows[:, 2:].copy(), np.ones(len(rows), np.float32))


def views(count):
    camera = Camera(np.eye(3), 3, 1)
    return [View(str(i), camera, lambda: np.zeros((1, 3, 3), np.uint8)) for i in range(count)]


def maps_of(maps):
    return {str(i): labels for i, labels in enumerate(maps)}


def row(*ids):
    return np.array([ids], np.int32)


def test_h_is_the_share_of_matches_whose_ends_agree():
    told = Told({("0", "1"): [[0, 0, 0, 0], [1, 0, 1, 0], [2, 0, 2.4, 0]]})
    found = matched_consistency(views(2), maps_of([row(1, 1, 0), row(1, 2, 0)]), told, "told")
    assert pytest.approx(2 / 3) == found.H  # 1-1 agrees, 1-2 not, 0-0 agrees
    assert found.H_labelled == 0.5  # four ends with ids, two of them agree
    assert pytest.approx((1 + 2 / 2) / 3) == found.H0
    assert found.H0_labelled == 0.5
    assert (found.labels, found.coverage, found.matches) == (2, 4 / 6, 3)
    assert found.correspondence == "told"
    assert "by told" in str(found)
    assert found.H_prime == pytest.approx(0)


def test_an_unlabelled_end_disagrees_with_a_labelled_one():
    told = Told({("0", "1"): [[0, 0, 0, 0]]})
    found = matched_consistency(views(2), maps_of([row(1, 0, 0), row(0, 0, 0)]), told, "told")
    assert (found.H, found.H_labelled, found.H0) == (0, 0, 0)


def test_further_pairs_are_those_asked_for():
    told = Told({})
    found = matched_consistency(views(4), maps_of([row(0, 0, 0)] * 4), told, "told", steps=(1, 3))
    assert sorted(told.asked) == [("0", "1"), ("0", "3"), ("1", "2"), ("2", "3")]
    assert (found.pairs, found.unmatched, found.matches) == (4, 4, 0)
    assert np.isnan(found.H)
    assert found.summary()["H"] is None


def test_one_label_everywhere_is_perfect_and_says_nothing():
    told = Told({("0", "1"): [[0, 0, 0, 0]]})
    found = matched_consistency(views(2), maps_of([row(1, 1, 1)] * 2), told, "told")
    assert (found.H, found.H0, found.labels) == (1, 1, 1)
    assert np.isnan(found.H_prime)


def test_a_frame_that_cannot_be_read_leaves_its_pairs_unmatched():
    class Broken(Told):
        def match(self, a, b):
            raise FrameError("cannot read")

    found = matched_consistency(views(2), maps_of([row(1, 1, 1)] * 2), Broken({}), "told")
    assert found.unmatched == 1
    with pytest.raises(InputError, match="steps"):
        matched_consistency(views(2), maps_of([row(1, 1, 1)] * 2), Told({}), "told", steps=(0,))


def test_it_is_the_h_of_point_maps_where_matches_say_what_points_say():
    """Places on a line, each seen by one pixel of both images: E without the own view."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, (2, 1, 200)).astype(np.int32)
    place = np.arange(200, dtype=np.float32)
    xyz = np.stack([place, place * 0, place * 0], 1)
    exact = {
        scope: consistency(
            np.concatenate([xyz, xyz]),
            np.concatenate([a[0], b[0]]),
            np.repeat(np.arange(2, dtype=np.int32), 200),
            0.1,
            exclude="view",
            foreground=scope,
        )
        for scope in (False, True)
    }
    pixel = [[x, 0, x, 0] for x in range(200)]
    found = matched_consistency(views(2), maps_of([a, b]), Told({("0", "1"): pixel}), "told")
    assert pytest.approx(exact[False].H) == found.H
    assert pytest.approx(exact[False].H0) == found.H0
    assert found.H_labelled == pytest.approx(exact[True].H)
    assert found.H0_labelled == pytest.approx(exact[True].H0)


def test_true_labels_of_a_wall_agree_through_depth():
    scene = wall_scene(((20, 20, 30, 2), (90, 40, 40, 3)), [0, 10, 20])
    maps = true_label_maps(scene)
    found = matched_consistency(scene.views, maps, DepthMatcherConfig().build(), "depth", (1, 2))
    assert found.H > 0.99
    assert found.unmatched == 0
