"""One click: an object proposed in the cloud and in the views, before it becomes an edit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, Int64
from scipy import ndimage

from lift3d.correction.maps import mask_of_points
from lift3d.correction.splitting import SurfaceOf
from lift3d.correction.state import MOST_CONFIDENT
from lift3d.geometry import project
from lift3d.geometry.lens import inside
from lift3d.geometry.visibility import Sightings
from lift3d.scene import Masks, Points, Prompt, View
from lift3d.scene.errors import InputError
from lift3d.scene.protocols import Segmenter

VIEWS = 8
"""Views that are asked, the clicked one included."""
CANDIDATES = 3
"""Views whose visible points are looked up, for each that is asked. Chosen by hand."""
SAMPLE = 1000
"""Points of a selection that are projected to choose views."""
TURNED = 0.97
"""Views are as different as their directions have a smaller cosine than this, where possible."""
LEAST_SEEN = 20
"""Points of the selection that a view has to see to be asked. Chosen by hand."""
ANOTHER = 0.3
"""A mask whose IoU with the projected selection is smaller is of another thing."""
UNSURE = (0.15, 0.85)
"""Superpoints with a share of votes between these are decided point by point. Chosen by hand."""
NEGATIVES = 2
"""Negative prompts per view, at points that all views so far have left out."""


@dataclass(frozen=True, eq=False)
class Proposal:
    """Points that may be one object, and how they were found."""

    points: Int64[np.ndarray, " members"]
    tool: str
    """`tree` or `segmenter`."""
    score: float
    """0 to 0.9."""
    prompts: tuple[Mapping[str, Any], ...]
    """What was asked, as JSON values; kept with the edit."""
    masks: Mapping[str, Bool[np.ndarray, "height width"]] = field(default_factory=dict)
    """Masks of the views that were asked, as the segmenter gave them."""
    level: int = 0
    """Which of the alternatives, from part to whole."""
    levels: int = 1
    views: int = 0
    """Views that have answered."""
    of: int = 0
    """Views that are asked in all."""


@dataclass(frozen=True, eq=False)
class Place3D:
    """What a proposal needs of a run."""

    points: Points
    spacing: float
    views: Mapping[str, View]
    seen: Callable[[str], Sightings]
    superpoint: Int32[np.ndarray, " points"] | None


@dataclass(eq=False)
class _Votes:
    """Weighted votes of views for the selection."""

    inside: Float32[np.ndarray, " points"]
    looked: Float32[np.ndarray, " points"]

    @staticmethod
    def none(count: int) -> _Votes:
        return _Votes(np.zeros(count, np.float32), np.zeros(count, np.float32))

    def add(self, seen: Sightings, mask: Bool[np.ndarray, "height width"], weight: float) -> None:
        """One view's mask."""
        self.looked[seen.point] += weight
        self.inside[seen.point] += weight * mask[seen.row, seen.column]

    def decided(
        self, superpoint: Int32[np.ndarray, " points"] | None
    ) -> Bool[np.ndarray, " points"]:
        """The points with more than half of the votes; clear superpoints as a whole."""
        own = self.inside > 0.5 * np.maximum(self.looked, 1e-9)
        if superpoint is None:
            return own
        some = superpoint >= 0
        count = int(superpoint.max(initial=-1)) + 1
        votes = np.bincount(superpoint[some], self.inside[some], count)
        share = votes / np.maximum(np.bincount(superpoint[some], self.looked[some], count), 1e-9)
        of_point = np.where(some, np.append(share, 0.0)[superpoint], 0.5)
        return np.where(of_point > UNSURE[1], True, np.where(of_point < UNSURE[0], False, own))


def propose_click(
    place: Place3D,
    view: str,
    xy: Float[np.ndarray, "prompts 2"],
    positive: Bool[np.ndarray, " prompts"],
    segmenter: Segmenter,
    views: int = VIEWS,
    level: int | None = None,
) -> Iterator[Proposal]:
    """The object at clicked pixels (column, row) of a view, carried to other views and voted.

    Yields a proposal after the clicked view, and a better one after each further view. `level`
    chooses among the masks that the segmenter offers for one click, part to whole; by default the
    one with the best score. InputError where the click gives no mask with points.
    """
    if not positive.any():
        raise InputError("a click on the object is needed; all clicks are beside it")
    first = Prompt(xy.astype(np.float64), positive)
    offered = _offered(segmenter, place.views[view], first)
    if level is None:
        level = int(np.argmax(offered.scores)) if len(offered) else 0
    level = min(max(level, 0), max(len(offered) - 1, 0))
    if not len(offered) or not offered.stack[level].any():
        raise InputError(
            f"the segmenter finds nothing at this pixel of view {view}; click elsewhere"
        )
    asked: list[Mapping[str, Any]] = [
        {"view": view, "xy": xy.tolist(), "positive": positive.tolist(), "level": level}
    ]
    masks = {view: offered.stack[level]}
    scores = [float(offered.scores[level])]
    votes = _Votes.none(len(place.points))
    votes.add(place.seen(view), masks[view], max(scores[0], 0.1))
    seed = _seed(place.seen(view), xy[positive][0], masks[view])

    def now(of: int) -> Proposal:
        chosen = np.flatnonzero(votes.decided(place.superpoint)).astype(np.int64)
        return Proposal(
            _hanging_together(place, chosen, seed),
            "segmenter",
            round(min(float(np.mean(scores)), MOST_CONFIDENT), 6),
            tuple(asked),
            dict(masks),
            level,
            len(offered),
            len(asked),
            of,
        )

    found = now(views)
    if not len(found.points):
        raise InputError(f"view {view} sees no point of the cloud in this mask; click in another")
    others = _other_views(place, view, found.points, views - 1)
    found = now(1 + len(others))
    yield found
    for name in others:
        seen = place.seen(name)
        prompt = _carried(place, name, seen, found.points, votes)
        if prompt is not None:
            answer = segmenter.prompt(place.views[name], [prompt])
            mask, score = answer.stack[0], float(answer.scores[0])
            if _iou(seen, mask, found.points, len(place.points)) >= ANOTHER:
                votes.add(seen, mask, max(score, 0.1))
                masks[name] = mask
                scores.append(score)
        asked.append({"view": name, "used": name in masks})
        found = now(1 + len(others))
        yield found


