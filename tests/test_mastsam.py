"""MastSAM on a wall of squares, with a segmenter of true masks or of intended errors."""

import itertools
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from walls import HEIGHT, WIDTH, TrueMasks, wall_labels, wall_scene, wall_view

from lift3d import cli
from lift3d.geometry.visibility import DepthTolerance
from lift3d.run.settings import LiftConfig
from lift3d.scene import Masks, Matches, Scene
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.overlap import connected_parts, groups, paint, shared_pixels
from lift3d.segmentation.matching.depth import DepthMatcherConfig
from lift3d.segmentation.tracking.carrying import Remembered, carry, elect, look_up, places
from lift3d.segmentation.tracking.evidence import Evidence, gather, pooled, split, steady
from lift3d.segmentation.tracking.initialisation import claimed, disjoint, fresh, regions, uncovered
from lift3d.segmentation.tracking.mastsam import MastsamConfig
from lift3d.segmentation.tracking.presets import BEST, PAPER, Options
from lift3d.segmentation.tracking.recovery import Keyframes, Recent
from lift3d.segmentation.tracking.representatives import allot, centres, choose

SQUARES = ((20, 20, 30, 2), (90, 40, 40, 3))


def tracked(scene, segmenter=None, **settings):
    tracker = MastsamConfig(**settings).build(
        segmenter or TrueMasks(), DepthMatcherConfig().build()
    )
    return list(tracker.track(scene))


def ids_on(labels, truth):
    """The ids found on each true object."""
    return {int(one): set(labels[truth == one].tolist()) for one in np.unique(truth)}


# The complete tracker.


def test_an_object_keeps_its_id_while_the_camera_moves():
    scene = wall_scene(SQUARES, range(0, 50, 10))
    maps = tracked(scene)
    names = [ids_on(m, v.instances()) for m, v in zip(maps, scene.views, strict=True)]
    assert names == [{1: {1}, 2: {2}, 3: {3}}] * 5


def test_a_new_object_gets_a_new_id():
    scene = wall_scene((*SQUARES, (165, 20, 50, 9)), range(0, 60, 10))
    maps = tracked(scene)
    names = [ids_on(m, v.instances()) for m, v in zip(maps, scene.views, strict=True)]
    assert names[0] == {1: {1}, 2: {2}, 3: {3}}
    # 2 has left on the left.
    assert names[-1] == {1: {1}, 3: {3}, 9: {4}}
    assert names[-2][9] == names[-3][9] == {4}
    # Matches end short of the border, where the new square is first seen as a sliver.
    names = [
        ids_on(m, v.instances())
        for m, v in zip(tracked(scene, carry=False), scene.views, strict=True)
    ]
    assert names[-1] == {1: {1}, 3: {3}, 9: {5}}
    assert names[-2][9] == names[-3][9] == {5}


def test_without_initialisation_a_new_object_stays_unlabelled():
    scene = wall_scene((*SQUARES, (165, 20, 50, 9)), range(0, 60, 10))
    maps = tracked(scene, initialise=False)
    assert ids_on(maps[-1], scene.views[-1].instances())[9] == {0}


def test_initialisation_runs_in_every_nth_view():
    scene = wall_scene((*SQUARES, (165, 20, 50, 9)), range(0, 60, 10))
    maps = tracked(scene, init_every=5)
    assert [bool((m > 3).any()) for m in maps] == [False] * 5 + [True]


@pytest.mark.parametrize(
    ("settings", "again"),
    [
        ({}, 2),
        ({"keyframes": 0, "voters": 1}, 4),
        ({"carry": False, "voters": 1}, 4),
        ({"claim": False}, 2),
    ],
)
def test_a_returning_object_gets_its_id_back_from_a_keyframe(settings, again):
    maps = tracked(wall_scene(SQUARES, [*range(0, 80, 10), *range(80, -1, -10)]), **settings)
    first, last = (ids_on(m, wall_labels(SQUARES, 0)) for m in (maps[0], maps[-1]))
    assert first == {1: {1}, 2: {2}, 3: {3}}
    assert last == {1: {1}, 2: {again}, 3: {3}}


