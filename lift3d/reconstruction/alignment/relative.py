"""How two images lie to each other, from a prediction of the pair, checked by its matches."""

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
"""Scale of a similarity that has collapsed."""
TOLERANCE = 0.02
"""A match agrees with a pair's geometry within this share of the image's longer side."""


@dataclass(frozen=True, eq=False)
class Relative:
    """Image b against image a: x_a = scale * rotation @ x_b + translation, in canonical units."""

    a: int
    b: int
    scale: float
    rotation: Float64[np.ndarray, "3 3"]
    translation: Float64[np.ndarray, "3"]
    agreeing: int = 0
    """Matches that agree with it in both images."""
    share: float = 0.0
    """Of all matches of the pair."""

    def into_a(self, xyz: Float64[np.ndarray, "points 3"]) -> Float64[np.ndarray, "points 3"]:
        """Points of b in a's frame."""
        return self.scale * xyz @ self.rotation.T + self.translation

    def inverse(self) -> Relative:
        """Image a against image b."""
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
    """One image's geometry, up to scale, in its own camera frame."""

    own: Canonical
    centre: Float64[np.ndarray, "2"]

    def lift(
        self, xy: Float64[np.ndarray, "pixels 2"]
    ) -> tuple[Float64[np.ndarray, "pixels 3"], Bool[np.ndarray, " pixels"]]:
        """Points of the nearest pixels, and which have depth."""
        height, width = self.own.depth.shape
        column = np.clip(np.rint(xy[:, 0]), 0, width - 1).astype(np.intp)
        row = np.clip(np.rint(xy[:, 1]), 0, height - 1).astype(np.intp)
        z = self.own.depth[row, column].astype(np.float64)
        ray = np.c_[(xy - self.centre) / self.own.focal, np.ones(len(xy))]
        return ray * z[:, None], z > 0

    def pixels(self, xyz: Float64[np.ndarray, "points 3"]) -> Float64[np.ndarray, "points 2"]:
        """Where points fall; infinitely far where they lie behind."""
        front = xyz[:, 2] > 1e-9
        z = np.where(front, xyz[:, 2], 1.0)
        xy = self.own.focal * xyz[:, :2] / z[:, None] + self.centre
        return np.where(front[:, None], xy, np.inf)


def propose(prediction: PairPrediction, log_scale: float, a: int, b: int, of_b: Frame) -> Relative:
    """The similarity between b's points as the prediction has them and b's own.

    `log_scale` is that of the prediction against a's own depth.
    """
    points, confidence, step = thinned(
        prediction.points_b, prediction.confidence_b, prediction.step_b
    )
    row, column = np.mgrid[: points.shape[0], : points.shape[1]].reshape(2, -1) * step + step // 2
    own, present = of_b.lift(np.stack([column, row], axis=1).astype(np.float64))
    told = points.reshape(-1, 3).astype(np.float64) / np.exp(log_scale)
    weight = confidence.ravel().astype(np.float64)
    usable = present & np.isfinite(told).all(1)
    if usable.sum() < 10:
        return Relative(a, b, 1.0, np.eye(3), np.zeros(3))
    return _robust(a, b, own[usable], told[usable], weight[usable])


def from_matches(
    a: int,
    b: int,
    in_a: Float64[np.ndarray, "matches 3"],
    in_b: Float64[np.ndarray, "matches 3"],
    seed: int,
    tries: int = 200,
) -> Relative:
    """The similarity most matched points agree on: three at a time, the best kept (RANSAC)."""
    rng = np.random.default_rng([seed, a, b])
    best, most = Relative(a, b, 1.0, np.eye(3), np.zeros(3)), -1
    allowed = 0.05 * np.abs(in_a[:, 2])
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
    """The pair with the count of matches that agree with it, and which these are.

    A match agrees where each of its two points, taken over, falls near the other's pixel.
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
    """The proposal most matches agree with, refined by these; or what the matches say alone."""
    in_a, seen_a = of_a.lift(matches.xy_in_a.astype(np.float64))
    in_b, seen_b = of_b.lift(matches.xy_in_b.astype(np.float64))
    usable = seen_a & seen_b
    ranked = [checked(each, of_a, of_b, matches) for each in proposals]
    if usable.sum() >= 10 and not any(pair.share > 0.3 for pair, _ in ranked):
        alone = from_matches(a, b, in_a[usable], in_b[usable], seed)
        ranked.append(checked(alone, of_a, of_b, matches))
    if not ranked:
        return Relative(a, b, 1.0, np.eye(3), np.zeros(3))
    pair, agrees = max(ranked, key=lambda each: each[0].agreeing)
    if agrees.sum() < 10:
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
    """The similarity from points of b to the same points in a's frame."""
    with np.errstate(divide="ignore", invalid="ignore"):  # all points in one place
        scale, rigid = similarity(source, target, weight=weight)
    # Flat or turned-over noise may fit best with no or a negative size: of no use, but harmless.
    scale = scale if scale > SMALLEST else SMALLEST
    return Relative(a, b, scale, rigid[:3, :3], rigid[:3, 3])


def _robust(
    a: int,
    b: int,
    source: Float64[np.ndarray, "points 3"],
    target: Float64[np.ndarray, "points 3"],
    weight: Float64[np.ndarray, " points"],
) -> Relative:
    """Iteratively reweighted similarity: the far off count little (Cauchy)."""
    now, pair = weight, Relative(a, b, 1.0, np.eye(3), np.zeros(3))
    for _ in range(8):
        pair = _fitted(a, b, source, target, now)
        off = np.linalg.norm(pair.into_a(source) - target, axis=1)
        off /= np.maximum(target[:, 2], 1e-6)
        now = weight / (1 + (off / max(1.5 * float(np.median(off)), 1e-6)) ** 2)
    return pair