def _offered(segmenter: Segmenter, view: View, prompt: Prompt) -> Masks:
    """Several masks for a single click, one for more."""
    if len(prompt.xy) == 1:
        return segmenter.alternatives(view, prompt)
    return segmenter.prompt(view, [prompt])


def _seed(
    seen: Sightings, xy: Float[np.ndarray, "2"], mask: Bool[np.ndarray, "height width"]
) -> int | None:
    """The point of the mask nearest to the click; None where the mask shows none."""
    own = np.flatnonzero(mask[seen.row, seen.column])
    if not len(own):
        return None
    away = np.hypot(seen.column[own] - xy[0], seen.row[own] - xy[1])
    return int(seen.point[own[np.argmin(away)]])


def _hanging_together(
    place: Place3D, chosen: Int64[np.ndarray, " chosen"], seed: int | None
) -> Int64[np.ndarray, " members"]:
    """Those of the points that hang together with the seed."""
    if seed is None or not len(chosen):
        return chosen[:0]
    chosen = np.union1d(chosen, [seed])
    surface = SurfaceOf(place.points, chosen, place.spacing)
    part = surface.components()
    return chosen[part == part[np.searchsorted(chosen, seed)]]


def _other_views(
    place: Place3D, first: str, points: Int64[np.ndarray, " members"], count: int
) -> list[str]:
    """Views that see most of the points, from unlike directions; the best first."""
    xyz = place.points.xyz[points[:: max(1, len(points) // SAMPLE)]]
    inside_image = {}
    for name, view in place.views.items():
        if name != first and view.camera.world_from_camera is not None:
            xy, z = project(view.camera, xyz)
            inside_image[name] = int((inside(view.camera, xy) & (z > 0)).sum())
    likely = sorted(inside_image, key=lambda each: (-inside_image[each], each))
    chosen = np.zeros(len(place.points), bool)
    chosen[points] = True
    seen = {
        each: int(chosen[place.seen(each).point].sum())
        for each in likely[: CANDIDATES * max(count, 0)]
        if inside_image[each]
    }
    best = sorted((each for each in seen if seen[each] >= LEAST_SEEN), key=lambda e: (-seen[e], e))
    centre = np.median(xyz, axis=0)

    def direction(name: str) -> np.ndarray:
        away = place.views[name].camera.pose[:3, 3] - centre
        return away / max(float(np.linalg.norm(away)), 1e-9)

    taken = [first]
    for unlike in (True, False):
        for each in best:
            if len(taken) > count:
                break
            turned = all(direction(each) @ direction(other) < TURNED for other in taken)
            if each not in taken and (turned or not unlike):
                taken.append(each)
    return taken[1:]


def _carried(
    place: Place3D,
    name: str,
    seen: Sightings,
    points: Int64[np.ndarray, " members"],
    votes: _Votes,
) -> Prompt | None:
    """The prompt for another view: the pixel of the selection farthest from its rim, two more by
    K-Means, points that were left out beside it, and the projection as a rough mask.
    """
    from lift3d.segmentation.tracking.representatives import choose

    camera = place.views[name].camera
    rough = mask_of_points(seen, points, (camera.height, camera.width))
    own = np.isin(seen.point, points)
    if own.sum() < LEAST_SEEN or not rough.any():
        return None
    depth = ndimage.distance_transform_edt(np.pad(rough, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(depth)), depth.shape)
    xy = np.stack([seen.column[own], seen.row[own]], 1).astype(np.float64)
    label = np.ones(len(xy), np.int32)
    more, _ = choose(rough.astype(np.int32), np.array([1], np.int32), xy, label, 2, seed=0)
    positive = np.unique(np.concatenate([[[column, row]], xy[more]]), axis=0)
    out = (votes.looked[seen.point] > 0) & (votes.inside[seen.point] == 0) & ~own
    beside = np.stack([seen.column[out], seen.row[out]], 1).astype(np.float64)
    if len(beside):
        from scipy.spatial import cKDTree

        # Beside the selection, but clear of its rim, where points and pixels disagree.
        away, _ = cKDTree(xy).query(beside)
        clear = max(3.0, 0.1 * float(depth.max()))
        beside = beside[away > clear]
        beside = beside[np.argsort(away[away > clear], kind="stable")[:: max(1, len(beside) // 50)]]
        beside = beside[:NEGATIVES]
    return Prompt(
        np.concatenate([positive, beside.reshape(-1, 2)]),
        np.arange(len(positive) + len(beside)) < len(positive),
        rough,
    )


def _iou(
    seen: Sightings,
    mask: Bool[np.ndarray, "height width"],
    points: Int64[np.ndarray, " members"],
    count: int,
) -> float:
    """IoU of a mask and a selection, over the points that the view sees."""
    chosen = np.zeros(count, bool)
    chosen[points] = True
    own, masked = chosen[seen.point], mask[seen.row, seen.column]
    return float((own & masked).sum() / max((own | masked).sum(), 1))