def test_a_cut_ends_all_tracks_and_ids_are_not_reused():
    scene = wall_scene(SQUARES, [0, 5, 500, 505])
    ids = [set(np.unique(m).tolist()) for m in tracked(scene)]
    assert ids == [{1, 2, 3}, {1, 2, 3}, {4}, {4}]


def test_an_answer_that_the_matches_contradict_ends_the_track():
    class Drifting(TrueMasks):
        def prompt(self, view, prompts):
            # The answer to every prompt is the right square.
            stack = np.repeat((view.instances() == 3)[None], len(prompts), axis=0)
            return Masks(stack, np.ones(len(prompts), np.float32))

    scene = wall_scene(SQUARES, [0, 10])
    maps = tracked(scene, Drifting(), claim=False)
    assert ids_on(maps[1], scene.views[1].instances()) == {1: {4}, 2: {5}, 3: {3}}
    # The automatic masks of the others get their earlier ids.
    maps = tracked(scene, Drifting(), claim=True)
    assert ids_on(maps[1], scene.views[1].instances()) == {1: {1}, 2: {2}, 3: {3}}
    # The scripts keep every answer: the smallest of the merged ids takes the square.
    kept = tracked(scene, Drifting(), preset="paper")
    assert ids_on(kept[1], scene.views[1].instances())[3] != {3}


def test_the_alternative_that_agrees_best_is_taken():
    class WholeFirst(TrueMasks):
        def prompt(self, view, prompts):
            everything = np.ones((len(prompts), HEIGHT, WIDTH), bool)
            return Masks(everything, np.ones(len(prompts), np.float32))

        def alternatives(self, view, prompt):
            right, whole = super().prompt(view, [prompt]), self.prompt(view, [prompt])
            return Masks(np.concatenate([right.stack, whole.stack]), np.ones(2, np.float32))

    scene = wall_scene(SQUARES, [0, 10])
    maps = tracked(scene, WholeFirst())
    assert ids_on(maps[1], scene.views[1].instances()) == {1: {1}, 2: {2}, 3: {3}}


def test_prompts_are_points_on_the_object_with_neighbours_as_negatives():
    class Listening(TrueMasks):
        heard = None

        def prompt(self, view, prompts):
            self.heard = [
                (view.instances()[tuple(np.rint(p.xy).astype(int).T[::-1])], p) for p in prompts
            ]
            return super().prompt(view, prompts)

    segmenter = Listening()
    tracked(wall_scene(SQUARES, [0, 10]), segmenter, negatives=3)
    assert len(segmenter.heard) == 3
    for one, (labels, prompt) in enumerate(segmenter.heard, start=1):
        assert prompt.positive.sum() >= 1
        assert (~prompt.positive).sum() == 3
        assert set(labels[prompt.positive]) == {one}
        assert one not in labels[~prompt.positive]
        moved = wall_labels(SQUARES, 10) == one
        overlap = (prompt.mask & moved).sum() / (prompt.mask | moved).sum()
        assert overlap > 0.7
    counts = [p.positive.sum() for _, p in segmenter.heard]
    assert 90 <= sum(counts) <= 100
    assert counts[0] > counts[2] > counts[1]  # wall, large square, small square


def test_a_part_behind_a_bar_keeps_its_id():
    # A bar 0.5 m before the wall splits the square in two in the second view.
    scene = wall_scene(((40, 20, 60, 2), (20, 0, 8, 3), (20, 8, 8, 3)), [0])
    bar = np.zeros((HEIGHT, WIDTH), bool)
    bar[:, 70:76] = True
    labels = np.where(bar, 3, wall_labels(((40, 20, 60, 2),), 0)).astype(np.int32)
    view = wall_view(((40, 20, 60, 2),), 0)
    cut = replace(view, name="cut", load_instances=lambda: labels)
    for parts, expected in (("matched", {1: {1}, 2: {2}, 3: {3}}), ("largest", None)):
        views = scene.with_views([view, cut])
        maps = tracked(views, parts=parts, min_uncovered=0.02, fill=False)
        found = ids_on(maps[1], labels)
        if expected:
            assert found == expected
        else:
            assert len(found[2]) == 2  # one half lost its id


