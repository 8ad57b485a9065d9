"""Geometry of each image, pairs confirmed by matches, and the inputs of `align`."""

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

BETTER = 1.2
"""Factor of agreeing matches by which an alternative must exceed the first choice. Chosen by hand;
not tuned on data."""


@dataclass(frozen=True, eq=False)
class Context:
    """The inputs of `align`."""

    shapes: Sequence[tuple[int, int]]
    predictions: Predictions
    matches: Mapping[Pair, Matches]
    known: Sequence[Known]
    config: AlignmentConfig
    seed: int


class Progress:
    """One progress count over several stages."""

    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def tick(self) -> None:
        """Count one step and report it."""
        self._done += 1
        if self._progress is not None:
            self._progress(min(self._done, self._total), self._total)

    def from_here(self) -> Callable[[int, int], None]:
        """A callback for a stage that counts its own steps."""
        base = self._done

        def report(done: int, total: int) -> None:
            if self._progress is not None:
                self._progress(min(base + done, self._total), self._total)

        return report


def unmasked(matches: Matches, known: Sequence[Known], pair: Pair) -> Matches:
    """The matches that are not on ignored pixels."""
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
    context: Context, progress: Progress
) -> tuple[list[Frame | None], dict[Pair, float | None]]:
    """Geometry of each image, and the log scale of each prediction (None for outliers)."""
    frames: list[Frame | None] = []
    scales: dict[Pair, float | None] = {}
    by_image: dict[int, list[Pair]] = {image: [] for image in range(len(context.shapes))}
    for pair in context.predictions:
        by_image[pair[0]].append(pair)
    for image, mine in by_image.items():
        frame, own_scales = _frame(image, mine, context)
        frames.append(frame)
        scales |= own_scales
        progress.tick()
    return frames, scales


def _frame(
    image: int, predicted: Sequence[Pair], context: Context
) -> tuple[Frame | None, dict[Pair, float | None]]:
    """Geometry of an image, averaged from the given predictions, and the log scale of each."""
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
        pair: None if outlier else float(scale)
        for (pair, _), scale, outlier in zip(dense, own.log_scale, own.outlier, strict=True)
    }
    scales |= {pair: own.scale_of(each.points_a, each.step_a) for pair, each in others}
    return Frame(own, centre), scales


def reconsidered(
    pairs: list[Relative],
    frames: list[Frame | None],
    scales: dict[Pair, float | None],
    context: Context,
) -> list[Relative]:
    """The pairs, after images with outliers were tried with these predictions as inliers.

    If many pairs are wrong, the largest set of agreeing predictions may be wrong too. The set
    with clearly more agreeing matches (`BETTER`) is used; then the image's entries in `frames`
    and `scales` are replaced in place.
    """
    for image in range(len(frames)):
        outliers = [pair for pair, scale in scales.items() if pair[0] == image and scale is None]
        if not outliers:
            continue
        other, other_scales = _frame(image, outliers, context)
        if other is None:
            continue
        around = [pair for pair in context.matches if image in pair]
        trial = list(frames)
        trial[image] = other
        rest = {pair: None for pair in scales if pair[0] == image}
        found = confirmed_pairs(around, trial, scales | rest | other_scales, context)
        now = [pair for pair in pairs if image in (pair.a, pair.b)]
        if sum(pair.agreeing for pair in found) > BETTER * sum(pair.agreeing for pair in now):
            frames[image] = other
            scales |= rest | other_scales
            pairs = [pair for pair in pairs if image not in (pair.a, pair.b)] + found
    return pairs


def _with_known(own: Canonical, about: Known) -> Canonical:
    """The geometry with known depth inserted and ignored pixels set to 0."""
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
    progress: Progress | None = None,
) -> list[Relative]:
    """Relative geometry of the candidates that enough of their matches confirm."""
    config, predictions = context.config, context.predictions
    found = []
    for a, b in candidates:
        if progress is not None:
            progress.tick()
        of_a, of_b, each = frames[a], frames[b], context.matches[a, b]
        if of_a is None or of_b is None or len(each) < config.min_matches:
            continue
        proposals = []
        for first, second, of_second in ((a, b, of_b), (b, a, of_a)):
            scale = scales.get((first, second))
            if scale is not None:
                pair = propose(predictions[first, second], scale, first, second, of_second)
                proposals.append(pair if first == a else pair.inverse())
        best = best_relative(a, b, proposals, of_a, of_b, each, context.seed)
        if best.agreeing >= config.min_matches and best.share >= config.min_share:
            found.append(best)
    return found
