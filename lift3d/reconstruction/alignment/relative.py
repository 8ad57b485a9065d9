"""Relative geometry of two images, from a prediction of the pair, checked with its matches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64

from lift3d.geometry import similarity
from lift3d.reconstruction.alignment.canonical import Canonical
from lift3d.reconstruction.alignment.inputs import PairPrediction, thinned
from lift3d.scene import Matches

SMALLEST = 1e-6
"""Scale of a degenerate similarity."""
TOLERANCE = 0.02
"""Reprojection error up to which a match agrees with a pair, as a share of the image's longer
side. Chosen by hand; not tuned on data."""
RANSAC_TOLERANCE = 0.05
"""Inlier distance in RANSAC, as a share of depth. Chosen by hand; not tuned on data."""
MIN_POINTS = 10
"""Minimum number of points to fit a similarity. Chosen by hand; not tuned on data."""
GOOD_SHARE = 0.3
"""RANSAC on the matches is skipped if more than this share agrees with a prediction. Chosen by
hand; not tuned on data."""


@dataclass(frozen=True, eq=False)
class Relative:
    """Similarity from b to a: x_a = scale * rotation @ x_b + translation, in canonical units."""

    a: int
    b: int
    scale: float
    rotation: Float64[np.ndarray, "3 3"]
    translation: Float64[np.ndarray, "3"]
    agreeing: int = 0
    """Number of matches that agree with it in both images."""
    share: float = 0.0
    """`agreeing` as a share of the pair's matches."""

    def into_a(self, xyz: Float64[np.ndarray, "points 3"]) -> Float64[np.ndarray, "points 3"]:
        """Transform points from b's frame to a's."""
        return self.scale * xyz @ self.rotation.T + self.translation

    def inverse(self) -> Relative:
        """The similarity from a to b."""
        return replace(
            self,
            a=self.b,
            b=self.a,
            scale=1 / self.scale,
            rotation=self.rotation.T,
            translation=-self.rotation.T @ self.translation / self.scale,
        )


@dataclass(frozen=True, eq=False)
class Frame:
    """Geometry of one image, up to scale, in its camera frame."""

    own: Canonical
    centre: Float64[np.ndarray, "2"]

    def lift(
        self, xy: Float64[np.ndarray, "pixels 2"]
    ) -> tuple[Float64[np.ndarray, "pixels 3"], Bool[np.ndarray, " pixels"]]:
        """Points at the given pixels, with the depth of the nearest pixel, and which have depth."""
        height, width = self.own.depth.shape
        column = np.clip(np.rint(xy[:, 0]), 0, width - 1).astype(np.intp)
        row = np.clip(np.rint(xy[:, 1]), 0, height - 1).astype(np.intp)
        z = self.own.depth[row, column].astype(np.float64)
        ray = np.c_[(xy - self.centre) / self.own.focal, np.ones(len(xy))]
        return ray * z[:, None], z > 0

    def pixels(self, xyz: Float64[np.ndarray, "points 3"]) -> Float64[np.ndarray, "points 2"]:
        """Project points; inf for points behind the camera."""
        front = xyz[:, 2] > 1e-9
        z = np.where(front, xyz[:, 2], 1.0)
        xy = self.own.focal * xyz[:, :2] / z[:, None] + self.centre
        return np.where(front[:, None], xy, np.inf)


def propose(prediction: PairPrediction, log_scale: float, a: int, b: int, of_b: Frame) -> Relative:
    """The similarity from b's canonical points to its points in the prediction.

    `log_scale` is the prediction's log scale relative to a's canonical depth.
    """
    points, confidence, step = thinned(
        prediction.points_b, prediction.confidence_b, prediction.step_b
    )
    row, column = np.mgrid[: points.shape[0], : points.shape[1]].reshape(2, -1) * step + step // 2
    own, present = of_b.lift(np.stack([column, row], axis=1).astype(np.float64))
    predicted = points.reshape(-1, 3).astype(np.float64) / np.exp(log_scale)
    weight = confidence.ravel().astype(np.float64)
    usable = present & np.isfinite(predicted).all(1)
    if usable.sum() < MIN_POINTS:
        return Relative(a, b, 1.0, np.eye(3), np.zeros(3))
    return _robust(a, b, own[usable], predicted[usable], weight[usable])