def test_memory_holds_no_more_than_the_last_view():
    import gc
    import weakref

    alive = []

    class MadeOnDemand(tuple):
        def __iter__(self):
            for shift in range(0, 60, 10):
                view = wall_view(SQUARES, shift)
                alive.append(weakref.ref(view))
                yield view

    scene = Scene("wall", MadeOnDemand(), True, "test")
    tracker = MastsamConfig().build(TrueMasks(), DepthMatcherConfig().build())
    for _ in tracker.track(scene):
        gc.collect()
        assert sum(ref() is not None for ref in alive) <= 2
    assert len(alive) == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"points": 0}, "points >= 1"),
        ({"init_every": 0}, "init_every >= 1 .*set initialise to False"),
    ],
)
def test_an_invalid_setting_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        MastsamConfig(**settings).build(TrueMasks(), DepthMatcherConfig().build())


# Presets.


def test_a_given_option_replaces_the_presets():
    assert MastsamConfig().options == BEST
    assert MastsamConfig(preset="paper").options == PAPER
    # Values of the other preset and falsy values are used too.
    mixed = MastsamConfig(preset="paper", negatives=4, initialise=False, carry=True)
    assert mixed.options == replace(PAPER, negatives=4, initialise=False, carry=True)
    assert MastsamConfig(negatives=0, stray=0.0).options == replace(BEST, negatives=0, stray=0.0)


def test_preset_and_options_are_given_on_the_command_line():
    words = "in --out o tracking:mastsam --tracking.preset paper --tracking.initialise False"
    config = cli._parse(["lift", *words.split(), "--tracking.min-agreement", "0.3"])
    assert config.tracking.options == replace(PAPER, initialise=False, min_agreement=0.3)


def test_every_option_of_a_preset_can_be_given():
    names = {each.name for each in fields(MastsamConfig)}
    assert names == {each.name for each in fields(Options)} | {"preset", "tolerance", "seed"}


def test_a_run_records_every_option_and_not_just_the_preset():
    config = LiftConfig(Path("in"), Path("out"), tracking=MastsamConfig(preset="paper", points=7))
    recorded = config.resolved().tracking
    assert recorded.options == replace(PAPER, points=7)
    assert all(getattr(recorded, each.name) is not None for each in fields(recorded))


def test_only_the_papers_preset_drops_a_mask_without_a_point():
    scene = wall_scene(((20, 20, 8, 2),), [0, 10])  # 64 of 19200 pixels: a third of a point
    small = [
        ids_on(
            tracked(scene, preset=preset, initialise=False)[1], wall_labels(((20, 20, 8, 2),), 10)
        )[2]
        for preset in ("best", "paper")
    ]
    assert small[0] == {2}
    assert 2 not in small[1]


# Representative selection.


def test_every_mask_gets_at_least_one_point():
    areas = np.array([100000, 5, 1, 1, 1])
    assert allot(areas, 100).tolist() == [96, 1, 1, 1, 1]
    assert allot(areas, 3).tolist() == [1] * 5
    assert allot(areas[:0], 3).tolist() == []


def test_points_are_shared_by_area_and_none_is_lost():
    counts = allot(np.array([5000, 3000, 2000]), 100)
    assert counts.sum() == 100
    np.testing.assert_allclose(counts, [50, 30, 20], atol=1)


def test_centres_of_two_separate_blobs_are_their_means():
    labels = np.zeros((40, 100), np.int32)
    labels[10:21, 10:21] = labels[10:21, 80:91] = 7
    xy, owner = centres(labels, np.array([7], np.int32), np.array([2]), seed=0)
    assert sorted(xy.round(6).tolist()) == [[15, 15], [85, 15]]
    assert owner.tolist() == [0, 0]


