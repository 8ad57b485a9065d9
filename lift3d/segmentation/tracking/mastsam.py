"""MastSAM: propagate masks from view to view by matched points that prompt the segmenter.

`preset="paper"` is the paper's Sec. IV over any segmenter and matcher. `best` adds: negative
points and the propagated mask as prompts; a check of answers against the propagated mask; new
masks from automatic masks instead of uncovered regions; recovery of the ids of objects that
return; and, with depth and poses, propagation of complete masks by a vote of earlier views.
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
from lift3d.scene.protocols import Asked, Matcher, Seeded, Segmenter, TrackerConfig
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
    """Propagate masks by matched points, which prompt the segmenter in the next view.

    Options with None have the preset's value (in brackets: best, paper); a given value replaces
    the preset's.
    """

    needs_matcher: ClassVar[bool] = True

    preset: Preset = "best"
    """`best`: this package's extensions, see the module; `paper`: the paper's algorithm with the
    values of its scripts, for comparison."""
    points: int | None = None
    """Number of representative points over all masks, shared by area (100, 100)."""
    at_least_one: bool | None = None
    """Every mask gets at least one point; else small masks get none and end (True, False)."""
    snap: Literal["own", "any"] | None = None
    """A representative is the nearest match on its own mask (own), or of all matches (any)
    (own, any)."""
    border: float | None = None
    """Drop matches closer than this to an image border, in pixels (3, 3)."""
    min_confidence: float | None = None
    """Drop matches of lower confidence (0.1, 0.1)."""
    min_matches: int | None = None
    """With fewer matches between two views, all tracks end and new masks start (5, 5)."""
    stray: float | None = None
    """Drop matches whose motion differs from their mask's by more standard deviations than this;
    0 keeps all (4, 0)."""
    negatives: int | None = None
    """Number of points of neighbouring masks used as negative points of a prompt (4, 0)."""
    dense_prompt: bool | None = None
    """Also prompt with the earlier mask, moved by depth or dense matches (True, False)."""
    min_agreement: float | None = None
    """Minimum agreement of an answer with the earlier mask (intersection over union, counted in
    matches); below it the track ends (0.5, 0: every answer is kept)."""
    good_agreement: float | None = None
    """Below this agreement, the segmenter's alternatives (subpart, part, object) are tried too
    and the best is used; 0 never tries them (0.8, 0)."""
    overlap: float | None = None
    """Merge masks whose intersection exceeds this share of the smaller mask (0.5, 0.5)."""
    nested: Literal["keep", "merge"] | None = None
    """Treatment of a mask inside a larger mask: `keep` keeps it on top and merges only masks that
    cover each other, `merge` merges both (keep, merge)."""
    parts: Literal["matched", "largest", "all"] | None = None
    """Which connected parts of a mask are kept: the largest; also parts with matches of the
    earlier mask, as behind a chair's leg (matched); or all (matched, largest)."""
    initialise: bool | None = None
    """Start new masks in unlabelled regions; False is the paper's ablation with the masks of the
    first view only (True, True)."""
    init_every: int | None = None
    """Start new masks in every n-th view (1, 1)."""
    start_from: Literal["automatic", "region"] | None = None
    """New masks are the automatic masks in a region, or the region itself (automatic, region)."""
    min_uncovered: float | None = None
    """Smallest connected unlabelled region where new masks start, as a share of the image
    (both: 1000 pixels of 854x480)."""
    carry: bool | None = None
    """With depth and poses, propagate complete masks by them instead of by matches. For static
    scenes; set False if objects move, so that matches follow them (True, False)."""
    voters: int | None = None
    """Number of earlier views that vote on each propagated mask (8, 1). Without depth and poses,
    at most three: the views 1, 3 and 9 before."""
    keyframes: int | None = None
    """Number of views kept to recover objects that return; with depth and poses (40, 0)."""
    claim: bool | None = None
    """A new mask gets the id that most of its points had in earlier views (True, False)."""
    fill: bool | None = None
    """With depth and poses, pixels that no mask covers keep their label from earlier views
    (True, False)."""
    tolerance: DepthTolerance = field(default_factory=DepthTolerance)
    """Maximum difference of two depth maps at a point."""
    seed: int | None = None
    """Seed of the initial K-Means centres; by default the run's."""

    @property
    def options(self) -> Options:
        """The preset's values, replaced by given options."""
        preset = PRESETS[self.preset]
        given = {each.name: getattr(self, each.name) for each in fields(preset)}
        return replace(preset, **{name: v for name, v in given.items() if v is not None})

    def settled(self, seed: int) -> MastsamConfig:
        """The settings with a seed and a value for every option."""
        options = {each.name: getattr(self.options, each.name) for each in fields(self.options)}
        return replace(self, seed=seed if self.seed is None else self.seed, **options)

    def check(self) -> None:
        """Raise InputError if a number is too small."""
        options = self.options
        least = {"points": 1, "min_matches": 1, "init_every": 1, "voters": 1, "keyframes": 0}
        wrong = [name for name, value in least.items() if getattr(options, name) < value]
        if wrong:
            raise InputError(
                "mastsam needs "
                + ", ".join(f"{n} >= {least[n]} (got {getattr(options, n)})" for n in wrong)
                + "; to start no new masks set initialise to False" * ("init_every" in wrong)
            )

    def asks(self, number: int) -> frozenset[Asked]:
        """Prompts, and masks where new ones may start."""
        options = self.options
        starts = number == 0 or (options.initialise and number % options.init_every == 0)
        return frozenset(("masks", "prompts") if starts else ("prompts",))

    def for_scene(self, scene: Scene) -> MastsamConfig:
        """The settings with the tolerance scaled to the scene."""
        return replace(self, tolerance=fitted(self.tolerance, scene))

    def build(self, segmenter: Segmenter, matcher: Matcher | None = None) -> Mastsam:
        """The tracker with this segmenter and matcher."""
        self.check()
        assert matcher is not None, "mastsam compares views (needs_matcher)"
        return Mastsam(self, segmenter, matcher)


