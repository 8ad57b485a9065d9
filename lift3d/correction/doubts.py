"""What a person should look at: likely mistakes, those worth most first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int32

from lift3d.association.assignments import Assignments
from lift3d.association.surface import Surface
from lift3d.correction.applying import Altered
from lift3d.correction.history import Doubt
from lift3d.correction.joins import JoinTree
from lift3d.correction.state import Layer, Properties
from lift3d.scene import NO_OFFSET, Offset

LOW_CONFIDENCE = 0.05
"""Objects with a lower confidence are crumbs. Chosen on the demo: 26 of its 67 objects are below,
all of them parts of objects; every true object that was found is above."""
SURE = 0.5
"""An object with a lower confidence, or a lower IoU with its own pixels, is likely several things.
Chosen by hand."""
LAYOUT_SHARE, LAYOUT_SIDE, LAYOUT_FLAT, LAYOUT_BEHIND = 0.02, 0.25, 0.9, 0.03
"""Floor and walls: least share of all points; least length, of that of the scene; least share of
their points on one plane; most of all points behind it. On the demo and a HoloLens scan these are
the planes that the association found, a door and a rug. Chosen by hand."""
THICKNESS = 0.03
"""Half the thickness of such a plane, as a share of its length."""
LARGE = 0.001
"""Least share of the points of an object that is looked at. Chosen by hand."""
JOINED = (0.35, 0.5)
"""Probabilities of one object between which two neighbours are worth a look; from the second on
they are joined by themselves."""
SPANNED = 0.3
"""Least share of the views with a mask over both objects, and of that mask in the second."""
SAMPLE = 20_000
"""Points of an object and of the scene that tell whether it is floor or wall."""
FAR_BELOW = 0.05
"""Views whose H is this far under the mean are listed. Chosen by hand."""
CONFLICT = 0.3
"""Share of the points of a stroke that another view paints otherwise, to be listed."""
Kind = Literal["several", "one", "crumb", "view", "edit"]


@dataclass(frozen=True)
class Doubtful:
    """One thing to look at."""

    kind: Kind
    """`several`: an object that is likely more than one. `one`: two that are likely one. `crumb`:
    objects with hardly any confidence. `view`: a view far under the mean H. `edit`: one in doubt,
    applied to an object that is not as it was, or painted against another.
    """
    reason: str
    gain: float
    """What mending it is worth, about, 0 to 1; the queue is sorted by it."""
    key: str
    """The same for the same thing, to remember what was left as it is."""
    ids: tuple[int, ...] = ()
    view: str | None = None
    edit: int | None = None
    proposal: tuple[str, Mapping[str, Any]] | None = None
    """A method of `Edits` and its arguments that would mend it."""


@dataclass(frozen=True, eq=False)
class Known:
    """What the queue is made from; what a run does not have is None or empty."""

    label: Int32[np.ndarray, " points"]
    objects: Mapping[int, Properties]
    doubts: Sequence[Doubt] = ()
    altered: Sequence[Altered] = ()
    """Objects of applied edits of another lift that are not here as they were."""
    layers: Sequence[Layer] = ()
    """Painted pixels, in order."""
    xyz: np.ndarray | None = None
    offset: Offset = NO_OFFSET
    """World coordinates of the local origin of `xyz`."""
    surface: Surface | None = None
    tree: JoinTree | None = None
    assignments: Assignments | None = None
    overlap: Mapping[int, float] | None = None
    """IoU of each object's projected points with its pixels, from `consistency.json`."""
    view_agreement: Mapping[str, float | None] | None = None
    """H of each view."""


def to_look_at(known: Known) -> tuple[Doubtful, ...]:
    """Everything doubtful that no person has accepted, the most worth first."""
    found = [
        *_edits(known),
        *_painted(known),
        *_several(known),
        *_one(known),
        *_crumbs(known),
        *_views(known),
    ]
    return tuple(sorted(found, key=lambda each: (-each.gain, each.key)))


def _open(known: Known) -> dict[int, Properties]:
    """Objects that are neither accepted nor locked."""
    return {e: own for e, own in known.objects.items() if not (own.reviewed or own.locked)}


def _sizes(known: Known) -> Float64[np.ndarray, " ids"]:
    """Share of the points of each id."""
    return np.bincount(known.label, minlength=1) / max(len(known.label), 1)