def test_centres_spread_as_well_as_those_of_a_library():
    from sklearn.cluster import KMeans

    labels = np.zeros((120, 160), np.int32)
    labels[20:100, 30:140] = 1
    labels[60:, 80:] = 0
    y, x = np.nonzero(labels)
    pixels = np.stack([x, y], 1).astype(float)

    def inertia(xy):
        return ((pixels[:, None] - xy[None]) ** 2).sum(2).min(1).sum()

    library = KMeans(12, n_init=1, random_state=0).fit(pixels).inertia_
    ours = [
        inertia(centres(labels, np.array([1], np.int32), np.array([12]), seed)[0])
        for seed in range(5)
    ]
    assert np.mean(ours) < 1.1 * library
    assert len(set(ours)) > 1  # the seed matters


def test_a_mask_with_fewer_pixels_than_points_gives_one_per_pixel():
    labels = np.zeros((5, 5), np.int32)
    labels[2, 1:3] = 4
    xy, _ = centres(labels, np.array([4], np.int32), np.array([9]), seed=0)
    assert sorted(xy.tolist()) == [[1, 2], [2, 2]]


def test_a_representative_is_the_nearest_match_on_the_same_mask():
    labels = np.zeros((20, 20), np.int32)
    labels[:, :10], labels[:, 10:] = 1, 2
    match_xy = np.array([[9.0, 10], [10, 10], [2, 2], [15, 11]])
    match_label = labels[match_xy[:, 1].astype(int), match_xy[:, 0].astype(int)]
    chosen = choose(labels, np.array([1, 2], np.int32), match_xy, match_label, 2, 0)[0]
    # The means are (4.5, 9.5) and (14.5, 9.5).
    assert chosen.tolist() == [0, 3]
    only_left = choose(labels, np.array([1, 2], np.int32), match_xy[:1], match_label[:1], 2, 0)[0]
    assert only_left.tolist() == [0]


# Evidence.


def evidence_of(before, xy, motion, now=None):
    xy = np.asarray(xy, np.float32)
    matches = Matches(xy, xy + np.asarray(motion, np.float32), np.ones(len(xy), np.float32))
    return gather(matches, before, *(now or before.shape), border=0.0, confidence=0.0)


def test_matches_of_low_confidence_or_near_a_border_are_dropped():
    xy = np.array([[10, 10], [11, 10], [2, 10], [10, 17], [10, 11]], np.float32)
    shifted = xy + np.array([[0, 0], [0, 0], [3, 0], [0, 0], [7, 0]], np.float32)
    confidence = np.array([0.9, 0.1, 0.9, 0.9, 0.9], np.float32)
    found = gather(Matches(xy, shifted, confidence), np.ones((20, 20), np.int32), 20, 20, 3.0, 0.5)
    # Left over: the first; 2 is near the left border before, 17 near the lower, 17 near the right.
    assert found.xy_before.tolist() == [[10, 10]]


@pytest.mark.parametrize("border", [0.0, 0.5, 3.0])
def test_a_match_on_the_outermost_half_pixel_never_leaves_the_image(border):
    xy = np.array([[-0.49, -0.49], [19.49, 9.49], [-0.6, 5], [5, 9.6], [5, 5]], np.float32)
    labels = np.arange(200, dtype=np.int32).reshape(10, 20) + 1
    found = gather(Matches(xy, xy, np.ones(5, np.float32)), labels, 10, 20, border, 0.0)
    assert set(found.label.tolist()) <= {1, 106, 200}
    assert 106 in found.label


def test_outliers_are_dropped_and_a_zoom_is_no_outlier():
    y, x = np.mgrid[5:95:10, 5:95:10]
    xy = np.stack([x.ravel(), y.ravel()], 1)
    zoom = 0.3 * (xy - 50)
    zoom[40] = [25, -3]  # the middle match is an outlier
    zoom[3] += [0, 30]
    evidence = evidence_of(np.ones((130, 130), np.int32), xy + 20, zoom)
    assert np.flatnonzero(~steady(evidence, 4.0)).tolist() == [3, 40]


