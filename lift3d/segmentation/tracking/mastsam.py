"""MastSAM: masks carried from view to view by points that the matcher finds again.

The paper's Sec. IV over any segmenter and any matcher (`preset="paper"`), and beyond it (`best`):
negative points and the old mask as a prompt, answers that must agree with what was carried over,
new masks from the automatic ones instead of from raw uncovered regions, ids that objects get back
when they return, and, with depth and poses, whole masks carried over by a vote of earlier views.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int32

from lift3d.geometry.scale import fitted
from lift3d.geometry.visibility import DepthTolerance
from lift3d.scene import LabelMap, Prompt, Scene, Skipped, View
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.overlap import connected_parts, groups, paint, shared_pixels
from lift3d.scene.protocols import Matcher, Seeded, Segmenter, TrackerConfig
from lift3d.scene.skipping import unlabelled
from lift3d.segmentation.tracking import representatives
from lift3d.segmentation.tracking.carrying import Places, Remembered, carry, places
from lift3d.segmentation.tracking.evidence import Evidence, gather, pooled, split, steady
from lift3d.segmentation.tracking.initialisation import claimed, disjoint, fresh, regions, uncovered
from lift3d.segmentation.tracking.presets import PRESETS, Options, Preset
from lift3d.segmentation.tracking.recovery import Keyframes, Recent

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MastsamConfig(Seeded, TrackerConfig):
    """Points carry each mask into the next view, where the segmenter answers them.

    Options left at None are as the preset has them (in brackets: best, paper); one that is given
    counts whatever the preset says.
    """

    needs_matcher: ClassVar[bool] = True

    preset: Preset = "best"
    """`best`: ours, masks carried by depth and poses or matches, ids given back to what returns;
    `paper`: the paper's algorithm with the values of its scripts, to compare with."""
    points: int | None = None
    """Representative points over all masks, shared by area (100, 100)."""
    at_least_one: bool | None = None
    """A mask gets one point at least; else small masks get none and end (True, False)."""
    snap: Literal["own", "any"] | None = None
    """A representative is the nearest match on its own mask, or the nearest of all (own, any)."""
    border: float | None = None
    """Matches nearer than this to an image border are dropped, in pixels (3, 3)."""
    min_confidence: float | None = None
    """Matches below are not used (0.1, 0.1)."""
    min_matches: int | None = None
    """With fewer matches between two views all tracks end and the view starts anew (5, 5)."""
    stray: float | None = None
    """Matches that leave their mask's motion by more deviations than this are dropped; 0 keeps
    all (4, 0)."""
    negatives: int | None = None
    """Points of neighbouring masks given as negative points to each prompt (4, 0)."""
    dense_prompt: bool | None = None
    """Also hand over the old mask, moved by depth or dense matches (True, False)."""
    min_agreement: float | None = None
    """An answer keeps its id when its intersection over union with the old mask, counted in
    matches, reaches this; else the track ends (0.5, 0: every answer is kept)."""
    sure_agreement: float | None = None
    """Below this the segmenter's alternatives (subpart, part, whole) are looked at too and the
    best is taken; 0 never asks (0.8, 0)."""
    overlap: float | None = None
    """Masks that share more than this of the smaller are one (0.5, 0.5)."""
    nested: Literal["keep", "merge"] | None = None
    """What becomes of a mask that lies on a larger one: `keep` leaves the part on top of the
    whole and merges only masks that cover each other, `merge` makes them one (keep, merge)."""
    parts: Literal["matched", "largest", "all"] | None = None
    """Which connected parts of a mask stay: the largest, or also those that matches of the old
    mask land in, as behind a chair's leg, or all (matched, largest)."""
    initialise: bool | None = None
    """New masks start where none is; False is the paper's ablation: all masks are those of the
    first view (True, True)."""
    init_every: int | None = None
    """New masks start in every n-th view (1, 1)."""
    start_from: Literal["automatic", "region"] | None = None
    """What starts: the automatic masks that lie there, or the bare region (automatic, region)."""
    min_uncovered: float | None = None
    """Smallest connected unlabelled region where new masks start, as a share of the image
    (both: 1000 pixels of 854x480)."""
    carry: bool | None = None
    """Where there are depth and poses, carry whole masks by them instead of matches: for scenes
    that stand still. Where things move say False, and matches follow them (True, False)."""
    voters: int | None = None
    """How many earlier views vote on where each mask went (8, 1). Without depth and poses those
    1, 3, 9, ... views ago, three at most."""
    keyframes: int | None = None
    """Views remembered for objects that return, where there are depth and poses (40, 0)."""
    claim: bool | None = None
    """A new mask gets the id that most of its places had in earlier views (True, False)."""
    fill: bool | None = None
    """Where there are depth and poses, places that no mask covers keep what earlier views call
    them (True, False)."""
    tolerance: DepthTolerance = field(default_factory=DepthTolerance)
    """How far two depth maps may disagree about one place."""
    seed: int | None = None
    """Of K-Means' first centres; by default the run's."""

    @property
    def options(self) -> Options:
        """The preset with what was given in its place."""
        preset = PRESETS[self.preset]
        given = {each.name: getattr(self, each.name) for each in fields(preset)}
        return replace(preset, **{name: v for name, v in given.items() if v is not None})

    def settled(self, seed: int) -> MastsamConfig:
        """The same with a seed and every option given."""
        options = {each.name: getattr(self.options, each.name) for each in fields(self.options)}
        return replace(self, seed=seed if self.seed is None else self.seed, **options)

    def check(self) -> None:
        """InputError where a number is too small."""
        options = self.options
        least = {"points": 1, "min_matches": 1, "init_every": 1, "voters": 1, "keyframes": 0}
        wrong = [name for name, value in least.items() if getattr(options, name) < value]
        if wrong:
            raise InputError(
                "mastsam needs "
                + ", ".join(f"{n} >= {least[n]} (got {getattr(options, n)})" for n in wrong)
                + "; to start no new masks set initialise to False" * ("init_every" in wrong)
            )

    def for_scene(self, scene: Scene) -> MastsamConfig:
        """The same with the tolerance that follows the scene's scale."""
        return replace(self, tolerance=fitted(self.tolerance, scene))

    def build(self, segmenter: Segmenter, matcher: Matcher | None = None) -> Mastsam:
        """The tracker over this segmenter and this matcher."""
        self.check()
        assert matcher is not None, "mastsam compares views (needs_matcher)"
        return Mastsam(self, segmenter, matcher)


