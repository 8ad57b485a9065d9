"""Applying edits to a state: each kind of edit, and finding the objects that it is about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float64, Int32, Int64

from lift3d.correction.edits import Edit
from lift3d.correction.places import AGREE, NEAR, SAME, TOLD, closest
from lift3d.correction.state import MOST_CONFIDENT, Change, Layer, Properties, State
from lift3d.correction.stored import OBJECTS, PIXELS, POINTS, Unfit, file_of, stored
from lift3d.scene import NO_OFFSET
from lift3d.scene.errors import InputError
from lift3d.scene.palette import hex_colour


@dataclass(frozen=True)
class Altered:
    """An object of an edit of another lift that is not here as it was; the edit is applied."""

    edit: Edit
    was: int
    now: int
    """Ids, then and now."""
    iou: float
    """Of what it is now with what it was; of an object known by few points only about."""
    put_back: bool = False
    """Whether it was made again from the points that it had."""

    def __str__(self) -> str:
        how = f"its object {self.was} is object {self.now} here"
        if self.put_back:
            return f"{how}, put back from its points: the lift has other objects there"
        return f"{how}, which overlaps with what it was by an IoU of {self.iou:.2f} only"


Moves = tuple[Int64[np.ndarray, " members"], Int32[np.ndarray, " members"]]
"""Points, and their labels now."""
NONE: Moves = (np.zeros(0, np.int64), np.zeros(0, np.int32))


@dataclass(frozen=True, eq=False)
class _Applying:
    """One edit on one state, with its objects found."""

    state: State
    edit: Edit
    settled: Edit | None
    moved: list[Moves] = field(default_factory=list)
    """Points of objects that were put back, with their labels before."""
    altered: list[Altered] = field(default_factory=list)
    """What became of its objects that are not here as they were."""

    @property
    def exact(self) -> bool:
        """Whether ids and indices of the edit are those of the state."""
        return self.edit.base == self.state.base

    def ids(self) -> tuple[int, ...]:
        """The objects of the edit, as they are numbered now."""
        source = self.settled or self.edit
        found = tuple(self.one(each, source) for each in source.ids)
        if len(set(found)) < len(found):
            raise Unfit(f"object {_repeated(found)} is now in the place of two of its objects")
        return found

    def one(self, each: int, source: Edit | None = None) -> int:
        """One object of the edit, as it is numbered now."""
        state, source = self.state, source or self.edit
        if source.base == state.base:
            if each not in state.objects:
                raise Unfit(f"object {each} is not there")
            return each
        place = source.where.get(each)
        if place is None:
            raise Unfit(f"object {each} is of another lift, and its place was not recorded")
        index = self._kept(each, source)
        if len(index):
            found, iou = closest(state.label, index)
            if iou >= SAME:
                return found
            number = self._put_back(each, index, source)
            if number:
                self.altered.append(Altered(self.edit, each, number, 1.0, put_back=True))
                return number
        else:
            here = replace(place, witnesses=place.witnesses + self._moved(source))
            found, iou, reason = state.finder().object_at(here, source.spacing, state.label)
            if not found:
                raise Unfit(f"object {each} is not found: {reason}")
            if iou >= TOLD:
                return found
        if iou < NEAR:
            raise Unfit(f"object {each} is not found: {_otherwise(found, iou)}")
        self.altered.append(Altered(self.edit, each, found, iou))
        return found

    def _kept(self, each: int, source: Edit) -> Int64[np.ndarray, " members"]:
        """The points of an object in this cloud; none where they were not kept or are not here."""
        if file_of(source, OBJECTS) is None:
            return NONE[0]
        points = self.state.sets(source, OBJECTS)
        own = points.part == 1 + sorted(source.where).index(each)
        here = replace(
            points,
            part=own.astype(np.int32),
            xyz=(points.xyz + self._moved(source)).astype(np.float32),
        )
        index, _, share = self.state.finder().set_at(here, source.spacing)
        return NONE[0] if share < AGREE else index

    def _put_back(self, each: int, index: Int64[np.ndarray, " members"], source: Edit) -> int:
        """Make an object again from the points that it had, where other objects are now.

        Returns its number; 0 where its points are locked, or are most of another object that a
        person has named or made.
        """
        state = self.state
        locked = [known for known, thing in state.objects.items() if thing.locked]
        index = index[~np.isin(state.label[index], locked)]
        if not len(index):
            return 0
        ids, counts = np.unique(state.label[index], return_counts=True)
        for other, both in zip(ids[ids > 0].tolist(), counts[ids > 0].tolist(), strict=True):
            known = state.objects[other]
            of_a_person = known.name or not known.automatic
            if of_a_person and both >= AGREE * (state.label == other).sum():
                return 0
        number = state.number(source, each)
        like = state.objects.get(int(ids[np.argmax(counts)]), Properties())
        self.made([number], like.confidence, like)
        self.moved.append((index, state.label[index]))
        state.label[index] = number
        return number

    def give_back(self) -> None:
        """Take back what `_put_back` did."""
        for index, label in reversed(self.moved):
            self.state.label[index] = label
        self.moved.clear()

    def all_moves(
        self, index: Int64[np.ndarray, " given"], label: Int32[np.ndarray, " given"]
    ) -> Moves:
        """The moves of the edit together with those of objects that were put back."""
        now = self.state.label
        if self.moved:
            after = now.copy()
            after[index] = label
            index = np.unique(np.concatenate([index, *(each for each, _ in self.moved)]))
            label = after[index]
            self.give_back()
        changed = now[index] != label
        return index[changed], label[changed]

    def _moved(self, edit: Edit) -> Float64[np.ndarray, "3"]:
        """From the local origin of an edit to that of this cloud."""
        return np.subtract(edit.offset or NO_OFFSET, self.state.cloud.points.offset)

    def target(self) -> int | None:
        """The object that points go to; 0 none, None a new one."""
        into, settled = self.edit.into, self.settled
        if not into or settled is None:
            return self.one(into) if into else into
        now = dict(zip(self.edit.ids or (into,), settled.ids, strict=False))
        return self.one(now[into], settled) if into in now else self.one(into)

    def new_ids(self) -> tuple[int, ...]:
        """Numbers for the new objects: as recorded, unless they are in use."""
        found: list[int] = []
        for each in self.edit.new:
            number = self.state.number(self.edit, each)
            found.append(max([number, *(n + 1 for n in found)]))
        return tuple(found)

    def set(self) -> Moves:
        """The points of the edit and their parts, from 1."""
        points = self.state.sets(self.edit, POINTS)
        if self.exact:
            inside = points.part > 0
            return points.index[inside], points.part[inside]
        here = replace(points, xyz=(points.xyz + self._moved(self.edit)).astype(np.float32))
        index, part, share = self.state.finder().set_at(here, self.edit.spacing)
        if share < AGREE:
            raise Unfit(f"only {share:.0%} of its points have a point of this cloud near them")
        return index, part

    def made(self, new: Sequence[int], confidence: float, like: Properties | None = None) -> None:
        """Add new objects."""
        confidence = min(confidence, MOST_CONFIDENT)
        class_name = like.class_name if like else ""
        for each in new:
            self.state.objects[each] = Properties(
                confidence, automatic=False, class_name=class_name, edited=(self.edit.n,)
            )

    def change(self, ids: Iterable[int], **values: object) -> Moves:
        """Change properties of objects; no point moves."""
        for each in ids:
            self.state.objects[each] = replace(self.state.objects[each], **values)  # type: ignore[arg-type]
        return NONE

    def redirect(self, ids: Iterable[int], into: int) -> None:
        """Pixels of `ids` get `into`, and these objects are gone."""
        state, gone = self.state, set(ids)
        state.whole = {each: into if now in gone else now for each, now in state.whole.items()}
        state.layers = tuple(
            replace(each, id=into) if each.id in gone else each for each in state.layers
        )
        for each in gone:
            del state.objects[each]


def _otherwise(found: int, iou: float) -> str:
    if not found:
        return "no object is there now"
    return f"object {found} is there now, and overlaps with what it was by an IoU of {iou:.2f} only"


def _repeated(ids: Sequence[int]) -> int:
    return next(each for each in ids if ids.count(each) > 1)


def _merge(on: _Applying) -> Moves:
    state, ids = on.state, on.ids()
    into = on.target()
    if into is None or into not in ids:
        raise Unfit("the object to merge into is not one of its objects")
    gone = [each for each in ids if each != into]
    kept = state.objects[into]
    others = [state.objects[each] for each in gone]
    names = {each.name for each in others if each.name}
    classes = {each.class_name for each in others if each.class_name}
    state.objects[into] = replace(
        kept,
        confidence=max(kept.confidence, *(each.confidence for each in others)),
        views=max(kept.views, *(each.views for each in others)),
        name=kept.name or (names.pop() if len(names) == 1 else ""),
        class_name=kept.class_name or (classes.pop() if len(classes) == 1 else ""),
    )
    index = state.points_of(gone)
    on.redirect(gone, into)
    return index, np.full(len(index), into, np.int32)


def _split(on: _Applying) -> Moves:
    (parent,) = on.ids()
    index, part = on.set()
    inside = on.state.label[index] == parent
    if inside.mean() < AGREE if len(index) else True:
        raise Unfit(f"only {inside.mean() if len(index) else 0:.0%} of its points are in {parent}")
    own = on.state.objects[parent]
    new = on.new_ids()
    on.made(new, own.confidence, own)
    on.change([parent], confidence=min(own.confidence, MOST_CONFIDENT))
    index, part = index[inside], part[inside]
    return index, np.array(new, np.int32)[part - 1]


def _select(on: _Applying) -> Moves:
    index, _ = on.set()
    into = on.target()
    if into is None:
        (into,) = on.new_ids()
        on.made([into], float(on.edit.details.get("confidence", 0.5)))
    return index, np.full(len(index), into, np.int32)


def _paint(on: _Applying) -> Moves:
    name = str(on.edit.details.get("view"))
    if name not in on.state.views:
        raise Unfit(f"view {name} is not in this run")
    pixels = stored(on.state.folder, on.edit, PIXELS)
    index, label = _select(on) if on.edit.points else (NONE[0], NONE[1])
    into = on.target() if not len(index) else int(label[0])
    if into is None:
        (into,) = on.new_ids()
        on.made([into], float(on.edit.details.get("confidence", 0.5)))
    layer = Layer(on.edit.n, name, pixels, into, index)
    on.state.layers = (*on.state.layers, layer)
    return index, label


def _delete(on: _Applying) -> Moves:
    ids = on.ids()
    into = on.target() or 0
    if into in ids:
        raise Unfit("the object that its points go to is one of its own")
    index = on.state.points_of(ids)
    on.redirect(ids, into)
    return index, np.full(len(index), into, np.int32)


def _name(on: _Applying) -> Moves:
    return on.change(on.ids(), name=str(on.edit.details.get("name", "")))


def _class(on: _Applying) -> Moves:
    return on.change(on.ids(), class_name=str(on.edit.details.get("class", "")))


def _colour(on: _Applying) -> Moves:
    colour = str(on.edit.details.get("colour", ""))
    try:
        return on.change(on.ids(), colour=hex_colour(colour) if colour else "")
    except InputError as error:
        raise Unfit(str(error)) from error


def _accept(on: _Applying) -> Moves:
    return on.change(on.ids(), reviewed=True)


def _lock(on: _Applying) -> Moves:
    return on.change(on.ids(), locked=True)


def _unlock(on: _Applying) -> Moves:
    return on.change(on.ids(), locked=False)


_APPLY: dict[str, Callable[[_Applying], Moves]] = {
    "merge": _merge,
    "split": _split,
    "select": _select,
    "paint": _paint,
    "assign": _paint,
    "delete": _delete,
    "name": _name,
    "class": _class,
    "colour": _colour,
    "accept": _accept,
    "lock": _lock,
    "unlock": _unlock,
}


def apply(state: State, edit: Edit, settled: Edit | None = None) -> tuple[Change, list[Altered]]:
    """Apply one edit; `settled` says which objects it is for. `Unfit` where it cannot be.

    Returns what it changed, and which of its objects are not here as they were.
    """
    before = state.before()
    on = _Applying(state, edit, settled)
    try:
        index, label = _APPLY[edit.do](on)
    except Unfit:
        on.give_back()
        state.restore(before)
        raise
    index, label = on.all_moves(index, label)
    changed = {*state.label[index].tolist(), *label.tolist()} - {0}
    change = replace(before, index=index, label=state.label[index], score=state.score[index])
    state.label[index] = label
    state.score[index] = label > 0
    state.drop_empty(change.label, label)
    after = state.objects
    changed |= {each for each in after if after[each] != before.objects.get(each)}
    for each in changed & after.keys():
        own = after[each]
        if not own.edited or own.edited[-1] != edit.n:
            after[each] = replace(own, edited=(*own.edited, edit.n))
    return change, on.altered
