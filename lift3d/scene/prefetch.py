"""Decode the next views in background threads; write results in a background thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import TypeVar

import numba

from lift3d.scene import Image, Scene

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")

AHEAD = 2
"""Views decoded ahead of the current one; chosen by hand, more only take memory."""
THREADS = 2
"""Threads for work on independent views, as in the consistency check; each holds a few pictures.
Chosen by hand."""


def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads with the caller's limit on numba threads, which numba keeps per thread."""
    limit = numba.get_num_threads()
    return ThreadPoolExecutor(threads, initializer=numba.set_num_threads, initargs=(limit,))


def prefetch(
    items: Iterable[Item],
    load: Callable[[Item], Loaded],
    ahead: int = AHEAD,
    threads: int = 1,
) -> Iterator[Loaded]:
    """`load` of each item, in order, computed in `threads` threads up to `ahead` items early.

    While one result is used, `threads` items are being loaded and `ahead` more are loaded or
    queued. With several threads `load` must be thread-safe. An error of `load` is raised when
    its item is due. Threads end when the iterator is closed.
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
def in_background(most: int = AHEAD) -> Iterator[Callable[[Callable[[], object]], None]]:
    """Run callables in order on a background thread, at most `most` pending.

    Used to write a result while the next one is computed. An error is raised at a later call, or
    at the end of the block, which waits for all of them.
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
    """The pictures of a scene, loaded in order; the next ones are decoded in the background."""

    def __init__(self, scene: Scene, pool: ThreadPoolExecutor) -> None:
        self._loaders = [view.load_image for view in scene.views]
        self._pool = pool
        self._waiting: dict[int, Future[Image]] = {}
        self._next = 0
        """The first view that was not submitted."""
        self._lock = Lock()

    def image(self, index: int) -> Image:
        """The picture of view `index`; decoded pictures of much earlier views are dropped."""
        with self._lock:
            # Several threads ask for up to `THREADS` views, not always in order.
            if index + AHEAD + THREADS < self._next:
                self._next = index + 1  # from the start again
            waiting = {at: each for at, each in self._waiting.items() if at > index - THREADS}
            own = waiting.pop(index, None)
            last = min(index + AHEAD, len(self._loaders) - 1)
            for later in range(max(index + 1, self._next), last + 1):
                waiting[later] = self._pool.submit(self._loaders[later])
                self._next = later + 1
            self._waiting = waiting
        return self._loaders[index]() if own is None else own.result()


@contextmanager
def pictures_ahead(scene: Scene) -> Iterator[Scene]:
    """The scene with its pictures decoded ahead, for a caller that loads them in order.

    Depth, confidence and label maps are not decoded ahead.
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
