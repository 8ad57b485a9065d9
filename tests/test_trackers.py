"""The contract of every tracker."""

import numpy as np
import pytest
from walls import HEIGHT, WIDTH, TrueMasks, wall_scene

from lift3d.scene import Masks, Scene, Skipped, View
from lift3d.scene.errors import FrameError, InputError
from lift3d.segmentation.matching.depth import DepthMatcherConfig
from lift3d.segmentation.tracking import BACKENDS
from lift3d.segmentation.tracking.byocl import Byocl
from lift3d.segmentation.tracking.given import Given
from lift3d.segmentation.tracking.vggt_s import VggtS, VggtSConfig
from lift3d.segmentation.transfer import Carried, Transfer

SQUARES = ((20, 20, 30, 2), (90, 40, 40, 3), (150, 10, 30, 4), (230, 60, 30, 5))


class NumberedMasks(TrueMasks):
    """The true masks with their true ids."""

    def segment(self, view):
        return Masks.from_label_map(view.instances())


class NothingFound(Transfer):
    """Finds no mask in another view."""

    def __init__(self):
        pass

    def carry(self, a, b, masks):
        nothing = np.zeros(len(masks), np.float32)
        return Carried(np.zeros_like(masks), nothing, nothing, nothing > 0)


@pytest.fixture(params=sorted(BACKENDS))
def tracker(request):
    segmenter = NumberedMasks() if request.param == "given" else TrueMasks()
    if request.param == "vggt-s":  # it needs weights
        return VggtS(VggtSConfig(), segmenter, NothingFound())
    return BACKENDS[request.param]().build(segmenter, DepthMatcherConfig().build())


def test_given_ids_stay_as_they_are_and_masks_without_ids_are_refused():
    scene = wall_scene(SQUARES, [0, 30])
    for view, labels in zip(scene.views, Given(NumberedMasks()).track(scene), strict=True):
        assert np.array_equal(labels, view.instances())
    with pytest.raises(InputError, match="have no ids"):
        next(Given(TrueMasks()).track(scene))


def test_there_is_one_int32_map_of_colour_size_for_each_view_in_order(tracker):
    maps = list(tracker.track(wall_scene(SQUARES, [0, 10, 20])))
    assert len(maps) == 3
    for labels, shift in zip(maps, [0, 10, 20], strict=True):
        assert labels.dtype == np.int32
        assert labels.shape == (HEIGHT, WIDTH)
        # The second square starts at column 90 - shift, so its edge shows the order.
        assert labels[60, 90 - shift] != labels[60, 89 - shift]
        assert labels.min() >= 0


def test_views_are_read_lazily(tracker):
    if isinstance(tracker, Byocl):
        pytest.skip("byocl clusters all views together before it labels the first")
    asked = []

    class Views(tuple):
        def __iter__(self):
            for view in super().__iter__():
                asked.append(view.name)
                yield view

    scene = wall_scene(SQUARES, [0, 10, 20, 30])
    maps = tracker.track(Scene("wall", Views(scene.views), True, "test"))
    assert asked == []
    for count in range(1, 5):
        next(maps)
        assert len(asked) == count


def test_the_same_seed_gives_the_same_bytes(tracker):
    scene = wall_scene(SQUARES, range(0, 60, 10))
    one, two = (np.stack(list(tracker.track(scene))) for _ in range(2))
    assert one.tobytes() == two.tobytes()
    assert len(np.unique(one)) > 3


def test_a_caller_may_change_the_returned_maps(tracker):
    scene = wall_scene(SQUARES, [0, 10, 20])
    clean = [labels.copy() for labels in tracker.track(scene)]
    for labels, expected in zip(tracker.track(scene), clean, strict=True):
        np.testing.assert_array_equal(labels, expected)
        labels[:] = 7


def test_an_unreadable_view_is_unlabelled_and_the_others_are_not(tracker):
    def broken():
        raise FrameError("view bad: cannot read")

    scene = wall_scene(SQUARES, [0, 10, 20])
    middle = scene.views[1]
    bad = View("bad", middle.camera, broken, middle.load_depth, load_instances=broken)
    maps = list(tracker.track(scene.with_views([scene.views[0], bad, scene.views[2]])))
    assert [bool(m.any()) for m in maps] == [True, False, True]
    assert tracker.skipped == [Skipped("bad", "view bad: cannot read")]
    list(tracker.track(wall_scene(SQUARES, [0, 10])))
    assert tracker.skipped == []


def test_a_scene_without_views_has_no_maps(tracker):
    assert list(tracker.track(wall_scene(SQUARES, []))) == []


def test_a_view_without_masks_is_unlabelled(tracker):
    if isinstance(tracker, Byocl):
        pytest.skip("byocl asks for no masks: it labels every pixel")
    squares = ((0, 0, 400, 0),)  # one square of label 0 over everything
    assert not any(m.any() for m in tracker.track(wall_scene(squares, [0, 10])))
