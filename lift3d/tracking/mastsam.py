"""MastSAM: masks carried from view to view by points that the matcher finds again.

The paper's Sec. IV over any segmenter and any matcher. Beyond the paper: negative points and
the old mask as a prompt, answers that must agree with the matches, new masks from the
automatic ones instead of from raw uncovered regions.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int32

from lift3d.errors import FrameError, InputError
from lift3d.protocols import Matcher, Segmenter
from lift3d.scene import LabelMap, Prompt, Scene, View
from lift3d.tracking import representatives
from lift3d.tracking.evidence import Evidence, gather, steady
from lift3d.tracking.initialisation import PAPER_AREA, disjoint, fresh, uncovered
from lift3d.tracking.overlap import connected_parts, groups, paint, shared_pixels

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MastsamConfig:
    """Points carry each mask into the next view, where the segmenter answers them."""

    points: int = 100
    """Representative points over all masks, shared by area, at least one each (scripts: 100)."""
    border: float = 3.0
    """Matches nearer than this to an image border are dropped, in pixels (scripts: 3)."""
    min_confidence: float = 0.1
    """Matches below are not used (scripts: what the matcher's reciprocity leaves)."""
    min_matches: int = 5
    """With fewer matches between two views all tracks end and the view starts anew."""
    stray: float = 4.0
    """Matches that leave their mask's motion by more deviations than this are dropped; 0 keeps
    all (scripts: keep all)."""
    negatives: int = 4
    """Points of neighbouring masks given as negative points to each prompt (scripts: 0)."""
    dense_prompt: bool = True
    """Also hand over the old mask, moved by the matches, where they are dense (scripts: no)."""
    min_agreement: float = 0.5
    """An answer keeps its id when its intersection over union with the old mask, counted in
    matches, reaches this; else the track ends (scripts: 0, every answer is kept)."""
    sure_agreement: float = 0.8
    """Below this the segmenter's alternatives (subpart, part, whole) are looked at too and the
    best is taken; 0 never asks (scripts: no)."""
    overlap: float = 0.5
    """Masks that share more than this of the smaller are one (scripts: 0.5)."""
    nested: Literal["keep", "merge"] = "keep"
    """What becomes of a mask that lies on a larger one: `keep` leaves the part on top of the
    whole and merges only masks that cover each other, `merge` makes them one (scripts)."""
    parts: Literal["matched", "largest", "all"] = "matched"
    """Which connected parts of a mask stay: `largest` (scripts), or also those that matches of
    the old mask land in, as behind a chair's leg, or all."""
    init_every: int = 1
    """New masks start in every n-th view; 0 only in the first."""
    min_uncovered: float = PAPER_AREA
    """Smallest connected unlabelled region where new masks start, as a share of the image
    (scripts: 1000 pixels of 854x480)."""
    seed: int = 0
    """Of K-Means' first centres."""

    def build(self, segmenter: Segmenter, matcher: Matcher) -> Mastsam:
        """The tracker over this segmenter and this matcher."""
        if self.points < 1 or self.min_matches < 1 or self.init_every < 0:
            raise InputError(
                "mastsam needs points >= 1, min_matches >= 1 and init_every >= 0, got "
                f"{self.points}, {self.min_matches} and {self.init_every}"
            )
        return Mastsam(self, segmenter, matcher)


class Mastsam:
    """Tracks masks through a scene, holding no more than the previous view."""

    def __init__(self, config: MastsamConfig, segmenter: Segmenter, matcher: Matcher) -> None:
        self.config = config
        self.segmenter = segmenter
        self.matcher = matcher

    def track(self, scene: Scene) -> Iterator[LabelMap]:
        """One label map per view, in view order. Ids start at 1 and are never used again.

        A view that cannot be segmented (`FrameError`) is unlabelled, and the tracks go on from
        the view before it; one that cannot be matched starts anew.
        """
        before: tuple[View, LabelMap] | None = None
        next_id = 1
        for number, view in enumerate(scene.views):
            try:
                labels = self._labels(before, view, number, next_id)
            except FrameError as error:
                log.warning("view %s stays unlabelled: %s", view.name, error)
                yield np.zeros((view.camera.height, view.camera.width), np.int32)
                continue
            next_id = max(next_id, int(labels.max(initial=0)) + 1)
            before = view, labels
            yield labels.copy()  # the caller's to change

    def _labels(
        self, before: tuple[View, LabelMap] | None, view: View, number: int, next_id: int
    ) -> LabelMap:
        """The label map of one view: what goes on from the last, then what is new."""
        config = self.config
        evidence = self._evidence(*before, view) if before is not None else None
        if before is None or evidence is None:
            return _numbered(self._automatic(view), next_id)
        labels = self._continued(evidence, before[1], view, number)
        if config.init_every and number % config.init_every == 0:
            free = uncovered(labels, config.min_uncovered)
            if free.any():
                new = _numbered(fresh(self._automatic(view), free), next_id)
                labels = np.where(new > 0, new, labels)
        return labels

    def _automatic(self, view: View) -> LabelMap:
        """The segmenter's own masks of a view, without overlap."""
        masks = self.segmenter.segment(view)
        return disjoint(masks, self.config.overlap, self.config.nested == "merge")

    def _evidence(self, last: View, labels: LabelMap, view: View) -> Evidence | None:
        """The matches worth trusting (confidence filtering); None where there are too few."""
        config, camera = self.config, view.camera
        try:
            matches = self.matcher.match(last, view)
        except FrameError as error:
            log.warning("no matches from %s to %s: %s", last.name, view.name, error)
            return None
        evidence = gather(
            matches, labels, camera.height, camera.width, config.border, config.min_confidence
        )
        if config.stray:
            evidence = evidence.take(steady(evidence, config.stray))
        return evidence if len(evidence) >= config.min_matches else None

    def _continued(self, evidence: Evidence, last: LabelMap, view: View, number: int) -> LabelMap:
        """The masks of the last view found again in this one, under their ids."""
        config = self.config
        ids = np.unique(evidence.label[evidence.label > 0])
        if not len(ids):
            return np.zeros((view.camera.height, view.camera.width), np.int32)
        prompts = self._prompts(evidence, last, ids, number)
        stack = self.segmenter.prompt(view, prompts).stack
        stack, agreement = self._best(evidence, view, ids, prompts, stack)
        found = agreement >= config.min_agreement
        stack, ids = stack[found], ids[found]
        first = groups(shared_pixels(stack), config.overlap, config.nested == "merge")
        return self._connected(paint(stack, ids[first]), evidence)

    def _prompts(
        self, evidence: Evidence, last: LabelMap, ids: Int32[np.ndarray, " masks"], number: int
    ) -> list[Prompt]:
        """What to ask for each id: its points found again, and its neighbours' as negatives."""
        config = self.config
        chosen = representatives.choose(
            last, ids, evidence.xy_before, evidence.label, config.points, (config.seed, number)
        )
        xy, label = evidence.xy_now[chosen], evidence.label[chosen]
        warped = evidence.warped() if config.dense_prompt else None
        prompts = []
        for one in ids:
            own = xy[label == one]
            other = _nearest(xy[label != one], own, config.negatives)
            positive = np.arange(len(own) + len(other)) < len(own)
            mask = None if warped is None else warped == one
            prompts.append(Prompt(np.concatenate([own, other]), positive, mask))
        return prompts

    def _best(
        self,
        evidence: Evidence,
        view: View,
        ids: Int32[np.ndarray, " masks"],
        prompts: list[Prompt],
        stack: Bool[np.ndarray, "masks height width"],
    ) -> tuple[Bool[np.ndarray, "masks height width"], Float64[np.ndarray, " masks"]]:
        """The answers with their agreement; where it is poor, the best of the alternatives."""
        agreement = evidence.agreement(stack, ids)
        stack = stack.copy()
        for index in np.flatnonzero(agreement < self.config.sure_agreement):
            others = self.segmenter.alternatives(view, prompts[index]).stack
            scores = evidence.agreement(others, np.repeat(ids[index], len(others)))
            if scores.max(initial=0) > agreement[index]:
                stack[index] = others[scores.argmax()]
                agreement[index] = scores.max()
        return stack, agreement

    def _connected(self, labels: LabelMap, evidence: Evidence) -> LabelMap:
        """Each mask's largest connected part, and others as `parts` says."""
        if self.config.parts == "all":
            return labels
        part = connected_parts(labels)
        count = int(part.max(initial=0)) + 1
        owner = np.zeros(count, np.int32)
        owner[part.reshape(-1)] = labels.reshape(-1)
        area = np.bincount(part.reshape(-1), minlength=count)
        order = np.lexsort((-area, owner))
        keep = np.zeros(count, bool)
        keep[order[np.diff(owner[order], prepend=-1) > 0]] = True
        if self.config.parts == "matched":
            landed = part.reshape(-1)[evidence.pixel]
            own = evidence.label == owner[landed]
            keep |= np.bincount(landed[own], minlength=count) > np.bincount(
                landed[~own & (evidence.label > 0)], minlength=count
            )
        return np.where(keep[part], labels, 0).astype(np.int32)


def _numbered(labels: LabelMap, next_id: int) -> LabelMap:
    """The same masks under ids from `next_id` up."""
    present = np.bincount(labels.reshape(-1)) > 0
    present[0] = False
    new = np.where(present, next_id - 1 + np.cumsum(present), 0).astype(np.int32)
    return new[labels]


def _nearest(
    xy: Float64[np.ndarray, "candidates 2"], to: Float64[np.ndarray, "points 2"], count: int
) -> Float64[np.ndarray, "nearest 2"]:
    """The `count` candidates nearest to any of the points, nearest first."""
    if not len(to) or not len(xy):
        return xy[:0]
    distance = np.linalg.norm(xy[:, None] - to[None], axis=2).min(1)
    return xy[np.argsort(distance, kind="stable")[:count]]