def test_agreement_is_the_overlap_counted_in_matches():
    before = np.zeros((10, 10), np.int32)
    before[:, :4], before[:, 4:8] = 1, 2
    evidence = evidence_of(before, [[0, 0], [1, 0], [2, 0], [3, 0], [5, 0], [9, 0]], [0, 0])
    stack = np.zeros((2, 10, 10), bool)
    stack[0, :, 1:6] = True  # three of four matches of label 1, one match of label 2
    stack[1, :, 5:] = True  # all matches of label 2, and an unlabelled match, which is ignored
    np.testing.assert_allclose(evidence.agreement(stack, np.array([1, 2], np.int32)), [3 / 5, 1])
    # A label without matches agrees with nothing.
    assert evidence.agreement(stack[:1], np.array([8], np.int32)).tolist() == [0]


def test_warped_labels_move_with_the_matches_and_need_dense_matches():
    before = np.zeros((40, 60), np.int32)
    before[10:20, 10:30] = 5
    y, x = np.mgrid[0:40, 0:50]
    xy = np.stack([x.ravel(), y.ravel()], 1)
    warped = evidence_of(before, xy, [8, 0]).warped()
    moved = np.roll(before, 8, axis=1)
    assert ((warped > 0) & (moved > 0)).sum() > 0.7 * ((warped > 0) | (moved > 0)).sum()
    assert evidence_of(before, xy[:5], [8, 0]).warped() is None


def test_evidence_can_be_thinned():
    evidence = evidence_of(np.ones((10, 10), np.int32), [[1, 1], [2, 2]], [1, 0])
    assert isinstance(evidence.take(np.array([1])), Evidence)
    assert evidence.take(np.array([1])).pixel.tolist() == [23]


def test_pooling_is_a_majority_vote_that_ignores_unlabelled():
    before = [np.full((20, 20), one, np.int32) for one in (4, 9, 9, 0, 0, 0)]
    y, x = np.mgrid[0:20, 0:20]
    xy = np.stack([x.ravel(), y.ravel()], 1)
    parts = [evidence_of(labels, xy, [0, 0]) for labels in before]
    assert set(pooled(parts).label) == {9}
    assert set(pooled(parts[3:]).label) == {0}
    assert set(pooled([parts[1], parts[0]]).label) == {4}  # a tie goes to the older id
    few = pooled([parts[0].take(np.arange(0, 400, 2)), parts[1]])
    assert few.cell == 2
    assert len(few) == 100
    assert set(few.label) == {9}


def test_masks_of_ids_are_those_of_the_label_map():
    labels = np.random.default_rng(0).integers(0, 5, (9, 7)).astype(np.int32)
    ids = np.array([4, 1, 8], np.int32)
    assert np.array_equal(split(labels, ids), labels[None] == ids[:, None, None])


# Propagation by depth and poses, and recovery.


def remembered(shift, squares=SQUARES):
    view = wall_view(squares, shift)
    return Remembered(shift, view.camera, view.camera, view.depth(), view.instances())


def test_masks_are_propagated_by_depth_and_pose():
    view = wall_view(SQUARES, 30)
    here = places(view, view.depth())
    evidence = carry(here, [remembered(0)], DepthTolerance())
    # The view has moved 30 pixels to the right, so its rightmost 30 columns are unseen.
    assert evidence.pixel.max() % WIDTH < WIDTH - 30
    expected = view.instances().reshape(-1)[evidence.pixel]
    assert np.array_equal(evidence.label, expected)
    warped = evidence.warped()[:, : WIDTH - 32]
    assert (warped == view.instances()[:, : WIDTH - 32]).mean() > 0.97


def test_a_point_occluded_in_an_earlier_view_is_not_looked_up_there():
    view = wall_view(SQUARES, 0)
    here = places(view, view.depth())
    near = remembered(0)
    hidden = near.depth.copy()
    hidden[:, :80] = 1.0  # an occluder, a metre before the wall
    near = replace(near, depth=hidden)
    label = look_up(here.xyz, near, DepthTolerance())
    column = here.pixel % WIDTH
    assert (label[column < 80] == -1).all()
    assert (label[column >= 80] > 0).all()


