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

from lift3d.scene import Image, Scene

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")

AHEAD = 2
"""Views decoded while one is worked on; more would only take memory."""
THREADS = 2
"""Threads for work on single views that does not depend on other views, as in the check; each
holds a few pictures."""


def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads under the caller's limit on cores, which numba keeps for each thread by itself."""
    limit = numba.get_num_threads()
    return ThreadPoolExecutor(threads, initializer=numba.set_num_threads, initargs=(limit,))


def prefetch(
    items: Iterable[Item],
    load: Callable[[Item], Loaded],
    ahead: int = AHEAD,
    threads: int = 1,
) -> Iterator[Loaded]:
    """`load` of each item, in order, worked out by `threads` threads up to `ahead` items early.

    While one result is used, `threads` are at work and `ahead` more are finished or wait. With
    several threads `load` must bear being called by them at once. An error of `load` is raised
    when its item's turn comes; a caller that stops early leaves no thread behind.
    """
    waiting: deque[Future[Loaded]] = deque()
    with _pool(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(load, item))
                if len(waiting) > threads + ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


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
