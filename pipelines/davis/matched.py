"""H of images without a common point map, through correspondences between them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Int32

from lift3d.scene import LabelMap, Matches, View
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.protocols import Matcher


@dataclass(frozen=True, eq=False)
class MatchedConsistency:
    """H where images share no point map, through correspondences; see `matched_consistency`."""

    H: float
    """Share of matches whose two ends have the same label, 0 (unlabelled) included; NaN without
    matches."""
    H0: float
    """Expected H if every image's ids were permuted independently."""
    H_labelled: float
    """The same over ends that have an id; an unlabelled other end disagrees."""
    H0_labelled: float
    matches: int
    pairs: int
    """Number of pairs of images."""
    unmatched: int
    """Number of pairs without matches (or with an image that cannot be read)."""
    coverage: float
    """Share of all pixels that have an id."""
    labels: int
    """Ids in use over all images."""
    correspondence: str
    """Source of the matches: depth, flow, mast3r. H from different sources is not comparable."""
    steps: tuple[int, ...]

    @property
    def H_prime(self) -> float:
        """(H - H0) / (1 - H0): 0 is chance, 1 is perfect; NaN where H0 is 1."""
        return _beyond_chance(self.H, self.H0)

    @property
    def H_prime_labelled(self) -> float:
        """The same of `H_labelled`."""
        return _beyond_chance(self.H_labelled, self.H0_labelled)

    def summary(self) -> dict[str, Any]:
        """Ready for JSON; NaN becomes None."""
        numbers = asdict(self) | {
            "H_prime": self.H_prime,
            "H_prime_labelled": self.H_prime_labelled,
        }
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in numbers.items()
        }

    def __str__(self) -> str:
        return (
            f"H {100 * self.H:.2f} % (chance {100 * self.H0:.2f} %) over all ends, "
            f"{100 * self.H_labelled:.2f} % (chance {100 * self.H0_labelled:.2f} %) over labelled "
            f"ones; {self.matches:,} matches by {self.correspondence}, steps {self.steps}; "
            f"coverage {100 * self.coverage:.1f} %, {self.labels:,} labels"
        )


def matched_consistency(
    views: Sequence[View],
    label_maps: Mapping[str, LabelMap],
    matcher: Matcher,
    correspondence: str,
    steps: Sequence[int] = (1,),
    min_confidence: float = 0.0,
) -> MatchedConsistency:
    """H (MastSAM, Eq. 4-6) of images without a common point map, through their matches.

    Eq. 4 compares pixels of all images that show the same place, by distance between 3D points.
    Without 3D points, the two ends of a match are taken to show the same place:

    * the pairs of images are (i, i + s) for every i and every s in `steps`;
    * for an end p of a match of such a pair, E is the other end alone: neither p itself nor
      anything of its own image is in E (`exclude="view"` of `lift3d.evaluation.consistency`);
    * h(p) is 1 where the other end has p's label and 0 where not, 0 (unlabelled) being a label
      like any other; pixels without a match have no h, as those whose E is empty;
    * H is the mean of h over all ends of all matches of all pairs: each match weighs the same,
      so H is the share of matches whose ends agree. `H_labelled` is the mean over the ends
      that have an id.

    An end's label is that of the nearest pixel. H0 is exact: permuting each image's ids among
    all ids in use, two labelled ends agree with probability 1 / `labels`, two unlabelled ones
    always. Matches below `min_confidence` are not used. H favours trackers that use the same
    matches: a wrong match that the tracker followed counts as agreement.
    """
    window: dict[int, LabelMap] = {}
    reach = max(steps, default=1)
    if min(steps, default=0) < 1:
        raise InputError(f"steps are {tuple(steps)}; expected whole numbers from 1 up")
    same = ends = agreeing = both = neither = matches = pairs = unmatched = 0
    pixels = labelled = 0
    ids: set[int] = set()
    for index, view in enumerate(views):
        labels = label_maps[view.name]
        window[index] = labels
        window.pop(index - reach - 1, None)
        pixels += labels.size
        labelled += int(np.count_nonzero(labels))
        ids.update(np.unique(labels).tolist())
        for step in steps:
            if index < step:
                continue
            pairs += 1
            found = _matches(matcher, views[index - step], view, min_confidence)
            if found is None or not len(found):
                unmatched += 1
                continue
            a = _looked_up(window[index - step], found.xy_in_a)
            b = _looked_up(labels, found.xy_in_b)
            matches += len(a)
            same += int((a == b).sum())
            agreeing += 2 * int(((a == b) & (a > 0)).sum())
            ends += int((a > 0).sum() + (b > 0).sum())
            both += int(((a > 0) & (b > 0)).sum())
            neither += int(((a == 0) & (b == 0)).sum())
    ids.discard(0)
    by_chance = both / max(len(ids), 1)
    return MatchedConsistency(
        H=_ratio(float(same), matches),
        H0=_ratio(neither + by_chance, matches),
        H_labelled=_ratio(float(agreeing), ends),
        H0_labelled=_ratio(2 * by_chance, ends),
        matches=matches,
        pairs=pairs,
        unmatched=unmatched,
        coverage=_ratio(float(labelled), pixels),
        labels=len(ids),
        correspondence=correspondence,
        steps=tuple(steps),
    )


def _matches(matcher: Matcher, a: View, b: View, least: float) -> Matches | None:
    try:
        found = matcher.match(a, b)
    except FrameError:
        return None
    kept = found.confidence >= least
    return Matches(found.xy_in_a[kept], found.xy_in_b[kept], found.confidence[kept])


def _looked_up(labels: LabelMap, xy: np.ndarray) -> Int32[np.ndarray, " matches"]:
    """The label of the pixel nearest to each position."""
    height, width = labels.shape
    column, row = np.rint(xy).astype(np.int64).T
    return labels[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]


def _beyond_chance(value: float, chance: float) -> float:
    return (value - chance) / (1 - chance) if chance < 1 else float("nan")


def _ratio(part: float, whole: int) -> float:
    return part / whole if whole > 0 else float("nan")
