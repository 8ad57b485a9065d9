"""What the next views need is decoded while this one is worked on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numba

from lift3d.scene import Depth, Image, LabelMap, Scene, Skipped, View
from lift3d.scene.skipping import readable

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")

AHEAD = 2
"""Views decoded while one is worked on; more would only take memory."""
THREADS = 2
"""Views worked on at a time; each holds a few pictures."""


def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads under the caller's limit on cores, which numba keeps for each thread by itself."""
    limit = numba.get_num_threads()
    return ThreadPoolExecutor(threads, initializer=numba.set_num_threads, initargs=(limit,))


def ahead(
    items: Iterable[Item], load: Callable[[Item], Loaded], most: int = AHEAD
) -> Iterator[Loaded]:
    """`load` of each item in order, up to `most` of them ahead, in one thread of its own.

    `items` is gone through in that thread as well. What either raises comes out in its turn.
    """
    source = iter(items)
    end = object()

    def one() -> Loaded | object:
        try:
            item = next(source)
        except StopIteration:
            return end
        return load(item)

    waiting: deque[Future[Loaded | object]] = deque()
    with _pool(1) as pool:
        try:
            for _ in range(most + 1):
                waiting.append(pool.submit(one))
            while (found := waiting.popleft().result()) is not end:
                waiting.append(pool.submit(one))
                yield found  # type: ignore[misc]
        finally:
            pool.shutdown(cancel_futures=True)  # the caller stopped early


@contextmanager
def behind(most: int = AHEAD) -> Iterator[Callable[[Callable[[], object]], None]]:
    """Takes work and does it in order in one thread of its own, up to `most` late.

    For what is written while the next is made. What the work raises comes out at a later call, at
    the latest at the end, where all of it is done.
    """
    waiting: deque[Future[object]] = deque()
    with _pool(1) as pool:

        def later(work: Callable[[], object]) -> None:
            waiting.append(pool.submit(work))
            if len(waiting) > most:
                waiting.popleft().result()

        try:
            yield later
            while waiting:
                waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def side_by_side(
    items: Iterable[Item], load: Callable[[Item], Loaded], threads: int = THREADS
) -> Iterator[Loaded]:
    """`load` of each item in order, worked out by a few threads, a few items ahead.

    For work on views that does not depend on the other views; `load` must bear threads.
    """
    waiting: deque[Future[Loaded]] = deque()
    with _pool(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(load, item))
                if len(waiting) > threads + AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


class _Decoded:
    """The pictures of a scene, asked for in order; the next ones are decoded meanwhile."""

    def __init__(self, scene: Scene, pool: ThreadPoolExecutor) -> None:
        self._loaders = [view.load_image for view in scene.views]
        self._pool = pool
        self._waiting: dict[int, Future[Image]] = {}

    def image(self, index: int) -> Image:
        """The picture of view `index`; what was decoded for views before it is dropped."""
        self._waiting = {at: each for at, each in self._waiting.items() if at >= index}
        mine = self._waiting.pop(index, None)
        for later in range(index + 1, min(index + 1 + AHEAD, len(self._loaders))):
            if later not in self._waiting:
                self._waiting[later] = self._pool.submit(self._loaders[later])
        return self._loaders[index]() if mine is None else mine.result()


@contextmanager
def pictures_ahead(scene: Scene) -> Iterator[Scene]:
    """The scene whose pictures, asked for in order, are decoded before they are asked for.

    Whatever else the views load is loaded when asked for. For one reader at a time.
    """
    with _pool(1) as pool:
        decoded = _Decoded(scene, pool)
        try:
            yield scene.with_views(
                [
                    replace(view, load_image=partial(decoded.image, index))
                    for index, view in enumerate(scene.views)
                ]
            )
        finally:
            pool.shutdown(cancel_futures=True)


def looked_up(
    scene: Scene, label_maps: Iterable[LabelMap], skipped: list[Skipped] | None = None
) -> Iterator[tuple[View, Depth | None, LabelMap]]:
    """Every view with its depth and its label map; ValueError where the counts differ.

    A view whose depth or confidence cannot be read comes with an empty depth map, so that it sees
    no point; it is added to `skipped`.
    """

    def load(
        pair: tuple[View, LabelMap],
    ) -> tuple[View, Depth | None, LabelMap, Skipped | None]:
        view, depth, lost = readable(pair[0])
        return view, depth, pair[1], lost

    for view, depth, labels, lost in ahead(zip(scene.views, label_maps, strict=True), load):
        if lost is not None and skipped is not None:
            skipped.append(lost)
        yield view, depth, labels