def from_matches(
    a: int,
    b: int,
    in_a: Float64[np.ndarray, "matches 3"],
    in_b: Float64[np.ndarray, "matches 3"],
    seed: int,
    tries: int = 200,
) -> Relative:
    """The similarity with the most inliers, by RANSAC over samples of four matches."""
    rng = np.random.default_rng([seed, a, b])
    best, most = Relative(a, b, 1.0, np.eye(3), np.zeros(3)), -1
    allowed = RANSAC_TOLERANCE * np.abs(in_a[:, 2])
    for _ in range(tries):
        chosen = rng.choice(len(in_a), 4, replace=False)
        pair = _fitted(a, b, in_b[chosen], in_a[chosen])
        off = np.linalg.norm(pair.into_a(in_b) - in_a, axis=1)
        agreeing = int((off < allowed).sum())
        if agreeing > most:
            best, most = pair, agreeing
    return best


def checked(
    pair: Relative, of_a: Frame, of_b: Frame, matches: Matches
) -> tuple[Relative, Bool[np.ndarray, " matches"]]:
    """The pair with its number and share of agreeing matches, and which matches agree.

    A match agrees if each of its two points reprojects near its pixel in the other image.
    """
    if not len(matches):
        return pair, np.zeros(0, bool)
    xy_a, xy_b = matches.xy_in_a.astype(np.float64), matches.xy_in_b.astype(np.float64)
    in_a, seen_a = of_a.lift(xy_a)
    in_b, seen_b = of_b.lift(xy_b)
    into_b = (in_a - pair.translation) @ pair.rotation / pair.scale
    off_a = np.linalg.norm(of_a.pixels(pair.into_a(in_b)) - xy_a, axis=1) / max(
        of_a.own.depth.shape
    )
    off_b = np.linalg.norm(of_b.pixels(into_b) - xy_b, axis=1) / max(of_b.own.depth.shape)
    agrees = seen_a & seen_b & (np.maximum(off_a, off_b) < TOLERANCE)
    return replace(pair, agreeing=int(agrees.sum()), share=float(agrees.mean())), agrees


def best_relative(
    a: int,
    b: int,
    proposals: Sequence[Relative],
    of_a: Frame,
    of_b: Frame,
    matches: Matches,
    seed: int = 0,
) -> Relative:
    """The proposal with the most agreeing matches, refined on them.

    If no proposal has a share above `GOOD_SHARE`, RANSAC on the matches adds a proposal.
    """
    in_a, seen_a = of_a.lift(matches.xy_in_a.astype(np.float64))
    in_b, seen_b = of_b.lift(matches.xy_in_b.astype(np.float64))
    usable = seen_a & seen_b
    ranked = [checked(each, of_a, of_b, matches) for each in proposals]
    if usable.sum() >= MIN_POINTS and not any(pair.share > GOOD_SHARE for pair, _ in ranked):
        alone = from_matches(a, b, in_a[usable], in_b[usable], seed)
        ranked.append(checked(alone, of_a, of_b, matches))
    if not ranked:
        return Relative(a, b, 1.0, np.eye(3), np.zeros(3))
    pair, agrees = max(ranked, key=lambda each: each[0].agreeing)
    if agrees.sum() < MIN_POINTS:
        return pair
    confidence = matches.confidence[agrees].astype(np.float64)
    refined = _robust(a, b, in_b[agrees], in_a[agrees], confidence / in_a[agrees, 2] ** 2)
    return max(checked(refined, of_a, of_b, matches)[0], pair, key=lambda each: each.agreeing)


def _fitted(
    a: int,
    b: int,
    source: Float64[np.ndarray, "points 3"],
    target: Float64[np.ndarray, "points 3"],
    weight: Float64[np.ndarray, " points"] | None = None,
) -> Relative:
    """Least-squares similarity from points of b to the same points in a's frame."""
    with np.errstate(divide="ignore", invalid="ignore"):  # all points coincide
        scale, rigid = similarity(source, target, weight=weight)
    # Noise may give a scale that is zero or negative; such a pair is rejected by its matches later.
    scale = scale if scale > SMALLEST else SMALLEST
    return Relative(a, b, scale, rigid[:3, :3], rigid[:3, 3])


def _robust(
    a: int,
    b: int,
    source: Float64[np.ndarray, "points 3"],
    target: Float64[np.ndarray, "points 3"],
    weight: Float64[np.ndarray, " points"],
) -> Relative:
    """Similarity by iteratively reweighted least squares, with Cauchy weights."""
    now, pair = weight, Relative(a, b, 1.0, np.eye(3), np.zeros(3))
    for _ in range(8):
        pair = _fitted(a, b, source, target, now)
        off = np.linalg.norm(pair.into_a(source) - target, axis=1)
        off /= np.maximum(target[:, 2], 1e-6)
        now = weight / (1 + (off / max(1.5 * float(np.median(off)), 1e-6)) ** 2)
    return pair