class Mastsam:
    """Tracks masks through a scene, holding the last view and a bounded number of earlier ones."""

    def __init__(self, config: MastsamConfig, segmenter: Segmenter, matcher: Matcher) -> None:
        self.options = config.options
        self.seed = config.seed or 0
        self.tolerance = config.tolerance
        self.segmenter = segmenter
        self.matcher = matcher
        self.skipped: list[Skipped] = []

    def track(self, scene: Scene) -> Iterator[LabelMap]:
        """One label map per view, in view order. Ids start at 1; no two objects get the same.

        A view that cannot be segmented (`FrameError`) is unlabelled, and the tracks go on from
        the views before it; one that cannot be matched starts anew.
        """
        memory = _Memory(self.options, fitted(self.tolerance, scene))
        self.skipped = []
        next_id = 1
        for number, view in enumerate(scene.views):
            try:
                memory.look(view)
                labels = self._labels(memory, view, number, next_id)
            except FrameError as error:
                yield unlabelled(view, error, self.skipped)
                continue
            next_id = max(next_id, int(labels.max(initial=0)) + 1)
            memory.add(view, labels, number)
            yield labels.copy()  # the caller's to change

    def _labels(self, memory: _Memory, view: View, number: int, next_id: int) -> LabelMap:
        """The label map of one view: what goes on from earlier ones, then what is new."""
        options = self.options
        if memory.empty:
            return _numbered(self._automatic(view), next_id)
        evidence = self._evidence(memory, view)
        if evidence is None:
            labels = np.zeros((view.camera.height, view.camera.width), np.int32)
            return _numbered(self._automatic(view), next_id) if options.initialise else labels
        labels = self._continued(evidence, memory.last, view, number)
        if options.initialise and number % options.init_every == 0:
            labels = self._started(labels, evidence, view, next_id)
        if options.fill and memory.here is not None:
            warped = evidence.warped()
            labels = labels if warped is None else np.where(labels > 0, labels, warped)
        return labels

    def _started(self, labels: LabelMap, evidence: Evidence, view: View, next_id: int) -> LabelMap:
        """The label map with masks where it had none: known ones under their ids, else new."""
        free = uncovered(labels, self.options.min_uncovered)
        if not free.any():
            return labels
        bare = self.options.start_from == "region"
        new = regions(free) if bare else fresh(self._automatic(view), free)
        known = claimed(new, evidence.pixel, evidence.label) if self.options.claim else {}
        named = _numbered(np.where(np.isin(new, list(known)), 0, new), next_id)
        for mask, one in known.items():
            named[new == mask] = one
        return np.where(named > 0, named, labels)

    def _automatic(self, view: View) -> LabelMap:
        """The segmenter's own masks of a view, without overlap."""
        masks = self.segmenter.segment(view)
        return disjoint(masks, self.options.overlap, self.options.nested == "merge")

    def _evidence(self, memory: _Memory, view: View) -> Evidence | None:
        """Where earlier masks are in this view; None where too little is known.

        By depth and poses where they are there and asked for, else by matches.
        """
        options = self.options
        if memory.here is not None:
            voters = memory.keyframes.voters(memory.here, options.voters)
            evidence = carry(memory.here, voters, memory.tolerance) if voters else None
        else:
            parts = [self._matched(*earlier, view) for earlier in memory.recent.voters()]
            evidence = parts[0] if parts else None
            usable = [part for part in parts if part is not None and len(part)]
            if len(usable) > 1 and usable[0].dense:
                evidence = pooled(usable)
        few = evidence is None or len(evidence) < options.min_matches
        return None if few else evidence

    def _matched(self, earlier: View, labels: LabelMap, view: View) -> Evidence | None:
        """The matches worth trusting (confidence filtering); None where there are too few."""
        options, camera = self.options, view.camera
        try:
            matches = self.matcher.match(earlier, view)
        except FrameError as error:
            log.warning("no matches from %s to %s: %s", earlier.name, view.name, error)
            return None
        evidence = gather(
            matches, labels, camera.height, camera.width, options.border, options.min_confidence
        )
        if options.stray:
            evidence = evidence.take(steady(evidence, options.stray))
        return evidence

    def _continued(self, evidence: Evidence, last: LabelMap, view: View, number: int) -> LabelMap:
        """The masks of the last view found again in this one, under their ids."""
        options = self.options
        ids = np.unique(evidence.label[evidence.label > 0])
        if not len(ids):
            return np.zeros((view.camera.height, view.camera.width), np.int32)
        prompts, asked = self._prompts(evidence, last, ids, number)
        ids = ids[asked]
        stack = self.segmenter.prompt(view, prompts).stack
        stack, agreement = self._best(evidence, view, ids, prompts, stack)
        found = agreement >= options.min_agreement
        if not found.all():  # a copy of all masks takes its time
            stack, ids = stack[found], ids[found]
        shared = shared_pixels(stack)
        first = groups(shared, options.overlap, options.nested == "merge")
        return self._connected(paint(stack, ids[first], np.diag(shared)), evidence)

    def _prompts(
        self, evidence: Evidence, last: LabelMap, ids: Int32[np.ndarray, " masks"], number: int
    ) -> tuple[list[Prompt], Bool[np.ndarray, " masks"]]:
        """What to ask for each id: its points found again, and its neighbours' as negatives.

        And which ids are asked for: those that have a point.
        """
        options = self.options
        warped = evidence.warped() if options.dense_prompt or evidence.cell else None
        if evidence.cell and warped is not None:
            last = warped  # the masks as carried over, so that their middles are in this view
        chosen, owner = representatives.choose(
            last,
            ids,
            evidence.xy_before,
            evidence.label,
            options.points,
            (self.seed, number),
            options.at_least_one,
            options.snap == "own",
        )
        xy = evidence.xy_now[chosen]
        asked = np.isin(ids, owner)
        masks = None
        if options.dense_prompt and warped is not None:
            masks = split(warped, ids[asked])
        prompts = []
        for index, one in enumerate(ids[asked]):
            own = xy[owner == one]
            other = _nearest(xy[owner != one], own, options.negatives)
            positive = np.arange(len(own) + len(other)) < len(own)
            mask = None if masks is None else masks[index]
            prompts.append(Prompt(np.concatenate([own, other]), positive, mask))
        return prompts, asked

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
        own = False
        for index in np.flatnonzero(agreement < self.options.sure_agreement):
            others = self.segmenter.alternatives(view, prompts[index]).stack
            scores = evidence.agreement(others, np.repeat(ids[index], len(others)))
            if scores.max(initial=0) > agreement[index]:
                if not own:  # the answers are the segmenter's; to copy them takes its time
                    stack, own = stack.copy(), True
                stack[index] = others[scores.argmax()]
                agreement[index] = scores.max()
        return stack, agreement

    def _connected(self, labels: LabelMap, evidence: Evidence) -> LabelMap:
        """Each mask's largest connected part, and others as `parts` says."""
        if self.options.parts == "all":
            return labels
        part = connected_parts(labels)
        count = int(part.max(initial=0)) + 1
        owner = np.zeros(count, np.int32)
        owner[part.reshape(-1)] = labels.reshape(-1)
        area = np.bincount(part.reshape(-1), minlength=count)
        order = np.lexsort((-area, owner))
        keep = np.zeros(count, bool)
        keep[order[np.diff(owner[order], prepend=-1) > 0]] = True
        if self.options.parts == "matched":
            landed = part.reshape(-1)[evidence.pixel]
            own = evidence.label == owner[landed]
            keep |= np.bincount(landed[own], minlength=count) > np.bincount(
                landed[~own & (evidence.label > 0)], minlength=count
            )
        return np.where(keep[part], labels, 0).astype(np.int32)


