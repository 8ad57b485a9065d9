"""From prompts to the probability of every point, and to a mask in every view."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from lift3d.correction.clicks.asking import ask, first_mask
from lift3d.correction.clicks.bilateral import along_edges
from lift3d.correction.clicks.boxing import boxed, shown
from lift3d.correction.clicks.choosing import meant
from lift3d.correction.clicks.cutting import cut_out
from lift3d.correction.clicks.evidence import ASKED, PROMPTED, Evidence, ends_within
from lift3d.correction.clicks.gaps import patch
from lift3d.correction.clicks.nodes import explaining
from lift3d.correction.clicks.place import Place, Seen
from lift3d.correction.clicks.pointing import Click, pointed
from lift3d.correction.clicks.solving import ClickConfig, solve
from lift3d.geometry import project
from lift3d.geometry.lens import inside as in_image
from lift3d.geometry.lens import nearest as nearest_pixel
from lift3d.geometry.visibility import Sightings
from lift3d.scene import Masks, Prompt
from lift3d.scene.errors import InputError
from lift3d.scene.protocols import Segmenter

TURNED = 0.97
"""Views are alike whose directions from the object have a larger cosine. Chosen by hand."""
Prompts = Mapping[str, Prompt]
"""The prompts of one object, by view."""
Carried = Mapping[str, tuple[Bool[np.ndarray, "height width"], float]]
"""Masks of an object that were not given, and their scores, by view."""


@dataclass(frozen=True, eq=False)
class InView:
    """One object in one view."""

    mask: Bool[np.ndarray, "height width"]
    score: float
    """Mean probability of its pixels, 0 to 1; 0 where it is not in the view."""
    used: str
    """`prompt`: the mask was given; `segmenter`; `points`."""


@dataclass(eq=False)
class Answer:
    """All objects of one question."""

    place: Place
    objects: Sequence[Prompts]
    config: ClickConfig
    probability: Float64[np.ndarray, "objects points"]
    lookup_iou: list[float]
    """How well the looked-up nodes explain the prompted masks; NaN without masks."""
    given: list[dict[str, Bool[np.ndarray, "height width"]]]
    """Masks of prompted views, by object."""
    asked: list[dict[str, Bool[np.ndarray, "height width"]]] = field(default_factory=list)
    """Masks of a segmenter in the other views, by object."""

    def points(self, number: int = 0) -> Int64[np.ndarray, " members"]:
        """The points of an object; they belong to the most probable one."""
        if len(self.probability) == 1:  # the first of many is slow to find out
            return np.flatnonzero(self.probability[0] > 0.5).astype(np.int64)
        best = self.probability.argmax(0) == number
        return np.flatnonzero(best & (self.probability[number] > 0.5)).astype(np.int64)

    def views(self) -> Iterator[tuple[str, list[InView]]]:
        """Each view with all objects in it, one view at a time."""
        for name in self.place.views:
            yield name, self.in_view(name)

    def in_view(self, name: str) -> list[InView]:
        """The objects in a view; a pixel is of at most one."""
        maps = np.stack([self._map(number, name) for number in range(len(self.objects))])
        best = maps.argmax(0)
        found = []
        for number, own in enumerate(maps):
            mask = (own > 0.5) & (best == number)
            used = "points"
            if name in self.given[number]:
                used = "prompt"
            elif self.asked and name in self.asked[number]:
                used = "segmenter"
            if mask.sum() < self.config.smallest * mask.size and used != "prompt":
                mask = np.zeros_like(mask)
            score = float(own[mask].mean()) if mask.any() else 0.0
            found.append(InView(mask, round(score, 4), used))
        return found

    def _map(self, number: int, name: str) -> Float32[np.ndarray, "height width"]:
        """Probability of each pixel; a mask that was given or accepted replaces that of points."""
        if name in self.given[number]:
            return self.given[number][name].astype(np.float32)
        if self.asked and name in self.asked[number]:
            return self.asked[number][name] * np.float32(0.9)
        own = pixels(self.place, name, self.probability[number], self.objects[number].get(name))
        return own.astype(np.float32)


def pixels(
    place: Place,
    name: str,
    probability: Float64[np.ndarray, " points"],
    prompt: Prompt | None = None,
) -> Float64[np.ndarray, "height width"]:
    """Probability of each pixel of a view, from that of the points; borders follow the picture.

    Clicks count where superpixels fill the view; elsewhere they decide the pixels around that have
    no depth and look alike.
    """
    seen = place.seen(name)
    padded = np.append(probability, 0.0)
    if seen.superpixels is None:
        assert seen.nearest is not None
        found = _at_borders(padded[seen.nearest], seen)
        if prompt is not None and seen.measured is not None:
            assert seen.colour is not None
            for xy, positive in zip(prompt.xy, prompt.positive, strict=True):
                found[patch(seen.colour, seen.measured, xy)] = positive
        return found
    clicks = None if prompt is None else (prompt.xy, prompt.positive)
    filled = seen.superpixels.filled(probability, clicks)
    if seen.nearest is None:
        return filled
    return _at_borders(np.where(seen.nearest >= 0, padded[seen.nearest], filled), seen)


def _at_borders(
    probability: Float64[np.ndarray, "height width"], seen: Seen
) -> Float64[np.ndarray, "height width"]:
    assert seen.colour is not None
    return along_edges(probability, seen.colour)


def answer(
    place: Place,
    objects: Sequence[Prompts],
    segmenter: Segmenter | None = None,
    config: ClickConfig = ClickConfig(),  # noqa: B008 - frozen
    carried: Sequence[Carried] | None = None,
) -> Answer:
    """The objects that prompts mean, after every view has been asked: the last of `answers`."""
    *_, last = answers(place, objects, segmenter, config, carried)
    return last


def answers(
    place: Place,
    objects: Sequence[Prompts],
    segmenter: Segmenter | None = None,
    config: ClickConfig = ClickConfig(),  # noqa: B008 - frozen
    carried: Sequence[Carried] | None = None,
    most: int | None = None,
) -> Iterator[Answer]:
    """The objects that prompts mean: one mapping from view to prompt for each.

    The `mask` of a prompt is taken as the true answer in its view. The first answer is from what
    was given; then the segmenter is asked in one view after the other, at most in `most`, and the
    same answer comes again, changed. `carried` are the masks of a network that has seen all views,
    for each object; they vote as a segmenter's do, all at once. InputError where an object has no
    positive prompt, or the view does not exist.
    """
    check(place, objects)
    evidence, given = [], []
    for prompts in objects:
        found, masks = told(place, prompts, segmenter, config)
        evidence.append(found)
        given.append(masks)
    compete(evidence)
    result = Answer(place, objects, config, *_solved(place, evidence, config), given=given)
    yield result
    if carried is not None:
        _vote(result, evidence, carried)
        yield result
    elif segmenter is not None:
        result.asked = [{} for _ in objects]
        for name in other_views(result, most):
            _ask(result, evidence, segmenter, name)
            yield result


def check(place: Place, objects: Sequence[Prompts]) -> None:
    """InputError for prompts that mean no object, or lie outside of their view."""
    for prompts in objects:
        _check(place, prompts)


def _check(place: Place, prompts: Prompts) -> None:
    if not any(
        each.positive.any() or each.box is not None or each.mask is not None
        for each in prompts.values()
    ):
        raise InputError("a click on the object is needed, or a box or a mask of it")
    for name, prompt in prompts.items():
        camera = place.view(name).camera
        if prompt.mask is not None and prompt.mask.shape != (camera.height, camera.width):
            raise InputError(
                f"the mask has {prompt.mask.shape[1]}x{prompt.mask.shape[0]} pixels; view {name} "
                f"has {camera.width}x{camera.height}"
            )
        if prompt.mask is not None and not prompt.mask.any():
            raise InputError(f"the mask for view {name} is empty")
        check_clicks(place, [Click(name, each, True) for each in prompt.xy])
        if prompt.box is not None:
            check_box(place, name, prompt.box)


def check_clicks(place: Place, clicks: Sequence[Click]) -> None:
    """InputError for clicks outside of their views, or in unknown ones."""
    for each in clicks:
        camera = place.view(each.view).camera
        size = np.array([camera.width, camera.height])
        if ((each.xy < -0.5) | (each.xy >= size - 0.5)).any():
            raise InputError(
                f"a click lies outside of view {each.view}, which has {size[0]}x{size[1]} pixels"
            )


def check_box(place: Place, name: str, box: Float64[np.ndarray, "4"]) -> None:
    """InputError for a box that can hold nothing."""
    camera = place.view(name).camera
    size = np.array([camera.width, camera.height])
    low, high = box.reshape(2, 2)
    if (low > high).any():
        raise InputError(
            f"the box in view {name} is upside down: left, top, right, bottom are wanted"
        )
    if (high < 0).any() or (low > size - 1).any():
        raise InputError(
            f"the box lies outside of view {name}, which has {size[0]}x{size[1]} pixels"
        )


def told(
    place: Place, prompts: Prompts, segmenter: Segmenter | None, config: ClickConfig
) -> tuple[Evidence, dict[str, Bool[np.ndarray, "height width"]]]:
    """What the prompts say of the points, and the masks of prompted views."""
    evidence, masks = Evidence.none(len(place.points)), {}
    clicks: list[Click] = []
    boxes: dict[str, Float64[np.ndarray, "4"]] = {}
    for name, prompt in prompts.items():
        mask = prompt.mask
        if mask is None and (prompt.positive.any() or prompt.box is not None):
            seen = place.seen(name)
            if segmenter is not None:
                offered = first_mask(segmenter, place.view(name), prompt)
                mask = offered.stack[chosen(place, name, offered)]
            elif prompt.box is not None and seen.nearest is not None:
                boxes[name] = prompt.box
            elif prompt.box is not None or place.sparse:
                mask = cut_out(place.view(name), seen.superpixels, prompt)
        for xy, positive in zip(prompt.xy, prompt.positive, strict=True):
            clicks.append(Click(name, xy, bool(positive)))
        if mask is not None:
            masks[name] = mask
            evidence.add(_sightings(place, name, config), mask, PROMPTED)
            if ends_within(mask):
                evidence.whole.append(name)
    if masks:
        for name, box in boxes.items():
            inside = shown(place, name, boxed(place, {name: box}), box)
            if inside.any():
                evidence.add(_sightings(place, name, config), inside, ASKED)
        evidence.positive, evidence.negative = pointed(place, clicks)
    else:
        found = meant(place, clicks, boxes)
        evidence.positive, evidence.negative = found.positive, found.negative
        evidence.meant = found.pieces
    return evidence, masks


def _sightings(place: Place, name: str, config: ClickConfig) -> Sightings:
    """The points that a mask in a view decides."""
    return place.seen(name).points if config.visible else everything(place, name)


def compete(evidence: Sequence[Evidence]) -> None:
    """What is inside one object is outside of the others."""
    inside = [each.inside.copy() for each in evidence]
    clicks = [list(each.positive) for each in evidence]
    for number, own in enumerate(evidence):
        for other in range(len(evidence)):
            if other != number:
                own.looked += inside[other]
                own.negative += clicks[other]
                own.rivals += clicks[other]


def _solved(
    place: Place, evidence: Sequence[Evidence], config: ClickConfig
) -> tuple[Float64[np.ndarray, "objects points"], list[float]]:
    found = [solve(place, each, config) for each in evidence]
    return np.stack([probability for probability, _ in found]), [iou for _, iou in found]


def labelled(place: Place, ids: Sequence[int], config: ClickConfig) -> Answer:
    """The objects of a run with these ids, together, as an answer."""
    assert place.label is not None
    inside = np.isin(place.label, list(ids)).astype(np.float64)
    return Answer(place, [{}], config, inside[None], [float("nan")], [{}])


def other_views(result: Answer, most: int | None = None) -> list[str]:
    """Views without prompts that see an object: those that see most of all, from unlike directions,
    come first. `most` of those that are compared; by default all views.
    """
    place = result.place
    prompted = {name for prompts in result.objects for name in prompts}
    if len(result.objects) > 1:  # a view may be prompted for one object and not for another
        prompted = {n for n in prompted if all(n in prompts for prompts in result.objects)}
    inside = np.zeros(len(place.points), bool)
    for number in range(len(result.objects)):
        inside[result.points(number)] = True
    if not inside.any():
        return []
    among = None if most is None else place.compared
    seen = {n: count for n, count in place.sees(inside, among).items() if n not in prompted}
    best = sorted((name for name in seen if seen[name]), key=lambda each: (-seen[each], each))
    centre = np.median(place.points.xyz[inside], axis=0)
    taken = {name: _direction(place, name, centre) for name in prompted}
    for name in best:
        towards = _direction(place, name, centre)
        if all(towards @ other < TURNED for other in taken.values()):
            taken[name] = towards
    first = [name for name in best if name in taken]
    return [*first, *(name for name in best if name not in taken)][:most]


def _direction(place: Place, name: str, centre: np.ndarray) -> np.ndarray:
    away = place.view(name).camera.pose[:3, 3] - centre
    return np.asarray(away / max(float(np.linalg.norm(away)), 1e-9))


def _ask(result: Answer, evidence: Sequence[Evidence], segmenter: Segmenter, name: str) -> None:
    """Ask the segmenter in one more view, and solve again where it answers."""
    place, told_more = result.place, False
    seen = place.seen(name).points
    for number, (own, prompts) in enumerate(zip(evidence, result.objects, strict=True)):
        probability = result.probability[number]
        if name in prompts or not (probability[seen.point] > 0.5).any():
            continue
        found = ask(segmenter, place.view(name), pixels(place, name, probability))
        if found is not None:
            mask, score = found
            own.add(seen, mask, ASKED * max(score, 0.1))
            result.asked[number][name], told_more = mask, True
    if told_more:
        result.probability, result.lookup_iou = _solved(place, evidence, result.config)


def _vote(result: Answer, evidence: Sequence[Evidence], carried: Sequence[Carried]) -> None:
    """Masks of a network that has seen all views vote, and all is solved again."""
    for own, prompts, masks in zip(evidence, result.objects, carried, strict=True):
        other = {name: each for name, each in masks.items() if name not in prompts}
        for name, (mask, score) in other.items():
            own.add(result.place.seen(name).points, mask, ASKED * max(score, 0.1))
        result.asked.append({name: mask for name, (mask, _) in other.items()})
    result.probability, result.lookup_iou = _solved(result.place, evidence, result.config)


def chosen(place: Place, name: str, offered: Masks) -> int:
    """Of the masks that a segmenter offers, the one that nodes of the tree explain best, times the
    segmenter's own score. InputError where there is none.
    """
    best, most = None, -1.0
    leaves = len(place.surface.object)
    some_mask = [number for number, mask in enumerate(offered.stack) if mask.any()]
    if len(some_mask) == 1:
        return some_mask[0]
    for number, (mask, score) in enumerate(zip(offered.stack, offered.scores, strict=True)):
        if not mask.any():
            continue
        evidence = Evidence.none(len(place.points))
        evidence.add(place.seen(name).points, mask, 1.0)
        piece = place.surface.superpoint
        some = evidence.known & (piece >= 0)
        inside = np.bincount(piece[some], evidence.share[some], leaves)
        outside = np.bincount(piece[some], 1 - evidence.share[some], leaves)
        iou = explaining(place.tree, inside, outside)[1]
        if float(score) * iou > most:
            best, most = number, float(score) * iou
    if best is None:
        raise InputError(
            f"the segmenter finds nothing at this prompt in view {name}; click elsewhere"
        )
    return best


def everything(place: Place, name: str) -> Sightings:
    """Every point that projects into a view, also hidden ones: the floor to compare with."""
    camera = place.view(name).camera
    xy, z = project(camera, place.points.xyz)
    here = np.flatnonzero((z > 0) & in_image(camera, xy))
    column, row = nearest_pixel(xy[here])
    return Sightings(
        here.astype(np.int32),
        column.astype(np.int32),
        row.astype(np.int32),
        np.ones(len(here), np.float32),
    )
