"""Keep the ids of the masks, for masks with consistent ids across views."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from lift3d.scene import Scene, Skipped
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.mask_sets import ViewMasks, view_masks
from lift3d.scene.protocols import Asked, Matcher, Segmenter, TrackerConfig
from lift3d.scene.skipping import unlabelled


@dataclass(frozen=True)
class GivenConfig(TrackerConfig):
    """Keep the ids of the masks: an id is the same object in every view."""

    keeps_ids: ClassVar[bool] = True

    def asks(self, number: int) -> frozenset[Asked]:
        """Masks alone."""
        return frozenset(("masks",))

    def build(self, segmenter: Segmenter, matcher: Matcher | None = None) -> Given:
        """The tracker; it needs no matcher."""
        return Given(segmenter)


class Given:
    """Keeps the ids that the masks came with."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter = segmenter
        self.skipped: list[Skipped] = []

    def track(self, scene: Scene) -> Iterator[ViewMasks]:
        """The masks of each view, in view order; a view that cannot be read is unlabelled."""
        self.skipped = []
        for view in scene.views:
            try:
                masks = self.segmenter.segment(view)
            except FrameError as error:
                yield unlabelled(view, error, self.skipped)
                continue
            if masks.ids is None:
                raise InputError(
                    f"view {view.name}: its masks have no ids, and tracking 'given' keeps the ids "
                    "of masks; choose another tracking or masks with ids (folder)"
                )
            yield view_masks(masks, masks.ids)
