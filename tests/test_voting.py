import numpy as np
import pytest

from lift3d.association.votes.ballot import Ballot, vote_labels
from lift3d.scene import Camera, Points, Scene, View
from lift3d.scene.errors import FrameError, InputError


def ints(*values):
    return np.array(values, np.int32)


def cast(ballot, point, label, weight=1.0):
    point = np.atleast_1d(np.asarray(point, np.int32))
    label = np.atleast_1d(np.asarray(label, np.int32))
    weights = np.broadcast_to(np.float32(weight), point.shape).copy()
    ballot.add(point, label, weights)


def cloud(*xyz):
    xyz = np.array(xyz, np.float32)
    n = len(xyz)
    return Points(xyz, np.zeros((n, 3), np.uint8), np.zeros((n, 3), np.float32), np.ones(n, "f4"))


def wall_view(name, depth, camera=None, colour_camera=None):
    """A view of a flat wall at `depth` metres through a 4x4 camera, one pixel per metre at 1 m."""
    K = np.array([[1.0, 0, 1.5], [0, 1.0, 1.5], [0, 0, 1]])
    camera = camera or Camera(K, 4, 4, np.eye(4))
    return View(
        name,
        colour_camera or camera,
        load_image=lambda: np.zeros((4, 4, 3), np.uint8),
        load_depth=lambda: np.full((4, 4), depth, np.float32),
        depth_camera=camera if colour_camera else None,
    )


def scene(*views):
    return Scene("test", views, True, "test")


def slow_twin(labels):
    """The most common label above 0 of each column (views, points); a tie goes to the smaller."""
    winner, most = np.zeros(labels.shape[1], labels.dtype), np.zeros(labels.shape[1], np.int64)
    for label in np.unique(labels[labels != 0]):  # ascending: a tie keeps the smaller
        votes = (labels == label).sum(0)
        winner[votes > most] = label
        most = np.maximum(most, votes)
    return winner


# --- the ballot -------------------------------------------------------------------------


def test_a_point_nobody_sees_stays_unlabelled():
    ballot = Ballot(3)
    cast(ballot, [0, 2], [5, 6])
    instance, score = ballot.result()
    assert instance.tolist() == [5, 0, 6]
    assert score.tolist() == [1, 0, 1]
    assert ballot.looked.tolist() == [1, 0, 1]


def test_a_tie_goes_to_the_smaller_label_whatever_the_order():
    ballot = Ballot(2)
    cast(ballot, [0, 1], [7, 3])
    cast(ballot, [0, 1], [3, 7])
    instance, score = ballot.result()
    assert instance.tolist() == [3, 3]
    assert score.tolist() == [0.5, 0.5]


def test_where_two_views_disagree_the_heavier_look_wins():
    ballot = Ballot(1)
    cast(ballot, 0, 1, weight=0.25)
    cast(ballot, 0, 2, weight=0.75)
    instance, score = ballot.result()
    assert (instance[0], score[0]) == (2, 0.75)


def test_looks_without_a_label_lower_the_score_by_their_factor():
    ballot = Ballot(1)
    cast(ballot, 0, 4)
    cast(ballot, 0, 0)
    scores = [ballot.result(background=factor)[1][0] for factor in (0.0, 0.5, 1.0)]
    assert scores == pytest.approx([1, 2 / 3, 1 / 2])
    assert ballot.unlabelled.tolist() == [1]


def test_a_share_below_the_minimum_leaves_the_point_unlabelled():
    ballot = Ballot(1)
    for label in (1, 2, 2, 3):
        cast(ballot, 0, label)
    assert ballot.result(min_share=0.5)[0].tolist() == [2]
    assert [a.tolist() for a in ballot.result(min_share=0.51)] == [[0], [0]]


def test_the_runners_up_come_in_order_of_weight_then_label():
    ballot = Ballot(1, slots=3)
    for label, weight in ((9, 1), (4, 1), (6, 3)):
        cast(ballot, 0, label, weight)
    labels, weights = ballot.top(4)
    assert labels.tolist() == [[6, 4, 9, 0]]
    assert weights.tolist() == [[3, 1, 1, 0]]


def test_a_label_beyond_the_slots_takes_over_the_weakest_and_is_counted():
    ballot = Ballot(1, slots=2)
    for label, weight in ((1, 5), (2, 1), (3, 2)):
        cast(ballot, 0, label, weight)
    assert ballot.overflowed == 1
    labels, weights = ballot.top(2)
    assert labels.tolist() == [[1, 3]]
    assert weights.tolist() == [[5, 3]]  # 3 inherits the weight of 2: the sum stays 8


def test_a_label_with_more_than_its_share_survives_any_overflow():
    rng = np.random.default_rng(0)
    votes = np.concatenate([np.full(60, 1), rng.integers(2, 100, 140)])
    ballot = Ballot(1, slots=4)
    for label in rng.permutation(votes):
        cast(ballot, 0, label)
    assert ballot.overflowed > 0
    assert 1 in ballot.top(4)[0]


def test_the_ballot_equals_its_slow_twin():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 7, (30, 200)).astype(np.int32)
    labels[:, :5] = 0
    ballot = Ballot(200)
    for view in labels:
        cast(ballot, np.arange(200), view)
    assert np.array_equal(ballot.result()[0], slow_twin(labels))
    assert ballot.overflowed == 0


