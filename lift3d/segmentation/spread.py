"""A segmenter whose work is done by workers, ahead of the tracker that asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float32

from lift3d.scene import Masks, Prompt, Scene, View
from lift3d.scene.errors import FrameError
from lift3d.scene.mask_sets import PackedMasks
from lift3d.scene.protocols import Asked, CanPrepare, HasFeatures, Segmenter
from lift3d.scene.workers.views import Pool

Task: TypeAlias = tuple[View, frozenset[Asked]]


@dataclass(frozen=True, eq=False)
class Seen:
    """What a worker found in one view; None where it was not asked for."""

    masks: PackedMasks | None = None
    prepared: Any = None
    features: np.ndarray | None = None
    error: FrameError | None = None
    """Why the view cannot be read."""


def spread(
    pool: Pool,
    build: Callable[[], Segmenter],
    own: Segmenter,
    views: Sequence[View],
    asks: Callable[[int], frozenset[Asked]],
) -> Segmenter:
    """A segmenter that gives what `own` would, with the views' work done by workers.

    `build` makes the segmenter in a worker; `asks` is the tracker's. CannotSend where the settings
    of the segmenter or the views cannot be sent to workers.
    """
    tasks = [(view, asks(number)) for number, view in enumerate(views)]
    names = [f"view {view.name}" for view in views]
    results = pool.over(look, build, tasks, names)
    kept = own if any("prompts" in asked for _, asked in tasks) else None
    kind = SpreadWithFeatures if isinstance(own, HasFeatures) else Spread
    return kind(results, views, build, kept)


def look(segmenter: Segmenter, task: Task) -> Seen:
    """What a tracker will ask about a view, on a worker."""
    view, asks = task
    masks = prepared = features = None
    try:
        if "masks" in asks:
            masks = PackedMasks.of(segmenter.segment(view))
        if "prompts" in asks and isinstance(segmenter, CanPrepare):
            prepared = segmenter.prepared(view)
        if "features" in asks and isinstance(segmenter, HasFeatures):
            features = segmenter.features(view)
    except FrameError as error:
        return Seen(error=error)
    return Seen(masks, prepared, features)


class Spread(Segmenter):
    """Gives the workers' results in the order of the views. What they did not do is done here."""

    def __init__(
        self,
        results: Iterator[Seen],
        views: Sequence[View],
        build: Callable[[], Segmenter],
        own: Segmenter | None,
    ) -> None:
        """`own` is the segmenter of this process; None builds it only where it is needed."""
        self._results, self._build, self._own = results, build, own
        self._place = {view.name: place for place, view in enumerate(views)}
        self._last, self._seen = -1, Seen()

    def check(self, scene: Scene) -> None:
        """Run the segmenter's own check."""
        self._segmenter().check(scene)

    def segment(self, view: View) -> Masks:
        """The masks of the view."""
        seen = self._found(view)
        return self._segmenter().segment(view) if seen.masks is None else seen.masks

    def prompt(self, view: View, prompts: Sequence[Prompt]) -> Masks:
        """Answer prompts in this process, from what a worker has prepared."""
        return self._prepared(view).prompt(view, prompts)

    def alternatives(self, view: View, prompt: Prompt) -> Masks:
        """Answer a prompt in this process, from what a worker has prepared."""
        return self._prepared(view).alternatives(view, prompt)

    def _prepared(self, view: View) -> Segmenter:
        seen, segmenter = self._found(view), self._segmenter()
        if seen.prepared is not None and isinstance(segmenter, CanPrepare):
            segmenter.use_prepared(view, seen.prepared)
            self._seen = replace(seen, prepared=None)  # once is enough
        return segmenter

    def _segmenter(self) -> Segmenter:
        if self._own is None:
            self._own = self._build()
        return self._own

    def _found(self, view: View) -> Seen:
        """The result for a view; an empty one for a view that is past, or not of this scene."""
        place = self._place.get(view.name, -1)
        while self._last < place:
            self._seen, self._last = next(self._results), self._last + 1
        if place != self._last:
            return Seen()
        if self._seen.error is not None:
            raise self._seen.error
        return self._seen


class SpreadWithFeatures(Spread):
    """A `Spread` of a segmenter that also gives features."""

    def features(self, view: View) -> Float32[np.ndarray, "rows columns channels"]:
        """The features of the view."""
        seen = self._found(view)
        if seen.features is not None:
            return seen.features
        segmenter = self._segmenter()
        assert isinstance(segmenter, HasFeatures)
        return segmenter.features(view)
