"""What the next views need is decoded while this one is worked on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from lift3d.scene import Depth, LabelMap, Scene, View

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")

AHEAD = 2
"""Views decoded while one is worked on; more would only take memory."""


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
    with ThreadPoolExecutor(1) as pool:
        try:
            for _ in range(most + 1):
                waiting.append(pool.submit(one))
            while (found := waiting.popleft().result()) is not end:
                waiting.append(pool.submit(one))
                yield found  # type: ignore[misc]
        finally:
            pool.shutdown(cancel_futures=True)  # the caller stopped early


def looked_up(
    scene: Scene, label_maps: Iterable[LabelMap]
) -> Iterator[tuple[View, Depth | None, LabelMap]]:
    """Every view with its depth and its label map; ValueError where the counts differ."""

    def load(pair: tuple[View, LabelMap]) -> tuple[View, Depth | None, LabelMap]:
        view, labels = pair
        return view, view.depth(), labels

    return ahead(zip(scene.views, label_maps, strict=True), load)