def test_repeats_and_any_order_of_points_count_the_same():
    rng = np.random.default_rng(2)
    point = rng.integers(0, 50, 5000).astype(np.int32)
    label = rng.integers(0, 5, 5000).astype(np.int32)
    together, single = Ballot(50), Ballot(50)
    cast(together, point, label)
    for one_point, one_label in zip(point, label, strict=True):
        cast(single, one_point, one_label)
    for ours, theirs in zip(together.top(4), single.top(4), strict=True):
        assert np.array_equal(ours, theirs)


def test_memory_does_not_grow_with_the_views():
    ballot = Ballot(10, slots=2)
    before = ballot._label.nbytes + ballot._weight.nbytes
    for label in range(1, 200):
        cast(ballot, np.arange(10), np.full(10, label))
    assert ballot._label.nbytes + ballot._weight.nbytes == before
    assert ballot.views == 199


def test_a_vote_for_a_point_that_does_not_exist_is_refused():
    with pytest.raises(IndexError, match=r"outside 0\.\.2"):
        cast(Ballot(3), 3, 1)


# --- views vote -------------------------------------------------------------------------


def test_a_wall_behind_another_does_not_get_its_label():
    points = cloud([0, 0, 2.0], [0, 0, 4.0])
    ballot = vote_labels(points, scene(wall_view("a", 2.0)), {"a": np.full((4, 4), 9, np.int32)})
    assert ballot.result()[0].tolist() == [9, 0]


def test_a_label_is_read_at_the_point_s_own_pixel():
    labels = np.arange(1, 17, dtype=np.int32).reshape(4, 4)
    # x = 0.5 * 1 + 1.5 = column 2; y = -1.5 / 1 + 1.5 = row 0.
    points = cloud([0.5, -1.5, 1.0])
    ballot = vote_labels(points, scene(wall_view("a", 1.0)), {"a": labels})
    assert ballot.result()[0].tolist() == [labels[0, 2]]


def test_a_label_is_read_through_the_colour_camera_where_it_differs():
    labels = np.arange(1, 17, dtype=np.int32).reshape(4, 4)
    beside = np.eye(4)
    beside[0, 3] = 1.0  # colour sits one metre to the right: the point moves one pixel left
    K = np.array([[1.0, 0, 1.5], [0, 1.0, 1.5], [0, 0, 1]])
    view = wall_view("a", 1.0, colour_camera=Camera(K, 4, 4, beside))
    points = cloud([0.5, -1.5, 1.0], [-1.5, -1.5, 1.0])  # colour does not see the second
    ballot = vote_labels(points, scene(view), {"a": labels})
    assert ballot.result()[0].tolist() == [labels[0, 1], 0]


def test_views_that_disagree_are_counted_by_their_viewing_angle():
    points = Points(
        np.array([[0, 0, 2]], np.float32),
        np.zeros((1, 3), np.uint8),
        np.array([[0, 0, -1]], np.float32),
        np.ones(1, np.float32),
    )
    # From 45 degrees beside, the same wall: 2 m away along the camera's own axis.
    side = np.eye(4)
    c = np.sqrt(0.5)
    side[:3, :3] = [[c, 0, -c], [0, 1, 0], [c, 0, c]]
    side[:3, 3] = [2 * c, 0, 2 - 2 * c]
    K = np.array([[1.0, 0, 1.5], [0, 1.0, 1.5], [0, 0, 1]])
    views = wall_view("front", 2.0), wall_view("side", 2.0, Camera(K, 4, 4, side))
    maps = {name: np.full((4, 4), label, np.int32) for name, label in (("front", 2), ("side", 1))}
    instance, score = vote_labels(points, scene(*views), maps).result()
    assert instance.tolist() == [2]
    assert score[0] == pytest.approx(1 / (1 + c), abs=1e-6)


def test_a_view_whose_depth_cannot_be_read_has_no_vote():
    def broken():
        raise FrameError("torn")

    bad = View("bad", wall_view("a", 1.0).camera, lambda: np.zeros((4, 4, 3), np.uint8), broken)
    maps = {name: np.full((4, 4), label, np.int32) for name, label in (("bad", 1), ("b", 2))}
    ballot = vote_labels(cloud([0, 0, 1]), scene(bad, wall_view("b", 1.0)), maps)
    assert ballot.result()[0].tolist() == [2]
    assert [(each.name, each.reason) for each in ballot.skipped] == [("bad", "torn")]


def test_a_view_without_a_label_map_is_an_error():
    views = scene(wall_view("a", 1.0), wall_view("b", 1.0))
    with pytest.raises(InputError, match=r"1 of 2 views have no label map \(b\)"):
        vote_labels(cloud([0, 0, 1]), views, {"a": np.ones((4, 4), np.int32)})


def test_a_label_map_of_another_size_is_an_error():
    with pytest.raises(InputError, match="label map is 5x4, its image is 4x4"):
        vote_labels(cloud([0, 0, 1]), scene(wall_view("a", 1.0)), {"a": np.ones((4, 5), np.int32)})


def test_voting_reports_its_progress():
    calls = []
    views = scene(wall_view("a", 1.0), wall_view("b", 1.0))
    maps = dict.fromkeys("ab", np.ones((4, 4), np.int32))
    vote_labels(cloud([0, 0, 1]), views, maps, progress=lambda done, of: calls.append((done, of)))
    assert calls == [(1, 2), (2, 2)]