def test_earlier_views_vote_and_a_tie_goes_to_the_first_view():
    heard = np.array([[1, 1, 0, -1], [2, 2, 0, -1], [2, -1, 3, -1]], np.int32)
    assert elect(heard).tolist() == [2, 1, 3, -1]


def test_depth_from_its_own_camera_lands_on_colour_pixels():
    view = wall_view(SQUARES, 10)
    depth = view.camera.resized(WIDTH // 2, HEIGHT // 2)
    half = replace(view, depth_camera=depth, load_depth=lambda: np.full((60, 80), 2, np.float32))
    here = places(half, half.depth())
    assert here.stride == 2
    camera = remembered(0).camera
    geometry = depth.at(camera.pose)
    earlier = Remembered(0, camera, geometry, half.depth(), wall_labels(SQUARES, 0))
    evidence = carry(here, [earlier], DepthTolerance())
    expected = view.instances().reshape(-1)[evidence.pixel]
    assert (evidence.label == expected).mean() > 0.97  # half a pixel at borders


def test_pixels_without_a_mask_keep_the_label_of_earlier_views():
    class Forgetful(TrueMasks):
        def segment(self, view):
            masks = super().segment(view)
            return masks if view.name == "view000" else Masks(masks.stack[:0], masks.scores[:0])

        def prompt(self, view, prompts):
            masks = super().prompt(view, prompts)
            return Masks(np.zeros_like(masks.stack), masks.scores)

    scene = wall_scene(SQUARES, [0, 10])
    kept, lost = (tracked(scene, Forgetful(), fill=fill)[1] for fill in (True, False))
    assert (kept == scene.views[1].instances())[:, : WIDTH - 12].mean() > 0.97
    assert not lost.any()


def test_ids_are_recovered_after_a_view_with_damaged_depth():
    def damaged():
        raise FrameError("cut off")

    views = list(wall_scene(SQUARES, [0, 10, 20]).views)
    views[1] = replace(views[1], load_depth=damaged)
    maps = tracked(wall_scene(SQUARES, []).with_views(views))
    assert [sorted(np.unique(m).tolist()) for m in maps] == [[1, 2, 3], [4, 5, 6], [1, 2, 3]]


def test_keyframes_are_few_and_cover_the_start():
    tolerance = DepthTolerance()
    memory = Keyframes(4, tolerance)
    for shift in range(0, 2000, 40):
        view = wall_view(SQUARES, shift)
        memory.add(places(view, view.depth()), remembered(shift))
    first = wall_view(SQUARES, 0)
    voters = memory.voters(places(first, first.depth()), 3)
    assert [each.number for each in voters] == [
        1960,
        0,
    ]  # the last view, and the keyframe that sees the point
    assert memory.voters(places(first, first.depth()), 1) == voters[:1]


def test_the_last_view_and_older_views_are_matched():
    memory = Recent(3)
    for shift in range(12):
        memory.add(wall_view(SQUARES, shift), np.full((2, 2), shift, np.int32))
    assert [int(labels[0, 0]) for _, labels in memory.voters()] == [11, 9, 3]


# Overlap filtering.


def test_shared_pixels_are_counted_for_each_two_masks():
    rng = np.random.default_rng(0)
    stack = rng.random((70, 31, 47)) < 0.3  # 1457 pixels: no whole number of words
    shared = shared_pixels(stack)
    for a, b in itertools.product(range(70), repeat=2):
        assert shared[a, b] == (stack[a] & stack[b]).sum()


def test_two_masks_that_cover_each_other_become_one():
    stack = np.zeros((4, 20, 20), bool)
    stack[0, :10, :10] = True
    stack[1, 15:, 15:] = True
    stack[2, :10, 1:11] = True  # 90 of 100 pixels on mask 0
    stack[3, 2:4, 2:4] = True  # a part of mask 0
    assert groups(shared_pixels(stack), 0.5, nested=False).tolist() == [0, 1, 0, 3]
    assert groups(shared_pixels(stack), 0.5, nested=True).tolist() == [0, 1, 0, 0]
    labels = disjoint(Masks(stack, np.ones(4, np.float32)), 0.5, nested=False)
    assert np.bincount(labels.reshape(-1)).tolist() == [400 - 110 - 25, 106, 25, 0, 4]


def test_merging_is_transitive():
    stack = np.zeros((3, 1, 30), bool)
    stack[2, 0, 0:10] = stack[0, 0, 4:14] = stack[1, 0, 8:18] = True
    assert groups(shared_pixels(stack), 0.5).tolist() == [0, 0, 0]


def test_smaller_masks_are_painted_on_larger_ones():
    stack = np.zeros((2, 10, 10), bool)
    stack[0, 2:4, 2:4] = True
    stack[1] = True
    assert np.bincount(paint(stack, np.array([8, 3], np.int32)).reshape(-1)).tolist() == [
        0, 0, 0, 96, 0, 0, 0, 0, 4,
    ]  # fmt: skip


def test_parts_are_connected_over_corners_but_not_over_labels():
    labels = np.array([[1, 0, 2], [0, 1, 2], [0, 0, 1]], np.int32)
    part = connected_parts(labels)
    assert len(np.unique(part[labels == 1])) == 1
    assert part[0, 2] != part[1, 1]
    assert (part[labels == 0] == 0).all()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_parts_equal_those_of_scipy(share):
    from skimage.measure import label

    rng = np.random.default_rng(int(10 * share))
    labels = (rng.random((37, 53)) < share) * rng.integers(1, 3, (37, 53))
    labels = labels.astype(np.int32)
    found, known = connected_parts(labels), label(labels, background=0, connectivity=2)
    assert (
        found.max()
        == known.max()
        == len(np.unique(np.stack([found, known], 2)[labels > 0].reshape(-1, 2), axis=0))
    )
    assert np.array_equal(found > 0, labels > 0)


# Initialisation.


def test_only_large_connected_regions_are_uncovered():
    labels = np.ones((20, 20), np.int32)
    labels[0:4, 0:5] = 0  # 20 pixels
    labels[10:12, 10:12] = 0  # 4
    free = uncovered(labels, 10 / 400)
    assert np.flatnonzero(free.any(1)).tolist() == [0, 1, 2, 3]
    assert not uncovered(np.ones((4, 4), np.int32), 0.0).any()


def test_a_new_mask_gets_the_earlier_id_of_most_of_its_points():
    new = np.zeros((4, 30), np.int32)
    new[:, :10], new[:, 10:20], new[:, 20:] = 1, 2, 3
    pixel = np.arange(120)
    label = np.zeros((4, 30), np.int32)
    label[:, :6] = 8  # 6 of the first mask's 10 columns
    label[:, 10:14], label[:, 14:18] = 5, 6  # neither has most of the second
    assert claimed(new, pixel, label.reshape(-1)) == {1: 8}
    assert claimed(new, pixel[:0], label.reshape(-1)[:0]) == {}


def test_uncovered_regions_start_as_in_the_paper():
    free = np.zeros((5, 9), bool)
    free[:, :3] = free[:, 6:] = True
    found = regions(free)
    assert sorted(np.unique(found).tolist()) == [0, 1, 2]
    assert np.array_equal(found > 0, free)


def test_new_masks_are_automatic_masks_and_not_the_region():
    automatic = np.zeros((10, 30), np.int32)
    automatic[:, :10], automatic[:, 10:20], automatic[:, 20:28] = 1, 2, 3
    free = np.zeros((10, 30), bool)
    free[:, 8:] = True
    new = fresh(automatic, free)
    # Mask 1 is on a track except for a border; columns 28 and 29 have no automatic mask.
    assert np.unique(new[:, :10]).tolist() == [0]
    assert np.unique(new[:, 10:20]).tolist() == [2]
    assert np.unique(new[:, 20:28]).tolist() == [3]
    assert np.unique(new[:, 28:]).tolist() == [0]