def _edits(known: Known) -> Iterator[Doubtful]:
    for each in known.doubts:
        yield Doubtful("edit", str(each), 1.0, f"edit:{each.edit.n}", edit=each.edit.n)
    for one in known.altered:
        if one.put_back or one.now not in known.objects:
            continue
        n = one.edit.n
        words = f"edit {n} ({one.edit}) is applied, but {one}"
        key = f"altered:{n}-{one.was}"
        yield Doubtful("edit", words, 1 - one.iou, key, (one.now,), edit=n)


def _painted(known: Known) -> Iterator[Doubtful]:
    """Strokes of two views over the same points for two objects: the later one counts."""
    for at, later in enumerate(known.layers):
        for earlier in known.layers[:at]:
            if later.view == earlier.view or later.id == earlier.id:
                continue
            smaller = max(min(len(later.index), len(earlier.index)), 1)
            both = len(np.intersect1d(later.index, earlier.index))
            if both > CONFLICT * smaller:
                yield Doubtful(
                    "edit",
                    f"edit {later.n} in view {later.view} paints {both:,} points otherwise than "
                    f"edit {earlier.n} in view {earlier.view}; the later one counts",
                    0.5,
                    f"painted:{earlier.n}-{later.n}",
                    view=later.view,
                    edit=later.n,
                )


def _several(known: Known) -> Iterator[Doubtful]:
    """Objects that are large and that neither the shape nor their pixels confirm."""
    sizes, overlap = _sizes(known), known.overlap or {}
    for each, own in _open(known).items():
        share = float(sizes[each]) if each < len(sizes) else 0.0
        untouched = own.automatic and not own.edited
        iou = overlap.get(each, 1.0) if untouched else 1.0
        worth = min(own.confidence, iou)
        if not untouched or share < LARGE or worth >= SURE or own.confidence < LOW_CONFIDENCE:
            continue
        why = (
            f"its points and its pixels overlap by {iou:.0%} only"
            if iou < own.confidence
            else f"confidence {own.confidence:.2f}"
        )
        yield Doubtful(
            "several",
            f"object {each} is likely several things: {why}",
            float(np.sqrt(share)) * (1 - worth),
            f"several:{each}",
            (each,),
            proposal=_division(known, each),
        )