class _Memory:
    """The views that are asked about the next one."""

    def __init__(self, options: Options, tolerance: DepthTolerance) -> None:
        self.tolerance = tolerance
        self.keyframes = Keyframes(options.keyframes, tolerance)
        self.recent = Recent(min(options.voters, 3))
        self.here: Places | None = None
        """Places of the view that was looked at last; None without depth and poses."""
        self.last = np.zeros((0, 0), np.int32)
        """Labels of the last view."""
        self.empty = True
        self._carry = options.carry
        self._depth: np.ndarray | None = None

    def look(self, view: View) -> None:
        """Read the depth of a view, if masks are to be carried by it."""
        self.here, self._depth = None, None
        posed = view.camera.world_from_camera is not None
        posed = posed and view.geometry_camera.world_from_camera is not None
        if self._carry and posed and not view.sparse:
            try:
                self._depth = view.depth()
            except FrameError as error:
                log.warning("masks are not carried into %s: %s", view.name, error)
            if self._depth is not None:
                self.here = places(view, self._depth)

    def add(self, view: View, labels: LabelMap, number: int) -> None:
        """Remember the view last looked at, with its labels."""
        self.last, self.empty = labels, False
        if self.here is not None and self._depth is not None:
            camera, geometry = view.camera, view.geometry_camera
            self.recent.forget()  # what was before them is no longer the last
            self.keyframes.add(self.here, Remembered(number, camera, geometry, self._depth, labels))
        else:
            self.recent.add(view, labels)


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
