"""Each image's own geometry, the pairs that matches confirm, and what `align` was given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lift3d.reconstruction.alignment.canonical import Canonical, canonical
from lift3d.reconstruction.alignment.inputs import (
    AlignmentConfig,
    Known,
    Pair,
    PairPrediction,
    Predictions,
)
from lift3d.reconstruction.alignment.relative import Frame, Relative, best_relative, propose
from lift3d.scene import Matches


@dataclass(frozen=True, eq=False)
class Context:
    """What `align` was given."""

    shapes: Sequence[tuple[int, int]]
    predictions: Predictions
    matches: Mapping[Pair, Matches]
    known: Sequence[Known]
    config: AlignmentConfig
    seed: int


class Teller:
    """Progress over stages of different kinds."""

    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def tick(self) -> None:
        """One more is done."""
        self._done += 1
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total)

    def from_here(self) -> Callable[[int, int], None]:
        """For a stage that counts itself."""
        base = self._done

        def told(done: int, total: int) -> None:
            if self._progress is not None:
                self._progress(min(base + done, self._total), self._total)

        return told


def unmasked(matches: Matches, known: Sequence[Known], pair: Pair) -> Matches:
    """Matches without those on ignored pixels."""
    keep = np.ones(len(matches), bool)
    for image, xy in zip(pair, (matches.xy_in_a, matches.xy_in_b), strict=True):
        ignored = known[image].ignored
        if ignored is not None:
            column, row = np.rint(xy).astype(np.intp).T
            keep &= ~ignored[row, column]
    if keep.all():
        return matches
    return Matches(matches.xy_in_a[keep], matches.xy_in_b[keep], matches.confidence[keep])


def image_frames(
    context: Context, told: Teller
) -> tuple[list[Frame | None], dict[Pair, float | None]]:
    """Each image's own geometry; and each prediction's log scale, None where it strays."""
    frames: list[Frame | None] = []
    scales: dict[Pair, float | None] = {}
    by_image: dict[int, list[Pair]] = {image: [] for image in range(len(context.shapes))}
    for pair in context.predictions:
        by_image[pair[0]].append(pair)
    for image, mine in by_image.items():
        frame, own_scales = _frame(image, mine, context)
        frames.append(frame)
        scales |= own_scales
        told.tick()
    return frames, scales


def _frame(
    image: int, predicted: Sequence[Pair], context: Context
) -> tuple[Frame | None, dict[Pair, float | None]]:
    """One image's geometry, averaged from these predictions of it; and the log scale of each."""
    config, matches = context.config, context.matches
    mine = sorted(predicted, key=lambda pair: (-len(matches.get((min(pair), max(pair)), ())), pair))
    dense: list[tuple[Pair, PairPrediction]] = []
    others: list[tuple[Pair, PairPrediction]] = []
    for pair in mine:
        each = context.predictions[pair]
        if each.step_a == 1 and len(dense) < config.predictions_per_image:
            dense.append((pair, each))
        else:
            others.append((pair, each.condensed(dense=False)))
    if not dense:
        return None, {}
    (height, width), about = context.shapes[image], context.known[image]
    centre, focal = np.array([(width - 1) / 2, (height - 1) / 2]), None
    if about.K is not None:
        centre, focal = about.K[:2, 2], float(np.sqrt(about.K[0, 0] * about.K[1, 1]))
    own = canonical(
        [each.points_a for _, each in dense],
        [each.confidence_a for _, each in dense],
        centre,
        focal,
    )
    own = _with_known(own, about)
    scales: dict[Pair, float | None] = {
        pair: None if stray else float(scale)
        for (pair, _), scale, stray in zip(dense, own.log_scale, own.stray, strict=True)
    }
    scales |= {pair: own.scale_of(each.points_a, each.step_a) for pair, each in others}
    return Frame(own, centre), scales


def reconsidered(
    pairs: list[Relative],
    frames: list[Frame | None],
    scales: dict[Pair, float | None],
    context: Context,
) -> list[Relative]:
    """The pairs, after images whose predictions fall apart took the part that matches support.

    The largest part may be the wrong one where many pairs are wrong. `frames` and `scales` of
    such images are replaced.
    """
    for image in range(len(frames)):
        strays = [pair for pair, scale in scales.items() if pair[0] == image and scale is None]
        if not strays:
            continue
        other, other_scales = _frame(image, strays, context)
        if other is None:
            continue
        around = [pair for pair in context.matches if image in pair]
        trial = list(frames)
        trial[image] = other
        rest = {pair: None for pair in scales if pair[0] == image}
        found = confirmed_pairs(around, trial, scales | rest | other_scales, context)
        now = [pair for pair in pairs if image in (pair.a, pair.b)]
        if sum(pair.agreeing for pair in found) > 1.2 * sum(pair.agreeing for pair in now):
            frames[image] = other
            scales |= rest | other_scales
            pairs = [pair for pair in pairs if image not in (pair.a, pair.b)] + found
    return pairs


def _with_known(own: Canonical, about: Known) -> Canonical:
    """The same with what is known of the depth in its place, and nothing where it is ignored."""
    if about.depth is not None:
        there = (about.depth > 0) & (own.depth > 0)
        if there.any():
            shift = float(np.median(np.log(about.depth[there] / own.depth[there])))
            depth = np.where(about.depth > 0, about.depth, own.depth * np.float32(np.exp(shift)))
            own = replace(
                own,
                depth=depth.astype(np.float32),
                log_scale=own.log_scale - shift,
                sigma=max(about.depth_sigma, 1e-6),
            )
    if about.ignored is not None:
        own = replace(
            own,
            depth=np.where(about.ignored, np.float32(0), own.depth),
            confidence=np.where(about.ignored, np.float32(0), own.confidence),
        )
    return own


def confirmed_pairs(
    candidates: Sequence[Pair],
    frames: list[Frame | None],
    scales: dict[Pair, float | None],
    context: Context,
    told: Teller | None = None,
) -> list[Relative]:
    """Those of the candidates whose geometry enough of their matches confirm."""
    config, predictions = context.config, context.predictions
    found = []
    for a, b in candidates:
        if told is not None:
            told.tick()
        of_a, of_b, each = frames[a], frames[b], context.matches[a, b]
        if of_a is None or of_b is None or len(each) < config.min_matches:
            continue
        proposals = []
        for one, other, of_other in ((a, b, of_b), (b, a, of_a)):
            scale = scales.get((one, other))
            if scale is not None:
                pair = propose(predictions[one, other], scale, one, other, of_other)
                proposals.append(pair if one == a else pair.inverse())
        best = best_relative(a, b, proposals, of_a, of_b, each, context.seed)
        if best.agreeing >= config.min_matches and best.share >= config.min_share:
            found.append(best)
    return found
