"""The labels under edits: edits are applied to automatic labels and taken back, exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from lift3d.correction.edits import Edit
from lift3d.correction.places import AGREE, SAME, Finder, PointSet
from lift3d.correction.stored import OBJECTS, PIXELS, POINTS, Unfit, file_of, stored
from lift3d.geometry.visibility import cloud_spacing
from lift3d.scene import NO_OFFSET, LabelledPoints
from lift3d.scene.colours import Palette
from lift3d.scene.errors import InputError
from lift3d.scene.palette import hex_colour, rgb_of

MOST_CONFIDENT = 0.9
"""Largest confidence of an object made by an edit. With 1 for all parts of 5 divided objects of the
demo AP fell from 0.752 to 0.655; with that of the parent it rose to 0.777."""
KEPT_BYTES = 256 << 20
"""Memory for what is needed to take edits back; older ones are taken back by replaying all."""


@dataclass(frozen=True)
class Properties:
    """What is known of an object besides its points."""

    confidence: float = 0.0
    views: int = 0
    """Number of automatic label maps that contain it; 0 for an object made by an edit."""
    automatic: bool = True
    name: str = ""
    class_name: str = ""
    colour: str = ""
    """As #rrggbb, where a person chose one."""
    edited: tuple[int, ...] = ()
    """Numbers of the edits that changed it."""
    reviewed: bool = False
    """A person said that it is right."""
    locked: bool = False


@dataclass(frozen=True, eq=False)
class Layer:
    """Painted pixels of a view, and the points that the view saw under them."""

    n: int
    view: str
    pixels: Path
    id: int
    index: Int64[np.ndarray, " members"]


@dataclass(frozen=True, eq=False)
class Change:
    """What an edit changed, to take it back."""

    index: Int64[np.ndarray, " changed"]
    label: Int32[np.ndarray, " changed"]
    """Labels before."""
    score: Float32[np.ndarray, " changed"]
    objects: Mapping[int, Properties]
    """All objects before."""
    whole: Mapping[int, int]
    layers: tuple[Layer, ...]

    @property
    def size(self) -> int:
        """Bytes, about."""
        return 16 * len(self.index) + 64 * len(self.objects)


@dataclass(eq=False)
class State:
    """Labels and objects now. `apply` and `take_back` change it in place."""

    cloud: LabelledPoints
    """The automatic labels; never changed."""
    base: str
    """Digest of the automatic labels."""
    folder: Path
    """The run folder, in which the files of edits are."""
    objects: dict[int, Properties]
    sets: Callable[[Edit, str], PointSet]
    """The points of an edit by the ending of their file; `Unfit` where they cannot be read."""
    views: Mapping[str, tuple[int, int]]
    """Height and width of each view."""
    largest: int = 0
    """Largest automatic id, of the cloud and of all label maps."""
    label: Int32[np.ndarray, " points"] = field(init=False)
    score: Float32[np.ndarray, " points"] = field(init=False)
    whole: dict[int, int] = field(init=False)
    """Automatic id -> id now, of pixels of objects that have no points or are not divided."""
    layers: tuple[Layer, ...] = field(init=False, default=())
    _finder: Finder | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.label, self.score = self.cloud.instance.copy(), self.cloud.score.copy()
        self.whole = {each: each for each in self.objects}

    def corrected(self) -> LabelledPoints:
        """The cloud now; classes that a person gave as a number are those of its points."""
        semantic = None if self.cloud.semantic is None else self.cloud.semantic.copy()
        for each, own in self.objects.items():
            if own.class_name.isdecimal():
                if semantic is None:
                    semantic = np.zeros(len(self.label), np.int32)
                semantic[self.label == each] = int(own.class_name)
        return replace(
            self.cloud, instance=self.label.copy(), score=self.score.copy(), semantic=semantic
        )

    def with_chosen(self, palette: Palette) -> Palette:
        """A palette with the colours that a person chose in the place of its own."""
        chosen = {each: rgb_of(own.colour) for each, own in self.objects.items() if own.colour}
        return {**palette, **chosen}

    def number(self, edit: Edit, each: int) -> int:
        """The number of a new object that `edit` recorded as `each`; always one that is free."""
        if edit.base != self.base:
            each += self.largest  # its own numbers are those of other objects here
        while each in self.objects or each in self.whole:
            each += 1
        return each

    def spacing(self) -> float:
        """Median distance between neighbouring points of the cloud."""
        return cloud_spacing(self.cloud.points)

    def points_of(self, ids: int | Iterable[int]) -> Int64[np.ndarray, " members"]:
        """Indices of the points of one or more objects."""
        if isinstance(ids, int):
            return np.flatnonzero(self.label == ids)
        return np.flatnonzero(np.isin(self.label, list(ids)))

    def apply(self, edit: Edit, settled: Edit | None = None) -> Change:
        """Apply one edit; `settled` says which objects it is for. `Unfit` where it cannot be."""
        before = self._before()
        on = _Applying(self, edit, settled)
        try:
            index, label = _APPLY[edit.do](on)
        except Unfit:
            on.give_back()
            self._restore(before)
            raise
        index, label = on.all_moves(index, label)
        changed = {*self.label[index].tolist(), *label.tolist()} - {0}
        change = replace(before, index=index, label=self.label[index], score=self.score[index])
        self.label[index] = label
        self.score[index] = label > 0
        self._drop_empty(change.label, label)
        after = self.objects
        changed |= {each for each in after if after[each] != before.objects.get(each)}
        for each in changed & after.keys():
            own = after[each]
            if not own.edited or own.edited[-1] != edit.n:
                after[each] = replace(own, edited=(*own.edited, edit.n))
        return change

    def take_back(self, change: Change) -> None:
        """Undo `apply`; the last change first."""
        self.label[change.index] = change.label
        self.score[change.index] = change.score
        self._restore(change)

    def _drop_empty(
        self, before: Int32[np.ndarray, " changed"], now: Int32[np.ndarray, " changed"]
    ) -> None:
        """Objects whose last point went to others are gone; their pixels follow the points."""
        painted = {each.id for each in self.layers}
        for each in np.unique(before[before > 0]).tolist():
            if each in self.objects and each not in painted and not (self.label == each).any():
                into = int(np.bincount(now[before == each]).argmax())
                del self.objects[each]
                self.whole = {a: into if b == each else b for a, b in self.whole.items()}

    def _before(self) -> Change:
        nothing = np.zeros(0, np.int64)
        return Change(
            nothing,
            self.label[nothing],
            self.score[nothing],
            dict(self.objects),
            dict(self.whole),
            self.layers,
        )

    def _restore(self, change: Change) -> None:
        self.objects, self.whole = dict(change.objects), dict(change.whole)
        self.layers = change.layers

    def finder(self) -> Finder:
        """Finds places in the cloud; made at first use."""
        if self._finder is None:
            self._finder = Finder(self.cloud.points.xyz, self.spacing())
        return self._finder


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
        here = replace(place, witnesses=place.witnesses + self._moved(source))
        found, reason = state.finder().object_at(here, source.spacing, state.label)
        found = found or self._put_back(each, source)
        if not found:
            raise Unfit(f"object {each} is not found: {reason}")
        return found

    def _put_back(self, each: int, source: Edit) -> int:
        """Make an object again from the points that it had, where other objects are now.

        Returns its number, or that of the object that has nearly these points, such as one that an
        earlier edit has put back. 0 where its points were not kept, are not in this cloud, or are
        most of another object that a person has named or made.
        """
        state = self.state
        if file_of(source, OBJECTS) is None:
            return 0
        points = state.sets(source, OBJECTS)
        own = points.part == 1 + sorted(source.where).index(each)
        here = replace(
            points,
            part=own.astype(np.int32),
            xyz=(points.xyz + self._moved(source)).astype(np.float32),
        )
        index, _, share = state.finder().set_at(here, source.spacing)
        locked = [known for known, thing in state.objects.items() if thing.locked]
        index = index[~np.isin(state.label[index], locked)]
        if share < AGREE or not len(index):
            return 0
        ids, counts = np.unique(state.label[index], return_counts=True)
        for other, both in zip(ids[ids > 0].tolist(), counts[ids > 0].tolist(), strict=True):
            size = int((state.label == other).sum())
            if both / (len(index) + size - both) >= SAME:
                return int(other)
            known = state.objects[other]
            if both >= AGREE * size and (known.name or not known.automatic):
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


