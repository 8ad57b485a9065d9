"""Carry masks from view to view with VGGT-Segmentor: for pictures far apart, without poses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int32

from lift3d.scene import LabelMap, Scene, Skipped, View
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.overlap import paint
from lift3d.scene.protocols import Asked, Matcher, Segmenter, TrackerConfig
from lift3d.scene.skipping import unlabelled
from lift3d.segmentation.tracking.initialisation import PAPER_AREA, disjoint, fresh, uncovered
from lift3d.segmentation.transfer import Transfer, TransferConfig


@dataclass(frozen=True)
class VggtSConfig(TrackerConfig):
    """Carry the masks of earlier views into the next one; new objects start where none lies.

    How views follow each other and how masks are chosen is ours: the paper carries one mask from
    one picture to another.
    """

    transfer: TransferConfig = field(default_factory=lambda: TransferConfig(framing="whole"))
    memory: int = 3
    """Each object is carried from the view, of the last so many, where its mask is largest."""
    overlap: float = 0.5
    """Of automatic masks that share more than this of the larger one, the two are one object."""
    min_uncovered: float = PAPER_AREA
    """Smallest unlabelled region where new objects start, as a share of the picture."""

    def asks(self, number: int) -> frozenset[Asked]:
        """Masks alone."""
        return frozenset(("masks",))

    def check(self) -> None:
        """Raise InputError if a number is out of range."""
        self.transfer.check()
        if self.memory < 1:
            raise InputError(f"vggt-s needs memory of 1 or more; got {self.memory}")

    def build(self, segmenter: Segmenter, matcher: Matcher | None = None) -> VggtS:
        """The tracker; it needs no matcher."""
        self.check()
        return VggtS(self, segmenter, self.transfer.build())


@dataclass(frozen=True, eq=False)
class _Earlier:
    """A view that was labelled."""

    view: View
    labels: LabelMap


class VggtS:
    """Tracks masks through a scene; keeps the last few views."""

    def __init__(self, config: VggtSConfig, segmenter: Segmenter, transfer: Transfer) -> None:
        self.config, self.segmenter, self.transfer = config, segmenter, transfer
        self.skipped: list[Skipped] = []

    def track(self, scene: Scene) -> Iterator[LabelMap]:
        """One label map per view, in view order; a view that cannot be read is unlabelled.

        Ids start at 1. An object that is in none of the last `memory` views and appears again gets
        a new id; the association joins them.
        """
        self.skipped = []
        kept: list[_Earlier] = []
        next_id = 1
        for view in scene.views:
            try:
                labels = self._carried(kept, view)
                labels = self._started(labels, view, next_id)
            except FrameError as error:
                yield unlabelled(view, error, self.skipped)
                continue
            next_id = max(next_id, int(labels.max(initial=0)) + 1)
            kept = [*kept, _Earlier(view, labels)][-self.config.memory :]
            yield labels.copy()  # the caller may change it

    def _carried(self, kept: list[_Earlier], view: View) -> LabelMap:
        """The objects of earlier views found in this one; small ones lie on large ones."""
        masks, ids = [], []
        for place, own in enumerate(_largest(kept)):
            if not len(own):
                continue
            earlier = kept[place]
            stack = earlier.labels[None] == own[:, None, None]
            found = self.transfer.carry(earlier.view, view, stack)
            masks.append(found.masks[found.present])
            ids.append(own[found.present])
        shape = (view.camera.height, view.camera.width)
        if not masks:
            return np.zeros(shape, np.int32)
        return paint(np.concatenate(masks), np.concatenate(ids))

    def _started(self, labels: LabelMap, view: View, next_id: int) -> LabelMap:
        """The label map with new objects from automatic masks in unlabelled regions."""
        free = uncovered(labels, self.config.min_uncovered)
        if not free.any():
            return labels
        automatic = disjoint(self.segmenter.segment(view), self.config.overlap, False)
        new = fresh(automatic, free)
        ids = np.unique(new[new > 0])
        table = np.zeros(int(new.max(initial=0)) + 1, np.int32)
        table[ids] = np.arange(next_id, next_id + len(ids))
        return np.where(new > 0, table[new], labels).astype(np.int32)


def _largest(kept: list[_Earlier]) -> list[Int32[np.ndarray, " ids"]]:
    """For each view the ids whose mask is largest there; the later view where they are equal."""
    best: dict[int, tuple[float, int]] = {}
    for place, each in enumerate(kept):
        ids, count = np.unique(each.labels[each.labels > 0], return_counts=True)
        for id_, size in zip(ids.tolist(), (count / each.labels.size).tolist(), strict=True):
            best[id_] = max(best.get(id_, (0.0, 0)), (size, place))
    return [
        np.array(sorted(id_ for id_, (_, at) in best.items() if at == place), np.int32)
        for place in range(len(kept))
    ]
