"""Segmenter and tracker combined: label maps for all views of a scene."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from lift3d.scene import Masks, Prompt, Scene, Skipped, View
from lift3d.scene.errors import InputError
from lift3d.scene.mask_sets import ViewMasks
from lift3d.scene.protocols import SceneSegmenter, Segmenter, Tracker


class Tracked(SceneSegmenter):
    """Masks of single views, with ids that a tracker propagates through the scene."""

    def __init__(
        self, segmenter: Segmenter | None, tracker: Callable[[Segmenter | None], Tracker]
    ) -> None:
        """`tracker` builds the tracker from the segmenter, which may be None."""
        self._segmenter = segmenter
        self._tracker = tracker
        self._running: Tracker | None = None

    @property
    def skipped(self) -> list[Skipped]:
        """Views that the tracker skipped."""
        return [] if self._running is None else self._running.skipped

    def check(self, scene: Scene) -> None:
        """Run the segmenter's check."""
        if self._segmenter is not None:
            self._segmenter.check(scene)

    def label(
        self, scene: Scene, prompts: Mapping[str, Sequence[Prompt]] | None = None
    ) -> Iterator[ViewMasks]:
        """The masks of each view, in scene order, as the tracker gives them.

        With prompts, masks start only in the views that have prompts. InputError if the tracker
        uses no segmenter, which would have to answer them.
        """
        segmenter = self._segmenter
        if prompts is not None:
            if segmenter is None:
                raise InputError("this tracker uses no masks, so it cannot be prompted")
            segmenter = _Prompted(segmenter, prompts)
        self._running = self._tracker(segmenter)
        yield from self._running.track(scene)


class _Prompted(Segmenter):
    """A segmenter whose automatic masks are the answers to given prompts."""

    def __init__(self, segmenter: Segmenter, prompts: Mapping[str, Sequence[Prompt]]) -> None:
        self._segmenter = segmenter
        self._prompts = prompts

    def segment(self, view: View) -> Masks:
        """The answers to the view's prompts."""
        prompts = self._prompts.get(view.name, ())
        if prompts:
            return self._segmenter.prompt(view, prompts)
        nothing = np.zeros((0, view.camera.height, view.camera.width), bool)
        return Masks(nothing, np.zeros(0, np.float32))

    def prompt(self, view: View, prompts: Sequence[Prompt]) -> Masks:
        """Forward to the segmenter."""
        return self._segmenter.prompt(view, prompts)

    def alternatives(self, view: View, prompt: Prompt) -> Masks:
        """Forward to the segmenter."""
        return self._segmenter.alternatives(view, prompt)