@dataclass(eq=False)
class Replay:
    """A state that follows a changing list of edits, by applying and taking back."""

    state: State
    doubts: dict[int, str] = field(default_factory=dict)
    """Number of an edit that could not be applied -> why."""
    _applied: list[tuple[tuple[int, int], Change | None]] = field(default_factory=list)
    """(number of the edit, number of the line that settles it), and its change."""

    def follow(self, active: Sequence[Edit], settled: Mapping[int, Edit]) -> None:
        """Change the state to what `active`, in this order, give."""
        wanted = [(each.n, settled[each.n].n if each.n in settled else 0) for each in active]
        same = 0
        while same < min(len(wanted), len(self._applied)) and (
            wanted[same] == self._applied[same][0]
        ):
            same += 1
        self._back_to(same)
        for each, key in zip(
            active[len(self._applied) :], wanted[len(self._applied) :], strict=True
        ):
            try:
                change = self.state.apply(each, settled.get(each.n))
            except Unfit as error:
                self.doubts[each.n] = str(error)
                change = _nothing(self.state)
            self._applied.append((key, change))
        self._forget()

    def _back_to(self, count: int) -> None:
        """Take back all but the first `count` edits; all of them where memory was freed."""
        if any(change is None for _, change in self._applied[count:]):
            state = self.state
            count = 0
            fresh = State(
                state.cloud, state.base, state.folder, dict(self._first), state.sets, state.views,
                state.largest,
            )  # fmt: skip
            for name in ("label", "score", "whole", "objects", "layers"):
                setattr(state, name, getattr(fresh, name))
        else:
            for _, change in reversed(self._applied[count:]):
                assert change is not None
                self.state.take_back(change)
        for (n, _), _ in self._applied[count:]:
            self.doubts.pop(n, None)
        del self._applied[count:]

    def _forget(self) -> None:
        room = KEPT_BYTES
        for at in reversed(range(len(self._applied))):
            key, change = self._applied[at]
            room -= 0 if change is None else change.size
            if room < 0:
                self._applied[at] = (key, None)

    def __post_init__(self) -> None:
        self._first = dict(self.state.objects)


def _nothing(state: State) -> Change:
    return state._before()
