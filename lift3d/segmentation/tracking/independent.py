"""The baseline without tracking: ids of different views are unrelated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lift3d.scene import Masks, Scene, Skipped, View
from lift3d.scene.errors import FrameError
from lift3d.scene.mask_sets import ViewMasks, view_masks
from lift3d.scene.prefetch import prefetch
from lift3d.scene.protocols import Asked, InThreads, Matcher, Segmenter, TrackerConfig
from lift3d.scene.skipping import unlabelled


@dataclass(frozen=True)
class IndependentConfig(TrackerConfig):
    """Automatic masks of each view; ids of different views are unrelated."""

    def asks(self, number: int) -> frozenset[Asked]:
        """Masks alone."""
        return frozenset(("masks",))

    def build(self, segmenter: Segmenter, matcher: Matcher | None = None) -> Independent:
        """The tracker; it needs no matcher."""
        return Independent(segmenter)


class Independent:
    """Gives every mask of every view a new id, so that each id occurs in one view only."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self.skipped: list[Skipped] = []

    def track(self, scene: Scene) -> Iterator[ViewMasks]:
        """The masks of each view, in view order; a view that cannot be read is unlabelled."""
        self.skipped = []
        next_id = 1
        for view, masks in self._segmented(scene):
            if isinstance(masks, FrameError):
                yield unlabelled(view, masks, self.skipped)
                continue
            yield view_masks(masks, np.arange(next_id, next_id + len(masks), dtype=np.int32))
            next_id += len(masks)

    def _segmented(self, scene: Scene) -> Iterator[tuple[View, Masks | FrameError]]:
        """Each view with its masks, or why it cannot be read."""

        def masks_of(view: View) -> tuple[View, Masks | FrameError]:
            try:
                return view, self.segmenter.segment(view)
            except FrameError as error:
                return view, error

        if isinstance(self.segmenter, InThreads):
            return prefetch(scene.views, masks_of, threads=self.segmenter.threads)
        return map(masks_of, scene.views)