def _division(known: Known, each: int) -> tuple[str, Mapping[str, Any]] | None:
    """Clicks, in the world, on the two parts that the tree of joins last put together."""
    tree, xyz = known.tree, known.xyz
    if tree is None or xyz is None:
        return None
    of_object = known.label == each
    own = np.flatnonzero(of_object)
    nodes = [node for point in own[:: max(1, len(own) // 20)] for node in tree.path(int(point))]
    for node in sorted(set(nodes), key=lambda node: -len(tree.points_of(node))):
        if node not in tree.children:
            continue
        inside = (tree.points_of(child) for child in tree.children[node])
        parts = [points[of_object[points]] for points in inside]
        if min(map(len, parts)) < 0.05 * len(own):
            continue
        clicks = []
        for part in parts:
            middle = np.median(xyz[part], axis=0)
            most = xyz[part[np.argmin(((xyz[part] - middle) ** 2).sum(1))]]
            clicks.append((most.astype(np.float64) + known.offset).tolist())
        return "split", {"object_id": each, "clicks": clicks}
    return None


def _one(known: Known) -> Iterator[Doubtful]:
    """Neighbours that nearly became one object, and those that masks span."""
    sizes, free = _sizes(known), _open(known)
    chances, layout = _joined(known), _layout(known)
    for pair, (spans, looks) in _spanned(known).items():
        if spans >= max(2, SPANNED * looks):
            chances[pair] = max(chances.get(pair, 0.0), 0.5 * spans / max(looks, 1))
    for (a, b), chance in chances.items():
        if {a, b} & layout or not {a, b} <= free.keys():
            continue
        smaller = float(min(sizes[a], sizes[b]))
        yield Doubtful(
            "one",
            f"objects {a} and {b} are likely one thing: {chance:.0%} by their shape and masks",
            float(np.sqrt(smaller)) * chance,
            f"one:{a}-{b}",
            (a, b),
            proposal=("merge", {"ids": (a, b)}),
        )


def _layout(known: Known) -> set[int]:
    """Floor and walls, whole or in parts: large planes with all of the scene on one side.

    By where their points are: their confidence may have changed by an edit.
    """
    if known.xyz is None or not len(known.xyz):
        return set()
    scene = known.xyz[:: max(1, len(known.xyz) // SAMPLE)].astype(np.float64)
    length = float(np.ptp(np.percentile(scene, [5, 95], axis=0), axis=0).max())
    found = set()
    for each in np.flatnonzero(_sizes(known) >= LAYOUT_SHARE).tolist():
        own = known.xyz[known.label == each]
        own = own[:: max(1, len(own) // SAMPLE)].astype(np.float64)
        middle = np.median(own, axis=0)
        axes = np.linalg.svd(own - middle, full_matrices=False)[2]
        low, high = np.percentile((own - middle) @ axes[:2].T, [5, 95], axis=0)
        side = float((high - low).max())
        if side < LAYOUT_SIDE * length:
            continue
        thick = THICKNESS * side
        height = (own - middle) @ axes[2]
        level = np.median(height)
        away = (scene - middle) @ axes[2] - level
        behind = min(np.mean(away < -thick), np.mean(away > thick))
        if np.mean(np.abs(height - level) <= thick) >= LAYOUT_FLAT and behind < LAYOUT_BEHIND:
            found.add(each)
    return found - {0}


def _joined(known: Known) -> dict[tuple[int, int], float]:
    """Pairs of objects and the largest probability along their border, within `JOINED`."""
    surface = known.surface
    if surface is None or not len(surface.joins):  # strengths are no probabilities then
        return {}
    count = len(surface.object)
    now = np.zeros(count, np.int64)
    inside = surface.superpoint >= 0
    now[surface.superpoint[inside]] = known.label[inside]  # any point: few superpoints are divided
    ends = np.sort(now[surface.edges], axis=1)
    apart = (ends[:, 0] != ends[:, 1]) & (ends[:, 0] > 0)
    best: dict[tuple[int, int], float] = {}
    for (a, b), strength in zip(
        ends[apart].tolist(), surface.strength[apart].tolist(), strict=True
    ):
        best[a, b] = max(best.get((a, b), 0.0), strength)
    return {pair: each for pair, each in best.items() if JOINED[0] <= each < JOINED[1]}


def _spanned(known: Known) -> dict[tuple[int, int], tuple[int, int]]:
    """Pairs of objects -> views with a mask over both, and views with a mask of the rarer one."""
    found, made = known.assignments, {}
    if found is None:
        return {}
    looks = np.bincount(found.object, minlength=1)
    both = (found.object > 0) & (found.second > 0) & (found.second_share >= SPANNED)
    pairs = np.sort(np.stack([found.object[both], found.second[both]], 1), axis=1)
    kept, counts = np.unique(pairs, axis=0, return_counts=True)
    for (a, b), count in zip(kept.tolist(), counts.tolist(), strict=True):
        seen = [int(looks[each]) if each < len(looks) else 0 for each in (a, b)]
        made[a, b] = (count, max(min(seen), count))
    return made


def _crumbs(known: Known) -> Iterator[Doubtful]:
    """Objects with hardly any confidence, all of them together."""
    sizes = _sizes(known)
    ids = tuple(
        each
        for each, own in sorted(_open(known).items())
        if own.automatic and not own.edited and own.confidence < LOW_CONFIDENCE
    )
    if ids:
        share = float(sum(sizes[each] for each in ids if each < len(sizes)))
        few = ", ".join(map(str, ids[:5])) + (" ..." if len(ids) > 5 else "")
        yield Doubtful(
            "crumb",
            f"{len(ids)} objects ({few}) have a confidence under {LOW_CONFIDENCE:g}: "
            f"{share:.1%} of the points",
            float(np.sqrt(share)) / 2,
            "crumb",
            ids,
            proposal=("sweep", {"ids": ids}),
        )


def _views(known: Known) -> Iterator[Doubtful]:
    """Views whose pixels disagree with the others far more than usual."""
    values = {name: h for name, h in (known.view_agreement or {}).items() if h is not None}
    if not values:
        return
    mean = float(np.mean(list(values.values())))
    for name, h in values.items():
        if h < mean - FAR_BELOW:
            yield Doubtful(
                "view",
                f"view {name} agrees with the others at {h:.1%} only, the mean is {mean:.1%}",
                (mean - h) / 4,
                f"view:{name}",
                view=name,
            )
