from threading import Barrier

import numpy as np
import pytest
from walls import TrueMasks, wall_scene

from lift3d.scene import Masks
from lift3d.scene.errors import FrameError
from lift3d.scene.mask_sets import MaskSet
from lift3d.segmentation.tracking.independent import IndependentConfig

SQUARES = ((20, 20, 30, 2), (90, 40, 40, 3))


def test_no_id_appears_in_two_views():
    maps = list(IndependentConfig().build(TrueMasks()).track(wall_scene(SQUARES, [0, 5, 10])))
    ids = [set(np.unique(labels)) for labels in maps]
    assert ids == [{1, 2, 3}, {4, 5, 6}, {7, 8, 9}]


def test_masks_keep_their_pixels():
    scene = wall_scene(SQUARES, [0])
    (labels,) = IndependentConfig().build(TrueMasks()).track(scene)
    np.testing.assert_array_equal(labels, scene.views[0].instances())


def test_a_part_stays_visible_on_its_object():
    class Nested(TrueMasks):
        def segment(self, view):
            stack = np.zeros((2, 120, 160), bool)
            stack[0, 10:20, 10:20] = True  # the part comes first
            stack[1, :50, :50] = True
            return Masks(stack, np.ones(2, np.float32))

    (found,) = IndependentConfig().build(Nested()).track(wall_scene(SQUARES, [0]))
    assert isinstance(found, MaskSet)
    assert np.bincount(found.labels.reshape(-1)).tolist() == [120 * 160 - 2500, 100, 2400]
    assert found.ids_at(15, 15) == (1, 2)
    assert found.ids.tolist() == [1, 2]


def test_scores_of_masks_are_kept():
    class Scored(TrueMasks):
        def segment(self, view):
            masks = super().segment(view)
            return Masks(masks.stack, np.linspace(0.5, 0.9, len(masks), dtype=np.float32))

    first, second = IndependentConfig().build(Scored()).track(wall_scene(SQUARES, [0, 5]))
    assert second.scores.tolist() == pytest.approx([0.5, 0.7, 0.9])
    assert second.ids.tolist() == [4, 5, 6]
    np.testing.assert_array_equal(first.labels, wall_scene(SQUARES, [0]).views[0].instances())


def test_a_segmenter_for_threads_works_on_several_views_at_once():
    """Ids, pixels and errors are those of one view after the other."""

    class Threaded(TrueMasks):
        threads = 2

        def __init__(self):
            self.together = Barrier(2, timeout=10)

        def segment(self, view):
            self.together.wait()  # breaks where the views come one after the other
            if view.name == "view010":
                raise FrameError("torn")
            return super().segment(view)

    class Plain(TrueMasks):
        def segment(self, view):
            if view.name == "view010":
                raise FrameError("torn")
            return super().segment(view)

    scene = wall_scene(SQUARES, [0, 5, 10, 15])
    tracker, plain = IndependentConfig().build(Threaded()), IndependentConfig().build(Plain())
    np.testing.assert_array_equal(list(tracker.track(scene)), list(plain.track(scene)))
    assert [each.name for each in tracker.skipped] == ["view010"]