class Mastsam:
    """Tracks masks through a scene; keeps the last view and a bounded number of earlier views."""

    def __init__(self, config: MastsamConfig, segmenter: Segmenter, matcher: Matcher) -> None:
        self.options = config.options
        self.seed = config.seed or 0
        self.tolerance = config.tolerance
        self.segmenter = segmenter
        self.matcher = matcher
        self.skipped: list[Skipped] = []

    def track(self, scene: Scene) -> Iterator[LabelMap]:
        """One label map per view, in view order. Ids start at 1 and are unique per object.

        A view that cannot be segmented (`FrameError`) is unlabelled, and tracks continue from the
        views before it. In a view without enough matches, all tracks end and new masks start.
        """
        memory = _Memory(self.options, fitted(self.tolerance, scene))
        self.skipped = []
        next_id = 1
        for number, view in enumerate(scene.views):
            try:
                memory.read(view)
                labels = self._labels(memory, view, number, next_id)
            except FrameError as error:
                yield unlabelled(view, error, self.skipped)
                continue
            next_id = max(next_id, int(labels.max(initial=0)) + 1)
            memory.add(view, labels, number)
            yield labels.copy()  # the caller may change it

    def _labels(self, memory: _Memory, view: View, number: int, next_id: int) -> LabelMap:
        """The label map of a view: first continued masks, then new masks."""
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
        """The label map with new masks in unlabelled regions; recovered masks keep their ids."""
        free = uncovered(labels, self.options.min_uncovered)
        if not free.any():
            return labels
        bare = self.options.start_from == "region"
        new = regions(free) if bare else fresh(self._automatic(view), free)
        known = claimed(new, evidence.pixel, evidence.label) if self.options.claim else {}
        named = _numbered(np.where(np.isin(new, list(known)), 0, new), next_id)
        for mask, id_ in known.items():
            named[new == mask] = id_
        return np.where(named > 0, named, labels)

    def _automatic(self, view: View) -> LabelMap:
        """The segmenter's automatic masks of a view, without overlap."""
        masks = self.segmenter.segment(view)
        return disjoint(masks, self.options.overlap, self.options.nested == "merge")

    def _evidence(self, memory: _Memory, view: View) -> Evidence | None:
        """Positions of earlier masks in this view; None with too few matches.

        By depth and poses if available and enabled (`carry`), else by matches.
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
        """The matches after filtering by confidence and motion; None if matching failed."""
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
        """The masks of earlier views found in this view, with their ids."""
        options = self.options
        ids = np.unique(evidence.label[evidence.label > 0])
        if not len(ids):
            return np.zeros((view.camera.height, view.camera.width), np.int32)
        prompts, prompted = self._prompts(evidence, last, ids, number)
        ids = ids[prompted]
        stack = self.segmenter.prompt(view, prompts).stack
        stack, agreement = self._best(evidence, view, ids, prompts, stack)
        found = agreement >= options.min_agreement
        if not found.all():  # avoids a slow copy of all masks
            stack, ids = stack[found], ids[found]
        shared = shared_pixels(stack)
        first = groups(shared, options.overlap, options.nested == "merge")
        return self._connected(paint(stack, ids[first], np.diag(shared)), evidence)

    def _prompts(
        self, evidence: Evidence, last: LabelMap, ids: Int32[np.ndarray, " masks"], number: int
    ) -> tuple[list[Prompt], Bool[np.ndarray, " masks"]]:
        """A prompt per id with a point, and which ids have one.

        Positive points are the id's matched points; negative points are those of its neighbours.
        """
        options = self.options
        warped = evidence.warped() if options.dense_prompt or evidence.cell else None
        if evidence.cell and warped is not None:
            last = warped  # the grid is in this view, so representatives must be too
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
        prompted = np.isin(ids, owner)
        masks = None
        if options.dense_prompt and warped is not None:
            masks = split(warped, ids[prompted])
        prompts = []
        for index, id_ in enumerate(ids[prompted]):
            own = xy[owner == id_]
            negative = _nearest(xy[owner != id_], own, options.negatives)
            positive = np.arange(len(own) + len(negative)) < len(own)
            mask = None if masks is None else masks[index]
            prompts.append(Prompt(np.concatenate([own, negative]), positive, mask))
        return prompts, prompted

    def _best(
        self,
        evidence: Evidence,
        view: View,
        ids: Int32[np.ndarray, " masks"],
        prompts: list[Prompt],
        stack: Bool[np.ndarray, "masks height width"],
    ) -> tuple[Bool[np.ndarray, "masks height width"], Float64[np.ndarray, " masks"]]:
        """The answers with their agreement; below `good_agreement`, the best alternative."""
        agreement = evidence.agreement(stack, ids)
        own = False
        for index in np.flatnonzero(agreement < self.options.good_agreement):
            others = self.segmenter.alternatives(view, prompts[index]).stack
            scores = evidence.agreement(others, np.repeat(ids[index], len(others)))
            if scores.max(initial=0) > agreement[index]:
                if not own:  # copy once, as the array belongs to the segmenter
                    stack, own = stack.copy(), True
                stack[index] = others[scores.argmax()]
                agreement[index] = scores.max()
        return stack, agreement

    def _connected(self, labels: LabelMap, evidence: Evidence) -> LabelMap:
        """The connected parts of each mask that the option `parts` keeps."""
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
    """The earlier views that are used to label the next view."""

    def __init__(self, options: Options, tolerance: DepthTolerance) -> None:
        self.tolerance = tolerance
        self.keyframes = Keyframes(options.keyframes, tolerance)
        self.recent = Recent(min(options.voters, 3))
        self.here: Places | None = None
        """Points of the view read last; None without depth and poses."""
        self.last = np.zeros((0, 0), np.int32)
        """Labels of the last view."""
        self.empty = True
        self._carry = options.carry
        self._depth: np.ndarray | None = None

    def read(self, view: View) -> None:
        """Read the view's depth, if masks are propagated by depth."""
        self.here, self._depth = None, None
        posed = view.camera.world_from_camera is not None
        posed = posed and view.geometry_camera.world_from_camera is not None
        if self._carry and posed and not view.sparse:
            try:
                self._depth = view.depth()
            except FrameError as error:
                log.warning("masks are not propagated by depth into %s: %s", view.name, error)
            if self._depth is not None:
                self.here = places(view, self._depth)

    def add(self, view: View, labels: LabelMap, number: int) -> None:
        """Keep the view read last, with its labels."""
        self.last, self.empty = labels, False
        if self.here is not None and self._depth is not None:
            camera, geometry = view.camera, view.geometry_camera
            self.recent.forget()  # these views are no longer the most recent
            self.keyframes.add(self.here, Remembered(number, camera, geometry, self._depth, labels))
        else:
            self.recent.add(view, labels)


def _numbered(labels: LabelMap, next_id: int) -> LabelMap:
    """The label map with consecutive ids from `next_id`."""
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
