"""Decoding ahead: same order, same errors, never more than a few at a time."""

import threading
import time
from dataclasses import replace

import numba
import numpy as np
import pytest

from lift3d.scene import Camera, Scene, View
from lift3d.scene.errors import FrameError
from lift3d.scene.prefetch import AHEAD, THREADS, in_background, pictures_ahead, prefetch


@pytest.mark.parametrize("threads", [1, THREADS])
def test_results_come_in_order(threads):
    def slow_at_first(item: int) -> int:
        time.sleep(0.01 if item == 0 else 0)
        return item * item

    assert list(prefetch(range(20), slow_at_first, threads=threads)) == [
        item * item for item in range(20)
    ]
    assert list(prefetch([], slow_at_first, threads=threads)) == []


@pytest.mark.parametrize("threads", [1, THREADS])
def test_an_error_is_raised_at_its_item(threads):
    def fails_at_three(item: int) -> int:
        if item == 3:
            raise FrameError("three")
        return item

    found = prefetch(range(9), fails_at_three, threads=threads)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(FrameError, match="three"):
        next(found)


@pytest.mark.parametrize("threads", [1, THREADS])
def test_only_a_few_items_are_loaded_ahead(threads):
    begun = []
    for done, _ in enumerate(prefetch(range(50), begun.append, threads=threads), start=1):
        assert len(begun) <= done + AHEAD + threads
    assert len(begun) == 50


@pytest.mark.parametrize("threads", [1, THREADS])
def test_stopping_early_leaves_no_thread(threads):
    before = threading.active_count()
    items = prefetch(range(1000), lambda item: item, threads=threads)
    next(items)
    items.close()
    assert threading.active_count() == before


def scene_of(count: int, loaded: list[int]) -> Scene:
    def load(index: int) -> np.ndarray:
        loaded.append(index)
        if index == 4:
            raise FrameError("four")
        return np.full((2, 3, 3), index, np.uint8)

    camera = Camera(np.eye(3), 3, 2)
    views = [View(str(i), camera, lambda i=i: load(i)) for i in range(count)]
    return Scene("few", tuple(views), True, "test")


def test_pictures_are_decoded_once_each_and_ahead_of_use():
    loaded: list[int] = []
    with pictures_ahead(scene_of(4, loaded)) as scene:
        assert scene.views[0].image()[0, 0, 0] == 0
        deadline = time.monotonic() + 5
        while len(loaded) < 1 + AHEAD and time.monotonic() < deadline:
            time.sleep(0.001)
        assert len(loaded) >= AHEAD
        assert [int(view.image()[0, 0, 0]) for view in scene.views[1:]] == [1, 2, 3]
    assert sorted(loaded) == [0, 1, 2, 3]


def test_pictures_may_be_loaded_in_any_order_and_twice():
    with pictures_ahead(scene_of(4, [])) as scene:
        assert [int(scene.views[i].image()[0, 0, 0]) for i in (3, 0, 0, 2, 1)] == [3, 0, 0, 2, 1]


def test_threads_may_ask_a_little_out_of_order_and_no_picture_is_decoded_twice():
    loaded: list[int] = []
    asked = [1, 0, 3, 2, 5, 6, 8, 7]
    with pictures_ahead(scene_of(9, loaded)) as scene:
        assert [int(scene.views[index].image()[0, 0, 0]) for index in asked] == asked
    assert sorted(each for each in loaded if each != 4) == sorted(asked)


def test_pictures_are_decoded_ahead_again_from_the_start():
    loaded: list[int] = []
    with pictures_ahead(scene_of(20, loaded)) as scene:
        for index in (*range(5, 20), 5):
            scene.views[index].image()
        deadline = time.monotonic() + 5
        while loaded.count(6) < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert loaded.count(6) == 2


def test_pictures_may_be_loaded_by_several_threads_at_once():
    with pictures_ahead(scene_of(40, [])) as scene:
        views = [view for index, view in enumerate(scene.views) if index != 4]
        found = prefetch(views, lambda view: int(view.image()[0, 0, 0]), threads=THREADS)
        assert list(found) == [index for index in range(40) if index != 4]


def test_a_picture_that_cannot_be_read_raises_when_it_is_loaded():
    with pictures_ahead(scene_of(6, [])) as scene:
        for index in (3, 5):
            assert scene.views[index].image()[0, 0, 0] == index
        with pytest.raises(FrameError, match="four"):
            replace(scene.views[4]).image()


@pytest.mark.parametrize("threads", [1, THREADS])
def test_threads_keep_to_the_callers_cores(threads):
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        found = list(prefetch(range(3), lambda item: numba.get_num_threads(), threads=threads))
    finally:
        numba.set_num_threads(before)
    assert found == [1, 1, 1]


def test_background_work_is_all_done_and_in_order():
    done = []

    def slow(item):
        time.sleep(0.01)
        done.append(item)

    with in_background(most=2) as later:
        for item in range(6):
            later(lambda item=item: slow(item))
            assert len(done) >= item - 2  # never more than two wait
    assert done == list(range(6))


def test_an_error_of_background_work_is_raised():
    def full():
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), in_background() as later:
        later(full)


@pytest.mark.parametrize(("ahead", "threads"), [(0, 1), (1, 1), (5, 1), (0, 3), (2, 3)])
def test_the_number_of_started_items_is_threads_plus_ahead(ahead, threads):
    begun = []
    found = prefetch(range(50), begun.append, ahead, threads)
    next(found)
    found.close()  # waits for what is running
    assert len(begun) <= 1 + ahead + threads
    assert len(list(prefetch(range(50), abs, ahead, threads))) == 50
